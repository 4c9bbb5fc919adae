"""Data sets and transforms that MMDetection lacks, and checks of what is about to be trained on."""

from . import transforms
from .cifar import CIFAR10, CIFAR100
from .coco_check import DATA_HINT, check_coco_dataset, check_config_datasets
from .errors import DatasetError

__all__ = [
    'CIFAR10',
    'CIFAR100',
    'DATA_HINT',
    'DatasetError',
    'check_coco_dataset',
    'check_config_datasets',
    'transforms',
]
