"""What whole numbers of spikes cost: ILIF at T = 1 by LIF at T = 4, fused, timed in turn."""

import argparse
import logging
import statistics
from functools import partial

import timing
import torch
from mmengine.logging import MMLogger

from mmsnn.deploy import PRECISIONS, fuse, resolve_precision
from mmsnn.models import SGResNet


def network(depth: int, size: int, time_steps: int, act_cfg: dict) -> SGResNet:
    """A backbone with the stem that its images ask for."""
    torch.manual_seed(0)
    stem = 'cifar' if size <= 64 else 'imagenet'
    net = SGResNet(depth, time_steps, stem=stem, act_cfg=act_cfg).eval()
    net.init_weights()
    return net


@torch.no_grad()
def main():
    """Print a line for each precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--size', type=int, default=32, help='height and width')
    parser.add_argument('--batch', type=int, default=8, help='images')
    parser.add_argument('--depth', type=int, default=18, help='of SG ResNet')
    parser.add_argument('--time-steps', type=int, default=4, help='T of LIF, and D of ILIF')
    parser.add_argument('--rounds', type=int, default=15, help='each runs every case once')
    args = parser.parse_args()
    MMLogger.get_current_instance().setLevel(logging.WARNING)
    steps = args.time_steps
    nets = {
        f'LIF, T = {steps}': network(args.depth, args.size, steps, dict(type='LIFNeuron')),
        f'ILIF, T = 1, D = {steps}': network(
            args.depth, args.size, 1, dict(type='ILIFNeuron', D=steps)
        ),
    }
    images = torch.randn(args.batch, 3, args.size, args.size)
    for precision in PRECISIONS[1:]:
        try:
            resolve_precision(precision)
        except ValueError as error:
            print(f'{precision}: {error}')
            continue
        runs = [partial(fuse(net, precision), images) for net in nets.values()]
        for run in (*runs, *runs):
            run()
        times = [statistics.median(t) for t in timing.interleave(runs, args.rounds, 120)]
        cells = [f'{name} {1e3 * seconds:.1f} ms' for name, seconds in zip(nets, times)]
        print(f'{precision}: {", ".join(cells)}, {times[1] / times[0]:.2f} of it')


if __name__ == '__main__':
    main()
