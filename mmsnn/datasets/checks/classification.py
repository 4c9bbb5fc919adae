"""Look at the data of a classifier before long work starts on them."""

from collections.abc import Mapping
from typing import Any, Optional

import numpy as np

from ...config_types import arguments, find_type
from ..base import ClsDataset
from ..errors import DatasetError, MissingDataError
from .images import check_image_files, find_loader

# What decides neither which samples there are nor what their classes are.
_NOT_DATA = ('type', '_scope_', 'pipeline', 'test_mode', 'lazy_init', 'max_refetch')


def check_cls_dataset(
    dataset: Mapping[str, Any],
    key: str = 'dataset',
    num_classes: Optional[Mapping[str, int]] = None,
    hint: str = '',
) -> dict[str, Any]:
    """Check that the data set of a classifier can be trained on and evaluated.

    Args:
        dataset: Its config. The type is a :class:`~mmsnn.datasets.base.ClsDataset` or its name in
            MMDetection's registry.
        key: The config key of the data set, for messages.
        num_classes: Number of classes of each head of the model, by the config key that sets it,
            for example ``{'model.head.num_classes': 10}``.
        hint: How to point to the data, said where they are missing.

    Returns:
        ``images``, the number of samples; ``classes``, their names or None; ``warnings``, in
        words.

    Raises:
        DatasetError: Anything is wrong. The message names the first problem and its place.
    """
    cls = find_class(dataset)
    if not (isinstance(cls, type) and issubclass(cls, ClsDataset)):
        raise DatasetError(
            f'{key}: {dataset.get("type")} is not a data set for classifiers. Give one of '
            "mmsnn's, such as CIFAR10, or one that derives from ClsDataset"
        )
    try:
        data = cls(**data_arguments(dataset), pipeline=[])
    except MissingDataError as error:
        raise DatasetError(f'{error} {hint}'.strip()) from error
    except TypeError as error:
        raise DatasetError(f'{key}: {error}') from error
    except ValueError as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f'{key}: {error}') from error

    labels = data.get_gt_labels()
    if not len(labels):
        raise DatasetError(f'{key} has no samples. Give a data set that does')
    classes = data.metainfo.get('classes')
    for head, number in (num_classes or {}).items():
        _check_head(data, labels, classes, head, number, key)
    data.check_files()
    _check_loaders(data, dataset.get('pipeline'), key)
    return {
        'images': len(labels),
        'classes': None if classes is None else tuple(classes),
        'warnings': _check_images(data, dataset.get('pipeline')),
    }


def _check_images(data, pipeline) -> list[str]:
    folder, names = data.image_files()
    if not names:
        return []
    _, warnings = check_image_files(
        names,
        folder,
        find_loader(pipeline),
        f' that {data.ann_file} lists' if data.ann_file else '',
        'Fetch them again, or check that data_prefix is the folder that the paths start from',
    )
    return warnings


def find_class(dataset: Mapping[str, Any]) -> Any:
    """The class of a data set config.

    Args:
        dataset: The config.

    Returns:
        The class, or None where its name is not registered.
    """
    # Here and not above: the check of a folder should not need the whole of MMDetection.
    from mmdet.registry import DATASETS

    return find_type(dataset, DATASETS)


def data_arguments(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments in a data set config that decide which samples it has.

    Args:
        dataset: The config.

    Returns:
        The arguments.
    """
    return {name: value for name, value in dataset.items() if name not in _NOT_DATA}


def _check_loaders(data, pipeline, key):
    """Ask those transforms that can check the files which they will load, without loading them."""
    from mmdet.registry import TRANSFORMS

    for i, transform in enumerate(pipeline or ()):
        cls = find_type(transform, TRANSFORMS)
        if hasattr(cls, 'check_files'):
            try:
                loader = cls(**arguments(transform))
                loader.check_files([data.get_data_info(j)['img_path'] for j in range(len(data))])
            except (DatasetError, TypeError) as error:  # TypeError of a misspelt argument
                raise DatasetError(f'{key}.pipeline.{i}: {error}') from error


def _check_head(data, labels, classes, head, number, key):
    outside = np.flatnonzero(labels >= number)
    if len(outside):
        first = int(outside[0])
        info = data.get_data_info(first)
        place = info.get('img_path') or f'sample {first}'
        needed = len(classes) if classes is not None else int(labels.max()) + 1
        more = f', and {len(outside) - 1} more labels are too large' if len(outside) > 1 else ''
        raise DatasetError(
            f'{head} is {number}, so that labels go from 0 to {number - 1}, but {place} ({key}) '
            f'has the label {labels[first]}{more}. Set {head}={needed}, or give other data'
        )
    if classes is not None and len(classes) != number:
        raise DatasetError(
            f'{head} is {number}, but the data set of {key} has {len(classes)} classes. Set '
            f'{head}={len(classes)}, or metainfo.classes of the data set to {number} names'
        )
