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
from .loading import LoadImageFromFile

__all__ = [
    'NDA',
    'EventCutout',
    'EventRandomFlip',
    'EventRandomRoll',
    'EventRandomRotate',
    'EventRandomShear',
    'LoadEventFrames',
    'LoadImageFromFile',
    'PackClsInputs',
    'PackEventInputs',
    'RandomPadCrop',
    'RandomResizedCrop',
    'ResizeEventFrames',
]
