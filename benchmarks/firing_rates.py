"""Time of a spiking backbone by its firing rate, fused or training, beside MMDetection's ANN.

    python benchmarks/firing_rates.py --rates 0.02 0.05 0.12 0.25
    python benchmarks/firing_rates.py --training --rates 0.05 0.12 0.25

The bias of each norm is set so that its neurons fire at the rate that is asked for, layer by layer;
those of the stem so that their map does behind its max pool. What convs get is denser, as blocks
join two spike trains: the table has that, too.
Times are medians in ms, taken in turn; in brackets what part they are of the ANN's at T = 1.
"""

import argparse
import contextlib
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from unittest import mock

import cases
import matplotlib
import matplotlib.pyplot as plt
import rates
import timing
import torch
from cycler import cycler
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import Tensor

from mmsnn import ops
from mmsnn.deploy import fuse
from mmsnn.models import SGResNet
from mmsnn.ops import spike_conv

PRECISIONS = ('fp32', 'int16', 'int8')
#: Columns whose convs multiply every zero.
DENSE = 'ANN', 'SpikingJelly', 'dense fp32', 'dense'
#: Distinguishable in all common forms of colour blindness (Okabe and Ito).
COLORS = cycler(color=['#666666', '#CC79A7', '#000000', '#0072B2', '#E69F00', '#009E73'])


@contextlib.contextmanager
def densities(module: object, name: str) -> Iterator[list[float]]:
    """What convs find when they look how many spikes they get: by this function of a module."""
    found, look = [], getattr(module, name)

    def spy(spikes: Tensor) -> float:
        found.append(look(spikes))
        return found[-1]

    with mock.patch.object(module, name, spy):
        yield found


@contextlib.contextmanager
def events_below(density: str) -> Iterator[None]:
    """Convs go by events below this density; ``''`` for what was measured."""
    with mock.patch.dict(os.environ, MMSNN_EVENTS_BELOW=density):
        yield


def line(cells: Sequence) -> str:
    """A row of the table."""
    return '|'.join(['', *(f' {cell} ' for cell in cells), ''])


def table(columns: Sequence[str], at: Sequence[float], row: Callable) -> dict[str, list[float]]:
    """Print a row a rate, each when it is measured; the first column is the unit of the others.

    Returns:
        Times in ms of each column, by rate.
    """
    measured: dict[str, list[float]] = {name: [] for name in columns}
    print(line(['rate', 'density of what convs get', *columns]))
    print(line(['---'] * (len(columns) + 2)))
    for rate in at:
        found, seconds = row(rate)
        times = [1e3 * statistics.median(taken) for taken in seconds]
        dense = f'{min(found):.2f} to {max(found):.2f}, mean {statistics.mean(found):.2f}'
        cells = [f'{t:.1f} ({t / times[0]:.2f})' for t in times[1:]]
        print(line([f'{rate:g}', dense, f'{times[0]:.1f}', *cells]), flush=True)
        for name, value in zip(columns, times):
            measured[name].append(value)
    return measured


def plot(path: str, title: str, at: Sequence[float], measured: dict[str, list[float]]) -> None:
    """Draw time against firing rate, dense ways dashed."""
    with matplotlib.rc_context({'svg.hashsalt': 'mmsnn', 'axes.prop_cycle': COLORS}):
        figure, axes = plt.subplots(figsize=(6.4, 4), layout='constrained')
        for name, times in measured.items():
            axes.plot(at, times, marker='o', ls='--' if name in DENSE else '-', label=name)
        axes.set(title=title, xlabel='firing rate of the neurons', ylabel='ms', ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(path, metadata=dict(Date=None))
        plt.close(figure)


@torch.no_grad()
def inference(args: argparse.Namespace) -> dict[str, list[float]]:
    """Fused backbones, batch 1."""
    x = torch.randn(1, 3, args.size, args.size)
    net = SGResNet(args.depth, time_steps=args.time_steps)
    for _ in range(2):
        net(torch.randn(2, 3, args.size // 2, args.size // 2))
    net.eval()
    ann = MODELS.build(dict(type='ResNet', depth=args.depth))
    ann.eval()
    names = ['SpikingJelly'] if cases.has_spikingjelly() else []

    def row(rate: float) -> tuple[list[float], list[list[float]]]:
        rates.set_rates(net, x, rate)
        fused = {name: fuse(net, name) for name in PRECISIONS}
        with densities(ops, 'density') as found:
            fused['fp32'](x)

        def dense() -> None:
            with events_below('0'):
                fused['fp32'](x)

        runs = [lambda: ann(x)]
        if names:
            sj = cases.spikingjelly_resnet()
            theirs = sj.SpikingJellyResNet.like(net)
            runs.append(cases.inference(lambda: theirs(x), 'fp32', 'cpu', lambda: sj.reset(theirs)))
        runs += [dense, *(lambda f=f: f(x) for f in fused.values())]
        for run in (*runs, *runs):
            run()
        return found, timing.interleave(runs, args.rounds, 120)

    return table(['ANN', *names, 'dense fp32', *PRECISIONS], args.rates, row)


def training(args: argparse.Namespace) -> dict[str, list[float]]:
    """A training step in float32, batch 2."""
    setting = cases.Setting('training', 'cpu', args.depth, (args.size,) * 2, 2, args.time_steps)
    x = cases.image(setting)
    last = cases.channels_last(x)
    ann = cases.training(
        cases.ann_backbone(setting), lambda net: cases.level_loss(net(x)), 'fp32', 'cpu'
    )
    names = ['SpikingJelly'] if cases.has_spikingjelly() else []

    def row(rate: float) -> tuple[list[float], list[list[float]]]:
        torch.manual_seed(0)
        net = cases.channels_last(SGResNet(args.depth, time_steps=args.time_steps)).train()
        with torch.no_grad():
            rates.set_rates(net, last, rate)
        step = cases.training(net, lambda net: cases.level_loss(net(last)), 'fp32', 'cpu')
        with densities(spike_conv, 'density_of_bits') as found:
            step()

        def dense() -> None:
            with events_below('0'):
                step()

        runs = [ann]
        if names:
            sj = cases.spikingjelly_resnet()
            theirs = sj.SpikingJellyResNet.like(net)
            loss = lambda net: cases.level_loss(net(x))  # noqa: E731
            runs.append(cases.training(theirs, loss, 'fp32', 'cpu', lambda: sj.reset(theirs)))
        runs += [dense, step]
        for run in runs:
            run()
        return found, timing.interleave(runs, args.rounds, 120)

    return table(['ANN', *names, 'dense', 'by events'], args.rates, row)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rates', type=rates.rate, nargs='+', default=[0.02, 0.05, 0.12, 0.25])
    parser.add_argument('--depth', type=int, default=18)
    parser.add_argument('--size', type=int, default=320)
    parser.add_argument('--time-steps', type=int, default=4)
    parser.add_argument('--rounds', type=int, default=11, help='each runs every case once')
    parser.add_argument('--plot', metavar='FILE.svg', help='draw time against firing rate, too')
    parser.add_argument('--training', action='store_true', help='training steps, batch 2')
    args = parser.parse_args()
    if args.plot and not os.path.isdir(os.path.dirname(args.plot) or '.'):
        parser.error(f'--plot: there is no folder {os.path.dirname(args.plot)}')
    init_default_scope('mmdet')
    torch.manual_seed(0)
    title = (
        f'SG ResNet-{args.depth}, {args.size}x{args.size}, T = {args.time_steps}, '
        f'{torch.get_num_threads()} threads'
    )
    print(f'{title}\n')
    measured = (training if args.training else inference)(args)
    if args.plot:
        plot(args.plot, title, args.rates, measured)
    ways = ['forward', 'weight gradient'] if args.training else ['inference']
    below = ', '.join(f'{ops.crossover(way):.2f} ({way})' for way in ways)
    print(f'\nconvs in float32 go by events below a density of {below}')


if __name__ == '__main__':
    main()
