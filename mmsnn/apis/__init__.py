"""From a config and a checkpoint to predictions, in Python."""

from .classification import inference_classifier, init_classifier
from .detection import inference_detector, init_detector
from .profiling import profile
from .spiking import CannotSpikeError, Spiking, Trial, make_spiking, try_spiking
from .streaming import Stream, stream

__all__ = [
    'CannotSpikeError',
    'Spiking',
    'Stream',
    'Trial',
    'inference_classifier',
    'inference_detector',
    'init_classifier',
    'init_detector',
    'make_spiking',
    'profile',
    'stream',
    'try_spiking',
]
