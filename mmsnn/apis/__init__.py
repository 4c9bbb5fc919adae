"""From a config and a checkpoint to predictions, in Python."""

from ..analysis import profile
from .classification import inference_classifier, init_classifier
from .detection import inference_detector, init_detector
from .spiking import CannotSpikeError, make_spiking, try_spiking

__all__ = [
    'CannotSpikeError',
    'inference_classifier',
    'inference_detector',
    'init_classifier',
    'init_detector',
    'make_spiking',
    'profile',
    'try_spiking',
]
