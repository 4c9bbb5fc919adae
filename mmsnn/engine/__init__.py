"""Hooks and optimiser wrappers."""

from .hooks import (
    ClsVisualizationHook,
    DetPictureHook,
    FuseHook,
    NonFiniteLossHook,
    SpikeStatsHook,
)
from .optimizers import BF16OptimWrapper

__all__ = [
    'BF16OptimWrapper',
    'ClsVisualizationHook',
    'DetPictureHook',
    'FuseHook',
    'NonFiniteLossHook',
    'SpikeStatsHook',
]
