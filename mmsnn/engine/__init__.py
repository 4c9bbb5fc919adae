"""Hooks and optimiser wrappers."""

from .hooks import ClsVisualizationHook, FuseHook, NonFiniteLossHook, SpikeStatsHook
from .optimizers import BF16OptimWrapper

__all__ = [
    'BF16OptimWrapper',
    'ClsVisualizationHook',
    'FuseHook',
    'NonFiniteLossHook',
    'SpikeStatsHook',
]
