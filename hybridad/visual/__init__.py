"""Figures and explorers."""

from .. import _front_door

_HOME = {  # name -> module it is defined in, loaded at first use
    'AttentionExplorer': 'explore',
    'CompareExplorer': 'explore',
    'DecisionExplorer': 'explore',
    'ResultsBrowser': 'explore',
    'ReviewExplorer': 'review',
    'map_grid': 'plots',
    'overlay': 'plots',
    'save_figure': 'plots',
    'training_curves': 'curves',
}

__getattr__, __dir__ = _front_door(__name__, _HOME)
