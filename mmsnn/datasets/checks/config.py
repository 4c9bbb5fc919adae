"""Look at all data sets of a config before long work starts on them.

Each use of a data set is a check of its own: the same file may be trained on with one set of
classes and validated on with another. A data set class that derives from
:class:`~mmsnn.datasets.base.ClsDataset` needs nothing here; for another kind, add a check to
:func:`_check_use`.
"""

import functools
import logging
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from mmengine.logging import print_log

from ..base import ClsDataset
from ..errors import DatasetError
from .classes import check_same_classes, check_trained_classes
from .classification import check_cls_dataset, data_arguments, find_class
from .coco import check_coco_dataset, is_coco
from .coco_file import read_coco_file
from .evaluators import check_evaluator, check_masks
from .event_detection import check_event_detection, is_event_detection
from .images import find_loader


class Use(NamedTuple):
    """One use of a data set in a config.

    - ``split``: ``'train'``, ``'val'`` or ``'test'``.
    - ``key``: its config key.
    - ``dataset``: its config.
    - ``times``: how often a RepeatDataset repeats it.
    """

    split: str
    key: str
    dataset: Mapping[str, Any]
    times: int


def check_config_datasets(
    cfg, splits=('train', 'val'), time_steps=None, checkpoint=None, checkpoint_path=''
):
    """Check the data sets of a config, and warn, in a line each, of what a run would cope with.

    Wrappers (``RepeatDataset``, ``ConcatDataset`` and the like) are opened. Data sets of kinds
    that are not known here and data that are not on a local disk are passed over.

    Args:
        cfg (mmengine.Config): The config.
        splits (Sequence[str]): Which of ``'train'``, ``'val'`` and ``'test'`` to check.
        time_steps (int | None): T of the model; None for the config's.
        checkpoint (Mapping | None): What the checkpoint file holds that the run starts from; its
            classes must be those of the data.
        checkpoint_path (str): The file, for messages.

    Returns:
        dict[str, dict]: What :func:`check_coco_dataset` and :func:`check_cls_dataset` found, by
        config key.

    Raises:
        DatasetError: If anything is wrong with one of them.
    """
    heads = _head_classes(cfg.get('model') or {})
    check_frames(cfg, splits, time_steps)
    read = functools.lru_cache(None)(read_coco_file)  # files that several uses share, only once
    uses = [use for split in splits for use in _uses_of(cfg, split)]
    results: dict[str, dict] = {}
    known: dict = {}
    for use in uses:
        found = _check_use(use, cfg, heads, read, known)
        if found is not None:
            results[use.key] = found
    check_same_classes(results)
    warnings = [text for found in results.values() for text in found.get('warnings', [])]
    for split in splits:
        own = [use for use in uses if use.split == split]
        found = [(u.key, results[u.key], u.times) for u in own if u.key in results]
        whole = len(found) == len(own) and all('files' in data for _, data, _ in found)
        if split != 'train':
            evaluator = cfg.get(f'{split}_evaluator')
            warnings += check_evaluator(evaluator, split, found if whole else None, read)
            warnings += check_masks(evaluator, split, cfg.get('model') or {})
    if checkpoint is not None:
        check_trained_classes(
            {use.key: results.get(use.key) or _configured(use) for use in uses},
            checkpoint,
            checkpoint_path,
        )
    for text in dict.fromkeys(warnings):
        print_log(text, logger='current', level=logging.WARNING)
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


def _check_use(use, cfg, heads, read, known) -> Optional[dict[str, Any]]:
    """Check one use; ``known`` keeps results for uses of the same samples."""
    dataset, cls = use.dataset, find_class(use.dataset)
    backend = (dataset.get('backend_args') or {}).get('backend', 'local')
    if not isinstance(cls, type) or backend != 'local' or _is_remote(dataset):
        return None
    variable = _variable(cfg, dataset)
    first = f'the environment variable {variable}=/path/to/data, or with ' if variable else ''
    hint = f'Point to your copy with {first}--cfg-options {use.key}.data_root=/path/to/data'
    if issubclass(cls, ClsDataset):  # images and events with one class each
        same = cls, repr(data_arguments(dataset)), find_loader(dataset.get('pipeline'))
        if same not in known:
            known[same] = check_cls_dataset(dataset, use.key, heads, hint)
        return known[same]
    if is_event_detection(cls):
        return check_event_detection(dataset, use.key, heads, hint)
    if not is_coco(cls):
        return None
    return check_coco_dataset(dataset, use.key, heads, use.split, hint, read)


def _configured(use) -> dict[str, Any]:
    """The classes of a data set that was not looked at, as far as the config knows them."""
    classes = (use.dataset.get('metainfo') or {}).get('classes')
    if classes is None:
        classes = (getattr(find_class(use.dataset), 'METAINFO', None) or {}).get('classes')
    return {'classes': tuple(classes) if isinstance(classes, (list, tuple)) else None}


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
        for use in _uses_of(cfg, split):
            yield use[:3]


def _uses_of(cfg, split):
    loader = cfg.get(f'{split}_dataloader') or {}
    return _unwrap(split, f'{split}_dataloader.dataset', loader.get('dataset'), 1)


def _unwrap(split, key, dataset, times):
    """Yield the data sets inside wrappers, each with its config key."""
    if not isinstance(dataset, dict):
        return
    if 'dataset' in dataset:
        inner = dataset['dataset']
        yield from _unwrap(split, f'{key}.dataset', inner, times * dataset.get('times', 1))
    elif 'datasets' in dataset:
        for i, part in enumerate(dataset['datasets']):
            yield from _unwrap(split, f'{key}.datasets.{i}', part, times)
    else:
        yield Use(split, key, dataset, times)


def _is_remote(dataset):
    prefixes = dataset.get('data_prefix') or {}
    paths = [dataset.get('data_root'), dataset.get('ann_file')]
    paths += list(prefixes.values()) if isinstance(prefixes, Mapping) else [prefixes]
    return any('://' in str(path or '') for path in paths)


def _variable(cfg, dataset):
    """The environment variable by which a data set of this config is found, or None."""
    found = re.findall(r'\{\{\s*\$\s*(\w+)\s*:\s*([^}]*?)\s*\}\}', getattr(cfg, 'text', ''))
    root = str(dataset.get('data_root') or '')
    # A config may set another root than the variable of the config that it inherits from.
    return next(
        (name for name, default in found if root.startswith(os.environ.get(name, default))), None
    )
