"""Transforms that MMDetection and mmcv do not have."""

from .event_detection import LoadEventWindow, PackEventDetInputs
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
    'LoadEventWindow',
    'LoadImageFromFile',
    'PackClsInputs',
    'PackEventDetInputs',
    'PackEventInputs',
    'RandomPadCrop',
    'RandomResizedCrop',
    'ResizeEventFrames',
]
