"""`mmsnn doctor` says what is there, and comes to its end where something is missing."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mmsnn
import mmsnn_cli
from mmsnn.ops import dispatch
from mmsnn_cli import doctor

ROOT = Path(__file__).resolve().parents[2]


def install(folder, name, version):
    """What `importlib.metadata` finds of an installed distribution."""
    info = folder / f'{name.replace("-", "_")}-{version}.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')


def by_name():
    return {finding.what: finding for finding in doctor.examine()}


def test_this_machine(capsys):
    mmsnn_cli.main(['doctor'])
    lines = capsys.readouterr().out.splitlines()
    said = {line[:13].strip(): line[13:] for line in lines if line[:13].strip()}
    assert said['mmsnn'].endswith(str(Path(mmsnn.__file__).parent))
    assert said['torch'] == torch.__version__
    assert 'mmengine' in said['stack']
    assert said['threads'].startswith(f'{torch.get_num_threads()} on ')
    kernels = 'not used' if dispatch.why_not('c') else 'C: built'
    assert said['kernels'].startswith(kernels)
    assert said['precisions'].startswith('fp32, bf16')
    assert said['configs'].startswith(f'{len(list(ROOT.glob("configs/[!_]*/*.py")))} in ')
    assert len(said) >= 11
    assert len(lines) <= 20
    assert not any('MEND' in line for line in lines)


def test_hidden_units_and_kernels_are_said(monkeypatch):
    monkeypatch.setitem(dispatch._tried, 'c', 'no compiler')
    monkeypatch.setattr(mmsnn.ops.units, 'NEWEST', 'avx2')
    found = by_name()
    assert found['kernels'].said == 'not used, slower: no compiler'
    assert 'C compiler' in found['kernels'].mend
    assert 'MMSNN_CPU_ISA=avx2' in found['CPU units'].said


@pytest.mark.parametrize(
    ('extra', 'said'),
    [
        (('onedl-mmdetection', 'mmdet'), 'onedl-mmdetection 1.0 and mmdet 1.0 are both installed'),
        (('onedl-mmcv', 'mmcv-lite'), 'onedl-mmcv 1.0 and mmcv-lite 1.0 are both installed'),
        (('mmcv', 'mmcv-lite'), 'mmcv 1.0 and mmcv-lite 1.0 are both installed'),
        (('mmdet', 'onedl-mmengine'), 'parts of two stacks are mixed: onedl-mmengine, mmdet'),
    ],
)
def test_two_stacks(extra, said, monkeypatch, tmp_path):
    for name in extra:
        install(tmp_path, name, '1.0')
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    (finding,) = [f for f in doctor.check_stack() if f.what == 'stack']
    assert finding.broken
    assert finding.mend.startswith(said)
    assert all(name in finding.mend.partition('pip uninstall -y ')[2] for name in extra)
    logged = []
    monkeypatch.setattr(mmsnn.compat, 'print_log', lambda text, **_: logged.append(text))
    mmsnn.compat.warn_of_two_stacks()
    assert logged == [f'mmsnn: {finding.mend}']


@pytest.mark.parametrize('names', [(), ('mmdet', 'mmcv-lite', 'mmengine'), ('onedl-mmengine',)])
def test_one_stack_is_no_problem(names, monkeypatch, tmp_path):
    for name in names:
        install(tmp_path, name, '1.0')
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    assert mmsnn.compat.stack_problem() == ''


def test_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch', None)
    found = {finding.what: finding for finding in doctor.check_versions()}
    assert found['torch'].said.startswith('cannot be imported: ')
    assert found['torch'].broken


def test_a_look_that_fails_is_a_finding(monkeypatch):
    def check_gpu():
        raise RuntimeError('driver\nis old')

    monkeypatch.setattr(doctor, 'AFTER_IMPORT', (check_gpu,))
    assert by_name()['gpu'].said == 'cannot be looked at: RuntimeError: driver is old'


def test_without_the_stack():
    code = "import sys; sys.modules['mmdet'] = None; import mmsnn_cli; mmsnn_cli.main()"
    for command, said in (
        ('doctor', "MEND mmdet missing: pip install 'mmsnn[onedl]'"),
        ('train', 'error: mmsnn train cannot be imported: mmsnn needs the MMDetection stack'),
    ):
        done = subprocess.run(
            [sys.executable, '-c', code, command], cwd=ROOT, text=True, capture_output=True
        )
        assert done.returncode == 1
        assert said in done.stdout + done.stderr
        assert 'Traceback' not in done.stderr
