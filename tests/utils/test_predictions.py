"""Saved predictions are data: what a file could run is refused."""

import pickle
import runpy
import sys
from pathlib import Path

import mmengine
import numpy as np
import pytest
import torch
from mmdet.evaluation import DumpDetResults
from mmengine.fileio import handlers

from mmsnn.utils import ToolError, load_predictions, read_pickles_safely

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


class Evil:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        import os

        return os.mkdir, (self.path,)


class EvilStorage:
    """The same inside of the bytes of a tensor, which PyTorch unpickles by itself."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import io

        content = io.BytesIO()
        torch.save(Evil(self.path), content, _use_new_zipfile_serialization=False)
        return torch.storage._load_from_bytes, (content.getvalue(),)


@pytest.fixture
def saved(tmp_path):
    """What MMDetection writes for a detector with masks."""
    path = tmp_path / 'found.pkl'
    metric = DumpDetResults(str(path))
    sample = dict(
        img_id=3,
        img_path='a.png',
        ori_shape=(4, 5),
        scale_factor=(np.float64(1.5), 1.5),
        homography_matrix=np.eye(3, dtype=np.float32),
        flip=np.bool_(False),
        pred_instances=dict(
            bboxes=torch.rand(2, 4),
            labels=torch.tensor([0, 7]),
            scores=torch.tensor([0.5, 0.25], dtype=torch.bfloat16),
            masks=torch.ones(2, 4, 5, dtype=torch.bool),
        ),
        gt_instances=dict(bboxes=torch.rand(1, 4)),
    )
    metric.process({}, [sample])
    metric.evaluate(1)
    return path


def test_what_mmdetection_writes_loads(saved):
    (found,) = load_predictions(saved)
    (plain,) = pickle.loads(saved.read_bytes())
    assert found.keys() == plain.keys()
    assert found['pred_instances'].keys() == plain['pred_instances'].keys()
    for key in ('bboxes', 'labels', 'scores'):
        assert torch.equal(found['pred_instances'][key], plain['pred_instances'][key])
        assert found['pred_instances'][key].dtype == plain['pred_instances'][key].dtype
    assert found['pred_instances']['masks'] == plain['pred_instances']['masks']
    assert np.array_equal(found['homography_matrix'], np.eye(3))
    assert found['scale_factor'] == (1.5, 1.5)
    for protocol in (2, 4, 5):
        saved.write_bytes(pickle.dumps([plain], protocol=protocol))
        assert load_predictions(saved)[0]['img_id'] == 3


@pytest.fixture(params=[Evil, EvilStorage])
def evil(request, tmp_path):
    path = tmp_path / 'evil.pkl'
    path.write_bytes(pickle.dumps([dict(img_id=request.param(tmp_path / 'made'))], protocol=2))
    yield path
    assert not (tmp_path / 'made').exists()


def test_code_is_not_run(evil):
    with pytest.raises(ToolError, match=r'evil\.pkl (holds|is truncated).*test\.py --out') as error:
        load_predictions(evil)
    assert '\n' not in str(error.value)


def test_the_payload_is_real(tmp_path, monkeypatch):
    for name in ('TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'):
        monkeypatch.delenv(name, raising=False)
    for kind in (Evil, EvilStorage):
        made = tmp_path / kind.__name__
        pickle.loads(pickle.dumps(kind(made)))
        assert made.is_dir()


def test_code_is_not_run_by_the_tools(evil, monkeypatch):
    for script in ('draw_predictions.py', 'confusion_matrix.py'):
        config = TOOLS.parent / 'configs/digits/spiking-retinanet_sg-r10_asd_fpn_digits.py'
        arguments = [script, config, evil, evil.parent / 'out']
        monkeypatch.setattr(sys, 'argv', [str(argument) for argument in arguments])
        monkeypatch.setattr(sys, 'path', [*sys.path])
        with monkeypatch.context() as patch:
            for name in ('pkl', 'pickle'):
                patch.setitem(handlers.file_handlers, name, handlers.file_handlers[name])
            with pytest.raises(SystemExit, match=r'error: .*(holds|truncated)'):
                runpy.run_path(str(TOOLS / 'analysis_tools' / script), run_name='__main__')


def test_objects_in_arrays_are_refused(tmp_path):
    path = tmp_path / 'found.pkl'
    path.write_bytes(pickle.dumps([dict(a=np.array([{}], dtype=object))]))
    with pytest.raises(ToolError, match='holds an array of object'):
        load_predictions(path)


@pytest.mark.parametrize('content', [b'', b'\x80\x02', b'text', pickle.dumps({'a': 1})])
def test_what_is_no_file_of_predictions(tmp_path, content):
    path = tmp_path / 'found.pkl'
    path.write_bytes(content)
    with pytest.raises(ToolError, match=r'found\.pkl (is truncated|holds no list)') as error:
        load_predictions(path)
    assert '\n' not in str(error.value)
    path.unlink()
    with pytest.raises(ToolError, match=r'found\.pkl cannot be read: No such file'):
        load_predictions(path)


def test_mmengine_reads_as_carefully_when_told(saved, evil, monkeypatch):
    for name in ('pkl', 'pickle'):
        handler = handlers.file_handlers[name]
        monkeypatch.setitem(handlers.file_handlers, name, handler)
    read_pickles_safely()
    with pytest.raises(ToolError, match=r'pkl file (holds|is truncated)'):
        mmengine.load(str(evil))
    assert mmengine.load(str(saved))[0]['img_id'] == 3
    copy = saved.with_suffix('.pickle')
    mmengine.dump(mmengine.load(str(saved)), str(copy))
    assert load_predictions(copy)[0]['img_id'] == 3


def publish(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['publish_model.py', *map(str, arguments)])
    monkeypatch.setattr(sys, 'path', [*sys.path])
    for name in ('TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'):
        monkeypatch.setenv(name, '0')
    runpy.run_path(str(TOOLS / 'model_converters/publish_model.py'), run_name='__main__')


def test_publishing_runs_nothing_either(tmp_path, monkeypatch):
    path, made = tmp_path / 'evil.pth', tmp_path / 'made'
    torch.save(dict(meta={}, state_dict={}, extra=Evil(made)), path)
    with pytest.raises(SystemExit, match=r'error: .*evil\.pth: holds posix\.mkdir.*--trust-check'):
        publish(monkeypatch, path, tmp_path / 'out.pth')
    assert not made.exists()
    assert not list(tmp_path.glob('out*'))
    with pytest.raises(FileExistsError):  # it is read twice, and makes its folder each time
        publish(monkeypatch, path, tmp_path / 'out.pth', '--trust-checkpoint')
    assert made.is_dir()
