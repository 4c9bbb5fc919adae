"""The ANN twin of the CIFAR networks."""

from mmdet.models.backbones import ResNet
from mmdet.models.backbones.resnet import BasicBlock
from mmdet.registry import MODELS
from torch import nn


@MODELS.register_module()
class ResNetCIFAR(ResNet):
    """MMDetection's ResNet for small images: its first conv is 3x3/1, and no pooling follows.

    With the same depth, channels and strides it is what :class:`SGResNet` with ``stem='cifar'`` is
    compared with: floating-point values and ReLU instead of spikes, and no time.

    Args:
        depth: Those of MMDetection's ResNet, and 10 and 19 as in :class:`SGResNet`.
        **kwargs: As of MMDetection's ResNet.

    Example:
        >>> import torch
        >>> from mmsnn.models import ResNetCIFAR
        >>> self = ResNetCIFAR(10, base_channels=16, stem_channels=16, out_indices=(3,))
        >>> [tuple(level.shape) for level in self(torch.rand(1, 3, 32, 32))]
        [(1, 128, 4, 4)]
    """

    arch_settings = {
        10: (BasicBlock, (1, 1, 1, 1)),
        19: (BasicBlock, (3, 3, 2)),
        **ResNet.arch_settings,
    }

    def _make_stem_layer(self, in_channels: int, stem_channels: int) -> None:
        super()._make_stem_layer(in_channels, stem_channels)
        self.conv1 = nn.Conv2d(in_channels, stem_channels, 3, padding=1, bias=False)
        self.maxpool = nn.Identity()
