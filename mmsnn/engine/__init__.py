"""Hooks and optimiser wrappers."""

from .hooks import (
    CheckpointHook,
    ClsVisualizationHook,
    DetPictureHook,
    FuseHook,
    NonFiniteLossHook,
    QuantizationAwareHook,
    SpikeBudgetHook,
    SpikeStatsHook,
    StreamHook,
)
from .optimizers import BF16OptimWrapper

__all__ = [
    'BF16OptimWrapper',
    'CheckpointHook',
    'ClsVisualizationHook',
    'DetPictureHook',
    'FuseHook',
    'NonFiniteLossHook',
    'QuantizationAwareHook',
    'SpikeBudgetHook',
    'SpikeStatsHook',
    'StreamHook',
]
