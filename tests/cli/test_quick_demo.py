"""The first minute: boxes, spikes and energy from the checkpoint that comes with mmsnn."""

import re
import subprocess
import sys
import time

import mmcv


def test_quick_demo(tmp_path):
    start = time.time()
    done = subprocess.run(
        [sys.executable, '-m', 'mmsnn', 'demo', '--quick', '--work-dir', 'here'],
        cwd=tmp_path,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    # It promises 15 seconds; another test may run beside this one.
    assert time.time() - start < 45
    digits, found, _ = map(
        int, re.search(r'^all +(\d+) +(\d+) +(\d+)$', done.stdout, re.M).groups()
    )
    assert digits == 24
    assert found >= 18
    rate = float(re.search(r'fire at a time step: ([\d.]+) %', done.stdout)[1])
    ours, twin = map(int, re.search(r': (\d+) uJ .*: (\d+) uJ', done.stdout).groups())
    assert 5 < rate < 20
    assert 0 < ours < twin
    pictures = sorted((tmp_path / 'here' / 'pictures').iterdir())
    assert len(pictures) == 8
    assert mmcv.imread(pictures[0]).shape == (384, 768, 3)
    assert mmcv.imread(tmp_path / 'here' / 'spikes.png').std() > 1
