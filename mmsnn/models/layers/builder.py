"""Builds neurons and norms from their configs; :func:`lookup` is for what else has a role."""

from typing import TypeVar, Union

from mmcv.cnn import build_norm_layer
from mmdet.registry import MODELS
from torch import nn

from ...config_types import arguments, find_type
from .neurons import SpikingNeuron
from .tdbn import TDBN

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)

_Class = TypeVar('_Class')


def lookup(
    cfg: dict, role: str, base: Union[type[_Class], tuple[type[_Class], ...]]
) -> type[_Class]:
    """The registered class that a config names.

    Args:
        cfg: Config with a ``type``.
        role: What to call it in the message.
        base: The class, or the tuple of classes, that it has to derive from.

    Returns:
        The class.

    Raises:
        ValueError: No type, an unknown one or one of another role; the message lists the known
            ones.
    """
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise ValueError(f"a {role} config must be a dict with a 'type', got {cfg!r}")
    cls = find_type(cfg, MODELS)
    if cls is None or not issubclass(cls, base):
        found = {**MODELS.parent.module_dict, **MODELS.module_dict}
        known = sorted(
            name
            for name, value in found.items()
            if isinstance(value, type) and issubclass(value, base)
        )
        what = f'unknown {role} {cfg["type"]!r}'
        if cls is not None and isinstance(base, type):
            what = f'{cfg["type"]!r} is no {role}: it does not derive from {base.__name__}'
        raise ValueError(
            f'{what}: choose one of {known}, or register your own with '
            '`@MODELS.register_module()` and name its module in `custom_imports`'
        )
    return cls


def build_neuron(act_cfg: dict) -> SpikingNeuron:
    """Build a neuron, for example from ``dict(type='LIFNeuron', decay=0.5)``.

    Args:
        act_cfg: Config with the ``type`` of a registered :class:`SpikingNeuron`, and its arguments.

    Returns:
        The neuron.

    Raises:
        ValueError: Unknown type; the message lists the known ones.
    """
    cls = lookup(act_cfg, 'neuron', SpikingNeuron)
    return cls(**arguments(act_cfg))


def build_norm(
    norm_cfg: dict, channels: int, postfix: int = 1, v_threshold: float = 1.0, alpha: float = 1.0
) -> tuple[str, nn.Module]:
    """Build a norm layer; a tdBN learns the threshold it stands before and its alpha.

    Args:
        norm_cfg: Config of any norm layer that mmcv can build.
        channels: Number of channels.
        postfix: Number behind the layer's name.
        v_threshold: Threshold of the neuron behind it, unless the config gives one.
        alpha: Scale in joined branches, unless the config gives one.

    Returns:
        The layer's name (``bn1``, ...) and the layer.

    Raises:
        ValueError: Unknown type; the message lists the known ones.
    """
    cls = lookup(norm_cfg, 'norm', NORMS)
    cfg = dict(arguments(norm_cfg), type=cls)
    if issubclass(cls, TDBN):
        cfg = {'v_threshold': v_threshold, 'alpha': alpha, **cfg}
    return build_norm_layer(cfg, channels, postfix=postfix)
