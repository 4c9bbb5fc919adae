"""From an ANN to a spiking model: its weights, and their calibration."""

from .calibration import (
    Calibrator,
    LayerFit,
    best_gain,
    channel_units,
    firing_rates,
    fitted_line,
    level_readers,
    likeness,
    set_statistics,
)
from .images import calibration_images
from .inherit import (
    Account,
    InheritError,
    Structure,
    Target,
    account_rows,
    flat_state,
    inherit,
    structure,
    target_of,
)
from .initializer import ANNPretrained, account_text, how_initialised, load_ann, log_account

__all__ = [
    'ANNPretrained',
    'Account',
    'Calibrator',
    'InheritError',
    'LayerFit',
    'Structure',
    'Target',
    'account_rows',
    'account_text',
    'best_gain',
    'calibration_images',
    'channel_units',
    'firing_rates',
    'fitted_line',
    'flat_state',
    'how_initialised',
    'inherit',
    'level_readers',
    'likeness',
    'load_ann',
    'log_account',
    'set_statistics',
    'structure',
    'target_of',
]
