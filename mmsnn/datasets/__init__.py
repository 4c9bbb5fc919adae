"""Data sets and transforms that MMDetection lacks, and checks of what is about to be trained on."""

from . import transforms
from .base import ClsDataset
from .checks import (
    DATA_HINT,
    check_cls_dataset,
    check_coco_dataset,
    check_config_datasets,
    check_frames,
    datasets_of,
)
from .cifar import CIFAR10, CIFAR100
from .errors import DatasetError
from .events import DVSCIFAR10, EventFolder, PropheseeDetection, check_event_folder
from .image_folder import ImageFolder, ImageNet
from .stream_sampler import StreamBatchSampler

__all__ = [
    'CIFAR10',
    'CIFAR100',
    'DATA_HINT',
    'DVSCIFAR10',
    'ClsDataset',
    'DatasetError',
    'EventFolder',
    'ImageFolder',
    'ImageNet',
    'PropheseeDetection',
    'StreamBatchSampler',
    'check_cls_dataset',
    'check_coco_dataset',
    'check_config_datasets',
    'check_event_folder',
    'check_frames',
    'datasets_of',
    'transforms',
]
