"""Model parts, registered in MMDetection's own registry."""

from .backbones import SGResNet
from .detectors import SpikingRetinaNet
from .layers import *  # noqa: F403
from .layers import __all__ as _layers
from .necks import ASDNeck, LastNeck, RateNeck

__all__ = ['ASDNeck', 'LastNeck', 'RateNeck', 'SGResNet', 'SpikingRetinaNet', *_layers]
