"""Which axis is time: frames that come in, spikes that go out."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

from mmsnn.models import ASDNeck, SGResNet
from mmsnn.models.layers import Spikes, fold_frames, unfold_frames

CHANNELS = [4, 8, 16, 32]


@pytest.fixture(scope='module')
def net():
    init_default_scope('mmdet')
    return SGResNet(10, base_channels=4, in_channels=2, time_steps=3).eval()


def test_folding_and_back():
    frames = torch.arange(2 * 3 * 2 * 4.0).view(2, 3, 2, 2, 2)
    folded = fold_frames(frames)
    assert folded.shape == (3, 4, 2, 2)
    assert torch.equal(folded[1, 2], frames[1, 1, 0]), 'the second frame, its first channel'
    assert torch.equal(unfold_frames(folded, 2), frames)


def test_folded_frames_are_the_same_frames(net):
    frames = torch.rand(3, 2, 2, 32, 32)
    for a, b in zip(net(fold_frames(frames)), net(frames)):
        assert torch.equal(a, b)


def test_another_number_of_frames_or_the_batch_first(net):
    # As MMDetection's DetDataPreprocessor stacks two samples of three frames.
    with pytest.raises(
        ValueError,
        match=r'in 2 frames, but model.backbone.time_steps is 3.*EventDetDataPreprocessor',
    ):
        net(torch.rand(2, 3, 2, 32, 32))


def test_as_many_samples_as_frames(net):
    frames = torch.rand(3, 3, 2, 32, 32)
    with pytest.raises(ValueError, match=r'could be \(T, B, C, H, W\) or \(B, T, C, H, W\)'):
        net(frames)
    found = net(fold_frames(frames))[0]
    for b in range(3):
        assert torch.equal(found[:, b], net(frames[:, b : b + 1])[0][:, 0])


def test_one_frame_of_one_sample_is_no_question():
    net = SGResNet(10, base_channels=4, time_steps=1).eval()
    x = torch.rand(1, 3, 32, 32)
    for a, b in zip(net(x[None]), net(x)):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    'first',
    [
        dict(type='FPN', in_channels=CHANNELS, out_channels=4, num_outs=4),
        dict(type='PAFPN', in_channels=CHANNELS, out_channels=4, num_outs=4),
        dict(type='ChannelMapper', in_channels=CHANNELS, out_channels=4),
        dict(type='HRFPN', in_channels=CHANNELS, out_channels=4),
        dict(type='BFP', in_channels=4, num_levels=4),
        dict(type='NASFCOS_FPN', in_channels=CHANNELS, out_channels=4, num_outs=4),
        dict(type='YOLOXPAFPN', in_channels=CHANNELS[1:], out_channels=4),
        dict(type='CTResNetNeck', in_channels=32, num_deconv_filters=(8, 4), use_dcn=False,
             num_deconv_kernels=(4, 4)),
        dict(type='RetinaHead', in_channels=4, num_classes=2, feat_channels=4),
        dict(type='FCOSHead', in_channels=4, num_classes=2, feat_channels=32),
        dict(type='RPNHead', in_channels=4, feat_channels=4),
        dict(type='YOLOXHead', in_channels=4, num_classes=2, feat_channels=4),
    ],
    ids=lambda cfg: cfg['type'],
)  # fmt: skip
def test_a_forgotten_decoder_is_named(net, first):
    levels = net(torch.rand(1, 2, 64, 64))
    if first['type'].startswith('YOLOXPAFPN'):
        levels = levels[1:]
    with pytest.raises(
        ValueError,
        match=r'needs a decoder right behind its backbone: SGResNet gives spikes.*'
        r"neck=\[dict\(type='ASDNeck', in_channels=\[4, 8, 16, 32\]\), dict\(type='FPN'",
    ):
        MODELS.build(first)(levels)


def test_spikes_are_tensors_for_everything_else(net, tmp_path):
    levels = net(torch.rand(1, 2, 64, 64))
    assert all(isinstance(level, Spikes) for level in levels)
    assert type(levels[0] + 1) is torch.Tensor
    assert ASDNeck(CHANNELS)(levels)[0].shape == (1, 4, 16, 16)
    assert type(copy.deepcopy(levels[0].detach())) is torch.Tensor
    torch.save(levels, tmp_path / 'spikes.pt')
    loaded = torch.load(tmp_path / 'spikes.pt', weights_only=True)
    for a, b in zip(loaded, levels):
        assert type(a) is torch.Tensor
        assert torch.equal(a, b)
    levels[0].sum().backward()
    assert net.stem[0]['conv'].weight.grad is not None
