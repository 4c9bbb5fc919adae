"""Folding: the same currents without the norm, in every place where a norm follows a conv."""

import pytest
import torch
from torch import nn

from mmsnn.deploy import fold
from mmsnn.models import SGResNet
from mmsnn.models.layers import TDBN


def settle(norm):
    with torch.no_grad():
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.uniform_(-1, 1)


@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize('groups', [1, 2])
@pytest.mark.parametrize(
    'norm', [nn.BatchNorm2d, TDBN, lambda c: TDBN(c, v_threshold=0.3, alpha=2**-0.5)]
)
def test_a_folded_conv_gives_what_the_norm_gave(norm, groups, bias):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 6, 3, groups=groups, bias=bias), norm(6), nn.ReLU()).double()
    settle(net[1])
    net.eval()
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        before = net(x)
        fold(net)
        torch.testing.assert_close(net(x), before)
    assert type(net[1]) is nn.Identity


@pytest.mark.parametrize('block', ['sg', 'plain', 'tdbn', 'sew', 'ms'])
@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('stem', ['imagenet', 'deep'])
def test_every_tdbn_of_a_backbone_goes(block, depth, stem):
    torch.manual_seed(0)
    act_cfg = dict(type='LIFNeuron', v_threshold=0.3)
    net = SGResNet(depth, base_channels=4, block=block, stem=stem, act_cfg=act_cfg).double()
    for module in net.modules():
        if isinstance(module, TDBN):
            settle(module)
            nn.init.constant_(module.bias, 0.5)
    net.eval()
    x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        before = net(x)
        fold(net)
        after = net(x)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert before[0].mean() > 0
    assert all(map(torch.equal, before, after))


def test_a_learned_gate_folds():
    net = SGResNet(10, base_channels=4, gate_cfg=dict(type='LearnedGate')).eval()
    fold(net)
    assert not any(isinstance(m, TDBN) for m in net.modules())


class Shared(nn.Module):
    """One conv, a norm for each of two levels, as in RetinaSepBNHead."""

    def __init__(self):
        super().__init__()
        conv = nn.Conv2d(3, 3, 1)
        self.levels = nn.ModuleList(
            nn.ModuleDict(dict(conv=conv, norm=nn.BatchNorm2d(3))) for _ in range(2)
        )

    def forward(self, x):
        return [level['norm'](level['conv'](x)) for level in self.levels]


def test_what_cannot_be_folded_stays():
    shared = Shared().eval()
    for level in shared.levels:
        settle(level['norm'])
    no_statistics = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False))
    other = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), nn.BatchNorm2d(4))
    alone = nn.Sequential(nn.BatchNorm2d(3))
    x = torch.rand(2, 3, 5, 5)
    for net in (shared, no_statistics, other, alone):
        net.eval()
        before = net(x)
        fold(net)
        torch.testing.assert_close(net(x), before)
        assert not any(isinstance(m, nn.Identity) for m in net.modules())


def test_a_norm_in_training_is_refused():
    with pytest.raises(ValueError, match=r'eval mode.*model\.eval\(\)'):
        fold(nn.Sequential(nn.Conv2d(3, 3, 1), TDBN(3)))


def test_no_affine():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, affine=False)).eval()
    x = torch.rand(2, 3, 5, 5)
    before = net(x)
    fold(net)
    torch.testing.assert_close(net(x), before)
