"""Spiking backbones, and the ANN that they are compared with."""

from .resnet_cifar import ResNetCIFAR
from .sg_resnet import SGResNet, SpikingBlock

__all__ = ['ResNetCIFAR', 'SGResNet', 'SpikingBlock']
