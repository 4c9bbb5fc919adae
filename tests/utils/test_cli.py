from argparse import Namespace

import pytest
from mmengine.config import Config
from torch import nn

from mmsnn.datasets import DatasetError
from mmsnn.models import SGResNet
from mmsnn.utils import ToolError, check_data, check_sync_bn, set_time_steps, unwrap


def backbone(**kwargs):
    return dict(type='SGResNet', depth=10, base_channels=4, **kwargs)


@pytest.mark.parametrize('norm', ['TDBN', 'SyncTDBN', None])
def test_sync_bn_and_tdbn(norm):
    named = {} if norm is None else dict(norm_cfg=dict(type=norm))
    cfg = Config(dict(sync_bn='torch', model=backbone(**named)))
    # Stem, four blocks of two convs, and three projections.
    with pytest.raises(ToolError, match=r"sync_bn='torch' would turn the 12 tdBN .*SyncTDBN"):
        check_sync_bn(cfg)


@pytest.mark.parametrize(('norm', 'sync_bn'), [('BN', 'torch'), ('TDBN', None), ('SyncTDBN', None)])
def test_what_loses_nothing_passes(norm, sync_bn):
    check_sync_bn(Config(dict(sync_bn=sync_bn, model=backbone(norm_cfg=dict(type=norm)))))


def detector(backbone):
    model = nn.Module()
    model.backbone = backbone
    return model


def test_time_steps_through_wrappers():
    inner = detector(SGResNet(10, base_channels=4))
    outer = nn.Module()
    outer.module = nn.Module()
    outer.module.module = inner
    assert unwrap(inner) is unwrap(outer) is inner
    set_time_steps(unwrap(outer), 7)
    assert inner.backbone.time_steps == 7


@pytest.mark.parametrize('time_steps', [0, -2])
def test_at_least_one_time_step(time_steps):
    model = detector(SGResNet(10, base_channels=4, time_steps=4))
    with pytest.raises(ToolError, match=f'--time-steps must be at least 1, got {time_steps}'):
        set_time_steps(model, time_steps)
    assert model.backbone.time_steps == 4


@pytest.mark.parametrize(
    ('model', 'named'), [(detector(nn.Conv2d(1, 1, 1)), 'Conv2d'), (nn.Identity(), 'Identity')]
)
def test_time_steps_of_a_backbone_without(model, named):
    with pytest.raises(ToolError, match=f'needs a spiking backbone.* {named} has no time_steps'):
        set_time_steps(model, 2)
    assert not hasattr(getattr(model, 'backbone', None), 'time_steps')


def test_no_data_check(tmp_path):
    dataset = dict(type='ImageFolder', data_root=str(tmp_path / 'gone'))
    cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
    with pytest.raises(DatasetError, match='gone does not exist'):
        check_data(cfg, ('train',), Namespace(no_data_check=False))
    check_data(cfg, ('train',), Namespace(no_data_check=True))
