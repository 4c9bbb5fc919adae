"""Time of a fused spiking backbone by its firing rate, beside MMDetection's ANN.

    python benchmarks/firing_rates.py --rates 0.02 0.05 0.12 0.25

The bias of each norm is set so that its neurons fire at the rate that is asked for, layer by layer.
What convs get is denser: the stem's spikes go through a max pool, and blocks join two spike trains.
Times are medians in ms, taken in turn; in brackets what part they are of the ANN's at T = 1.
"""

import argparse
import os
import statistics
from unittest import mock

import timing
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmsnn import ops
from mmsnn.deploy import fuse
from mmsnn.models import SGResNet
from mmsnn.models.layers import SpikingNeuron

PRECISIONS = ('fp32', 'int16', 'int8')


def set_rates(net: nn.Module, x: Tensor, rate: float) -> None:
    """Let every neuron fire near a rate, by the bias of the norm in front of it.

    Args:
        net: A spiking backbone in eval mode.
        x: The image to set it on.
        rate: Firing rate.
    """
    modules = dict(net.named_modules())
    rates = {}
    neurons = {name: m for name, m in modules.items() if isinstance(m, SpikingNeuron)}

    def observer(name):
        return lambda neuron, spikes: rates.update({name: spikes.float().mean().item()})

    for name, neuron in neurons.items():
        neuron.observer = observer(name)
    for name in neurons:
        norm = modules.get(name.replace('neuron', 'bn'))
        if norm is None:  # of the stem and of downsampling, which come last in their blocks
            parent = modules[name.rpartition('.')[0]]
            norm = [m for m in parent.modules() if isinstance(m, nn.BatchNorm2d)][-1]
        low, high = -4.0, 4.0
        for _ in range(9):
            middle = (low + high) / 2
            nn.init.constant_(norm.bias, middle)
            net(x)
            low, high = (low, middle) if rates[name] > rate else (middle, high)
    for neuron in neurons.values():
        neuron.observer = None


def densities(net: nn.Module, x: Tensor) -> list[float]:
    """Of the spikes that each conv of a fused network gets."""
    found, density = [], ops.density

    def spy(spikes: Tensor) -> float:
        found.append(density(spikes))
        return found[-1]

    with mock.patch.object(ops, 'density', spy):
        net(x)
    return found


def always(net: nn.Module, x: Tensor, below: str) -> None:
    """A forward pass whose convs take one way."""
    with mock.patch.dict(os.environ, MMSNN_EVENTS_BELOW=below):
        net(x)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rates', type=float, nargs='+', default=[0.02, 0.05, 0.12, 0.25])
    parser.add_argument('--depth', type=int, default=18)
    parser.add_argument('--size', type=int, default=320)
    parser.add_argument('--time-steps', type=int, default=4)
    parser.add_argument('--rounds', type=int, default=11, help='each runs every case once')
    args = parser.parse_args()
    init_default_scope('mmdet')
    torch.manual_seed(0)
    x = torch.randn(1, 3, args.size, args.size)
    net = SGResNet(args.depth, time_steps=args.time_steps)
    for _ in range(2):
        net(torch.randn(2, 3, args.size // 2, args.size // 2))
    net.eval()
    ann = MODELS.build(dict(type='ResNet', depth=args.depth))
    ann.eval()
    print(
        f'SG ResNet-{args.depth}, {args.size}x{args.size}, T = {args.time_steps}, '
        f'{torch.get_num_threads()} threads\n'
    )
    head = ['rate', 'density of what convs get', 'ANN', 'dense fp32', *PRECISIONS]
    print('|'.join(['', *(f' {cell} ' for cell in head), '']))
    print('|'.join(['', *[' --- '] * len(head), '']))
    for rate in args.rates:
        set_rates(net, x, rate)
        fused = {name: fuse(net, name) for name in PRECISIONS}
        found = densities(fused['fp32'], x)
        crossover = ops.crossover('inference')
        below = f'{crossover:.3f}'
        runs = [
            lambda: ann(x),
            lambda fused=fused: always(fused['fp32'], x, '0'),
            lambda fused=fused, below=below: always(fused['fp32'], x, below),
            lambda fused=fused: fused['int16'](x),
            lambda fused=fused: fused['int8'](x),
        ]
        for run in (*runs, *runs):
            run()
        times = [1e3 * statistics.median(t) for t in timing.interleave(runs, args.rounds, 120)]
        cells = [f'{t:.1f} ({t / times[0]:.2f})' for t in times[1:]]
        dense = f'{min(found):.2f} to {max(found):.2f}, mean {statistics.mean(found):.2f}'
        row = [f'{rate:g}', dense, f'{times[0]:.1f}', *cells]
        print('|'.join(['', *(f' {cell} ' for cell in row), '']), flush=True)
    print(f'\nconvs go by events below a density of {crossover:.2f}')


if __name__ == '__main__':
    with torch.no_grad():
        main()
