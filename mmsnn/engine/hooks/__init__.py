"""Hooks."""

from .checkpoint_hook import CheckpointHook
from .cls_visualization_hook import ClsVisualizationHook
from .det_picture_hook import DetPictureHook
from .fuse_hook import FuseHook
from .non_finite_loss_hook import NonFiniteLossHook
from .quantization_aware_hook import QuantizationAwareHook
from .spike_budget_hook import SpikeBudgetHook
from .spike_stats_hook import SpikeStatsHook
from .stream_hook import StreamHook

__all__ = [
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
