"""Fusing: the same spikes and boxes, whatever the network is made of."""

import copy
from pathlib import Path

import mmdet
import numpy as np
import pytest
import torch
from mmcv.cnn.bricks.conv_ws import ConvWS2d
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import nn

from mmsnn import deploy, ops
from mmsnn.deploy import IntegerConv2d, fold, fuse, integer_conv, resolve_precision
from mmsnn.deploy.fuse import event_convs
from mmsnn.deploy.integer_conv import integer_convs, integer_operators
from mmsnn.models import SGResNet
from mmsnn.models.layers import TDBN

INTEGERS = [
    pytest.param(
        name, marks=pytest.mark.skipif(bool(integer_operators()), reason=integer_operators())
    )
    for name in ('int16', 'int8')
]
#: Least cosine of the maps behind the neck, with random weights and one image.
LIKENESS = {'fp32': 0.9999, 'int16': 0.93, 'bf16': 0.85, 'int8': 0.85}


@pytest.fixture(autouse=True)
def integers_anywhere(monkeypatch):
    """Integer convs whether or not this CPU is fast at them: the numbers are the same."""
    monkeypatch.setattr(integer_conv, 'has_vnni', lambda: True)
    integer_convs.cache_clear()
    yield
    monkeypatch.undo()
    integer_convs.cache_clear()


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


def sample(size=64, border=(0, 0, 0, 0)):
    meta = dict(
        img_shape=(size, size),
        ori_shape=(size, size),
        scale_factor=(1, 1),
        pad_shape=(size, size),
        border=np.array(border, dtype=np.float32),
    )
    return DetDataSample(metainfo=meta)


#: Of MMDetection's configs, those whose heads or encoders once failed: dtypes, views, tensors kept.
THEIRS = {
    'detr': 'detr/detr_r50_8xb2-150e_coco.py',
    'conditional-detr': 'conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
    'dab-detr': 'dab_detr/dab-detr_r50_8xb2-50e_coco.py',
    'deformable-detr': 'deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py',
    'dino': 'dino/dino-4scale_r50_8xb2-12e_coco.py',
    'condinst': 'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py',
    'centernet': 'centernet/centernet_r18_8xb16-crop512-140e_coco.py',
}


def theirs(name, monkeypatch):
    """A detector of MMDetection's configs, made spiking and small."""
    init_default_scope('mmdet')
    configs = Path(mmdet.__file__).parent / '.mim' / 'configs'
    model = Config.fromfile(configs / THEIRS[name]).model
    stages = model.backbone.get('out_indices', (0, 1, 2, 3))
    model.backbone = dict(
        type='SGResNet', depth=10, base_channels=8, time_steps=2, out_indices=stages
    )
    channels = [8 * 2**i for i in stages]
    model.neck.in_channels = channels[-1] if name == 'centernet' else channels
    model.neck = [dict(type='ASDNeck', in_channels=channels), model.neck]
    if name == 'centernet':
        model.neck[1].update(num_deconv_filters=(16, 16, 16))
        model.bbox_head.update(in_channels=16, feat_channels=16)
    for part in ('encoder', 'decoder'):
        if part in model:
            model[part].num_layers = 1
    if 'score_thr' in (model.get('test_cfg') or {}):
        model.test_cfg.score_thr = 0.0
    if 'num_queries' in model:
        model.num_queries = 100
    torch.manual_seed(0)
    model = MODELS.build(model).eval()
    # Some of theirs begin with whatever was in memory. init_weights logs a paragraph a parameter.
    monkeypatch.setattr(MMLogger.get_current_instance(), 'disabled', True)
    model.init_weights()
    return model


def found_by(model, size=128):
    image = torch.randint(0, 256, (3, size, size), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        data = dict(inputs=[image.to(torch.uint8)], data_samples=[sample(size)])
        return model.test_step(data)[0].pred_instances


@pytest.mark.parametrize('name', THEIRS)
def test_detectors_of_other_makes(name, monkeypatch):
    model = theirs(name, monkeypatch)
    expected = found_by(model)
    assert len(expected) > 0
    exact = found_by(fuse(model, 'fp32'))
    torch.testing.assert_close(exact.scores, expected.scores, rtol=1e-3, atol=1e-4)
    low = found_by(fuse(model, 'bf16'))
    assert low.bboxes.dtype == low.scores.dtype == torch.float32
    assert torch.isfinite(low.bboxes).all()
    # With random weights all scores lie close together, and other boxes may come first.
    n = min(len(low), len(expected), 10)
    mean = expected.scores[:n].mean().item()
    assert low.scores[:n].mean().item() == pytest.approx(mean, abs=0.05)


def test_a_head_that_keeps_tensors_of_the_last_step(monkeypatch):
    model = theirs('condinst', monkeypatch).train()
    data = demo_mm_inputs(2, image_shapes=[(3, 128, 128)] * 2, num_items=[2] * 2, with_mask=True)
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    sum(loss for loss in losses.values() if isinstance(loss, torch.Tensor)).backward()
    with pytest.raises(RuntimeError, match='deepcopy'):
        copy.deepcopy(model)  # else this tests nothing
    fast = fuse(model, 'fp32')
    torch.testing.assert_close(found_by(fast).scores, found_by(model.eval()).scores)


def test_convs_that_norm_their_weights():
    """A norm behind one isn't folded into weights that are normed again."""
    conv = ConvWS2d(3, 8, 3)
    norm = nn.BatchNorm2d(8)
    nn.init.uniform_(norm.weight, 2, 3)
    norm.running_var.uniform_(2, 3)
    model = nn.Sequential(conv, norm).eval()
    x = torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(fuse(model, 'fp32')(x), model(x))


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
    refusal = pytest.raises(ValueError, match="'int8' needs integer convs: this CPU has no VNNI")
    with ops.use_backend('reference'), refusal:  # else they go by events
        resolve_precision('int8')
    with ops.use_backend('reference'):
        assert resolve_precision() in ('bf16', 'fp32')
    assert event_convs() or resolve_precision() == 'int8'
