import http.server
import socketserver
import threading
from argparse import Namespace
from functools import partial

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from torch import nn
from torch._utils import ExceptionWrapper

from mmsnn.datasets import DatasetError
from mmsnn.models import SGResNet
from mmsnn.utils import (
    ToolError,
    check_data,
    check_sync_bn,
    enable_amp,
    exit_on_error,
    fetch_checkpoint,
    read_config,
    set_time_steps,
    unwrap,
)
from mmsnn.utils.cli import check_launcher, is_first_process, misspelt_keys


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


@pytest.mark.parametrize('kind', ['OptimWrapper', 'mmengine.OptimWrapper', OptimWrapper, None])
def test_amp_takes_the_wrapper_by_name_and_by_class(kind):
    cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=1), loss_scale=2)))
    if kind is not None:
        cfg.optim_wrapper.type = kind
    enable_amp(cfg)
    assert cfg.optim_wrapper.type == 'BF16OptimWrapper'
    assert 'loss_scale' not in cfg.optim_wrapper


def test_amp_refuses_a_wrapper_of_another_kind():
    class Own(OptimWrapper):
        pass

    with pytest.raises(ToolError, match="the config uses 'Own'"):
        enable_amp(Config(dict(optim_wrapper=dict(type=Own))))


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('a = 1\nb = no_such', r"broken.py, line 2: NameError: name 'no_such' is not defined"),
        ('a = 1\nb = dict(', "broken.py, line [23]: ('[(]' was never closed|unexpected EOF)"),
        ("_base_ = './no_such.py'", 'no_such.py'),
        ("custom_imports = dict(imports=['no_such'])", "No module named 'no_such'.*PYTHONPATH"),
        ('from torch import optim\na = 1 / 0', 'broken.py, line 2: ZeroDivisionError'),
        ('raise RuntimeError("why")', 'line 1: RuntimeError: why'),
    ],
)
def test_a_config_that_fails(tmp_path, text, said):
    path = tmp_path / 'broken.py'
    path.write_text(text)
    with pytest.raises(ToolError, match=f'config .*broken.py cannot be read: .*{said}') as raised:
        read_config(str(path))
    assert '\n' not in str(raised.value)


def test_a_base_that_fails_is_named(tmp_path):
    (tmp_path / 'base.py').write_text('a = 1\nb = (')
    (tmp_path / 'config.py').write_text("_base_ = './base.py'")
    with pytest.raises(ToolError, match=r'config.py cannot be read: .*base.py, line 2'):
        read_config(str(tmp_path / 'config.py'))


def test_a_folder_is_no_config(tmp_path):
    with pytest.raises(ToolError, match='is a folder: give the path of a file'):
        read_config(str(tmp_path))


@pytest.mark.parametrize(
    ('key', 'near'),
    [
        ('train_dataloder', 'train_dataloader'),
        ('default_hook', 'default_hooks'),
        ('modl', 'model'),
        ('test_pipeline', None),
        ('train_dataset', None),
        ('norm_cfg', None),
        ('tta_model', None),
        ('val_evaluator', None),
    ],
)
def test_misspelt_settings_are_said(tmp_path, monkeypatch, key, near):
    said = []
    monkeypatch.setattr('mmsnn.utils.cli.print_log', lambda text, **kwargs: said.append(text))
    path = tmp_path / 'config.py'
    path.write_text('model = dict()')
    read_config(str(path), {f'{key}.batch_size': 2})
    assert len(said) == (near is not None)
    if near is not None:
        assert f"nothing reads the setting '{key}'; did you mean '{near}'?" in said[0]


def test_the_configs_of_the_repository_say_nothing(request):
    paths = sorted(request.config.rootpath.glob('configs/*/*.py'))
    assert len(paths) > 20
    for path in paths[:: len(paths) // 8]:
        assert misspelt_keys(Config.fromfile(path)) == {}, path


def raised_in_worker(error):
    """Raise an exception as torch's loader does after one in a process of its own."""
    try:
        raise error
    except Exception:
        wrapped = ExceptionWrapper(where='in DataLoader worker process 0')
    wrapped.reraise()


@pytest.mark.parametrize(
    ('error', 'said'),
    [
        (DatasetError('x.npy is empty. Fetch it again'), '\nerror: x.npy is empty. Fetch it again'),
        (ZeroDivisionError('of mine'), '\nerror: ZeroDivisionError: of mine (in a process of'),
        (AssertionError('failed to load image: /a/b.jpg'), '\nerror: /a/b.jpg cannot be decoded'),
    ],
)
def test_a_worker_that_fails_is_told_in_its_last_line(error, said):
    with pytest.raises(SystemExit) as ended, exit_on_error():
        raised_in_worker(error)
    assert str(ended.value).startswith(said)
    assert 'Traceback' not in str(ended.value)


def test_what_is_not_explained_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), exit_on_error():
        raise ZeroDivisionError('of mine')
    with pytest.raises(SystemExit, match=r'a.png cannot be decoded'), exit_on_error():
        raise AssertionError('failed to load image: a.png')


def test_a_checkpoint_from_the_network(tmp_path, monkeypatch):
    (tmp_path / 'site').mkdir()
    torch.save(dict(state_dict={}), tmp_path / 'site' / 'model.pth')
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / 'site')
    # Not http.server's own class, which asks the network for this machine's name.
    with socketserver.ThreadingTCPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{server.server_address[1]}/model.pth'
        fetched = fetch_checkpoint(url)
        with pytest.raises(ToolError, match=r'no_such.pth cannot be fetched: .*404'):
            fetch_checkpoint(url.replace('model', 'no_such'))
        server.shutdown()
    assert torch.load(fetched, weights_only=True) == dict(state_dict={})
    assert fetch_checkpoint(url) == fetched, 'it is kept'


def test_other_checkpoints():
    assert fetch_checkpoint('work_dirs/a.pth') == 'work_dirs/a.pth'
    with pytest.raises(ToolError, match='torchvision:// is not taken'):
        fetch_checkpoint('torchvision://resnet50')


RANKS = ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')


@pytest.fixture
def no_launcher(monkeypatch):
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize('name', ['RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'])
def test_first_process(no_launcher, monkeypatch, name):
    assert is_first_process()
    monkeypatch.setenv(name, '0')
    assert is_first_process()
    monkeypatch.setenv(name, '1')
    assert not is_first_process()


@pytest.mark.parametrize(
    ('launcher', 'said'),
    [
        ('pytorch', 'RANK is not in the environment.*torchrun'),
        ('slurm', 'SLURM_PROCID is not in the environment.*srun'),
        ('mpi', 'OMPI_COMM_WORLD_RANK is not in the environment.*mpirun'),
    ],
)
def test_launcher_that_did_not_launch(no_launcher, launcher, said):
    check_launcher('none')
    with pytest.raises(ToolError, match=said):
        check_launcher(launcher)


def test_mpi_needs_an_address(no_launcher, monkeypatch):
    for name in ('RANK', 'SIZE', 'LOCAL_RANK'):
        monkeypatch.setenv(f'OMPI_COMM_WORLD_{name}', '1')
    with pytest.raises(ToolError, match='set MASTER_ADDR'):
        check_launcher('mpi')
