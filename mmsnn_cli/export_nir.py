"""A spiking backbone as a NIR graph: ``mmsnn export nir``."""

import argparse
import os
from collections.abc import Sequence
from typing import Optional

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

import torch

from mmsnn.deploy import export_nir, run_nir
from mmsnn.deploy.nir_graph import nir_name
from mmsnn.deploy.spiking_graph import record, spiking_graph
from mmsnn.utils import CONFIG_ERRORS, ToolError, exit_on_error

from .export import about_model, export_parser, load_for_export

SUFFIX = '.nir'
#: The least share of spikes that must be the model's own.
LEAST = 0.999

EPILOG = """examples:
  mmsnn export nir CONFIG CHECKPOINT -o model.nir --shape 320 320
  mmsnn export nir spiking-retinanet_sg-r10_asd_fpn_digits \\
      mmsnn://spiking-retinanet_sg-r10_asd_fpn_digits -o digits.nir --shape 128 128

The graph is the spiking backbone up to the decoder, which stays on the host: the metadata's
decoder_reads names the nodes whose spikes it reads. mmsnn.deploy.run_nir runs such a file, and
docs/deploy-nir.md says which other programs do."""


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    description = (
        'Write the spiking backbone of a detector or classifier as a graph in NIR, the '
        "neuromorphic intermediate representation, and compare its spikes with the model's."
    )
    parser = export_parser('nir', SUFFIX, description, EPILOG)
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        required=True,
        metavar=('H', 'W'),
        help='height and width of the input: each neuron of a NIR graph has its own parameters',
    )
    return parser.parse_args(argv)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Write and compare."""
    args = parse_args(argv)
    with exit_on_error(*CONFIG_ERRORS, ImportError):
        cfg, model = load_for_export(args, SUFFIX)
        graph = export_nir(model, args.out, args.shape, about_model(cfg, model))
    size = os.path.getsize(args.out) / 2**20
    neurons = sum(type(node).__name__ in ('IF', 'LIF') for node in graph.nodes.values())
    print(f'{args.out}: {len(graph.nodes)} nodes, {neurons} of neurons, {size:.2f} MiB')
    source = spiking_graph(model)
    shape = (1, source.in_channels, *args.shape)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = record(model.backbone, x, source)
    values = run_nir(args.out, x)
    names = [node.name for node in source.nodes if node.spikes and nir_name(node.name) in values]
    total = sum(expected[name].numel() for name in names)
    same = sum(int((expected[name] == values[nir_name(name)]).sum()) for name in names) / total
    with exit_on_error():
        if same < LEAST:
            raise ToolError(
                f'{args.out} gives other spikes than the model: only {100 * same:.2f} % of them '
                'are the same. Do not use it, and report this model'
            )
    print(
        f'compared on noise in float32: {100 * same:.4f} % of the {total} values of {len(names)} '
        "layers of spikes are the model's"
    )
