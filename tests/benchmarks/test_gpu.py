"""`make gpu` without a GPU, and what it writes of runs that pass and fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import bench
import gpu
import machine
import pytest
import torch

from mmsnn_cli import demo

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_without_a_gpu_it_ends_in_one_line():
    with pytest.raises(SystemExit, match=r'^make gpu: PyTorch .* sees no GPU; CONTRIBUTING.md'):
        gpu.main()


@pytest.mark.skipif(not shutil.which('make'), reason='needs make')
def test_without_a_driver_nothing_is_installed(tmp_path):
    tool = tmp_path / 'make'
    tool.symlink_to(shutil.which('make'))
    (tmp_path / 'sh').symlink_to(shutil.which('sh'))
    done = subprocess.run(
        [tool, '-C', ROOT, 'gpu', f'VENV={tmp_path}/venv'],
        env={**os.environ, 'PATH': str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith('make gpu: no GPU here: there is no nvidia-smi\n')
    assert not list(tmp_path.glob('venv*'))


def test_a_step_that_fails_is_said_and_the_others_are_run(tmp_path, monkeypatch, capsys):
    def step(name, code):
        return gpu.Step(name, ['-c', code], 'mAP')

    def steps(folder):
        return [
            step('tests', "print('mAP 0.5'); print('and more')"),
            step('bench', "raise RuntimeError('no memory on the GPU')"),
            step('training', "print('mAP 0.7')"),
        ]

    monkeypatch.setattr(gpu, 'steps', steps)
    monkeypatch.setattr(gpu, 'ROOT', tmp_path)
    monkeypatch.setattr(gpu, 'PAGE', tmp_path / 'gpu.md')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    facts = dict(
        gpu='A GPU', cpu='a CPU', system='Linux', python=sys.version, versions={'torch': '1'},
        commit='abc', kernels={'triton': 'ready'},
    )  # fmt: skip
    monkeypatch.setattr(machine, 'facts', lambda: facts)
    with pytest.raises(SystemExit, match=r'^make gpu: failed: bench$'):
        gpu.main()
    said = capsys.readouterr().out
    assert 'FAILED with status 1 after 0.0 minutes: RuntimeError: no memory on the GPU' in said
    page = (tmp_path / 'gpu.md').read_text()
    results = [line.split(' | ')[2] for line in page.splitlines() if '`python -c' in line]
    assert results == ['passed', '**failed**, status 1', 'passed']
    assert 'A GPU' in page
    assert '## Tests\n\n```text\nmAP 0.5\n```\n' in page
    assert '\nand more' not in page
    assert len(list(tmp_path.glob('work_dirs/gpu-*/*.log'))) == 3


def test_table_of_the_bench():
    row = dict(title='inference: depth 18', dtype='fp32', time_steps=4, ms=2.0, memory_mb=None)
    rows = [
        dict(row, network='mmsnn', ratios={'x SpikingJelly fp32': 0.5}),
        dict(row, network='SpikingJelly', ms=4.0, memory_mb=12.5, ratios={}),
        dict(row, title='neuron', network='mmsnn', ratios={'x copy': 3.0}),
    ]
    table = '\n'.join(gpu.bench_table(rows))
    assert (
        table
        == """
**inference: depth 18**

| network | dtype | T | ms | MB | x SpikingJelly fp32 |
| --- | --- | --- | --- | --- | --- |
| mmsnn | fp32 | 4 | 2.00 |  | 0.50 |
| SpikingJelly | fp32 | 4 | 4.00 | 12.50 |  |

**neuron**

| network | dtype | T | ms | MB | x copy |
| --- | --- | --- | --- | --- | --- |
| mmsnn | fp32 | 4 | 2.00 |  | 3.00 |"""
    )


def test_its_commands_are_there(tmp_path, monkeypatch):
    """As far as that can be known without a GPU."""
    steps = {step.name: step.command for step in gpu.steps(tmp_path)}
    for command in steps.values():
        assert all((ROOT / word).is_file() for word in command if word.endswith('.py'))
    words = [{'cuda': 'cpu'}.get(word, word) for word in steps['bench']]
    monkeypatch.setattr(sys, 'argv', words)
    assert bench.parse_args().out == str(tmp_path / 'bench.json')
    assert steps['training'][:3] == ['-m', 'mmsnn', 'demo']
    assert demo.parse_args(steps['training'][3:]).work_dir == str(tmp_path / 'demo')
