"""Data sets of other formats, as COCO annotation files beside the images as they lie."""

from .coco import Converted, check_out_dir, config_lines, summary, write_coco
from .voc import read_voc
from .yolo import read_yolo

__all__ = [
    'Converted',
    'check_out_dir',
    'config_lines',
    'read_voc',
    'read_yolo',
    'summary',
    'write_coco',
]
