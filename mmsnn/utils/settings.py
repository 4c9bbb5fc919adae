"""What a config says wrong, found before the data are looked through and the model is built."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmdet.datasets import BaseDetDataset
from mmdet.registry import DATASETS, OPTIMIZERS, PARAM_SCHEDULERS, TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper
from mmengine.registry import Registry, init_default_scope
from torch import nn

from ..config_types import find_type, type_name
from ..datasets import datasets_of
from .cli import ToolError, error_words


def check_settings(cfg: Config, splits: Sequence[str]) -> None:
    """Look at loaders, pipelines, optimiser and loop of a config.

    Args:
        cfg: The config.
        splits: Of ``'train'``, ``'val'`` and ``'test'``: what will run.

    Raises:
        ToolError: A setting would fail later, or end a run before it has done anything.
    """
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    for split in splits:
        loader = cfg.get(f'{split}_dataloader') or {}
        _check_least(loader, f'{split}_dataloader', batch_size=1, num_workers=0)
        for key, transform in _transforms(loader.get('dataset'), f'{split}_dataloader.dataset'):
            _check_built(TRANSFORMS, transform, key)
    for _, key, dataset in datasets_of(cfg, splits):
        _check_paths(dataset, key)
    if 'train' in splits:
        _check_least(
            cfg.get('train_cfg') or {}, 'train_cfg', max_epochs=1, max_iters=1, val_interval=1
        )
        _check_optimizer(cfg)


def _check_least(settings: Mapping[str, Any], key: str, **least: int) -> None:
    """Check that whole numbers are numbers, and not too small."""
    for name, low in least.items():
        value = settings.get(name)
        if value is not None and not (isinstance(value, int) and value >= low):
            raise ToolError(f'{key}.{name} is {value!r}: set a whole number of at least {low}')


def _transforms(dataset: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Config key and config of every transform of a data set and of the data sets inside it."""
    if not isinstance(dataset, Mapping):
        return
    for i, transform in enumerate(dataset.get('pipeline') or []):
        yield f'{key}.pipeline.{i}', transform
    yield from _transforms(dataset.get('dataset'), f'{key}.dataset')
    for i, part in enumerate(dataset.get('datasets') or []):
        yield from _transforms(part, f'{key}.datasets.{i}')


def _check_built(registry: Registry, part: Any, key: str) -> None:
    if not isinstance(part, Mapping):  # built already
        return
    if 'type' not in part:
        raise ToolError(f'{key} has no type: {dict(part)}')
    try:
        registry.build(copy.deepcopy(part))
    except Exception as error:  # whatever it raises, the run would raise too
        raise ToolError(f'{key}: {error_words(error)}') from error


def _check_known(registry: Registry, part: Any, key: str) -> None:
    if isinstance(part, Mapping) and find_type(part, registry) is None:
        words = KeyError(f'{type_name(part)} is not in the mmdet::{registry.name} registry.')
        raise ToolError(f'{key}: {error_words(words)}')


def _check_paths(dataset: Mapping[str, Any], key: str) -> None:
    """Check the forms of the paths of a data set that takes and joins them as mmengine does."""
    cls = find_type(dataset, DATASETS)
    plain = (BaseDataset.__init__, BaseDetDataset.__init__)
    if getattr(cls, '__init__', None) not in plain:
        return
    path = dataset.get('ann_file')
    if not (path is None or isinstance(path, str)):
        raise ToolError(
            f'{key}.ann_file must be the path of one file, got {path!r}. For several files take a '
            'ConcatDataset with a data set for each'
        )
    prefixes = dataset.get('data_prefix', {})
    if not isinstance(prefixes, Mapping) or not all(isinstance(p, str) for p in prefixes.values()):
        raise ToolError(
            f"{key}.data_prefix must be a dict of folders, as dict(img='train/'), got {prefixes!r}"
        )


def _check_optimizer(cfg: Config) -> None:
    wrapper = cfg.get('optim_wrapper') or {}
    optimizer = wrapper.get('optimizer')
    if isinstance(optimizer, Mapping):
        if 'type' not in optimizer:
            raise ToolError(
                f'optim_wrapper.optimizer has no type, only {", ".join(map(repr, optimizer))}: '
                "name the optimizer, as optimizer=dict(type='SGD', lr=0.01)"
            )
        _check_known(OPTIMIZERS, optimizer, 'optim_wrapper.optimizer')
        # A constructor of its own may need the model; so may an optimizer the other processes.
        if 'constructor' not in wrapper and cfg.get('launcher', 'none') == 'none':
            try:
                build_optim_wrapper(nn.Linear(2, 2).to(get_device()), copy.deepcopy(wrapper))
            except Exception as error:  # whatever it raises, the run would raise too
                raise ToolError(f'optim_wrapper: {error_words(error)}') from error
    schedulers = cfg.get('param_scheduler') or []
    for i, scheduler in enumerate(schedulers if isinstance(schedulers, (list, tuple)) else []):
        _check_known(PARAM_SCHEDULERS, scheduler, f'param_scheduler.{i}')
