"""Spiking detectors."""

from .spiking_retinanet import SpikingRetinaNet

__all__ = ['SpikingRetinaNet']
