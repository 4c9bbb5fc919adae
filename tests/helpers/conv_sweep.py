"""Runs convs forward and backward in children of its own, against float64.

A process whose heap is corrupted dies; the shape that did it is found by running them one by one.
`main` reads a JSON list of `Shape`s from a file and prints a JSON list of failures: [shape, what
happened]. The environment says which units of the CPU are used, and that the heap is checked.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F

TOLERANCE = 1e-4
#: How often a conv runs: what it writes past its memory needn't be found the first time.
TIMES = 8
CHUNK = 40
SECONDS = 100


class Shape(NamedTuple):
    """A conv and its input."""

    size: list  # (N, C, H, W)
    weight: list  # (C_out, C / groups, kH, kW)
    stride: list
    padding: list
    dilation: list
    groups: int
    last: bool  # channels_last
    ours: bool  # whether it is mmsnn's conv on spikes


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))


def error_of(shape):
    """The largest relative error of output and gradients."""
    options = shape.stride, shape.padding, shape.dilation, shape.groups
    rng = torch.Generator().manual_seed(0)
    x = (torch.rand(shape.size, generator=rng) < 0.4).float()
    if shape.last:
        x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(shape.weight, generator=rng)
    exact = [v.double().requires_grad_() for v in (x, weight)]
    expected = F.conv2d(*exact, None, *options)
    grad = torch.randn(expected.shape, generator=rng)
    expected.backward(grad.double())
    if shape.last:
        grad = grad.contiguous(memory_format=torch.channels_last)
    conv = F.conv2d
    if shape.ours:
        from mmsnn.ops import spike_conv2d as conv
    worst = 0.0
    for _ in range(TIMES):
        leaves = [v.clone().requires_grad_() for v in (x, weight)]
        out = conv(*leaves, None, *options)
        out.backward(grad)
        pairs = [(out, expected), *((a.grad, b.grad) for a, b in zip(leaves, exact))]
        worst = max(worst, *(relative(a, b) for a, b in pairs))
    return worst


def run(shapes):
    """Failures of these shapes, each found in a child of its own."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        signal.alarm(SECONDS)  # a corrupted heap can end in a lock that nobody opens
        wrong = []
        for shape in shapes:
            error = error_of(shape)
            if not error <= TOLERANCE:
                wrong.append([shape, f'off by {error:.1e}'])
        os.write(write, json.dumps(wrong).encode())
        os._exit(0)
    os.close(write)
    with open(read) as pipe:
        found = pipe.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        if len(shapes) > 1:
            half = len(shapes) // 2
            return run(shapes[:half]) + run(shapes[half:])
        return [[shapes[0], f'died of signal {os.WTERMSIG(status)}']]
    return json.loads(found) if os.WEXITSTATUS(status) == 0 else [[shapes, 'raised']]


def main():
    torch.set_num_threads(1)  # a forked child has no other threads
    shapes = [Shape(*values) for values in json.loads(Path(sys.argv[1]).read_text())]
    failures = []
    for i in range(0, len(shapes), CHUNK):
        failures += run(shapes[i : i + CHUNK])
    print(json.dumps(failures))


if __name__ == '__main__':
    main()
