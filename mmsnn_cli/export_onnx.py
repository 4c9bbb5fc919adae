"""A checkpoint as an ONNX file: ``mmsnn export onnx``."""

import argparse
from collections.abc import Sequence
from typing import Optional

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

import os

from mmsnn.deploy import export_onnx
from mmsnn.deploy.onnx_file import OPSET
from mmsnn.utils import CONFIG_ERRORS, exit_on_error, get_time_steps

from .export import add_size_arguments, export_parser, load_for_export, sizes_in_words

EPILOG = """examples:
  mmsnn export onnx CONFIG CHECKPOINT -o model.onnx
  mmsnn export onnx CONFIG CHECKPOINT -o model.onnx --shape 320 320 --batch 1

The input `images` is normalised and padded as `mmsnn.preprocessing` in the file's metadata says; a
detector has a second one, `sizes`, the height and width of each image inside its padding. Outputs
are `boxes`, `scores` and `labels`, with non-maximum suppression done, or a classifier's `scores`.
Any number and size of images can be given unless --shape and --batch fix them, which some programs
for devices want. docs/deploy.md runs such a file without mmsnn."""


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = export_parser(
        'onnx',
        '.onnx',
        'Write a detector or a classifier as a graph of plain ONNX operators '
        f'(ai.onnx, opset {OPSET}), for ONNX Runtime, OpenVINO and others.',
        EPILOG,
    )
    add_size_arguments(parser)
    return parser.parse_args(argv)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Write the file."""
    args = parse_args(argv)
    with exit_on_error(*CONFIG_ERRORS):
        _, model = load_for_export(args, '.onnx')
        print('tracing the model: half a minute or so', flush=True)
        export_onnx(model, args.out, args.shape, args.batch)
    print(
        f'{args.out}: {os.path.getsize(args.out) / 1e6:.1f} MB, ai.onnx opset {OPSET}, '
        f'T = {get_time_steps(model)}, {sizes_in_words(args)}'
    )
