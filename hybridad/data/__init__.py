"""From files to samples, images and masks."""

from .. import _front_door

_HOME = {  # name -> module it is defined in, loaded at first use
    'AnomalyDataset': 'loading',
    'Sample': 'pairing',
    'check_dataset': 'datasets',
    'download': 'downloads',
    'load_image': 'loading',
    'load_mask': 'loading',
    'make_loader': 'loading',
    'read_dataset': 'layouts',
}

__getattr__, __dir__ = _front_door(__name__, _HOME)
