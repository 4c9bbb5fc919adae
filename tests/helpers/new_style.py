"""Configs in MMEngine's new style: pure Python, in which a type is a class and not its name."""

import importlib

from mmdet.registry import (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TASK_UTILS,
    TRANSFORMS,
    VISBACKENDS,
    VISUALIZERS,
)
from mmengine.config import Config
from mmengine.registry import LOG_PROCESSORS

REGISTRIES = (
    MODELS,
    TASK_UTILS,
    TRANSFORMS,
    DATASETS,
    DATA_SAMPLERS,
    METRICS,
    HOOKS,
    LOOPS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    VISBACKENDS,
    VISUALIZERS,
    LOG_PROCESSORS,
)


def write_new_style(cfg: Config, path) -> None:
    """Write a config in the new style, without a default scope, as MMDetection's own have none.

    Args:
        cfg: A config of the old style.
        path: Where to.
    """
    imports: dict[str, str] = {}

    def text(value, key=None):
        if isinstance(value, dict):
            return f'dict({", ".join(f"{k}={text(v, k)}" for k, v in value.items())})'
        if isinstance(value, (list, tuple)):
            items = ''.join(f'{text(item)}, ' for item in value)
            return f'[{items}]' if isinstance(value, list) else f'({items})'
        cls = find(value) if key == 'type' else None
        if cls is None:
            return repr(value)
        module = cls.__module__
        # Where users import it from: optimizers and the like are not in the module that they name.
        if getattr(importlib.import_module(module), cls.__name__, None) is not cls:
            return repr(value)
        imports[cls.__name__] = module
        return cls.__name__

    settings = {**cfg.to_dict(), 'default_scope': None}
    settings.pop('custom_imports', None)
    lines = [f'{key} = {text(value)}' for key, value in settings.items()]
    head = [f'from {module} import {name}' for name, module in sorted(imports.items())]
    path.write_text('\n'.join([*head, *lines, '']))


def find(name):
    """The class of a name, or None."""
    found = (registry.get(name) for registry in REGISTRIES)
    return next((cls for cls in found if isinstance(cls, type)), None)
