"""Transforms that MMDetection and mmcv do not have."""

from .events import (
    NDA,
    EventCutout,
    EventRandomFlip,
    EventRandomRoll,
    EventRandomRotate,
    EventRandomShear,
    LoadEventFrames,
    PackEventInputs,
    ResizeEventFrames,
)
from .images import PackClsInputs, RandomPadCrop, RandomResizedCrop

__all__ = [
    'NDA',
    'EventCutout',
    'EventRandomFlip',
    'EventRandomRoll',
    'EventRandomRotate',
    'EventRandomShear',
    'LoadEventFrames',
    'PackClsInputs',
    'PackEventInputs',
    'RandomPadCrop',
    'RandomResizedCrop',
    'ResizeEventFrames',
]
