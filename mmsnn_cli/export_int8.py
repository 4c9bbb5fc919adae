"""A spiking backbone as whole numbers in a file: ``mmsnn export int8``."""

import argparse
import os
from collections.abc import Sequence
from typing import Optional

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

import torch

from mmsnn.deploy import export_integers, fuse
from mmsnn.deploy.read_integers import read, run
from mmsnn.deploy.spiking_graph import record
from mmsnn.utils import CONFIG_ERRORS, ToolError, exit_on_error

from .export import about_model, export_parser, load_for_export

SUFFIX = '.safetensors'
#: Height and width of the noise that the file is tried on.
SIZE = 32

EPILOG = """examples:
  mmsnn export int8 CONFIG CHECKPOINT -o model.safetensors
  mmsnn export int8 spiking-retinanet_sg-r10_asd_fpn_digits \\
      mmsnn://spiking-retinanet_sg-r10_asd_fpn_digits -o digits.safetensors

The file has what mmsnn.deploy.fuse(model, 'int8') computes up to the decoder: convs on spikes in
8-bit whole numbers, their scales, and the neurons' thresholds and leaks. The layer that sees the
picture stays in float32. mmsnn/deploy/read_integers.py runs it in NumPy,
docs/examples/run_integers.c in C, and docs/deploy-integers.md describes it."""


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    description = (
        'Write the spiking backbone of a detector or classifier as whole numbers, for FPGAs and '
        'chips, and compare its spikes with those of the fused model.'
    )
    parser = export_parser('int8', SUFFIX, description, EPILOG)
    parser.add_argument(
        '--bits', type=int, choices=(8, 4, 2), default=8, help='of a weight (default: 8)'
    )
    return parser.parse_args(argv)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Write and compare."""
    args = parse_args(argv)
    with exit_on_error(*CONFIG_ERRORS, ImportError):
        cfg, model = load_for_export(args, SUFFIX)
        graph = export_integers(model, args.out, about_model(cfg, model), args.bits)
    convs = [node for node in graph.nodes if node.kind == 'conv']
    size = os.path.getsize(args.out) / 2**20
    print(f'{args.out}: {len(convs)} convs, T = {graph.time_steps}, {size:.2f} MiB')
    try:
        backbone = fuse(model.backbone, f'int{args.bits}')
    except ValueError as error:
        print(f'not compared with the fused model: {error}')
        return
    x = torch.randn(1, graph.in_channels, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    expected = {name: value[:, 0].numpy() for name, value in record(backbone, x, graph).items()}
    first = convs[0].name
    values = run(*read(args.out), {first: expected[first]})
    total = sum(int((values[name] != 0).sum()) for name in expected if name != first)
    differing = [name for name in expected if (values[name] != expected[name]).any()]
    with exit_on_error():
        if differing:
            raise ToolError(
                f'{args.out} gives other spikes than the fused model on this machine, first in '
                f'{differing[0]}: do not use it, and report this machine'
            )
    print(
        f'compared on noise of {SIZE}x{SIZE}: all {total} spikes of {len(expected) - 1} layers are '
        f"those of fuse(model, 'int{args.bits}')"
    )
