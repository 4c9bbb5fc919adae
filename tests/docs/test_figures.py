"""The pictures of the concepts are drawn by the code, and all of them are shown."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_pictures(shell, tmp_path):
    done = shell('python', 'docs/figures.py', tmp_path)
    assert done.returncode == 0, done.stdout[-1500:]
    drawn = {path.name for path in tmp_path.iterdir()}
    assert all(path.stat().st_size > 5000 for path in tmp_path.iterdir())
    shown = re.findall(r'images/(\w+\.svg)', (ROOT / 'docs' / 'concepts.md').read_text())
    assert set(shown) == drawn
    # That of the benchmark is drawn where it is measured.
    there = {path.name for path in (ROOT / 'docs' / 'images').glob('*.svg')}
    assert there - {'firing_rates.svg'} == drawn
