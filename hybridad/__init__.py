"""Visual anomaly detection by learning two prompts on the cross-attention of a frozen diffusion UNet.

Names below are loaded from their modules at first use, so `import hybridad` loads no torch."""

__version__ = "0.1.0"

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for type checkers and editors, the names of _HOME
    from .backbone import load_backbone
    from .config import get_debug_config, get_default_config
    from .detector import HybridAnomalyDetector
    from .evaluation import evaluate
    from .losses import CrossAttentionLoss
    from .pipeline import EasonADPipeline
    from .prompt_learner import MinimalPromptLearner
    from .scoring import score
    from .training import fit

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
    'EasonADPipeline': 'pipeline',
    'HybridAnomalyDetector': 'detector',
    'MinimalPromptLearner': 'prompt_learner',
    'evaluate': 'evaluation',
    'fit': 'training',
    'get_debug_config': 'config',
    'get_default_config': 'config',
    'load_backbone': 'backbone',
    'score': 'scoring',
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
