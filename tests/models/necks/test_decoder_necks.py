import pytest
import torch
from mmdet.registry import MODELS
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from mmsnn.models import ASDNeck, LastNeck, RateNeck
from mmsnn.models.layers import AttentionSpikeDecoder

NECKS = {'ASDNeck': ASDNeck, 'RateNeck': RateNeck, 'LastNeck': LastNeck}
every_neck = pytest.mark.parametrize('name', NECKS)


@pytest.fixture(autouse=True)
def quiet():
    """init_weights logs a paragraph a parameter."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('WARNING')
    yield
    logger.setLevel(level)


def levels(time_steps=4, channels=(8, 16), seed=0):
    rng = torch.Generator().manual_seed(seed)
    return [
        (torch.rand(time_steps, 2, c, 8 // 2**i, 8 // 2**i, generator=rng) < 0.3).float()
        for i, c in enumerate(channels)
    ]


@every_neck
def test_built_from_the_registry(name):
    neck = MODELS.build(dict(type=name, in_channels=[8, 16]))
    assert type(neck) is NECKS[name]
    assert neck.in_channels == [8, 16]
    outs = neck(levels())
    assert isinstance(outs, tuple)
    assert [tuple(o.shape) for o in outs] == [(2, 8, 8, 8), (2, 16, 4, 4)]
    for out, s in zip(outs, levels()):
        assert torch.equal(out, s[-1] if name == 'LastNeck' else s.mean(0))


def test_asd_has_one_decoder_a_level_and_takes_its_arguments():
    neck = ASDNeck([8, 16], reduction=2, kernel_size=3)
    assert [type(d) for d in neck.decoders] == [AttentionSpikeDecoder] * 2
    assert [d.channels for d in neck.decoders] == [8, 16]
    assert [d.channel[0].out_features for d in neck.decoders] == [4, 8]
    assert all(d.spatial.kernel_size == (3, 3) for d in neck.decoders)


@pytest.mark.parametrize('init_cfg', [None, dict(type='Normal', layer=['Conv2d', 'Linear'])])
def test_init_weights_keeps_rate_coding(init_cfg):
    # Whatever scheme the config has for the ANN's convs and linears.
    neck = ASDNeck([8, 16], init_cfg=init_cfg)
    neck.init_weights()
    for out, s in zip(neck(levels()), levels()):
        assert torch.equal(out, s.mean(0))


@pytest.mark.parametrize('time_steps', [1, 2, 8])
def test_any_number_of_time_steps(time_steps):
    for out, s in zip(ASDNeck([8, 16])(levels(time_steps)), levels(time_steps)):
        assert torch.equal(out, s.mean(0))


def test_in_front_of_fpn():
    init_default_scope('mmdet')
    neck = MODELS.build(
        [
            dict(type='ASDNeck', in_channels=[8, 16]),
            dict(type='FPN', in_channels=[8, 16], out_channels=4, num_outs=3),
        ]
    )
    outs = neck(levels())
    assert [tuple(o.shape) for o in outs] == [(2, 4, 8, 8), (2, 4, 4, 4), (2, 4, 2, 2)]


@every_neck
def test_refusals(name):
    neck = NECKS[name]([8, 16])
    with pytest.raises(ValueError, match=rf'{name} was built for 2 levels .*\[8, 16\].*, got 1'):
        neck(levels()[:1])
    with pytest.raises(ValueError, match='was built for 16 channels, got 8'):
        neck([levels()[0]] * 2)
    with pytest.raises(ValueError, match=r'decodes spikes of shape \(T, B, C, H, W\), got'):
        neck([s.mean(0) for s in levels()])
