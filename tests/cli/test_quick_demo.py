"""The first minute: boxes, spikes and energy from the checkpoint that comes with mmsnn."""

import re
import resource
import subprocess
import sys

import mmcv
import pytest

import mmsnn_cli


def cpu_seconds():
    """Of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_quick_demo(tmp_path):
    before = cpu_seconds()
    done = subprocess.run(
        [sys.executable, '-m', 'mmsnn', 'demo', '--quick', '--work-dir', 'here'],
        cwd=tmp_path,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    # It promises 15 seconds of a machine that does nothing else; other tests run beside this one.
    assert cpu_seconds() - before < 30
    digits, found, _ = map(
        int, re.search(r'^all +(\d+) +(\d+) +(\d+)$', done.stdout, re.M).groups()
    )
    assert digits == 24
    assert found >= 18
    rate = float(re.search(r'fire at a time step: ([\d.]+) %', done.stdout)[1])
    assert 5 < rate < 20
    rows = re.findall(r'^(?:layers that|the whole).* uJ +([\d.]+)$', done.stdout, re.M)
    on_spikes, whole, memory_on_spikes, memory = map(float, rows)
    assert on_spikes < 0.2
    assert whole < 0.8
    # Memory saves less: each synaptic operation also reads and writes a potential.
    assert on_spikes < memory_on_spikes < 1
    assert whole < memory < 1
    assert 'annotations' not in done.stdout
    pictures = sorted((tmp_path / 'here' / 'pictures').iterdir())
    assert len(pictures) == 8
    assert mmcv.imread(pictures[0]).shape == (384, 768, 3)
    assert mmcv.imread(tmp_path / 'here' / 'spikes.png').std() > 1


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / 'spikes.png').touch()
    with pytest.raises(
        SystemExit, match=r'spikes\.png is there already: choose another --work-dir'
    ):
        mmsnn_cli.main(['demo', '--quick', '--work-dir', str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ['spikes.png']
