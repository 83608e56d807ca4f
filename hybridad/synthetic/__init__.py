"""Generated images with exact masks."""

from .. import _front_door

_HOME = {  # name -> module it is defined in, loaded at first use
    'picture': 'plain',
    'write_dataset': 'plain',
}

__getattr__, __dir__ = _front_door(__name__, _HOME)
