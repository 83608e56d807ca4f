"""Decisions on photographs, and the way of prompts to other programs."""

from .. import _front_door

_HOME = {  # name -> module it is defined in, loaded at first use
    'decide_anew': 'decide',
    'export_onnx': 'onnx',
    'findings': 'scoring',
    'load_scorer': 'scoring',
    'read_scores': 'rows',
    'score': 'scoring',
    'score_folder': 'scoring_runs',
    'watch': 'watching',
}

__getattr__, __dir__ = _front_door(__name__, _HOME)
