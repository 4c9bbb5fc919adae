"""MMDetection's own tools, called through ours."""

import json
import sys

import pytest

DIGITS = 'configs/digits/spiking-retinanet_sg-r10_asd_fpn_digits.py'


def test_print_config(tool):
    done = tool('misc/print_config.py', DIGITS)
    assert "type='SpikingRetinaNet'" in done.stdout
    assert 'AnchorGenerator' in done.stdout, 'what it inherits'


def test_browse_dataset(tool, digits_root, tmp_path):
    options = ['--output-dir', tmp_path, '--not-show', '--show-interval', 0]
    tool('analysis_tools/browse_dataset.py', DIGITS, *options, MMSNN_DIGITS_ROOT=digits_root)
    assert len(list(tmp_path.iterdir())) == 32


@pytest.mark.parametrize('task', ['cal_train_time', 'plot_curve'])
def test_analyze_logs(tool, tmp_path, task):
    log = tmp_path / 'scalars.json'
    rows = [dict(epoch=e, iter=i, step=i, loss=1 / i, time=0.5) for e in (1, 2) for i in (1, 2, 3)]
    log.write_text('\n'.join(map(json.dumps, rows)) + '\n')
    options = ['--keys', 'loss', '--out', tmp_path / 'curve.png'] if task == 'plot_curve' else []
    done = tool('analysis_tools/analyze_logs.py', task, log, *options)
    if task == 'plot_curve':
        assert (tmp_path / 'curve.png').read_bytes().startswith(b'\x89PNG')
    else:
        assert 'average iter time: 0.5000 s/iter' in done.stdout


def test_what_a_tool_lacks(monkeypatch, tmp_path):
    import mmdet

    from mmsnn.utils import run_mmdet_tool

    (tmp_path / '.mim/tools').mkdir(parents=True)
    (tmp_path / '.mim/tools/x.py').write_text('import no_such_module\n')
    monkeypatch.setattr(mmdet, '__file__', str(tmp_path / '__init__.py'))
    monkeypatch.setattr('sys.argv', ['x.py'])
    monkeypatch.setattr('sys.path', [*sys.path])
    with pytest.raises(SystemExit) as end:
        run_mmdet_tool('x.py')
    assert "MMDetection's x.py needs no_such_module: pip install no_such_module" in str(end.value)


def test_a_missing_tool_says_so():
    from mmsnn.utils import run_mmdet_tool

    with pytest.raises(SystemExit) as end:
        run_mmdet_tool('misc/no_such.py')
    assert 'comes without its tools' in str(end.value)
