"""MMSNN_CPU_ISA hides the newer units of a CPU from everything that would use them."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from children import child, needs_compiler

from mmsnn.ops import spike_conv, units

OLD = """
from mmsnn.ops import conv_lif, spike_conv, units
from mmsnn.ops.backends.c import build, calls
assert dispatch.why_not('c') == '', dispatch.why_not('c')
assert units.build_flags() == ('-DMMSNN_NO_AVX512',)
assert not units.has_vnni() and not units.has_amx() and not calls.has_dot_products()
maps = torch.zeros(1, 1, 4, 2, 2, dtype=torch.uint8)
assert not conv_lif.is_fast(maps)
assert not any(v for k, v in units.capabilities().items() if k.startswith(('avx512', 'amx')))
with ops.use_backend('reference'):
    expected = ops.lif(x)
assert torch.equal(ops.lif(x), expected)
print(calls.load()._name)
"""


@needs_compiler
@pytest.mark.skipif(sys.platform != 'linux', reason='reads the library by objdump')
def test_avx2_runs_no_newer_instruction(tmp_path):
    status, library, err = child(
        OLD, MMSNN_CPU_ISA='avx2', MMSNN_CACHE_DIR=str(tmp_path), MMSNN_BACKEND='auto'
    )
    assert status == 0, err
    assert os.path.dirname(library) == str(tmp_path), 'the installed library has newer ones'
    if shutil.which('objdump') is None:
        pytest.skip('needs objdump to see instructions')
    code = subprocess.run(['objdump', '-d', library], capture_output=True, text=True, check=True)
    assert len(code.stdout) > 100_000
    assert '%zmm' not in code.stdout
    assert '%k1' not in code.stdout


def test_a_wrong_name_is_said():
    status, _, err = child('', MMSNN_CPU_ISA='sse')
    assert status == 1
    assert err.splitlines()[-1].endswith(
        "unknown units 'sse' in MMSNN_CPU_ISA: choose one of ['avx2', 'avx512', 'vnni']"
    )


NEW = dict.fromkeys(
    ('avx2', 'avx512_f', 'avx512_vnni', 'avx512_bf16', 'amx_tile', 'amx_bf16', 'amx_fp16'), True
)


@pytest.mark.parametrize(
    ('newest', 'left', 'slow'),
    [
        ('avx2', ['avx2'], [torch.bfloat16, torch.float16]),
        ('avx512', ['avx2', 'avx512_f'], [torch.bfloat16, torch.float16]),
        ('vnni', ['avx2', 'avx512_f', 'avx512_vnni'], [torch.bfloat16, torch.float16]),
        (None, list(NEW), []),
    ],
)
def test_what_each_level_hides(monkeypatch, newest, left, slow):
    cpu = {'architecture': 'x86_64', 'cpu_name': 'Intel', 'l2_cache_size': 7, **NEW}
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: cpu, raising=False)
    for name in ('_is_vnni_supported', '_is_amx_tile_supported'):
        monkeypatch.setattr(torch.cpu, name, lambda: True, raising=False)
    monkeypatch.setattr(units, 'NEWEST', newest)
    has = units.capabilities()
    assert [key for key in NEW if has[key]] == left
    assert has['l2_cache_size'] == 7
    assert units.has_vnni.__wrapped__() == ('avx512_vnni' in left)
    assert units.has_amx.__wrapped__() == ('amx_tile' in left)
    assert list(spike_conv._slow_dtypes(has)) == slow
    assert bool(units.build_flags()) == ('avx512_f' not in left)
