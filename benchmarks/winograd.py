"""3x3 convs of real values by Winograd's minimal filtering, beside PyTorch's conv.

    python benchmarks/winograd.py --outputs 256 --sizes 20 40

Times are medians in ms, timed in turn. Errors are the largest, by float64, of values of a standard
deviation of about 0.6.
"""

import argparse
import statistics

import timing
import torch

from mmsnn import ops

CHANNELS = 256


def row(outputs: int, size: int, rounds: int) -> str:
    """A row of the table."""
    conv = torch.nn.Conv2d(CHANNELS, outputs, 3, padding=1).to(memory_format=torch.channels_last)
    x = torch.randn(1, CHANNELS, size, size).to(memory_format=torch.channels_last)
    weights = ops.pack_winograd_weights(conv.weight, conv.bias)
    runs = [lambda: conv(x), lambda: ops.winograd_conv2d(x, weights)]
    wide = torch.nn.functional.conv2d(
        x.double(), conv.weight.double(), conv.bias.double(), padding=1
    )
    errors = [(run() - wide).abs().max().item() for run in runs]
    taken = timing.interleave(runs, rounds, seconds=60)
    dense, ours = (1e3 * statistics.median(times) for times in taken)
    return (
        f'| {CHANNELS} -> {outputs}, {size}x{size} | {dense:.2f} | {ours:.2f} | '
        f'{ours / dense:.2f} | {errors[0]:.1e} | {errors[1]:.1e} |'
    )


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--outputs', type=int, nargs='+', default=[256, 720], metavar='K')
    parser.add_argument('--sizes', type=int, nargs='+', default=[10, 20, 40, 80], metavar='N')
    parser.add_argument('--rounds', type=timing.positive, default=15)
    args = parser.parse_args()
    torch.manual_seed(0)
    print('| channels, map | conv | fewer products | by conv | error of conv | of fewer products |')
    print('| --- | --- | --- | --- | --- | --- |')
    with torch.inference_mode():
        for outputs in args.outputs:
            for size in args.sizes:
                print(row(outputs, size, args.rounds), flush=True)


if __name__ == '__main__':
    main()
