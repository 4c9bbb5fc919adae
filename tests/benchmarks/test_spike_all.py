"""Every detector of the table of docs/tutorials/make-it-spike.md."""

import re
from pathlib import Path

import pytest
import spike_all

from mmsnn.compat import ext

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'tutorials' / 'make-it-spike.md'
REFUSED = {'SSD': 'this is SSD', 'Faster R-CNN, C4': 'this is a C4 detector'}
#: Their heads have deformable convs.
COMPILED = ['TOOD', 'VFNet', 'RepPoints', 'DDOD']


@pytest.mark.slow
@pytest.mark.parametrize('name', spike_all.DETECTORS)
def test_spikes_or_says_why_not(name):
    row = spike_all.spike(name, size=96)
    if name in REFUSED:
        assert not row.works
        assert row.what.startswith(REFUSED[name])
    elif name in COMPILED and ext.install_ext_standin():
        assert not row.works
        assert row.what.endswith("needs MMCV's compiled operators")
    else:
        assert row.works, row.what


def test_the_page_has_a_row_for_each():
    rows = re.findall(r'^\| ([^|]+) \| \w+/\S+\.py \| (.*)$', PAGE.read_text(), re.MULTILINE)
    assert [name for name, _ in rows] == list(spike_all.DETECTORS)
    refused = [name for name, rest in rows if '**no**' in rest]
    assert refused == [*REFUSED, *COMPILED]
