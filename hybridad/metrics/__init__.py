"""Image and pixel figures, exact or in constant memory."""

from .. import _front_door

_HOME = {  # name -> module it is defined in, loaded at first use
    'PixelStream': 'streaming',
    'anomaly_metrics': 'exact',
    'aupimo': 'streaming',
    'bootstrap_intervals': 'streaming',
    'f1_threshold': 'exact',
    'image_metrics': 'exact',
    'mean_metrics': 'exact',
    'pixel_metrics': 'exact',
    'pro_curve': 'exact',
    'rate_threshold': 'exact',
}

__getattr__, __dir__ = _front_door(__name__, _HOME)
