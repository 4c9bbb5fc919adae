"""Convs of neck and head with fewer products: which they are, and what they give."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from small_nets import detector_config
from torch import nn

from mmsnn import ops
from mmsnn.deploy import WinogradConv2d, fuse

pytestmark = pytest.mark.skipif(bool(ops.why_not('c')), reason='needs the C kernels')


def conv(inputs=40, outputs=48, **options):
    torch.manual_seed(0)
    return nn.Conv2d(inputs, outputs, **{'kernel_size': 3, 'padding': 1, **options})


def calls(monkeypatch):
    counted = []
    run = ops.winograd_conv2d
    monkeypatch.setattr(ops, 'winograd_conv2d', lambda *args: counted.append(1) or run(*args))
    return counted


@torch.no_grad()
def test_as_the_conv(monkeypatch):
    counted = calls(monkeypatch)
    plain = conv()
    ours = WinogradConv2d(plain)
    for size in ((1, 40, 20, 33), (2, 40, 12, 12), (1, 40, 3, 3)):
        x = torch.randn(size)
        torch.testing.assert_close(ours(x), plain(x), rtol=5e-5, atol=5e-5)
    assert len(counted) == 2  # the last is too small


@torch.no_grad()
def test_new_weights_are_packed_anew():
    plain = conv()
    ours, x = WinogradConv2d(plain), torch.randn(1, 40, 20, 20)
    ours(x)
    plain.weight.mul_(2)
    torch.testing.assert_close(ours(x), plain(x), rtol=5e-5, atol=5e-5)
    twin = copy.deepcopy(ours)
    assert twin._packed is None
    torch.testing.assert_close(twin(x), plain(x), rtol=5e-5, atol=5e-5)


def test_gradients_are_those_of_the_conv(monkeypatch):
    counted = calls(monkeypatch)
    plain = conv()
    x = torch.randn(1, 40, 20, 20, requires_grad=True)
    WinogradConv2d(plain)(x).sum().backward()
    assert not counted
    expected = torch.autograd.grad(plain(x).sum(), x)[0]
    torch.testing.assert_close(x.grad, expected)


@pytest.mark.parametrize(
    'options',
    [
        dict(kernel_size=1, padding=0),
        dict(stride=2),
        dict(dilation=2),
        dict(groups=2),
        dict(inputs=16),
        dict(outputs=16),
        dict(dtype=torch.bfloat16),
        dict(dtype=torch.float64),
    ],
)
def test_convs_that_stay(options):
    assert WinogradConv2d.suits(conv())
    assert not WinogradConv2d.suits(conv(**options))


def test_neck_and_head_of_a_detector(monkeypatch):
    counted = calls(monkeypatch)
    init_default_scope('mmdet')
    torch.manual_seed(0)
    config = detector_config(2)
    config.neck[1].out_channels = 40
    config.bbox_head.update(in_channels=40, feat_channels=40)
    model = MODELS.build(config).eval()
    fast = fuse(model, 'fp32')
    kinds = {
        part: [m for m in getattr(fast, part).modules() if isinstance(m, WinogradConv2d)]
        for part in ('backbone', 'neck', 'bbox_head')
    }
    assert not kinds['backbone']
    assert kinds['neck']
    assert kinds['bbox_head']
    x = torch.rand(2, 3, 160, 160)
    with torch.no_grad():
        found, expected = fast(x, mode='tensor'), model(x, mode='tensor')
    assert counted
    for ours, theirs in zip(found, expected):
        for a, b in zip(ours, theirs):
            # Spikes of the backbone may differ where a norm that is folded is rounded otherwise.
            assert (a - b).abs().mean() < 1e-3 * b.abs().max().clamp_min(1)


@torch.no_grad()
def test_under_autocast_and_without_a_batch(monkeypatch):
    counted = calls(monkeypatch)
    plain, x = conv(), torch.randn(1, 40, 20, 20)
    ours = WinogradConv2d(plain)
    torch.testing.assert_close(ours(x[0]), plain(x[0]))
    weights = ops.pack_winograd_weights(plain.weight, plain.bias)
    expected = ops.winograd_conv2d(x, weights)
    with torch.autocast('cpu', torch.bfloat16):
        assert ours(x).dtype == plain(x).dtype == torch.bfloat16
        assert torch.equal(ops.winograd_conv2d(x, weights), expected)
    assert len(counted) == 2
