"""Figures of a detector beside baselines."""

from .. import _front_door

_HOME = {  # name -> module it is defined in, loaded at first use
    'EvalSet': 'evaluate',
    'WordsDetector': 'baselines',
    'compare': 'reports',
    'contrast_baseline': 'contrast',
    'evaluate': 'evaluate',
    'summarise': 'evaluate',
    'table': 'evaluate',
}

__getattr__, __dir__ = _front_door(__name__, _HOME)
