"""The Triton kernels in Triton's interpreter; on a GPU they are tested by test_gpu.py."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmsnn import ops

HERE = Path(__file__).parent
PACKAGE = Path(ops.__file__).parents[1]

# test_fused.py and test_gpu.py once more, with Triton as the only kernel backend there is. The
# interpreter cuts bits off where a GPU rounds to half precision.
CODE = f"""
import sys, types
parent = types.ModuleType('mmsnn')
parent.__path__ = [{str(PACKAGE)!r}]
sys.modules['mmsnn'] = parent
import pytest, torch
from mmsnn.ops import dispatch
del dispatch.BACKENDS['c']
dispatch.named('triton').device = 'cpu'
assert dispatch.why_not('triton') == '', dispatch.why_not('triton')
sys.exit(pytest.main([
    {str(HERE / 'test_fused.py')!r}, {str(HERE / 'test_gpu.py')!r},
    {str(HERE / 'test_ilif.py')!r},
    '-q', '-p', 'no:cacheprovider', '-k',
    'triton and (equal or bfloat16 or odd or parts or layout or norm_lif or bits) or checkpoint'
    ' or reference and float32 or test_ilif and triton',
]))
"""


@pytest.mark.skipif(not importlib.util.find_spec('triton'), reason='needs triton')
def test_in_the_interpreter():
    done = subprocess.run(
        [sys.executable, '-c', CODE],
        env={**os.environ, 'TRITON_INTERPRET': '1'},
        text=True,
        capture_output=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
