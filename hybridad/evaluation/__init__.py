"""Figures of a detector beside baselines; `evaluate` itself is offered by `hybridad`."""

from .. import _front_door

_HOME = {  # name -> module it is defined in, loaded at first use
    'EvalSet': 'evaluate',
    'WordsDetector': 'baselines',
    'compare': 'reports',
    'contrast_baseline': 'contrast',
    'summarise': 'evaluate',
    'table': 'evaluate',
}

__getattr__, __dir__ = _front_door(__name__, _HOME)
