"""No conv writes past its memory on a CPU with AVX2 alone, as strided 1x1 convs of oneDNN do.

docs/faults.md names the fault. The units that hide it are hidden themselves, and the C library
checks every block of memory that is given back.
"""

import glob
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from children import PRELUDE
from config_models import CONFIGS, build, data_of
from conv_sweep import Shape
from torch.utils._python_dispatch import TorchDispatchMode

from mmsnn.ops import spike_conv2d

SWEEP = Path(__file__).parents[1] / 'helpers' / 'conv_sweep.py'
CHECKED_MALLOC = [
    path for folder in ('/lib/*', '/lib*') for path in glob.glob(f'{folder}/libc_malloc_debug.so.0')
]
AVX2 = dict(ONEDNN_MAX_CPU_ISA='AVX2', ATEN_CPU_CAPABILITY='avx2', MMSNN_CPU_ISA='avx2')
needs_checks = pytest.mark.skipif(
    sys.platform != 'linux' or not CHECKED_MALLOC,
    reason='needs glibc with libc_malloc_debug.so, which checks the heap',
)


def sweep(shapes, tmp_path):
    """What conv_sweep.py finds in them."""
    listed = tmp_path / 'shapes.json'
    listed.write_text(json.dumps(shapes))
    code = f'{PRELUDE}\nsys.argv = [{str(SWEEP)!r}, {str(listed)!r}]\n'
    code += f'sys.path.insert(0, {str(SWEEP.parent)!r})\nimport conv_sweep\nconv_sweep.main()'
    done = subprocess.run(
        [sys.executable, '-c', code],
        env={
            **os.environ,
            **AVX2,
            'LD_PRELOAD': CHECKED_MALLOC[0],
            'MALLOC_CHECK_': '3',
            'MALLOC_PERTURB_': '85',
        },
        text=True,
        stdout=subprocess.PIPE,
        timeout=3000,
        check=True,
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def strided_1x1(channels, size, stride, ours, last=True):
    pair = [stride, stride]
    return Shape(
        [6, channels, size, size], [8, channels, 1, 1], pair, [0, 0], [1, 1], 1, last, ours
    )


@needs_checks
def test_strided_1x1_convs_of_few_channels(tmp_path):
    """The shape that killed the process; PyTorch's own conv shows that the sweep would see it."""
    ours = [strided_1x1(c, h, s, True) for c, (h, s) in itertools.product((3, 4), ((8, 2), (9, 3)))]
    theirs = strided_1x1(4, 8, 2, False)
    found = sweep([*ours, theirs], tmp_path)
    assert [shape for shape, _ in found] in ([], [list(theirs)])


class Convs(TorchDispatchMode):
    """Gathers the convs whose gradients are asked for."""

    def __init__(self):
        super().__init__()
        self.shapes = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution_backward.default:
            y, x, weight, _, stride, padding, dilation, transposed, _, groups = args[:10]
            if transposed:  # the conv that it is the gradient of, by the same weight
                x = y
            last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
            values = (x.shape, weight.shape, stride, padding, dilation)
            self.shapes.add(Shape(*map(tuple, values), groups, last, False))
        return func(*args, **(kwargs or {}))


def test_gathers_convs():
    weight = torch.randn(4, 2, 3, 3, requires_grad=True)
    with Convs() as convs:
        spike_conv2d(torch.ones(1, 4, 6, 5), weight, None, 2, 1, 1, 2).sum().backward()
    expected = Shape((1, 4, 6, 5), (4, 2, 3, 3), (2, 2), (1, 1), (1, 1), 2, False, False)
    assert convs.shapes == {expected}


@pytest.mark.slow
@needs_checks
def test_convs_of_every_config(tmp_path):
    convs = Convs()
    for path in CONFIGS:
        cfg, model, optim_wrapper = build(path)
        with convs:
            model.train().train_step(data_of(cfg, train=True), optim_wrapper)
    assert len(convs.shapes) > 250
    assert sweep(sorted(convs.shapes), tmp_path) == []


@pytest.mark.slow
@needs_checks
@pytest.mark.parametrize('kernel', [1, 3])
@pytest.mark.parametrize('ours', [True, False], ids=['mmsnn', 'PyTorch'])
def test_small_convs(tmp_path, kernel, ours):
    """Odd channels, groups and depthwise convs, every stride; PyTorch's own but for the fault."""
    shapes = []
    for channels, outputs in itertools.product((1, 3, 4, 6, 7, 8, 9, 12, 20), (1, 4, 8, 12, 64)):
        groups = {1, channels if outputs % channels == 0 else 1, 2 - (channels | outputs) % 2}
        for size, stride, last, group in itertools.product(
            (8, 9), (1, 2, 3), (True, False), sorted(groups)
        ):
            if channels % group or outputs % group:
                continue
            faulty = kernel == 1 and stride > 1 and channels < 8 and last and group == 1
            if faulty and not ours:
                continue
            weight = [outputs, channels // group, kernel, kernel]
            pairs = [stride] * 2, [kernel // 2] * 2, [1, 1]
            shapes.append(Shape([6, channels, size, size], weight, *pairs, group, last, ours))
    assert sweep(shapes, tmp_path) == []
