"""The C kernels as code for Arm with NEON, under an emulator: what they compute on x86.

No Arm machine was measured, nor is a time of an emulator one.
"""

import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from children import needs_compiler

from mmsnn.ops.backends.c import build

HELPERS = Path(__file__).parents[1] / 'helpers'
COMPILER, EMULATOR = 'aarch64-linux-gnu-gcc', 'qemu-aarch64'
#: Debian's packages for both.
PACKAGES = 'gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user'
#: Every kernel that is not of x86 alone.
KERNELS = {
    'lif_forward', 'lif_backward', 'pooled_lif_backward', 'input_grad_of', 'channel_stats', 'ilif',
    'ilif_backward', 'max_pool', 'max_pool_backward', 'attention_decode', 'rate_decode',
    'attention_statistics', 'event_conv', 'event_conv_lif', 'event_weights', 'event_weight_grad',
    'pack', 'unpack', 'to_bytes', 'winograd_in', 'winograd_out',
}  # fmt: skip
#: Loops over values, each of which has to be vector code.
LOOPS = (
    'integrate', 'integrate_to_bytes', 'integrate_whole', 'step_back', 'add_grads_3', 'weigh',
    'tile_to_places',
)  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    needs_compiler,
    pytest.mark.skipif(
        not (shutil.which(COMPILER) and shutil.which(EMULATOR)), reason=f'needs {PACKAGES}'
    ),
]


def compile_for_arm(target, *arguments):
    flags = [flag for flag in build.FLAGS if flag != '-fPIC']
    subprocess.run(
        [COMPILER, *flags, '-Wall', '-Wextra', '-Werror', '-I', build.SOURCE.parent, *arguments,
         '-o', target],
        check=True,
    )  # fmt: skip


def test_the_same_numbers_as_on_x86(tmp_path):
    subprocess.run(
        [sys.executable, HELPERS / 'kernel_calls.py', tmp_path, '240'],
        env={**os.environ, 'MMSNN_BACKEND': 'auto'},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    compile_for_arm(tmp_path / 'replay', '-static', HELPERS / 'replay.c')
    subprocess.run(
        [EMULATOR, tmp_path / 'replay', tmp_path / 'calls', tmp_path / 'results'], check=True
    )
    results = (tmp_path / 'results').read_bytes()
    at, seen, changed = 0, {}, 0
    for name, done, after, sizes in pickle.loads((tmp_path / 'after').read_bytes()):
        assert int.from_bytes(results[at : at + 8], 'little', signed=True) == done, name
        at += 8
        seen[name] = seen.get(name, 0) + 1
        for (content, dtype), size in zip(after, sizes):
            theirs = results[at : at + size]
            at += size
            if content is None or content == theirs:  # a struct, or the same bits
                continue
            changed += 1
            ours, theirs = (
                torch.frombuffer(bytearray(v), dtype=dtype).double() for v in (content, theirs)
            )
            # Rounded otherwise, by a unit or two in the last place.
            rtol = {torch.bfloat16: 2**-7, torch.float32: 1e-6}.get(dtype, 1e-9)
            torch.testing.assert_close(ours, theirs, rtol=rtol, atol=rtol, equal_nan=True)
    assert at == len(results)
    assert set(seen) == KERNELS
    print(f'{sum(seen.values())} calls, {changed} tensors of other bits')


def test_loops_are_vector_code(tmp_path):
    compile_for_arm(tmp_path / 'kernels.o', '-c', build.SOURCE)
    tool = COMPILER.replace('gcc', 'objdump')
    listing = subprocess.run(
        [tool, '-d', '--no-show-raw-insn', tmp_path / 'kernels.o'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    code = dict(re.findall(r'^\w+ <mmsnn_(\w+)[.\w]*>:\n((?:.+\n)+)', listing, re.M))
    for loop in LOOPS:
        assert re.search(r'\bf(mul|add|sub|cmge|div)\s+v\d+\.4s', code[loop]), loop
