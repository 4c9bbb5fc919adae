import pytest
from mmengine.config import Config

from mmsnn.utils import ToolError, check_sync_bn


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
