"""Checks of the data of a config, before long work starts on them."""

from .classification import check_cls_dataset
from .coco import DATA_HINT, check_coco_dataset
from .config import check_config_datasets, check_frames, datasets_of
from .images import check_image_files, find_loader

__all__ = [
    'DATA_HINT',
    'check_cls_dataset',
    'check_coco_dataset',
    'check_config_datasets',
    'check_frames',
    'check_image_files',
    'datasets_of',
    'find_loader',
]
