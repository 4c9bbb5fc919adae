"""Transforms that MMDetection does not have."""

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

__all__ = [
    'NDA',
    'EventCutout',
    'EventRandomFlip',
    'EventRandomRoll',
    'EventRandomRotate',
    'EventRandomShear',
    'LoadEventFrames',
    'PackEventInputs',
    'ResizeEventFrames',
]
