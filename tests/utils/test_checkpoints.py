"""What `--resume` goes on from: the newest that is whole, or a refusal; never over another run."""

import shutil

import pytest
import torch
from mmengine.config import Config

from mmsnn.compat import CheckpointError
from mmsnn.utils import ToolError, check_pretrained, find_start


def save(path, epoch, **more):
    path.parent.mkdir(exist_ok=True)
    content = dict(meta=dict(epoch=epoch, iter=epoch * 4), message_hub={}, optimizer={}, **more)
    torch.save(content, path)


def cut(path):
    path.write_bytes(path.read_bytes()[:200])


@pytest.fixture
def run(tmp_path):
    """A finished run of eleven epochs, of which the last four are kept."""
    work_dir = tmp_path / 'run'
    for epoch in (8, 9, 10, 11):
        save(work_dir / f'epoch_{epoch}.pth', epoch)
    save(work_dir / 'best_acc_epoch_9.pth', 9)
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_11.pth'))
    return work_dir


def start(work_dir, resume=True, load_from=None, **more):
    cfg = Config(dict(work_dir=str(work_dir), resume=resume, load_from=load_from, **more))
    before = sorted((p, p.stat().st_mtime_ns) for p in work_dir.rglob('*'))
    found = find_start(cfg)
    assert sorted((p, p.stat().st_mtime_ns) for p in work_dir.rglob('*')) == before
    # The runner does as it was found, and looks for nothing itself.
    if resume:
        assert (cfg.resume, cfg.load_from) == (found is not None, found and found.path)
    return found and found.content['meta']['epoch']


def test_the_one_that_was_saved_last(run, capsys):
    assert start(run) == 11
    (run / 'last_checkpoint').write_text(str(run / 'epoch_9.pth'))
    assert start(run) == 9, 'after going back, the last saved is not the highest'
    assert 'resumed from the latest checkpoint' in capsys.readouterr().out


@pytest.mark.parametrize('pointer', [None, '', '\n', '/moved/away/epoch_12.pth'])
def test_without_a_pointer_the_highest(run, pointer):
    if pointer is None:
        (run / 'last_checkpoint').unlink()
    else:
        (run / 'last_checkpoint').write_text(pointer)
    # Not the latest time: copying changes it. Not the last by alphabet, which is epoch_9.
    save(run / 'epoch_9.pth', 9)
    assert start(run) == 11


def test_a_moved_folder(run, tmp_path):
    (run / 'last_checkpoint').write_text(str(run / 'epoch_10.pth'))
    moved = tmp_path / 'elsewhere'
    shutil.copytree(run, moved)
    save(run / 'epoch_10.pth', 99)
    assert start(moved) == 10, 'not the one that the pointer names, which is of the other run'
    shutil.rmtree(run)
    assert start(moved) == 10


def test_a_damaged_one_is_said_and_passed_over(run, capsys):
    cut(run / 'epoch_11.pth')
    (run / 'epoch_10.pth').write_bytes(b'')
    assert start(run) == 9
    said = capsys.readouterr().out
    assert 'epoch_11.pth: not a readable checkpoint' in said
    assert 'epoch_9.pth is the newest that is whole' in said


class Code:
    def __reduce__(self):
        return print, ('code',)


def test_one_that_needs_trust_is_not_passed_over(run):
    save(run / 'epoch_11.pth', 11, extra=Code())
    with pytest.raises(CheckpointError, match=r'epoch_11\.pth: holds .*--trust-checkpoint'):
        start(run)


def test_none_that_is_whole(run, tmp_path):
    for path in run.glob('epoch_*'):
        cut(path)
    with pytest.raises(ToolError, match=r'no checkpoint that training could go on from.*--resume'):
        start(run)
    for path in run.glob('epoch_*'):
        path.unlink()
    with pytest.raises(ToolError, match=r'names .*epoch_11\.pth, which is not there'):
        start(run)
    (run / 'last_checkpoint').unlink()
    with pytest.raises(ToolError, match=r'best_acc_epoch_9\.pth holds weights alone'):
        start(run)
    torch.save(dict(meta={}, state_dict={}), run / 'epoch_11-1a2b3c4d.pth')
    with pytest.raises(ToolError, match=r'1a2b3c4d\.pth: holds weights, but not the state'):
        start(run)


def test_where_no_run_has_been(tmp_path, capsys):
    assert start(tmp_path) is None
    assert 'training starts anew' in capsys.readouterr().out


def test_the_folder_of_the_hook(run, tmp_path):
    (tmp_path / 'work/run').mkdir(parents=True)
    hooks = dict(checkpoint=dict(type='CheckpointHook', out_dir=str(tmp_path)))
    work_dir = tmp_path / 'work/run'
    assert start(work_dir, default_hooks=hooks) == 11
    with pytest.raises(ToolError, match='another run'):
        start(work_dir, resume=False, default_hooks=hooks)


def test_a_new_run_overwrites_nothing(run, tmp_path):
    other = tmp_path / 'other/epoch_3.pth'
    save(other, 3)
    for load_from in (None, str(other), str(run / 'epoch_8.pth')):
        with pytest.raises(ToolError, match='holds the checkpoints of another run'):
            start(run, resume=False, load_from=load_from)
    with pytest.raises(ToolError, match='holds the checkpoints of another run'):
        start(run, load_from=str(other))
    new = tmp_path / 'new'
    new.mkdir()
    assert start(new, load_from=str(other)) == 3
    assert start(new, resume=False, load_from=str(other)) == 3


def test_going_back_is_said(run, capsys):
    assert start(run, load_from=str(run / 'epoch_9.pth')) == 9
    assert 'it overwrites epoch_11.pth, epoch_10.pth' in capsys.readouterr().out
    assert start(run, load_from=str(run / 'epoch_11.pth')) == 11
    assert 'overwrites' not in capsys.readouterr().out


def test_resuming_runs_no_config(run, tmp_path):
    """MMEngine's resume gives meta['config'] to Python."""
    content = dict(meta=dict(epoch=1, iter=1, config='open("made", "w")'), message_hub={})
    torch.save(content, run / 'epoch_12.pth')
    for load_from in (None, str(run / 'epoch_12.pth')):
        (run / 'last_checkpoint').unlink(missing_ok=True)
        with pytest.raises(CheckpointError, match=r"meta\['config'\] .*Python"):
            start(run, load_from=load_from)


def test_weights_alone(run):
    torch.save(dict(state_dict={}), run / 'weights.pth')
    with pytest.raises(CheckpointError, match=r'weights\.pth: holds weights, but not the state'):
        start(run, load_from=str(run / 'weights.pth'))


@pytest.mark.parametrize('address', [True, False])
@pytest.mark.parametrize('damage', ['gone', 'cut', 'code'])
def test_pretrained_parts_are_looked_at_first(tmp_path, monkeypatch, damage, address):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    path = tmp_path / 'hub/checkpoints/backbone.pth'
    path.parent.mkdir(parents=True)
    name = 'https://localhost:1/backbone.pth' if address else str(path)
    init_cfg = [dict(type='Constant'), dict(type='Pretrained', checkpoint=name)]
    cfg = Config(dict(model=dict(parts=[dict(type='A'), dict(type='B', init_cfg=init_cfg)])))
    torch.save(dict(state_dict={}, extra=Code() if damage == 'code' else 0), path)
    if damage == 'gone':
        path.unlink()
    if damage == 'cut':
        cut(path)
    with pytest.raises(CheckpointError, match=r'backbone\.pth'):
        check_pretrained(cfg)
    torch.save(dict(state_dict={}), path)
    check_pretrained(cfg)
