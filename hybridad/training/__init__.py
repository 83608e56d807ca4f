"""Learning the prompts."""

from .. import _front_door

_HOME = {  # name -> module it is defined in, loaded at first use
    'Trainer': 'loop',
    'cache_parts': 'validation',
    'fit': 'loop',
    'report_training': 'report',
}

__getattr__, __dir__ = _front_door(__name__, _HOME)
