"""What measuring costs: evaluation under SpikeProfiler by plain evaluation, timed in turn."""

import argparse
import logging
import statistics
from functools import partial

import timing
import torch
from mmengine.logging import MMLogger
from torch import nn

from mmsnn.analysis import SpikeProfiler
from mmsnn.models import SGResNet
from mmsnn.models.layers import LIFNeuron

CASES = {
    'profiler': {},
    'rates alone (operations=False)': dict(operations=False),
    'with potentials': dict(potentials=True),
}


def main():
    """Print a line for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--sizes', type=int, nargs='+', default=[64, 128], help='height and width')
    parser.add_argument('--batch', type=int, default=1, help='images')
    parser.add_argument('--depth', type=int, default=18, help='of SG ResNet')
    parser.add_argument('--time-steps', type=int, default=4, help='T')
    parser.add_argument('--rounds', type=int, default=15, help='each runs every case once')
    args = parser.parse_args()
    MMLogger.get_current_instance().setLevel(logging.WARNING)
    torch.manual_seed(0)
    net = SGResNet(args.depth, args.time_steps).eval()
    net.init_weights()
    for module in net.modules():
        if isinstance(module, LIFNeuron):
            # At initialisation deep layers are nearly silent; here all of them fire.
            module.v_threshold = 0.3
        elif isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 2)

    for size in args.sizes:
        images = torch.randn(args.batch, 3, size, size)

        def plain(images=images):
            with torch.no_grad():
                return net(images)

        # As on a data set: one profiler for all batches, of which the first computes fan-outs.
        profilers = [SpikeProfiler(net, **options) for options in CASES.values()]

        def measured(profiler, plain=plain):
            with profiler:
                return plain()

        runs = [plain, *(partial(measured, profiler) for profiler in profilers)]
        for run in runs:
            run()
        medians = [statistics.median(t) for t in timing.interleave(runs, args.rounds, 120)]
        ratios = ', '.join(
            f'{name} {median / medians[0]:.2f} x' for name, median in zip(CASES, medians[1:])
        )
        print(f'{size} px: plain {medians[0] * 1e3:.1f} ms; {ratios}')


if __name__ == '__main__':
    main()
