"""Small networks in which every layer fires, and images for them."""

import torch
from mmdet.registry import MODELS

import mmsnn.models
from mmsnn.models.layers import LIFNeuron


def images(batch=2, size=32, seed=0):
    return 2 * torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def backbone(depth=10, **kwargs):
    torch.manual_seed(0)
    return lower_thresholds(mmsnn.models.SGResNet(depth, base_channels=8, **kwargs))


def classifier(head=(), data_preprocessor=None, **backbone):
    """With the thresholds that its config says, not lowered ones."""
    return MODELS.build(
        dict(
            type='SpikingClassifier',
            data_preprocessor=data_preprocessor,
            backbone=dict(type='SGResNet', depth=10, base_channels=8, stem='cifar', **backbone),
            head={'type': 'SpikingClsHead', 'num_classes': 2, 'in_channels': 64, **dict(head)},
        )
    )


def lower_thresholds(model):
    # At initialisation deep layers are nearly silent: a lower threshold lets all of them fire.
    for module in model.modules():
        if isinstance(module, LIFNeuron):
            module.v_threshold = 0.1
    return model.eval()


def is_clean(net):
    """Whether nothing of a profiler or recorder is left in it."""
    return all(
        not module._forward_hooks
        and not module._forward_pre_hooks
        and getattr(module, 'observer', None) is None
        for module in net.modules()
    )
