"""Builds neurons, norms, gates and decoders from their configs."""

from mmcv.cnn import build_norm_layer
from mmdet.registry import MODELS
from torch import nn

from ...config_types import find_type
from .decoders import SpikeDecoder
from .gates import Gate
from .neurons import LIFNeuron
from .tdbn import TDBN

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def _lookup(cfg: dict, role: str, base) -> type:
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
        raise ValueError(
            f'unknown {role} {cfg["type"]!r}: choose one of {known}, or register '
            'your own with `@MODELS.register_module()` and name its module in '
            '`custom_imports`'
        )
    return cls


def build_neuron(act_cfg: dict) -> nn.Module:
    """Build a neuron, for example from ``dict(type='LIFNeuron', decay=0.5)``.

    Args:
        act_cfg: Config with the ``type`` of a registered neuron and its arguments.

    Returns:
        The neuron.

    Raises:
        ValueError: Unknown type; the message lists the known ones.
    """
    cls = _lookup(act_cfg, 'neuron', LIFNeuron)
    return cls(**{k: v for k, v in act_cfg.items() if k != 'type'})


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
    cls = _lookup(norm_cfg, 'norm', NORMS)
    cfg = dict(norm_cfg, type=cls)
    if issubclass(cls, TDBN):
        cfg = {'v_threshold': v_threshold, 'alpha': alpha, **cfg}
    return build_norm_layer(cfg, channels, postfix=postfix)


def build_gate(gate_cfg: dict, channels: int, norm_cfg: dict, act_cfg: dict) -> nn.Module:
    """Build the gate that joins a residual branch and a shortcut.

    Args:
        gate_cfg: Config with the ``type`` of a registered gate and its arguments.
        channels: Channels of the joined spikes.
        norm_cfg: Norm layer of a gate that has weights.
        act_cfg: Neuron of a gate that has weights; keys in the gate's own ``act_cfg`` win.

    Returns:
        The gate.

    Raises:
        ValueError: Unknown type; the message lists the known ones.
    """
    cls = _lookup(gate_cfg, 'gate', Gate)
    kwargs = {k: v for k, v in gate_cfg.items() if k != 'type'}
    kwargs['act_cfg'] = {**act_cfg, **kwargs.get('act_cfg', {})}
    return cls(channels=channels, **{'norm_cfg': norm_cfg, **kwargs})


def build_decoder(decoder_cfg: dict, channels: int) -> nn.Module:
    """Build a spike decoder, for example from ``dict(type='AttentionSpikeDecoder')``.

    Args:
        decoder_cfg: Config with the ``type`` of a registered decoder and its arguments.
        channels: Channels of the spikes.

    Returns:
        The decoder.

    Raises:
        ValueError: Unknown type; the message lists the known ones.
    """
    cls = _lookup(decoder_cfg, 'decoder', SpikeDecoder)
    return cls(channels=channels, **{k: v for k, v in decoder_cfg.items() if k != 'type'})
