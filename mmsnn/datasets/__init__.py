"""Data sets, their transforms, and checks of what is about to be trained on."""

from . import transforms
from .coco_check import DATA_HINT, check_coco_dataset, check_config_datasets
from .errors import DatasetError
from .events import DVSCIFAR10, EventFolder, check_event_dataset, check_event_folder

__all__ = [
    'DATA_HINT',
    'DVSCIFAR10',
    'DatasetError',
    'EventFolder',
    'check_coco_dataset',
    'check_config_datasets',
    'check_event_dataset',
    'check_event_folder',
    'transforms',
]
