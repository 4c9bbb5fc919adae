"""Checkpoints: what loads, what is refused, and what the refusal says."""

import os
import pickle
import struct
import zipfile
from pathlib import Path

import mmsnn  # noqa: F401  isort: skip

import mmdet.apis
import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.model import BaseModule
from mmengine.optim import OneCycleLR
from mmengine.runner import CheckpointLoader, load_checkpoint, save_checkpoint
from torch import nn

from mmsnn.compat import (
    CheckpointError,
    DamagedCheckpointError,
    allow_mmengine_types,
    check_state_dict,
    enforce_safe_loading,
    load_checkpoint_file,
    load_safely_by_default,
    load_weights,
    setup,
)
from mmsnn.compat.checkpoint import FORCE_SAFE, FORCE_UNSAFE


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """Restore the variables that decide how PyTorch loads."""
    for name in (FORCE_SAFE, FORCE_UNSAFE):
        monkeypatch.setenv(name, '0')
        monkeypatch.delenv(name)


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint with everything that a training run of MMEngine writes."""
    model = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = OneCycleLR(optimizer, eta_max=0.1, total_steps=10)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    scheduler.step()
    hub = MessageHub('checkpoint')
    for step in range(3):
        hub.update_scalar('train/loss', torch.tensor(float(step)))
        hub.update_scalar('train/time', np.float64(step))
    hub.update_info('iter', 3)
    hub.update_info('best', np.float32(0.5))
    hub.update_info('seed', np.int64(7))
    hub.update_info('done', np.bool_(True))
    path = tmp_path / 'epoch_1.pth'
    save_checkpoint(
        {
            'meta': dict(epoch=1, dataset_meta=dict(classes=('a',), palette=[(1, 2, 3)])),
            'state_dict': model.state_dict(),
            'message_hub': hub.state_dict(),
            'optimizer': optimizer.state_dict(),
            'param_schedulers': [scheduler.state_dict()],
        },
        str(path),
    )
    return path


class Evil:
    """Unpickling it would create a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, 'w')


# What the unpickler of PyTorch takes for the operations of a pickle.
def global_(module, name):
    return f'c{module}\n{name}\n'.encode()


def text(value):
    return b'X' + struct.pack('<I', len(value)) + value.encode()


def getattr_(owner, name):
    return global_('__builtin__', 'getattr') + owner + text(name) + b'\x86R'


def write_pickle(path, body):
    """Write a checkpoint around the operations of a hand-made pickle."""
    torch.save({}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in entries.items():
            if name.endswith('data.pkl'):
                content = b'\x80\x02' + body + b'.'
            archive.writestr(name, content)


def assert_is_the_checkpoint(loaded):
    assert loaded['meta']['epoch'] == 1
    assert loaded['state_dict']['weight'].shape == (1, 2)
    history = loaded['message_hub']['log_scalars']['train/loss']
    assert history.mean() == 1.0
    assert history.statistics('max') == 2.0
    assert loaded['message_hub']['runtime_info']['best'] == np.float32(0.5)
    assert loaded['param_schedulers'][0]['anneal_func'](0.0, 1.0, 1.0) == pytest.approx(1.0)


@pytest.mark.parametrize('trust', [False, True])
def test_own_checkpoint_loads(checkpoint, trust):
    enforce_safe_loading(trust)
    assert_is_the_checkpoint(load_checkpoint_file(checkpoint, trust))


def test_own_checkpoint_loads_through_mmengine_and_again(checkpoint):
    enforce_safe_loading()
    allow_mmengine_types()
    # The stack must not take our types off PyTorch's list when it is done.
    for _ in range(2):
        assert_is_the_checkpoint(CheckpointLoader.load_checkpoint(str(checkpoint)))
    assert_is_the_checkpoint(load_checkpoint_file(checkpoint))


@pytest.mark.parametrize('core', ['core', '_core'])
def test_arrays_of_either_numpy_load(tmp_path, checkpoint, core):
    with zipfile.ZipFile(checkpoint) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith('data.pkl'))
        body = archive.read(name)
        entries = {name: archive.read(name) for name in archive.namelist()}
    for written in (b'numpy._core.multiarray', b'numpy.core.multiarray'):
        body = body.replace(written + b'\n', f'numpy.{core}.multiarray\n'.encode())
    entries[name] = body
    path = tmp_path / 'other_numpy.pth'
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    assert_is_the_checkpoint(load_checkpoint_file(path))


def test_allowing_twice_changes_nothing():
    allow_mmengine_types()
    before = torch.serialization.get_safe_globals()
    allow_mmengine_types()
    assert len(torch.serialization.get_safe_globals()) == len(before)
    assert getattr not in before


def test_more_than_weights_is_refused_unless_trusted(tmp_path):
    path, made = tmp_path / 'evil.pth', tmp_path / 'made'
    torch.save({'state_dict': {}, 'extra': Evil(made)}, path)
    enforce_safe_loading()
    with pytest.raises(CheckpointError, match=r'holds \S*open, .*--trust-checkpoint') as error:
        load_checkpoint_file(path)
    assert str(path) in str(error.value)
    with pytest.raises(pickle.UnpicklingError):
        CheckpointLoader.load_checkpoint(str(path))
    assert not made.exists()
    enforce_safe_loading(trust=True)
    assert 'extra' in load_checkpoint_file(path, trust=True)
    assert made.exists()
    assert 'extra' in CheckpointLoader.load_checkpoint(str(path))


@pytest.mark.parametrize('variable', [None, FORCE_SAFE, FORCE_UNSAFE])
def test_trust_is_asked_for_each_time(tmp_path, monkeypatch, variable):
    """Whatever the variables say, the argument decides, and for one file alone."""
    if variable:
        monkeypatch.setenv(variable, '1')
    path = tmp_path / 'evil.pth'
    torch.save({'extra': Evil(tmp_path / 'made')}, path)
    before = dict(os.environ)
    with pytest.raises(CheckpointError, match='--trust-checkpoint'):
        load_checkpoint_file(path)
    assert not (tmp_path / 'made').exists()
    assert 'extra' in load_checkpoint_file(path, trust=True)
    assert dict(os.environ) == before


# A refusal of PyTorch's own, and the loaders of others that `import mmsnn` must close.
FOREIGN_LOADERS = {
    'torch.load': lambda path: torch.load(path, weights_only=False),
    'mmengine.load_checkpoint': lambda path: load_checkpoint(nn.Linear(2, 1), path),
    'Pretrained': lambda path: BaseModule(
        init_cfg=dict(type='Pretrained', checkpoint=path)
    ).init_weights(),
    'init_detector': lambda path: mmdet.apis.init_detector(DETECTOR, path, device='cpu'),
}
DETECTOR = str(
    Path(__file__).resolve().parents[2]
    / 'configs/digits/spiking-retinanet_sg-r10_asd_fpn_digits.py'
)


@pytest.mark.parametrize('name', FOREIGN_LOADERS)
def test_loaders_of_others_run_nothing(tmp_path, monkeypatch, name):
    path, made = str(tmp_path / 'evil.pth'), tmp_path / 'made'
    torch.save({'meta': {}, 'state_dict': {}, 'extra': Evil(made)}, path)
    load_safely_by_default()
    with pytest.raises(pickle.UnpicklingError):
        FOREIGN_LOADERS[name](path)
    assert not made.exists()


def test_the_payload_is_real(tmp_path, monkeypatch):
    """Who has set a variable has decided: the same file runs, so the tests above can fail."""
    monkeypatch.setenv(FORCE_UNSAFE, '1')
    load_safely_by_default()
    assert FORCE_SAFE not in os.environ
    path, made = str(tmp_path / 'evil.pth'), tmp_path / 'made'
    torch.save({'meta': {}, 'state_dict': {}, 'extra': Evil(made)}, path)
    FOREIGN_LOADERS['mmengine.load_checkpoint'](path)
    assert made.exists()


def test_import_closes_them():
    """`import mmsnn` calls the set-up."""
    setup()
    assert (os.environ.get(FORCE_SAFE), os.environ.get(FORCE_UNSAFE)) == ('1', None)


def test_an_address_is_loaded_as_carefully(tmp_path, monkeypatch):
    """By MMEngine, from its cache here; with the same refusal."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    cache = tmp_path / 'hub/checkpoints'
    cache.mkdir(parents=True)
    torch.save({'state_dict': {}}, cache / 'plain.pth')
    torch.save({'state_dict': {}, 'extra': Evil(tmp_path / 'made')}, cache / 'evil.pth')
    assert load_checkpoint_file('https://example.invalid/plain.pth') == {'state_dict': {}}
    with pytest.raises(CheckpointError, match=r'invalid/evil\.pth: holds \S*open'):
        load_checkpoint_file('https://example.invalid/evil.pth')
    assert not (tmp_path / 'made').exists()
    assert 'extra' in load_checkpoint_file('https://example.invalid/evil.pth', trust=True)


@pytest.mark.parametrize(('content', 'damaged'), [(b'', True), (b'text', True), (None, False)])
def test_damage_is_told_from_other_refusals(tmp_path, content, damaged):
    path = tmp_path / 'model.pth'
    if content is None:
        torch.save({'extra': Evil(tmp_path / 'made')}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint_file(path)
    assert isinstance(error.value, DamagedCheckpointError) == damaged


def test_getattr_leads_nowhere(tmp_path):
    """With the real ``getattr`` this file would hold the built-in functions."""
    buffer = global_('mmengine.logging.history_buffer', 'HistoryBuffer')
    namespace = getattr_(getattr_(buffer, '__init__'), '__globals__')
    found = (
        global_('torch._tensor', '_rebuild_from_type_v2')
        + b'('
        + getattr_(namespace, 'get')
        + getattr_(namespace, '__class__')
        + text('__builtins__')
        + b'\x85}tR'
    )
    path = tmp_path / 'getattr.pth'
    write_pickle(path, found)
    enforce_safe_loading()
    with pytest.raises(CheckpointError, match=r'holds getattr\(.*__init__.*--trust-checkpoint'):
        load_checkpoint_file(path)
    with pytest.raises(pickle.UnpicklingError):
        CheckpointLoader.load_checkpoint(str(path))


def test_truncated_file_is_named_as_such(checkpoint):
    whole = checkpoint.read_bytes()
    for length in (1, 3, 4, 100, len(whole) // 2, len(whole) - 1):
        checkpoint.write_bytes(whole[:length])
        for trust in (False, True):
            with pytest.raises(DamagedCheckpointError, match='truncated') as error:
                load_checkpoint_file(checkpoint, trust)
            assert str(checkpoint) in str(error.value)


def test_a_file_cut_anywhere_is_named_as_such(tmp_path):
    """Its size decides what PyTorch and zip stumble over."""
    path = tmp_path / 'epoch_1.pth'
    save_checkpoint({f'key {i}': torch.zeros(100) for i in range(40)}, str(path))
    whole = path.read_bytes()
    for length in range(1, len(whole), 211):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedCheckpointError, match='truncated'):
            load_checkpoint_file(path)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'no such checkpoint file'),
        (b'', 'is empty'),
        (b'model = dict()\n', 'another kind of file'),
        (b'\x89PNG\r\n\x1a\n' + bytes(100), 'another kind of file'),
    ],
)
def test_what_is_no_checkpoint_is_named_as_such(tmp_path, content, message):
    path = tmp_path / 'model.pth'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint_file(path)
    assert str(path) in str(error.value)
    # No page of PyTorch's advice.
    assert len(str(error.value).splitlines()) == 1


def test_folder_and_other_archive_and_bare_tensor_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match='no such checkpoint file'):
        load_checkpoint_file(tmp_path)
    with zipfile.ZipFile(tmp_path / 'other.zip', 'w') as archive:
        archive.writestr('readme', 'text')
    with pytest.raises(CheckpointError, match='another kind of file'):
        load_checkpoint_file(tmp_path / 'other.zip')
    torch.save(torch.zeros(1), tmp_path / 'tensor.pth')
    with pytest.raises(CheckpointError, match='holds a Tensor'):
        load_checkpoint_file(tmp_path / 'tensor.pth')


def test_missing_class_of_a_trusted_file_is_named(tmp_path):
    path = tmp_path / 'model.pth'
    write_pickle(path, global_('no_such_package.models', 'Model'))
    with pytest.raises(CheckpointError, match=r'holds no_such_package\.models\.Model'):
        load_checkpoint_file(path)
    with pytest.raises(CheckpointError, match=r"not installed here: .*'no_such_package'"):
        load_checkpoint_file(path, trust=True)


class Detector(nn.Module):
    def __init__(self, num_classes=3, width=4, depth=1):
        super().__init__()
        self.backbone = nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))
        self.norm = nn.BatchNorm1d(width)
        self.bbox_head = nn.ModuleDict({'fc_cls': nn.Linear(width, num_classes)})


@pytest.mark.parametrize('wrap', [dict, lambda state: {'state_dict': state, 'meta': {}}])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_fitting_checkpoint_passes(wrap, prefix):
    model = Detector()
    state = {prefix + key: value for key, value in Detector().state_dict().items()}
    # MMEngine does not miss these either.
    del state[f'{prefix}norm.num_batches_tracked']
    check_state_dict(model, wrap(state), 'epoch_1.pth')
    check_state_dict(model.state_dict(), wrap(state), 'epoch_1.pth')


def test_other_architecture_is_counted_and_shown():
    checkpoint = {'state_dict': Detector(depth=3, width=4).state_dict()}
    with pytest.raises(CheckpointError) as error:
        check_state_dict(Detector(depth=1), checkpoint, 'epoch_1.pth')
    message = str(error.value)
    assert 'epoch_1.pth: is of another architecture' in message
    assert '0 missing, 4 unexpected and 0 wrong-shape keys' in message
    assert 'unexpected: backbone.1.weight (4, 4); backbone.1.bias (4,); ' in message
    assert '; and 1 more' in message
    assert 'Use the config the checkpoint was trained with' in message
    with pytest.raises(CheckpointError, match='4 missing, 0 unexpected'):
        check_state_dict(Detector(depth=3), Detector(depth=1).state_dict(), 'epoch_1.pth')


def test_other_number_of_classes_is_hinted_at():
    with pytest.raises(CheckpointError) as error:
        check_state_dict(Detector(3), Detector(20).state_dict(), 'epoch_1.pth')
    message = str(error.value)
    assert '2 wrong-shape keys' in message
    assert 'bbox_head.fc_cls.weight (20, 4), model (3, 4)' in message
    assert 'num_classes' in message
    with pytest.raises(CheckpointError) as error:
        check_state_dict(Detector(width=4), Detector(width=5).state_dict(), 'epoch_1.pth')
    assert 'backbone.0.weight (5, 5), model (4, 4)' in str(error.value)


@pytest.mark.parametrize('checkpoint', [{}, {'meta': {'epoch': 1}}, {'state_dict': [1]}])
def test_checkpoint_without_weights_is_refused(checkpoint):
    with pytest.raises(CheckpointError, match='holds no weights'):
        check_state_dict(Detector(), checkpoint, 'epoch_1.pth')


def test_environment_variables_never_contradict():
    enforce_safe_loading()
    assert os.environ[FORCE_SAFE] == '1'
    assert FORCE_UNSAFE not in os.environ
    enforce_safe_loading(trust=True)
    assert os.environ[FORCE_UNSAFE] == '1'
    assert FORCE_SAFE not in os.environ
    enforce_safe_loading()
    assert FORCE_UNSAFE not in os.environ


def test_load_weights(tmp_path):
    """All weights, from a parallel wrapper's checkpoint too; or an error, and nothing changed."""
    saved, model = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3)
    state = {f'module.{key}': value for key, value in saved.state_dict().items()}
    torch.save(dict(state_dict=state, meta=dict(epoch=3)), tmp_path / 'whole.pth')
    assert load_weights(model, tmp_path / 'whole.pth')['meta'] == dict(epoch=3)
    assert torch.equal(model.weight, saved.weight)

    torch.save(dict(state_dict=dict(weight=torch.zeros(2, 1, 3, 3))), tmp_path / 'half.pth')
    with pytest.raises(CheckpointError, match='another architecture'):
        load_weights(model, tmp_path / 'half.pth')
    assert torch.equal(model.weight, saved.weight)
