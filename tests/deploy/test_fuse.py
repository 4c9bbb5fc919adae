"""Fusing: the same spikes and boxes, whatever the network is made of."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmsnn import deploy
from mmsnn.deploy import IntegerConv2d, fold, fuse, integer_conv, resolve_precision
from mmsnn.deploy.integer_conv import integer_convs
from mmsnn.models import SGResNet
from mmsnn.models.layers import TDBN

INTEGERS = [
    pytest.param(name, marks=pytest.mark.skipif(bool(integer_convs()), reason=integer_convs()))
    for name in ('int16', 'int8')
]
#: Least cosine of the maps behind the neck, with random weights and one image.
LIKENESS = {'fp32': 0.9999, 'int16': 0.93, 'bf16': 0.85, 'int8': 0.85}


def settled(**kwargs):
    """A network whose norms have seen images, and whose deepest layers still fire."""
    torch.manual_seed(0)
    kwargs['act_cfg'] = {'type': 'LIFNeuron', 'v_threshold': 0.5, **kwargs.get('act_cfg', {})}
    net = SGResNet(base_channels=16, **kwargs).train()
    for module in net.modules():
        if isinstance(module, TDBN):
            nn.init.constant_(module.bias, 0.3)
    with torch.no_grad():
        for _ in range(12):
            net(torch.randn(4, 3, 64, 64))
    net.eval()
    return net


def oracle(net, fast):
    """The folded network in float64, with the weights rounded that `fast` has in integers."""
    exact = copy.deepcopy(net).double()
    fold(exact)
    for name, module in fast.named_modules():
        if isinstance(module, IntegerConv2d) and is_used(module):
            weight = exact.get_submodule(name).weight.data
            limit = {8: 127, 16: 127 * 256}[module.bits]
            step = weight.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-30) / limit
            weight.copy_((weight / step).round() * step)
    return exact


def is_used(conv):
    return conv._packed is not None or conv._tiles is not None


def differing(outs, others):
    """Share of spikes that differ, over all levels."""
    wrong = sum((a != b.to(a.dtype)).sum().item() for a, b in zip(outs, others))
    return wrong / sum(a.numel() for a in outs)


@pytest.mark.parametrize('precision', ['fp32', 'bf16', *INTEGERS])
@pytest.mark.parametrize(
    'kwargs',
    [
        dict(depth=18),
        dict(depth=50, stem='deep'),
        dict(depth=18, block='plain'),
        dict(depth=18, block='tdbn', stem='cifar', strides=(2, 2, 2, 2)),
        dict(depth=18, block='ms'),
        dict(depth=18, block='ms', stem='deep'),
        dict(depth=18, block='sew'),
        dict(depth=18, block='sew', gate_cfg=dict(type='SEWIAndGate')),
        dict(depth=18, gate_cfg=dict(type='LearnedGate')),
        dict(depth=18, act_cfg=dict(type='PLIFNeuron', reset='soft')),
    ],
    ids=lambda k: '-'.join(str(v) for v in k.values() if not isinstance(v, (dict, tuple))),
)
def test_the_same_spikes(kwargs, precision, monkeypatch):
    net = settled(**kwargs)
    x = torch.randn(2, 3, 64, 64)
    fast = fuse(net, precision)
    assert not any(isinstance(module, TDBN) for module in fast.modules())
    assert isinstance(net.stem[0]['norm'], TDBN), 'the model given was changed'
    with torch.no_grad():
        outs = fast(x)
        exact = oracle(net, fast)(x.double())
        assert all(0.01 < level.mean() < 6 for level in exact)
        # At a threshold the last digit decides, and what comes behind feels it: random weights
        # are the worst case. bfloat16 rounds currents too.
        assert differing(exact[:1], outs[:1]) < (0.3 if precision == 'bf16' else 0.001)
        assert differing(exact, outs) < (0.4 if precision == 'bf16' else 0.02)
        if precision.startswith('int'):
            monkeypatch.setattr(integer_conv.conv_lif, 'is_fast', lambda x: False)
            assert differing(outs, fast(x)) == 0, 'neurons in the convs give other spikes'
            monkeypatch.setattr(integer_conv, 'LARGE', 0)
            for band in (1, 5000, 1 << 20):
                monkeypatch.setattr(integer_conv, 'BAND', band)
                assert differing(outs, fast(x)) == 0, 'bands give other spikes'
    if precision == 'int8':
        convs = [m for m in fast.modules() if isinstance(m, IntegerConv2d)]
        used = [m for m in convs if is_used(m)]
        # The stem sees the image; MS's projections see membrane potentials.
        real = 1 if kwargs.get('block') != 'ms' else 1 + 3
        assert len(used) == len(convs) - real


@pytest.mark.parametrize('precision', ['fp32', *INTEGERS])
def test_event_frames(precision):
    net = settled(depth=18, out_indices=(0,), time_steps=3)
    x = torch.randn(3, 2, 3, 64, 64)
    with torch.no_grad():
        fast = fuse(net, precision)
        outs = fast(x)
        assert differing(oracle(net, fast)(x.double()), outs) < 0.001


@pytest.mark.parametrize('precision', ['fp32', 'bf16', *INTEGERS])
@pytest.mark.parametrize(
    ('head', 'decoder'),
    [
        ('SpikingRetinaNet', 'ASDNeck'),
        ('SpikingRetinaNet', 'RateNeck'),
        ('SpikingRetinaNet', 'LastNeck'),
        ('FCOS', 'ASDNeck'),
        ('FasterRCNN', 'ASDNeck'),
    ],
)
def test_detectors_fuse_whole(head, decoder, precision):
    path = {
        'SpikingRetinaNet': 'spiking_retinanet/spiking-retinanet_sg-r18_asd_fpn_1x_coco.py',
        'FCOS': 'fcos/fcos_sg-r18_asd_fpn_1x_coco.py',
        'FasterRCNN': 'faster_rcnn/faster-rcnn_sg-r18_asd_fpn_1x_coco.py',
    }[head]
    cfg = Config.fromfile(f'configs/{path}').model
    cfg.neck[0] = dict(type=decoder, in_channels=cfg.neck[0].in_channels)
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.eval()
    for module in model.backbone.modules():
        if isinstance(module, TDBN):
            nn.init.constant_(module.bias, 0.7)  # so that the deepest layers fire
    inputs = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        feats = model.extract_feat(inputs)
        fast = fuse(model, precision)
        for a, b in zip(feats, fast.extract_feat(inputs)):
            likeness = torch.cosine_similarity(a.flatten(), b.float().flatten(), 0)
            assert likeness > LIKENESS[precision]
        data = dict(inputs=[torch.zeros(3, 64, 64, dtype=torch.uint8)], data_samples=[sample()])
        found = fast.test_step(data)[0].pred_instances
    assert found.bboxes.dtype == torch.float32


def sample():
    from mmdet.structures import DetDataSample

    meta = dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1, 1), pad_shape=(64, 64))
    return DetDataSample(metainfo=meta)


@pytest.mark.parametrize('precision', INTEGERS)
@pytest.mark.parametrize('odd', [dict(padding='same'), dict(padding=1, padding_mode='reflect')])
def test_convs_padded_in_another_way_stay(odd, precision):
    net = settled(depth=10)
    conv = nn.Conv2d(16, 16, 3, bias=False, **odd)
    conv.weight = net.layer1[0].conv1.weight
    net.layer1[0].conv1 = conv
    fast = fuse(net, precision)
    assert type(fast.layer1[0].conv1) is nn.Conv2d
    assert isinstance(fast.layer1[0].conv2, IntegerConv2d)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert differing(fuse(net, 'fp32')(x)[:1], fast(x)[:1]) < 0.05


def test_precisions():
    with pytest.raises(ValueError, match=r"unknown precision 'fp8': choose one of \['auto'"):
        fuse(nn.Conv2d(3, 3, 1), 'fp8')
    with pytest.raises(ValueError, match='for CPUs, not cuda'):
        resolve_precision('int8', torch.device('cuda'))
    assert resolve_precision() in deploy.PRECISIONS[1:]


def test_without_vnni(monkeypatch):
    monkeypatch.setattr(integer_conv, 'has_vnni', lambda: False)
    integer_convs.cache_clear()
    try:
        with pytest.raises(ValueError, match="'int8' needs integer convs: this CPU has no VNNI"):
            resolve_precision('int8')
        assert resolve_precision() in ('bf16', 'fp32')
    finally:
        integer_convs.cache_clear()
