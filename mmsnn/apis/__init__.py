"""From a config and a checkpoint to predictions, in Python."""

from ..analysis import profile
from .classification import inference_classifier, init_classifier
from .detection import inference_detector, init_detector

__all__ = [
    'inference_classifier',
    'inference_detector',
    'init_classifier',
    'init_detector',
    'profile',
]
