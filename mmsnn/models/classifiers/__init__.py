"""Networks that recognise."""

from .spiking_classifier import SpikingClassifier

__all__ = ['SpikingClassifier']
