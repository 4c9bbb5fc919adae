"""From a config and a checkpoint to predictions, in Python."""

from mmdet.apis import inference_detector, init_detector

from ..analysis import profile
from .classification import inference_classifier, init_classifier

__all__ = [
    'inference_classifier',
    'inference_detector',
    'init_classifier',
    'init_detector',
    'profile',
]
