"""Spiking backbones."""

from .sg_resnet import SGResNet

__all__ = ['SGResNet']
