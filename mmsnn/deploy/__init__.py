"""Models made ready for inference."""

from .event_conv import EventConv2d
from .fold import fold
from .fuse import FEW_BITS, PRECISIONS, fuse, has_amx, resolve_precision
from .integer_conv import IntegerConv2d
from .integer_file import export_integers
from .nir_graph import export_nir, run_nir
from .onnx_file import export_onnx
from .plain import ExportError
from .pt2_file import export_pt2
from .winograd_conv import WinogradConv2d

__all__ = [
    'FEW_BITS',
    'PRECISIONS',
    'EventConv2d',
    'ExportError',
    'IntegerConv2d',
    'WinogradConv2d',
    'export_integers',
    'export_nir',
    'export_onnx',
    'export_pt2',
    'fold',
    'fuse',
    'has_amx',
    'resolve_precision',
    'run_nir',
]
