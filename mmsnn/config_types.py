"""What the ``type`` of a config stands for.

A type is a name (``'SGResNet'``), a name with a scope or a module (``'mmdet.RetinaNet'``), or, in
pure-Python configs, the class itself. Whoever asks after it asks here.
"""

from collections.abc import Mapping, MutableMapping
from typing import Any

from mmengine.registry import Registry


def type_name(cfg: Any) -> str:
    """The bare name of the type of a config.

    Args:
        cfg: The config of a module, data set, transform, hook and so on.

    Returns:
        The name, without scope or module; empty where the config has no type.

    Example:
        >>> from mmsnn.config_types import type_name
        >>> type_name(dict(type='mmdet.Resize')), type_name(dict(type=dict)), type_name(dict())
        ('Resize', 'dict', '')
    """
    kind = cfg.get('type') if isinstance(cfg, Mapping) else None
    if kind is None:
        return ''
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', type(kind).__name__)
    return name.rpartition('.')[2]


def plain_values(cfg: Any) -> Any:
    """A config as plain dicts, lists and tuples, at any depth.

    Args:
        cfg: A config, or a part of one.

    Returns:
        The same values.
    """
    if isinstance(cfg, Mapping):
        return {key: plain_values(value) for key, value in cfg.items()}
    if isinstance(cfg, (list, tuple)):
        return type(cfg)(plain_values(value) for value in cfg)
    return cfg


def loads_frames(pipeline: Any) -> bool:
    """Whether a pipeline loads event frames (T, C, H, W), and not images.

    Args:
        pipeline: Configs of transforms, or None.

    Returns:
        Whether one of them does.
    """
    return any(type_name(t) in ('LoadEventFrames', 'LoadEventWindow') for t in pipeline or ())


#: Types of an ``init_cfg`` that load a file.
_LOADING = ('Pretrained', 'PretrainedInit', 'ANNPretrained')


def loads_weights(init_cfg: Any) -> bool:
    """Whether an ``init_cfg`` begins with the weights of a file.

    Args:
        init_cfg: It, or a list of them.

    Returns:
        Whether one of them does.

    Example:
        >>> from mmsnn.config_types import loads_weights
        >>> loads_weights([dict(type='Kaiming'), dict(type='Pretrained', checkpoint='a.pth')])
        True
    """
    cfgs = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]
    return any(type_name(cfg) in _LOADING for cfg in cfgs)


def forget_pretrained(cfg: Any) -> None:
    """Take the weights that a config would load before training out of it.

    Args:
        cfg: The config of a model, at any depth, which is changed.
    """
    if isinstance(cfg, MutableMapping):
        if loads_weights(cfg.get('init_cfg')):
            cfg['init_cfg'] = None
        cfg = list(cfg.values())
    if isinstance(cfg, (list, tuple)):
        for value in cfg:
            forget_pretrained(value)


def arguments(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What a config hands to its type.

    Args:
        cfg: The config of a module, data set, transform, hook and so on.

    Returns:
        The config without its type, and without the mark that MMEngine leaves on what a config
        takes over from a ``_base_`` of another package.

    Example:
        >>> from mmsnn.config_types import arguments
        >>> arguments(dict(type='NDA', _scope_='mmsnn', flip=False))
        {'flip': False}
    """
    return {name: value for name, value in cfg.items() if name not in ('type', '_scope_')}


def find_type(cfg: Any, registry: Registry) -> Any:
    """The class that the type of a config stands for.

    Args:
        cfg: The config.
        registry: Where names are looked up.

    Returns:
        The class, or the function; None where there is no type, or its name isn't registered.
    """
    kind = cfg.get('type') if isinstance(cfg, Mapping) else None
    if not isinstance(kind, str):
        return kind
    try:
        return registry.get(kind)
    except RuntimeError:  # how mmengine answers for a name with a dot that it can't import
        return None
