"""A checkpoint as a program for PyTorch: ``mmsnn export pt2``."""

import argparse
import os
from collections.abc import Sequence
from typing import Optional

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

import torch

from mmsnn.deploy import export_pt2
from mmsnn.deploy.pt2_file import SUFFIX
from mmsnn.utils import CONFIG_ERRORS, exit_on_error, get_time_steps

from .export import add_size_arguments, export_parser, load_for_export, sizes_in_words

EPILOG = """examples:
  mmsnn export pt2 CONFIG CHECKPOINT -o model.pt2
  mmsnn export pt2 CONFIG CHECKPOINT -o model.pt2 --aot-inductor --shape 320 320 --batch 1

A program that loads the file imports torch and mmsnn.ops, and no MMDetection: docs/deploy.md has
its lines. Inputs, outputs and metadata are those of `mmsnn export onnx`."""


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = export_parser(
        'pt2',
        SUFFIX,
        'Write a detector or a classifier as a program for PyTorch (torch.export) on CPUs, with '
        "mmsnn's operators in it.",
        EPILOG,
    )
    parser.add_argument(
        '--aot-inductor',
        action='store_true',
        help="compile it for this machine: AOTInductor's package, by a C++ compiler",
    )
    add_size_arguments(parser)
    return parser.parse_args(argv)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Write the file."""
    args = parse_args(argv)
    with exit_on_error(*CONFIG_ERRORS):
        _, model = load_for_export(args, SUFFIX)
        work = 'compiling it: some minutes' if args.aot_inductor else 'half a minute or so'
        print(f'tracing the model: {work}', flush=True)
        export_pt2(model, args.out, args.shape, args.batch, args.aot_inductor)
    kind = "AOTInductor's package" if args.aot_inductor else 'torch.export'
    print(
        f'{args.out}: {os.path.getsize(args.out) / 1e6:.1f} MB, {kind} of torch '
        f'{torch.__version__}, T = {get_time_steps(model)}, {sizes_in_words(args)}'
    )
