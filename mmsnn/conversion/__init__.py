"""From an ANN to a spiking model: its weights, and their calibration."""

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
from .initializer import ANNPretrained, how_initialised, load_ann, log_account

__all__ = [
    'ANNPretrained',
    'Account',
    'InheritError',
    'Structure',
    'Target',
    'account_rows',
    'flat_state',
    'how_initialised',
    'inherit',
    'load_ann',
    'log_account',
    'structure',
    'target_of',
]
