"""Convs by events against PyTorch's dense ones, by firing rate: the convs of a spiking ResNet-18.

    python benchmarks/event_conv.py --rates 0.05 0.12

Spikes are at random. Cells are medians in ms, timed in turn, and in brackets what part they are of
the dense conv in float32 at the same T. `fused` has the neurons in it.
"""

import argparse
import statistics
from functools import partial
from typing import NamedTuple

import timing
import torch
from torch import Tensor

from mmsnn.ops import LIF, event_conv2d, event_conv_lif, lif, pack_event_weights

NEURON = LIF()
#: What is not one of the two dense convs, in the order of the columns.
KINDS = ('fp32', 'int16', 'int8', 'fp32 fused', 'int16 fused', 'int8 fused')


class Conv(NamedTuple):
    """A conv of the network at 320x320: channels in and out, size of the input."""

    channels: int
    outputs: int
    size: int
    kernel: int = 3
    stride: int = 1

    def __str__(self):
        stride = f', stride {self.stride}' if self.stride > 1 else ''
        change = '' if self.outputs == self.channels else f' -> {self.outputs}'
        return (
            f'{self.channels}{change}, {self.size}x{self.size}, {self.kernel}x{self.kernel}{stride}'
        )


CONVS = (
    Conv(64, 64, 80), Conv(128, 128, 40), Conv(256, 256, 20), Conv(512, 512, 10),
    Conv(64, 128, 80, stride=2), Conv(128, 256, 40, stride=2), Conv(256, 512, 20, stride=2),
    Conv(64, 128, 80, 1, 2), Conv(128, 256, 40, 1, 2), Conv(256, 512, 20, 1, 2),
)  # fmt: skip


def quantise(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Whole numbers of so many bits and their scale by output."""
    limit = 2 ** (bits - 1) - 1
    scale = weight.abs().amax((1, 2, 3)) / limit
    q = (weight / scale.view(-1, 1, 1, 1)).round()
    return q.to(torch.int8 if bits == 8 else torch.int16), scale


def runs_of(conv: Conv, rate: float, time_steps: int) -> list:
    """The dense conv, the dense conv and its neurons, and then one of each of ``KINDS``."""
    geometry = (conv.stride,) * 2, (conv.kernel // 2,) * 2, (1, 1)
    layer = torch.nn.Conv2d(conv.channels, conv.outputs, conv.kernel, *(g[0] for g in geometry[:2]))
    layer = layer.requires_grad_(False).to(memory_format=torch.channels_last)
    maps = torch.rand(time_steps, conv.channels, conv.size, conv.size)
    spikes = (maps < rate).to(torch.uint8, memory_format=torch.channels_last)
    x, real = spikes.unflatten(0, (time_steps, 1)), spikes.float()
    weight, bias = layer.weight, layer.bias
    parts = {
        'fp32': (weight, torch.ones(conv.outputs)),
        'int16': quantise(weight, 16),
        'int8': quantise(weight, 8),
    }
    packed = {name: pack_event_weights([part], bias) for name, part in parts.items()}

    def dense_lif() -> None:
        lif(layer(real).unflatten(0, (time_steps, 1)), *NEURON)

    runs = [partial(layer, real), dense_lif]
    for kind in KINDS:
        name, *fused = kind.split()
        if fused:
            run = partial(event_conv_lif, x, packed[name], geometry, NEURON)
        else:
            run = partial(event_conv2d, x, packed[name], geometry)
        runs.append(run)
    return runs


def main():
    """Print a table for each T."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rates', type=float, nargs='+', default=[0.02, 0.05, 0.12, 0.25, 0.5])
    parser.add_argument('--time-steps', type=int, nargs='+', default=[4, 1])
    parser.add_argument('--convs', type=int, default=len(CONVS), help='so many of the first')
    parser.add_argument('--rounds', type=int, default=11, help='each runs every case once')
    args = parser.parse_args()
    torch.manual_seed(0)
    for steps in args.time_steps:
        print(f'\nT = {steps}, {torch.get_num_threads()} threads\n')
        head = ['conv', 'rate', 'dense', 'dense, neurons', *KINDS]
        print('|'.join(['', *(f' {cell} ' for cell in head), '']))
        print('|'.join(['', *[' --- '] * len(head), '']))
        for conv in CONVS[: args.convs]:
            for rate in args.rates:
                runs = runs_of(conv, rate, steps)
                for run in (*runs, *runs):
                    run()
                times = [
                    1e3 * statistics.median(t) for t in timing.interleave(runs, args.rounds, 60)
                ]
                dense, behind = times[:2]
                # What has the neurons in it stands against what has them behind it.
                bases = [behind if 'fused' in kind else dense for kind in KINDS]
                cells = [f'{t:.2f} ({t / b:.2f})' for t, b in zip(times[2:], bases)]
                row = [str(conv), f'{rate:g}', f'{dense:.2f}', f'{behind:.2f}', *cells]
                print('|'.join(['', *(f' {cell} ' for cell in row), '']), flush=True)


if __name__ == '__main__':
    with torch.no_grad():
        main()
