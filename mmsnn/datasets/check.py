"""Look at all data sets of a config before long work starts on them.

Each kind of data has a check of its own. A data set class that derives from
:class:`~mmsnn.datasets.base.ClsDataset` needs nothing here; for another kind, write a function like
:func:`_cls_job` and add it to ``KINDS``.
"""

import os.path as osp
import re
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, Optional

from . import coco_check
from .base import ClsDataset
from .cls_check import check_cls_dataset, check_same_classes, data_arguments, find_class
from .errors import DatasetError


class Job(NamedTuple):
    """One check to do.

    - ``name``: names the data in what is returned.
    - ``place``: equal for data that need to be read only once.
    - ``check``: takes ``num_classes`` and ``splits``.
    """

    name: str
    place: Hashable
    check: Callable[..., dict[str, Any]]


def check_config_datasets(cfg, splits=('train', 'val'), time_steps=None):
    """Check the data sets of a config.

    Wrappers (``RepeatDataset``, ``ConcatDataset`` and the like) are opened. Data sets of kinds
    that are not known here and data that are not on a local disk are passed over. Data that
    several splits share are read once.

    Args:
        cfg (mmengine.Config): The config.
        splits (Sequence[str]): Which of ``'train'``, ``'val'`` and ``'test'`` to check.
        time_steps (int | None): T of the model; None for the config's.

    Returns:
        dict[str, dict]: What :func:`check_coco_dataset` found, by annotation file, and what
        :func:`check_cls_dataset` found, by config key.

    Raises:
        DatasetError: If anything is wrong with one of them.
    """
    heads = _head_classes(cfg.get('model') or {})
    check_frames(cfg, splits, time_steps)
    jobs = {}
    for split, key, dataset in datasets_of(cfg, splits):
        job = _find_job(dataset, key, _variable(cfg))
        if job is not None:
            jobs.setdefault(job.place, (job, []))[1].append(split)

    results = {job.name: job.check(num_classes=heads, splits=used) for job, used in jobs.values()}
    check_same_classes({k: r for k, r in results.items() if isinstance(r, dict)})
    for split in splits:
        _check_evaluator(cfg.get(f'{split}_evaluator'), f'{split}_evaluator')
    return results


def check_frames(cfg, splits=('train', 'val'), time_steps=None):
    """Check that event frames, which bring a T of their own, have that of the model.

    Args:
        cfg (mmengine.Config): The config.
        splits (Sequence[str]): Which of ``'train'``, ``'val'`` and ``'test'`` to check.
        time_steps (int | None): T of the model; None for the config's.

    Raises:
        DatasetError: They differ.
    """
    if time_steps is None:
        time_steps = ((cfg.get('model') or {}).get('backbone') or {}).get('time_steps')
    for _, key, dataset in datasets_of(cfg, splits):
        for i, transform in enumerate(dataset.get('pipeline') or []):
            frames = transform.get('time_steps') if isinstance(transform, dict) else None
            if frames is not None and time_steps is not None and frames != time_steps:
                raise DatasetError(
                    f'{key}.pipeline.{i}.time_steps is {frames}, but the model has T = '
                    f'{time_steps}: set it and model.backbone.time_steps to the same'
                )


# --- kinds of data -----------------------------------------------------------------------------


def _find_job(dataset, key, variable) -> Optional[Job]:
    cls = find_class(dataset)
    backend = (dataset.get('backend_args') or {}).get('backend', 'local')
    if not isinstance(cls, type) or backend != 'local' or _is_remote(dataset.get('data_root')):
        return None
    for kind in KINDS:
        job = kind(cls, dataset, key, variable)
        if job is not None:
            return job
    return None


def _coco_job(cls, dataset, key, variable) -> Optional[Job]:
    if not coco_check.is_coco(cls):
        return None
    arguments = coco_check.find_arguments(cls, dataset)
    if _is_remote(arguments['ann_file']) or _is_remote(arguments['img_dir']):
        return None
    hint = coco_check.DATA_HINT.replace('train_dataloader.dataset', key)
    if variable:
        hint = hint.replace('MMSNN_COCO_ROOT=/path/to/coco', f'{variable}=/path/to/data')

    def check(num_classes, splits):
        return coco_check.check_coco_dataset(
            num_classes=num_classes, splits=splits, hint=hint, **arguments
        )

    return Job(arguments['ann_file'], (arguments['ann_file'], arguments['img_dir']), check)


def _cls_job(cls, dataset, key, variable) -> Optional[Job]:
    """Images and events with one class each."""
    if not issubclass(cls, ClsDataset):
        return None
    by_variable = f'the environment variable {variable}=/path/to/data, or with ' if variable else ''
    hint = f'Point to your copy with {by_variable}--cfg-options {key}.data_root=/path/to/data'

    def check(num_classes, splits):
        return check_cls_dataset(dataset, key, num_classes, hint)

    return Job(key, (cls, repr(data_arguments(dataset))), check)


KINDS = (_coco_job, _cls_job)


# --- configs -----------------------------------------------------------------------------------


def _head_classes(model):
    heads = {}
    for key, owner in (('model', model), ('model.roi_head', model.get('roi_head') or {})):
        head = owner.get('bbox_head')
        if isinstance(head, dict):
            found = {f'{key}.bbox_head': head}
        else:  # one head for each stage of a cascade
            found = {f'{key}.bbox_head.{i}': stage for i, stage in enumerate(head or [])}
        if key == 'model' and isinstance(owner.get('head'), dict):  # a classifier's
            found['model.head'] = owner['head']
        heads.update(
            {f'{k}.num_classes': h['num_classes'] for k, h in found.items() if 'num_classes' in h}
        )
    return heads


def datasets_of(cfg, splits):
    """Yield split, config key and config of every data set, wrappers opened.

    Args:
        cfg (mmengine.Config): The config.
        splits (Sequence[str]): Of ``'train'``, ``'val'`` and ``'test'``.

    Yields:
        tuple[str, str, dict]: Of one data set.
    """
    for split in splits:
        loader = cfg.get(f'{split}_dataloader') or {}
        for key, dataset in _unwrap(loader.get('dataset'), f'{split}_dataloader.dataset'):
            yield split, key, dataset


def _unwrap(dataset, key):
    """Yield the data sets inside wrappers, each with its config key."""
    if not isinstance(dataset, dict):
        return
    if 'dataset' in dataset:
        yield from _unwrap(dataset['dataset'], f'{key}.dataset')
    elif 'datasets' in dataset:
        for i, part in enumerate(dataset['datasets']):
            yield from _unwrap(part, f'{key}.datasets.{i}')
    else:
        yield key, dataset


def _is_remote(path):
    return '://' in str(path or '')


def _variable(cfg):
    """The environment variable by which this config finds its data, or None."""
    variables = re.findall(r'\{\{\s*\$\s*(\w+)\s*:', getattr(cfg, 'text', ''))
    return variables[0] if variables else None


def _check_evaluator(evaluator, key):
    for metric in evaluator if isinstance(evaluator, (list, tuple)) else [evaluator or {}]:
        path = metric.get('ann_file')
        if path and not _is_remote(path) and not osp.isfile(path):
            raise DatasetError(
                f'{key}.ann_file {path} does not exist. Set it to the annotation file of the '
                'data set that is evaluated'
            )
