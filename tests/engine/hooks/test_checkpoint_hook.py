"""A run that dies while it saves loses none of its checkpoints."""

import errno
import os
import resource
from pathlib import Path

import mmengine.hooks
import pytest
import torch
from mmdet.registry import HOOKS
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmsnn.engine import CheckpointHook
from mmsnn.engine.hooks.checkpoint_hook import WholeFileBackend


@pytest.fixture
def small_disk():
    """No file may grow beyond 100 kB: writing more fails in the middle, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_written_whole_or_not_at_all(tmp_path, small_disk):
    path = tmp_path / 'new' / 'epoch_1.pth'
    backend = WholeFileBackend()
    backend.put(b'old', path)
    with pytest.raises(OSError, match='epoch_1') as error:
        backend.put(bytes(200_000), path)
    assert error.value.errno == errno.EFBIG
    assert path.read_bytes() == b'old'
    assert os.listdir(path.parent) == ['epoch_1.pth'], 'no half of a file'
    backend.put(b'newer', path)
    assert path.read_bytes() == b'newer'
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask, 'others can read it as before'


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / 'disk').mkdir()
    link = tmp_path / 'epoch_1.pth'
    link.symlink_to(tmp_path / 'disk/file.pth')
    WholeFileBackend().put(b'new', link)
    assert link.is_symlink()
    assert (tmp_path / 'disk/file.pth').read_bytes() == b'new'


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs, mode='tensor'):
        return dict(loss=(self.weight * torch.stack(inputs)).sum()) if mode == 'loss' else [0]


class Data(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return dict(inputs=torch.ones(1))


class Score(BaseMetric):
    """Better at every epoch."""

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        self.epochs = getattr(self, 'epochs', 0) + 1
        return dict(acc=self.epochs)


def train(work_dir, epochs, resume=None, **options):
    loader = dict(dataset=Data(), sampler=dict(type='DefaultSampler'), batch_size=1)
    runner = Runner(
        Model(),
        str(work_dir),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=1),
        val_dataloader=loader,
        val_cfg=dict(),
        val_evaluator=[Score()],
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(
            checkpoint=dict(
                type='CheckpointHook', interval=1, max_keep_ckpts=1, save_best='acc', **options
            )
        ),
        default_scope='mmdet',
        resume=resume is not None,
        load_from=resume and str(resume),
        experiment_name=f'{work_dir}-{epochs}',
        log_level='ERROR',
    )
    runner.train()
    return runner


def names(folder):
    return sorted(path.name for path in Path(folder).glob('*.pth*'))


def test_configs_get_it(tmp_path):
    assert HOOKS.get('CheckpointHook') is CheckpointHook
    runner = train(tmp_path, 3)
    assert sum(isinstance(hook, mmengine.hooks.CheckpointHook) for hook in runner.hooks) == 1
    assert any(isinstance(hook, CheckpointHook) for hook in runner.hooks)
    assert names(tmp_path) == ['best_acc_epoch_3.pth', 'epoch_3.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_3.pth')


def test_the_old_one_stays_where_saving_fails(tmp_path, monkeypatch):
    whole = WholeFileBackend.put

    def put(self, obj, filepath):
        if 'epoch_2' in str(filepath):
            raise OSError(errno.ENOSPC, 'No space left on device', str(filepath))
        whole(self, obj, filepath)

    monkeypatch.setattr(WholeFileBackend, 'put', put)
    with pytest.raises(OSError, match='No space'):
        train(tmp_path, 3)
    assert names(tmp_path) == ['best_acc_epoch_1.pth', 'epoch_1.pth']
    assert torch.load(tmp_path / 'epoch_1.pth', weights_only=True)['meta']['epoch'] == 1


def test_a_copied_run_touches_nothing_of_the_first(tmp_path):
    """MMEngine would delete the first one's best checkpoint when the copy finds a better one."""
    first, copy = tmp_path / 'first', tmp_path / 'copy'
    train(first, 1)
    before = names(first)
    copy.mkdir()
    for name in before:
        (copy / name).write_bytes((first / name).read_bytes())
    hub = MessageHub.get_instance(f'{copy}-3')
    assert not hub.runtime_info
    train(copy, 3, resume=copy / 'epoch_1.pth')
    assert names(first) == before
    # The resumed metric counts from 1 again: better than the old best at its second epoch.
    assert names(copy) == ['best_acc_epoch_3.pth', 'epoch_3.pth']


@pytest.mark.parametrize('options', [dict(out_dir='OUT'), dict(backend_args=dict(backend='local'))])
def test_where_it_is_told_otherwise(tmp_path, options):
    options = {k: str(tmp_path / 'out') if v == 'OUT' else v for k, v in options.items()}
    train(tmp_path / 'run', 2, **options)
    folder = tmp_path / 'out/run' if 'out_dir' in options else tmp_path / 'run'
    assert names(folder) == ['best_acc_epoch_2.pth', 'epoch_2.pth']
