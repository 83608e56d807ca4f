"""Many trainings that differ in one thing."""

from .. import _front_door

_HOME = {  # name -> module it is defined in, loaded at first use
    'AblationStudy': 'ablation',
    'Variant': 'variants',
    'ablate': 'ablation',
    'standard_variants': 'variants',
}

__getattr__, __dir__ = _front_door(__name__, _HOME)
