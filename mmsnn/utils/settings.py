"""What a config says wrong, found before the data are looked through and the model is built."""

import copy
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

from mmdet.datasets import BaseDetDataset
from mmdet.registry import (
    DATASETS,
    HOOKS,
    METRICS,
    MODELS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
)
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.device import get_device
from mmengine.hooks import CheckpointHook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import Registry, init_default_scope
from mmengine.runner import Runner
from torch import nn

from ..config_types import find_type, type_name
from ..datasets import datasets_of
from ..datasets.checks.evaluators import metrics_of
from .cli import ToolError, error_words


def check_settings(cfg: Config, splits: Sequence[str]) -> None:
    """Look at loaders, pipelines, model, hooks, metrics, optimizer and loop of a config.

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
    for key, part in _model_parts(cfg.get('model')):
        _check_arguments(MODELS, part, key)
    hooks = dict(cfg.get('default_hooks') or {})
    for key, hook in [
        *((f'default_hooks.{name}', hook) for name, hook in hooks.items()),
        *((f'custom_hooks.{i}', hook) for i, hook in enumerate(cfg.get('custom_hooks') or [])),
    ]:
        _check_arguments(HOOKS, hook, key, but=('priority',))  # mmengine takes it out
    for split in splits:
        if split == 'train':
            continue
        for key, metric, _ in metrics_of(cfg.get(f'{split}_evaluator'), f'{split}_evaluator'):
            _check_arguments(METRICS, metric, key)
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


#: Parts that the models of MMDetection and mmsnn build from their configs as they are.
_PARTS = (
    'data_preprocessor', 'backbone', 'neck', 'decoder', 'bbox_head', 'rpn_head', 'roi_head',
    'mask_head', 'head',
)  # fmt: skip


def _model_parts(model: Any, key: str = 'model') -> Iterator[tuple[str, Any]]:
    """Config key and config of a model and its parts."""
    if isinstance(model, Mapping):
        yield key, model
        # A model of a user's own may change what it was given before it builds from it.
        cls = find_type(model, MODELS)
        if getattr(cls, '__module__', '').partition('.')[0] in ('mmdet', 'mmsnn'):
            for name in _PARTS:
                yield from _model_parts(model.get(name), f'{key}.{name}')


def _check_arguments(registry: Registry, part: Any, key: str, but: Sequence[str] = ()) -> None:
    """Check that a class takes all arguments that a config has, without building it."""
    cls = find_type(part, registry)
    accepted = accepted_arguments(cls) if isinstance(cls, type) else None
    if accepted is None:  # unknown names are said where they are built
        return
    unknown = [name for name in part if name not in {*accepted, *but, 'type', '_scope_'}]
    if unknown:
        words = f"{cls.__name__}.__init__() got an unexpected keyword argument '{unknown[0]}'"
        takes = ', '.join(accepted)
        raise ToolError(f'{key}: {error_words(TypeError(words))}. {cls.__name__} takes {takes}')


def accepted_arguments(cls: type) -> Optional[list[str]]:
    """Names of the arguments of a class, and of the classes that it hands others on to.

    Args:
        cls: The class.

    Returns:
        The names, or None where they aren't known for sure.
    """
    names: dict[str, None] = {}
    for owner in cls.__mro__:
        init = vars(owner).get('__init__')
        if init is None:
            continue
        if hasattr(init, '__wrapped__'):  # the wrapper may know other names
            return None
        try:
            parameters = list(inspect.signature(init).parameters.values())[1:]
            source = inspect.getsource(init)
        except (OSError, TypeError, ValueError):
            return None
        names.update(
            (p.name, None)
            for p in parameters
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        )
        more = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
        if more is None:
            return list(names)
        if owner is CheckpointHook:  # it hands them on after the first epoch
            names.update(dict.fromkeys(inspect.signature(Runner.save_checkpoint).parameters))
            return [name for name in names if name != 'self']
        # They go on to the next class only where nothing else is done with them.
        super_of = rf'super\((?:{owner.__name__}, *\w+)?\)'
        handed_on = re.search(rf'{super_of}\.__init__\([^)]*\*\*{more}\b', source)
        code = re.sub(r'""".*?"""', '', source, flags=re.DOTALL)
        if not handed_on or len(re.findall(rf'\b{more}\b', code)) != 2:
            return None
    return None


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
                built = build_optim_wrapper(
                    nn.Linear(2, 2).to(get_device()), copy.deepcopy(wrapper)
                )
            except Exception as error:  # whatever it raises, the run would raise too
                raise ToolError(f'optim_wrapper: {error_words(error)}') from error
            _check_schedulers(cfg, built)
            return
    _check_schedulers(cfg, None)


def _check_schedulers(cfg: Config, optim_wrapper: Any) -> None:
    """Check types of schedulers and, where there is an optimizer to try them on, arguments."""
    schedulers = cfg.get('param_scheduler') or []
    if isinstance(schedulers, Mapping) and 'type' in schedulers:
        schedulers = [schedulers]
    for i, scheduler in enumerate(schedulers if isinstance(schedulers, (list, tuple)) else []):
        key = f'param_scheduler.{i}'
        _check_known(PARAM_SCHEDULERS, scheduler, key)
        if optim_wrapper is None or not isinstance(scheduler, Mapping):
            continue
        try:
            PARAM_SCHEDULERS.build(
                {'end': 2**31, **copy.deepcopy(scheduler)},
                default_args=dict(optimizer=optim_wrapper, epoch_length=2**20),
            )
        except TypeError as error:
            cls = find_type(scheduler, PARAM_SCHEDULERS)
            base = next((c for c in cls.__mro__ if c.__name__.endswith('ParamScheduler')), cls)
            takes = [
                n for n in inspect.signature(base).parameters if n not in ('optimizer', 'kwargs')
            ]
            raise ToolError(
                f'{key}: {error_words(error)}. {cls.__name__} takes {", ".join(takes)}'
            ) from error
        except Exception:  # of values, which depend on the length of the run: its own matter
            continue
