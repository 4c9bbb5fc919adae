"""An ANN's tensors in a spiking model: each has its place, and stands for what it stood for."""

import os.path as osp
import re

import mmdet
import pytest
import torch
from ann_layouts import LAYOUTS, ann, fc, prefixed, renamed
from hypothesis import given
from hypothesis import strategies as st
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmsnn.apis import make_spiking
from mmsnn.apis.spiking import merged
from mmsnn.conversion import InheritError, account_rows, flat_state, inherit, target_of
from mmsnn.models import SGResNet

CONFIGS = osp.join(osp.dirname(mmdet.__file__), '.mim', 'configs')
RELU = dict(block='plain', time_steps=1, act_cfg=dict(type='ReLUNeuron'))
IMAGE = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def own(depth=18, deep=False, **kwargs):
    kwargs.setdefault('base_channels', 8)
    return SGResNet(depth, stem='deep' if deep else 'imagenet', **kwargs).eval()


def put(checkpoint, net):
    state, account = inherit(checkpoint, target_of(net))
    net.load_state_dict(state, strict=False)
    return account


def all_accounted(checkpoint, net, account):
    """Every tensor of both sides stands on the account, once."""
    names = set(flat_state(checkpoint))
    assert account.used.keys() | account.left.keys() == names
    assert not account.used.keys() & account.left.keys()
    taken = list(account.used.values())
    assert len(set(taken)) == len(taken)
    assert set(taken) | set(account.missing) == set(net.state_dict())
    assert not set(taken) & set(account.missing)
    rows = str(account_rows(account, {}))
    assert all(name.rpartition('.')[0] in rows for name in [*account.left, *account.missing])


@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_layouts(layout, depth):
    """The spiking network with ReLUs for neurons is the ANN, to the last level."""
    deep, write = LAYOUTS[layout]
    net, donor = own(depth, deep, **RELU), ann(depth, deep)
    checkpoint = write(donor.state_dict())
    account = put(checkpoint, net)
    all_accounted(checkpoint, net, account)
    assert account.missing == []
    assert account.notes == []
    assert {re.sub(r'^(module\.)?(head\.)?', '', name) for name in account.left} <= {
        'fc.weight',
        'fc.bias',
    }
    with torch.no_grad():
        for level, expected in zip(net(IMAGE), donor(IMAGE)):
            torch.testing.assert_close(level[0].as_subclass(torch.Tensor), expected)


@pytest.mark.parametrize('depth', [34, 101, 152])
def test_depths(depth):
    net, donor = own(depth), ann(depth)
    account = put(donor.state_dict(), net)
    assert account.left == {}
    assert account.missing == []
    assert len(account.used) == len(donor.state_dict()) == len(net.state_dict())


@pytest.mark.parametrize('norm', ['TDBN', 'SyncTDBN', 'BN'])
@pytest.mark.parametrize('block', ['sg', 'tdbn', 'sew', 'plain', 'ms'])
def test_currents_are_thresholds_times_the_anns(block, norm):
    """In float64, in front of every kind of neuron: V_th times what the ANN has."""
    net = own(
        block=block, norm_cfg=dict(type=norm), act_cfg=dict(type='LIFNeuron', v_threshold=0.3)
    )
    donor = ann()
    put(donor.state_dict(), net)
    net.double()
    donor.double()
    parts = dict(donor.named_modules())
    for name, module in net.named_modules():
        if not isinstance(module, nn.BatchNorm2d):
            continue
        theirs = parts[name.replace('stem.0.norm', 'bn1')]
        x = torch.randn(2, module.num_features, 3, 3, dtype=torch.float64)
        torch.testing.assert_close(module(x), 0.3 * theirs(x), rtol=1e-6, atol=1e-6)


@given(
    gamma=st.floats(-3, 3),
    beta=st.floats(-3, 3),
    v_threshold=st.floats(0.05, 5),
    alpha=st.floats(0.1, 2),
    own_threshold=st.none() | st.floats(0.05, 5),
)
def test_a_norm_by_hand(gamma, beta, v_threshold, alpha, own_threshold):
    norm_cfg = dict(type='TDBN', alpha=alpha)
    if own_threshold is not None:
        norm_cfg['v_threshold'] = own_threshold
    net = SGResNet(
        10,
        base_channels=1,
        num_stages=1,
        strides=(1,),
        out_indices=(0,),
        norm_cfg=norm_cfg,
        act_cfg=dict(type='IFNeuron', v_threshold=v_threshold),
    )
    target = target_of(net)
    state = {name: torch.zeros(shape) for name, shape in target.shapes.items()}
    state = renamed(state, (r'^stem\.0\.conv', 'conv1'), (r'^stem\.0\.norm', 'bn1'))
    state['layer1.0.bn2.weight'] = torch.tensor([gamma], dtype=torch.float64)
    state['layer1.0.bn2.bias'] = torch.tensor([beta], dtype=torch.float64)
    found, _ = inherit(state, target)
    lam, shift = (found[f'layer1.0.bn2.{kind}'].item() for kind in ('weight', 'bias'))
    x = 0.7  # normalised
    current = lam * alpha * (own_threshold or v_threshold) * x + shift
    assert current == pytest.approx(v_threshold * (gamma * x + beta), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize('depth', [18, 50])
def test_averaged_shortcuts_are_said(depth):
    """ResNet-D: timm and MMDetection put a pool in front of the shortcut's conv."""
    donor = ann(depth, average=True)
    net = own(depth, deep=True)
    account = put(donor.state_dict(), net)
    all_accounted(donor.state_dict(), net, account)
    assert account.left == {}
    assert account.missing == []
    assert torch.equal(net.layer2[0].downsample[0].weight, donor.layer2[0].downsample[1].weight)
    assert len(account.notes) == 1
    assert 'averages 2x2 cells' in account.notes[0]
    assert 'layer2.0.downsample' in account.notes[0]


def test_caffe_style_is_said():
    checkpoint = dict(state_dict=ann(50).state_dict(), meta=dict(cfg="model = dict(style='caffe')"))
    assert any("style='caffe'" in note for note in put(checkpoint, own(50)).notes)
    checkpoint['meta'] = dict(cfg="model = dict(style='pytorch')")
    assert put(checkpoint, own(50)).notes == []


def test_what_an_ann_lacks_is_missing():
    net = own(gate_cfg=dict(type='LearnedGate'), act_cfg=dict(type='PLIFNeuron', decay=0.5))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    account = put(ann().state_dict(), net)
    assert {name.split('.')[2] for name in account.missing if 'layer' in name} <= {
        'gate', 'neuron1', 'neuron2', 'downsample_neuron'
    }  # fmt: skip
    assert 'layer1.0.gate.conv.weight' in account.missing
    assert 'layer1.0.neuron1.w' in account.missing
    for name in account.missing:
        assert torch.equal(net.state_dict()[name], before[name])


def test_fewer_stages():
    net = own(num_stages=2, strides=(1, 2), out_indices=(0, 1))
    donor = ann()
    account = put(donor.state_dict(), net)
    all_accounted(donor.state_dict(), net, account)
    assert set(account.left.values()) == {
        f'the backbone ends before layer{i} (num_stages)' for i in (3, 4)
    }


def test_a_layer_that_the_backbone_lacks_is_named():
    state = {**ann().state_dict(), 'layer1.0.se.fc1.weight': torch.ones(1)}
    account = put(state, own())
    reason = 'the model has no layer1.0.se.fc1.weight'
    assert account.left == {'layer1.0.se.fc1.weight': reason}


DETECTORS = [
    'retinanet/retinanet_r18_fpn_1x_coco.py',
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'atss/atss_r50_fpn_1x_coco.py',
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
]


@pytest.mark.parametrize('name', DETECTORS)
def test_whole_detectors(name):
    """As mmsnn spike makes them: neck behind the decoders, heads by their names."""
    init_default_scope('mmdet')
    cfg = Config.fromfile(osp.join(CONFIGS, name))
    cfg.model.backbone.init_cfg = None
    spiking = MODELS.build(merged(cfg, make_spiking(cfg, time_steps=1).changes).model)
    donor = MODELS.build(cfg.model)
    for param in donor.parameters():
        nn.init.normal_(param)
    checkpoint = dict(state_dict=donor.state_dict())
    account = put(checkpoint, spiking)
    all_accounted(checkpoint, spiking, account)
    assert account.left == {}
    assert {re.match(r'neck\.0\.decoders', name) is not None for name in account.missing} == {True}
    theirs, ours = donor.state_dict(), spiking.state_dict()
    for old, new in account.used.items():
        if not old.startswith('backbone.'):
            assert torch.equal(theirs[old], ours[new]), old
            assert new == re.sub(r'^neck\.', 'neck.1.', old)


def test_other_classes():
    """A head of other classes is left out, and what doesn't depend on them is used."""
    init_default_scope('mmdet')
    cfg = Config.fromfile(osp.join(CONFIGS, DETECTORS[0]))
    cfg.model.backbone.init_cfg = None
    donor = MODELS.build(cfg.model)
    cfg.model.bbox_head.num_classes = 2
    spiking = MODELS.build(merged(cfg, make_spiking(cfg, time_steps=1).changes).model)
    account = put(donor.state_dict(), spiking)
    all_accounted(donor.state_dict(), spiking, account)
    assert account.left.keys() == {'bbox_head.retina_cls.weight', 'bbox_head.retina_cls.bias'}
    assert '(720, 256, 3, 3)' in account.left['bbox_head.retina_cls.weight']
    assert 'bbox_head.retina_reg.weight' in account.used


def test_necks_in_a_list_move_behind_the_decoders():
    target = target_of(own())._replace(
        backbone='backbone.',
        decoders=1,
        shapes={
            **{f'backbone.{name}': value.shape for name, value in own().state_dict().items()},
            'neck.1.a.weight': torch.Size([1]),
            'neck.2.b.weight': torch.Size([1]),
        },
    )
    rest = {'neck.0.a.weight': torch.ones(1), 'neck.1.b.weight': torch.ones(1)}
    _, account = inherit({**prefixed(ann().state_dict(), 'backbone.'), **rest}, target)
    assert account.used['neck.0.a.weight'] == 'neck.1.a.weight'
    assert account.used['neck.1.b.weight'] == 'neck.2.b.weight'


@pytest.mark.parametrize('layout', ['torchvision', 'mmpretrain'])
def test_classifier(layout):
    init_default_scope('mmdet')
    model = MODELS.build(
        dict(
            type='SpikingClassifier',
            backbone=dict(type='SGResNet', depth=18, base_channels=8, out_indices=(3,)),
            head=dict(type='SpikingClsHead', num_classes=5, in_channels=64),
        )
    )
    account = put(LAYOUTS[layout][1](ann().state_dict()), model)
    assert account.left == {}
    assert (model.head.fc.weight == 1).all()


def vit():
    return {
        'cls_token': torch.ones(1, 1, 8),
        'pos_embed': torch.ones(1, 5, 8),
        'blocks.0.attn.qkv.weight': torch.ones(24, 8),
    }


@pytest.mark.parametrize(
    ('state', 'net', 'said'),
    [
        (lambda: ann(34).state_dict(), own, 'another depth: it is ResNet-34 .*set depth=34'),
        (lambda: ann(50).state_dict(), own, r'ResNet-50 \(stages of 3, 4, 6, 3 bottlenecks\)'),
        (
            lambda: {k: v for k, v in ann().state_dict().items() if not re.match('layer[34]', k)},
            own,
            'set num_stages=2',
        ),
        (
            lambda: ann(deep=True).state_dict(),
            own,
            "another stem: three convs 3x3 and pooling; .*stem='imagenet'.* set stem='deep'",
        ),
        (
            lambda: ann().state_dict(),
            lambda: SGResNet(18, base_channels=8, stem='cifar'),
            "another stem: conv 7x7/2 .*set stem='imagenet'",
        ),
        (
            lambda: {**ann().state_dict(), 'conv1.weight': torch.ones(8, 3, 5, 5)},
            own,
            'another stem: convs of .5,. cells .*no setting has that',
        ),
        (
            lambda: ann(base_channels=16).state_dict(),
            own,
            'has stem_channels=16, the backbone 8: set stem_channels=16',
        ),
        (
            lambda: ann(base_channels=16, stem_channels=8).state_dict(),
            own,
            'base_channels=16, the backbone 8',
        ),
        (lambda: ann(in_channels=1).state_dict(), own, 'has in_channels=1, the backbone 3'),
        (
            lambda: {**ann(50).state_dict(), 'layer1.0.conv2.weight': torch.ones(8, 2, 3, 3)},
            lambda: own(50),
            r'layer1.0.conv2.weight does not fit: its shape is \(8, 2, 3, 3\)',
        ),
        (vit, own, 'holds no ResNet: it begins with cls_token, pos_embed, blocks'),
        (dict, own, 'holds no weights'),
        (lambda: own().state_dict(), own, "is of an SGResNet, not of an ANN: .*'Pretrained'"),
        (
            lambda: {
                **prefixed(ann().state_dict(), 'student.backbone.'),
                **prefixed(ann().state_dict(), 'teacher.backbone.'),
            },
            own,
            "several ResNets, 'student.backbone.', 'teacher.backbone.'",
        ),
        (
            lambda: {k: v for k, v in ann().state_dict().items() if not k.startswith('conv1')},
            own,
            'no stem that is known',
        ),
        (lambda: ann().state_dict(), lambda: nn.Conv2d(3, 3, 1), 'Conv2d has no SGResNet'),
    ],
)  # fmt: skip
def test_refusals(state, net, said):
    with pytest.raises(InheritError, match=said) as error:
        inherit(state(), target_of(net()))
    assert '\n' not in str(error.value)


def test_the_setting_that_a_refusal_names_fits():
    with pytest.raises(InheritError, match="set stem='deep'"):
        put(ann(deep=True).state_dict(), own())
    put(ann(deep=True).state_dict(), own(deep=True))


def test_the_checkpoint_stays_as_it_is():
    state = fc(ann().state_dict())
    before = {name: value.clone() for name, value in state.items()}
    put(state, own(block='tdbn', act_cfg=dict(type='LIFNeuron', v_threshold=0.5)))
    assert all(torch.equal(state[name], value) for name, value in before.items())


def test_spikes_of_a_shortcut_in_front_of_another_threshold_are_said():
    half = dict(type='LIFNeuron', v_threshold=0.5)
    assert 'identity shortcuts' in target_of(own(block='tdbn', act_cfg=half)).notes[0]
    assert target_of(own(block='sg', act_cfg=half)).notes == []
    assert target_of(own(block='tdbn')).notes == []
