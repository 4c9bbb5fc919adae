"""From a config and a checkpoint to predictions, in Python."""

from .classification import inference_classifier, init_classifier

__all__ = ['inference_classifier', 'init_classifier']
