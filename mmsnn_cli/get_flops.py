"""Parameters and operations of a model: synaptic operations on spikes, MACs on real values."""

import argparse
import itertools
import json
from collections.abc import Sequence
from typing import Optional

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

from rich.progress import track

from mmsnn.analysis import profile
from mmsnn.compat import enforce_safe_loading
from mmsnn.utils import (
    CONFIG_ERRORS,
    ToolError,
    add_measuring_arguments,
    exit_on_error,
    get_time_steps,
    input_batches,
    load_model,
)

DESCRIPTION = """How many operations does one image take?

Layers on spikes take synaptic operations (SOPs), counted from the spikes that really come; layers
on real values take multiply-accumulates (MACs). Beside both stand the MACs of the ANN twin, and an
estimate of energy. Models without spikes are all MACs."""

EPILOG = """examples:
  mmsnn flops CONFIG --checkpoint CHECKPOINT
  mmsnn flops CONFIG --checkpoint CHECKPOINT --num-images 500
  mmsnn flops CONFIG --shape 800 1344     # no data needed
  mmsnn flops CONFIG --time-steps 2 --out flops.json

How much a network fires depends on weights and images: take a trained checkpoint and the test data
for SOPs that mean something. Parameters and MACs need neither. docs/measuring.md has what is
counted, and how."""


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='mmsnn flops',
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_measuring_arguments(parser)
    parser.add_argument(
        '--num-images',
        type=int,
        metavar='N',
        help='images to measure (default: 100 of test data, 1 of random input)',
    )
    return parser.parse_args(argv)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Measure, and print."""
    args = parse_args(argv)
    enforce_safe_loading(args.trust_checkpoint)
    with exit_on_error(*CONFIG_ERRORS):
        if args.num_images is not None and args.num_images < 1:
            raise ToolError(f'--num-images must be at least 1, got {args.num_images}')
        cfg, model = load_model(args)
        # One image a batch, which no other image pads.
        batches, source = input_batches(cfg, args.shape, data_check=not args.no_data_check)
        endless = not hasattr(batches, '__len__')
        count = args.num_images or (1 if endless else 100)
        count = count if endless else min(count, len(batches))
        batches = track(itertools.islice(batches, count), 'measuring', total=count)
        result = profile(model, batches)
    size = next(layer for layer in result.layers if layer.kind != 'neuron').input_shape
    time_steps = get_time_steps(model)
    state = args.checkpoint or 'initial weights, whose spikes are not those of trained ones'
    print(f'{args.config}{f", T = {time_steps}" if time_steps else ""}; {state}')
    print(f'{source}: {result.images} images, the last {"x".join(map(str, size))}\n')
    print(result.table())
    if args.out is not None:
        about = dict(
            config=args.config,
            cfg_options=args.cfg_options,
            checkpoint=args.checkpoint,
            input=source,
            input_shape=size,
            time_steps=time_steps,
        )
        with open(args.out, 'x') as file:
            json.dump({**about, **result.to_dict()}, file, indent=2)
        print(f'results: {args.out}')
