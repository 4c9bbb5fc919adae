"""A checkpoint as an ONNX file: ``mmsnn export onnx``."""

from collections.abc import Sequence
from typing import Optional

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

from .export import export_parser

EPILOG = """examples:
  mmsnn export onnx CONFIG CHECKPOINT -o model.onnx"""


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Write the file."""
    export_parser('onnx', '.onnx', 'Write a model as a graph of ONNX.', EPILOG).parse_args(argv)
