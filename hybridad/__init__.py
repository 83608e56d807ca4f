"""Visual anomaly detection: two prompts learned on the attention of a frozen diffusion UNet.

Names below are loaded from their modules at first use, so `import hybridad` loads no torch."""

__version__ = "0.2.0"

import sys
from typing import TYPE_CHECKING

from .former import FormerModules

if TYPE_CHECKING:  # for type checkers and editors, the names of _HOME
    from .models.backbone import load_backbone
    from .config import get_debug_config, get_default_config
    from .models.detector import HybridAnomalyDetector
    from .evaluation.evaluate import evaluate
    from .losses import CrossAttentionLoss
    from .models.pipeline import EasonADPipeline
    from .models.prompt_learner import MinimalPromptLearner
    from .inference.scoring import score
    from .training.loop import fit

__all__ = [
    'CrossAttentionLoss',
    'EasonADPipeline',
    'HybridAnomalyDetector',
    'MinimalPromptLearner',
    'evaluate',
    'fit',
    'get_debug_config',
    'get_default_config',
    'load_backbone',
    'score',
]

_HOME = {  # name -> module it is defined in
    'CrossAttentionLoss': 'losses',
    'EasonADPipeline': 'models.pipeline',
    'HybridAnomalyDetector': 'models.detector',
    'MinimalPromptLearner': 'models.prompt_learner',
    'evaluate': 'evaluation.evaluate',
    'fit': 'training.loop',
    'get_debug_config': 'config',
    'get_default_config': 'config',
    'load_backbone': 'models.backbone',
    'score': 'inference.scoring',
}


def _front_door(package: str, home: dict) -> tuple:  # the __getattr__ and __dir__ of a package
    "Names of a package that are loaded from their modules at first use."
    from importlib import import_module

    def find(name: str) -> object:
        if name not in home:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        value = getattr(import_module(f'.{home[name]}', package), name)
        vars(import_module(package))[name] = value  # found directly from now on
        return value

    def listed() -> list[str]:
        return sorted({*vars(import_module(package)), *home})

    return find, listed


__getattr__, __dir__ = _front_door(__name__, _HOME)

sys.meta_path.append(FormerModules())  # former module names, asked last
