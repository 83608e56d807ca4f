"""Visual anomaly detection: two prompts learned on the attention of a frozen diffusion UNet.

Names below are loaded from their modules at first use, so `import hybridad` loads no torch."""

__version__ = "0.1.0"

from typing import TYPE_CHECKING

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


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from importlib import import_module

    value = getattr(import_module(f'.{_HOME[name]}', __name__), name)
    globals()[name] = value  # found directly from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
