"""The ANN twin has the convs of the spiking network."""

import torch
from torch import nn

from mmsnn.models import ResNetCIFAR, SGResNet


def convs(model):
    return sorted(
        (conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride)
        for conv in model.modules()
        if isinstance(conv, nn.Conv2d)
    )


def test_same_convs_as_the_spiking_network():
    for depth, stages in ((10, 4), (18, 4), (19, 3), (34, 4)):
        common = dict(
            base_channels=8,
            num_stages=stages,
            strides=(1, 2, 2, 2)[:stages],
            out_indices=(stages - 1,),
        )
        spiking = SGResNet(depth, stem='cifar', **common)
        twin = ResNetCIFAR(depth, stem_channels=8, dilations=(1,) * stages, **common)
        assert convs(twin) == convs(spiking), depth
        x = torch.rand(2, 3, 32, 32)
        twin.eval()  # alone: MMDetection's ResNet returns None
        assert twin(x)[0].shape == spiking.eval()(x)[0].shape[1:]
