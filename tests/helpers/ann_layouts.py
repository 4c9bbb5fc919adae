"""State dicts of ResNets in the layouts of other packages, and neurons that are no neurons."""

import re

import torch
from mmdet.models import ResNet
from mmdet.models.backbones.resnet import ResNetV1d
from mmdet.registry import MODELS
from torch import nn

from mmsnn.models.layers import SpikingNeuron


@MODELS.register_module()
class ReLUNeuron(SpikingNeuron):
    """An ANN's activation where a neuron stands, in units of the threshold."""

    values = 'counts'

    def fire(self, x):
        return x.clamp(min=0) / self.v_threshold


def ann(depth=18, deep=False, average=False, seed=0, **kwargs):
    """MMDetection's ResNet, narrow, with numbers in its norms as training leaves them."""
    torch.manual_seed(seed)
    kwargs.setdefault('base_channels', 8)
    if average:
        net = ResNetV1d(depth=depth, **kwargs)
    else:
        net = ResNet(depth, deep_stem=deep, **kwargs)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    net.eval()  # MMDetection's gives back None
    return net


def renamed(state, *rules):
    """The state with every rule (pattern, replacement) applied to every name."""
    found = {}
    for name, value in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        found[name] = value
    return found


def fc(state, prefix='fc'):
    """The state with a linear layer behind it."""
    return {**state, f'{prefix}.weight': torch.ones(5, 64), f'{prefix}.bias': torch.ones(5)}


def timm_deep(state):
    """timm's names of MMDetection's deep stem."""
    return renamed(state, (r'^stem\.7\.', 'bn1.'), (r'^stem\.', 'conv1.'))


def mmpretrain_deep(state):
    """MMPreTrain's names of MMDetection's deep stem, a ConvModule each."""
    rules = []
    for i in range(3):
        rules += [
            (rf'^stem\.{3 * i}\.w', f'stem!{i}.conv.w'),
            (rf'^stem\.{3 * i + 1}\.', f'stem!{i}.bn.'),
        ]
    return renamed(state, *rules, ('!', '.'))


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


#: Name, whether the stem is deep, and the file that holds such a state.
LAYOUTS = {
    'mmdet': (False, lambda state: state),
    'mmdet-deep': (True, lambda state: state),
    'mmdet-backbone': (False, lambda state: dict(state_dict=prefixed(state, 'backbone.'), meta={})),
    'torchvision': (False, fc),
    'torchvision-parallel': (False, lambda state: dict(state_dict=prefixed(fc(state), 'module.'))),
    'timm': (False, lambda state: dict(model=fc(state))),
    'timm-deep': (True, lambda state: fc(timm_deep(state))),
    'mmpretrain': (
        False,
        lambda state: dict(state_dict=fc(prefixed(state, 'backbone.'), 'head.fc'), meta={}),
    ),
    'mmpretrain-deep': (
        True,
        lambda state: dict(state_dict=prefixed(mmpretrain_deep(state), 'module.backbone.')),
    ),
}
