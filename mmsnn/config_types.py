"""What the ``type`` of a config stands for.

A type is a name (``'SGResNet'``), a name with a scope or a module (``'mmdet.RetinaNet'``), or, in
pure-Python configs, the class itself. Whoever asks after it asks here.
"""

from collections.abc import Mapping
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
