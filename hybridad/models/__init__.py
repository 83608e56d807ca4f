"""The frozen backbone, its attention, the prompts and the detectors made of them."""

from .. import _front_door

_HOME = {  # name -> module it is defined in, loaded at first use
    'EasonADPipeline': 'pipeline',
    'HybridAnomalyDetector': 'detector',
    'MinimalPromptLearner': 'prompt_learner',
    'ReferenceDetector': 'reference',
    'load_backbone': 'backbone',
    'load_references': 'reference',
    'read_checkpoint': 'checkpoint',
}

__getattr__, __dir__ = _front_door(__name__, _HOME)
