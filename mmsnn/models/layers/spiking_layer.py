"""Conv, norm, neuron and gate as one step."""

from typing import TYPE_CHECKING, Any, Optional, Protocol

import torch
from torch import Tensor, nn

from ... import ops
from .gate import Gate
from .neurons import SpikingNeuron
from .pool import SpikeMaxPool2d
from .spike_conv import conv_of_spikes, is_hooked
from .tdbn import TDBN, SyncTDBN, batch_norm_arguments

if TYPE_CHECKING:  # Python 3.9 has no TypeGuard
    from typing import TypeGuard


class _FiringConv(Protocol):
    """A conv that may have the neurons behind it in it (mmsnn.deploy)."""

    def lif(self, x: Tensor, neuron: ops.LIF, **options: Any) -> Optional[Tensor]: ...


def spiking_layer(
    conv: nn.Module,
    norm: nn.Module,
    neuron: nn.Module,
    x: Tensor,
    time_steps: int,
    gate: Optional[Gate] = None,
    shortcut: Optional[Tensor] = None,
    *,
    shared: bool = False,
    binary: bool = True,
    pool: Optional[nn.Module] = None,
) -> Tensor:
    """pool(gate(neuron(norm(conv(x))), shortcut)), in as few passes over the data as there can be.

    Norm, neuron and gate are one pass (:func:`mmsnn.ops.norm_lif`) where they are a tdBN or batch
    norm, one of mmsnn's neurons and a gate that names its ``fused`` operation. Any other module is
    called as it is, and so is one that somebody hooks, so that hooks see what they ask for. A
    neuron with an ``observer`` stays fused with its norm, and its gate becomes a pass of its own:
    the observer sees the neuron's spikes, not the gate's.

    A max pool of spikes is part of that pass: behind a stem, the maps in between are the largest of
    all, and none is made of them on a CPU but one of bits or bytes.

    Args:
        conv: Conv layer.
        norm: Norm layer, or ``nn.Identity`` where it is folded into the conv.
        neuron: Neuron.
        x: (T*B, C, H, W), time-major; (B, C, H, W) where ``shared``.
        time_steps: Number of time steps, T.
        gate: Gate that joins the spikes with ``shortcut``.
        shortcut: Spikes (T*B, C_out, H', W').
        shared: Whether all time steps see the same ``x``.
        binary: Whether ``x`` is spikes, 0 and 1, which are kept for backward at one bit a value.
        pool: What comes last, as a max pool; default nothing.

    Returns:
        Spikes (T*B, C_out, H', W').
    """
    if not _fuses(norm, neuron, gate):
        x = norm(conv_of_spikes(conv, x, binary))
        if shared:
            x = x.repeat(time_steps, *[1] * (x.dim() - 1))
        x = neuron(x, time_steps)
        x = x if gate is None else _joined(gate, x, shortcut, time_steps)
        return x if pool is None else pool(x)
    assert isinstance(neuron, SpikingNeuron)  # _fuses looked
    fold = (time_steps, -1)
    record = neuron.known_record()
    options: dict[str, Any] = dict(dtype=neuron.spike_dtype)
    if neuron.state is not None:
        options['state'] = neuron.state
    gate_apart = None if neuron.observer is None else gate
    if gate is not None and gate_apart is None:
        assert shortcut is not None  # a gate joins two
        options.update(gate=gate.fused, shortcut=shortcut.unflatten(0, fold))
    spikes: Optional[Tensor] = None
    if not shared and _fires(conv, norm):
        spikes = conv.lif(x.unflatten(0, fold), record, **options)
    if spikes is None:
        x = conv_of_spikes(conv, x, binary)
        if shared:
            options['time_steps'] = time_steps
        else:
            x = x.unflatten(0, fold)
        if neuron.observer is None and _is_max_pool(pool):
            options['pool'] = pool.kernel_size, pool.stride, pool.padding
            pool = None
        spikes = _norm_lif(norm, x, record, options)
    spikes = neuron.observed(spikes).flatten(0, 1)
    if gate_apart is not None:
        spikes = _joined(gate_apart, spikes, shortcut, time_steps)
    return spikes if pool is None else pool(spikes)


def _fuses(norm: nn.Module, neuron: nn.Module, gate: Optional[Gate]) -> bool:
    batch_norm = type(norm) in (TDBN, SyncTDBN, nn.BatchNorm2d) and norm.affine
    return (
        (batch_norm or type(norm) is nn.Identity)
        and isinstance(neuron, SpikingNeuron)
        and neuron.runs_by_record
        and (gate is None or gate.fused is not None)
        and not any(is_hooked(module) for module in (norm, neuron, gate))
    )


def _joined(gate: Gate, spikes: Tensor, shortcut: Optional[Tensor], time_steps: int) -> Tensor:
    """gate(spikes, shortcut); in float32 where the formula may not hold for bytes."""
    assert shortcut is not None  # a gate joins two
    if spikes.dtype != torch.uint8 or gate.takes_bytes:
        return gate(spikes, shortcut, time_steps)
    joined = gate(spikes.float(), shortcut.float(), time_steps)
    return joined.to(torch.uint8) if gate.binary else joined


def _norm_lif(norm: nn.Module, x: Tensor, neuron: ops.LIF, options: dict[str, Any]) -> Tensor:
    if isinstance(norm, nn.Identity):
        return ops.lif(x, *neuron, **options)
    if isinstance(norm, SyncTDBN) and norm.synchronises:
        scale, shift = norm.scale_and_shift(x)
        return ops.lif(x, *neuron, scale=scale, shift=shift, **options)
    assert isinstance(norm, nn.BatchNorm2d)  # _fuses looked
    return ops.norm_lif(x, **batch_norm_arguments(norm), **neuron._asdict(), **options)


def _fires(conv: nn.Module, norm: nn.Module) -> 'TypeGuard[_FiringConv]':
    """Whether the conv, an integer one, may have the neurons in it."""
    return hasattr(conv, 'lif') and isinstance(norm, nn.Identity) and not is_hooked(conv)


def _is_max_pool(pool: Optional[nn.Module]) -> 'TypeGuard[SpikeMaxPool2d]':
    return type(pool) is SpikeMaxPool2d and not is_hooked(pool)
