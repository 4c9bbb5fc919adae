"""Corrupted recordings end in a DatasetError, corrupted cache entries are made again."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import event_fuzz
import pytest
from event_files import WRITERS

HAS_AEDAT = importlib.util.find_spec('aedat') is not None


def check(found, number):
    assert found['wrong'] == []
    assert found.get('read', 0) + found.get('refused', 0) == number
    assert found['seconds'] < 2
    assert found['megabytes'] < 300
    assert found['resident'] < 300


def test_a_handful_of_corrupted_recordings(tmp_path):
    names = [name for name in WRITERS if HAS_AEDAT or not name.endswith('.aedat4')]
    found = event_fuzz.measure(event_fuzz.fuzz_recordings(tmp_path, 0, 300, names))
    check(found, 300)
    assert found['refused'] > 150  # the others are whole, or say other numbers


def test_a_handful_of_corrupted_cache_entries(tmp_path):
    found = event_fuzz.measure(event_fuzz.fuzz_entries(tmp_path, 0, 100))
    check(found, 100)
    assert found['read'] == 100


@pytest.mark.slow
@pytest.mark.skipif(not HAS_AEDAT, reason="needs pip install 'mmsnn[events]'")
@pytest.mark.parametrize('kind', ['recordings', 'entries'])
def test_thousands_of_corrupted_files(kind):
    script = Path(event_fuzz.__file__)
    done = subprocess.run(
        [sys.executable, str(script), kind, '1', '2000'], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    check(json.loads(done.stdout.splitlines()[-1]), 2000)
