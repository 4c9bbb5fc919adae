"""Data sets: checks of what is about to be trained on."""

from .coco_check import DATA_HINT, DatasetError, check_coco_dataset, check_config_datasets

__all__ = ['DATA_HINT', 'DatasetError', 'check_coco_dataset', 'check_config_datasets']
