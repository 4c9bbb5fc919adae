"""``ANNPretrained`` by config alone: on a backbone, on a detector, and what it says."""

import copy
import logging

import pytest
import torch
from ann_layouts import ann, fc, prefixed
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from small_nets import detection_data, detector_config

from mmsnn.compat import CheckpointError
from mmsnn.utils import check_pretrained


@pytest.fixture
def said():
    """What goes to MMEngine's log."""
    lines = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)  # another test may have left it silent
    yield lines
    logger.setLevel(level)
    logger.removeHandler(handler)


def saved(path, content):
    torch.save(content, path)
    return dict(type='ANNPretrained', checkpoint=str(path))


def build(cfg):
    init_default_scope('mmdet')
    model = MODELS.build(cfg)
    model.init_weights()
    return model


def small(**kwargs):
    return dict(type='SGResNet', depth=18, base_channels=8, **kwargs)


@pytest.mark.parametrize('zero', [True, False])
def test_backbone(tmp_path, said, zero):
    donor = ann()
    init_cfg = saved(tmp_path / 'r18.pth', fc(donor.state_dict()))
    net = build(small(init_cfg=init_cfg, zero_init_residual=zero))
    assert torch.equal(net.layer4[1].bn2.weight, donor.layer4[1].bn2.weight)
    tables = [line for line in said if 'r18.pth: an ANN of' in line]
    assert len(tables) == 1, 'one table'
    assert '122 tensors, 120 used, 2 left out; 0 of the model are not in it' in tables[0]
    assert 'fc' in tables[0]
    assert 'weight, bias' in tables[0]
    assert 'it is not of the backbone' in tables[0]


def small_detector(**backbone):
    cfg = detector_config(1, **backbone)
    cfg.backbone.depth = 18
    return cfg


def ann_twin(cfg):
    cfg = copy.deepcopy(cfg)
    cfg.type = 'RetinaNet'
    keep = ('depth', 'base_channels', 'num_stages', 'strides', 'out_indices')
    cfg.backbone = {k: v for k, v in cfg.backbone.items() if k in keep}
    cfg.backbone.update(type='ResNet', dilations=(1, 1), norm_eval=False)
    cfg.neck = cfg.neck[1]
    return build(cfg)


def test_detector_loads_last(tmp_path, said):
    """MMEngine lets the parts begin after the whole, and their numbers must not win."""
    cfg = small_detector()
    donor = ann_twin(cfg)
    for param in donor.parameters():
        torch.nn.init.normal_(param)
    cfg.init_cfg = saved(tmp_path / 'ann.pth', dict(state_dict=donor.state_dict(), meta={}))
    model = build(cfg)
    theirs, ours = donor.state_dict(), model.state_dict()
    assert torch.equal(ours['bbox_head.retina_cls.weight'], theirs['bbox_head.retina_cls.weight'])
    assert torch.equal(ours['neck.1.lateral_convs.0.conv.weight'],
                       theirs['neck.lateral_convs.0.conv.weight'])  # fmt: skip
    assert torch.equal(ours['backbone.stem.0.conv.weight'], theirs['backbone.conv1.weight'])
    # The decoders begin as rate coding.
    assert not ours['neck.0.decoders.0.temporal.2.weight'].any()
    table = next(line for line in said if 'an ANN of' in line)
    assert 'neck.0.decoders.0.temporal.2' in table
    assert 'as it was built' in table


def test_a_backbone_alone_in_a_detector(tmp_path, said):
    """Of a detector's parts that the ANN has nothing for, the table says how they began."""
    cfg = small_detector()
    cfg.init_cfg = saved(tmp_path / 'r18.pth', fc(ann(base_channels=16).state_dict()))
    build(cfg)
    table = next(line for line in said if 'an ANN of' in line)
    assert 'XavierInit' in table
    assert 'bbox_head.retina_cls' in table
    assert 'NormalInit' in table
    assert 'the backbone ends before layer3' in table


def test_a_training_step_follows(tmp_path):
    cfg = small_detector()
    donor = ann_twin(cfg)
    cfg.init_cfg = saved(tmp_path / 'ann.pth', dict(state_dict=donor.state_dict()))
    model = build(cfg).train()
    before = model.backbone.stem[0].conv.weight.detach().clone()
    optim_wrapper = build_optim_wrapper(model, dict(optimizer=dict(type='SGD', lr=0.01)))
    losses = model.train_step(detection_data(), optim_wrapper)
    assert torch.isfinite(losses['loss'])
    assert not torch.equal(model.backbone.stem[0].conv.weight, before)


def refused(tmp_path, content, **backbone):
    path = tmp_path / 'ann.pth'
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(CheckpointError) as error:
        build(small(init_cfg=dict(type='ANNPretrained', checkpoint=str(path)), **backbone))
    text = str(error.value)
    assert text.startswith(str(path))
    assert '\n' not in text
    return text


def test_refusals(tmp_path):
    """One line each, with the file's name."""
    assert 'no such checkpoint file' in refused(tmp_path, None)
    assert 'the file is empty' in refused(tmp_path, b'')
    torch.save(ann().state_dict(), tmp_path / 'whole.pth')
    cut = (tmp_path / 'whole.pth').read_bytes()[:5000]
    assert 'truncated, damaged' in refused(tmp_path, cut)
    assert 'is of another depth' in refused(tmp_path, ann(34).state_dict())
    assert 'has another stem' in refused(tmp_path, ann(deep=True).state_dict())
    vit = {'cls_token': torch.ones(1), 'pos_embed': torch.ones(1)}
    assert 'holds no ResNet' in refused(tmp_path, vit)


def test_a_run_looks_into_it_first(tmp_path):
    init_cfg = dict(type='ANNPretrained', checkpoint=str(tmp_path / 'none.pth'))
    cfg = Config(dict(model=dict(backbone=small(init_cfg=init_cfg))))
    with pytest.raises(CheckpointError, match=r'none\.pth: no such checkpoint file'):
        check_pretrained(cfg)
    saved(tmp_path / 'none.pth', prefixed(ann().state_dict(), 'module.'))
    check_pretrained(cfg)
