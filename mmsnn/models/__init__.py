"""Model parts, registered in MMDetection's own registry."""

from .backbones import ResNetCIFAR, SGResNet, SpikingBlock
from .classifiers import SpikingClassifier
from .data_preprocessors import (
    BatchCutMix,
    BatchMixUp,
    ClsDataPreprocessor,
    EventDetDataPreprocessor,
)
from .detectors import SpikingRetinaNet
from .heads import SpikingClsHead
from .layers import *  # noqa: F403
from .layers import __all__ as _layers
from .losses import ClsLoss, TETLoss
from .necks import ASDNeck, DecoderNeck, LastNeck, RateNeck

__all__ = [
    'ASDNeck',
    'BatchCutMix',
    'BatchMixUp',
    'ClsDataPreprocessor',
    'ClsLoss',
    'DecoderNeck',
    'EventDetDataPreprocessor',
    'LastNeck',
    'RateNeck',
    'ResNetCIFAR',
    'SGResNet',
    'SpikingBlock',
    'SpikingClassifier',
    'SpikingClsHead',
    'SpikingRetinaNet',
    'TETLoss',
    *_layers,
]
