"""What operators refuse to be given.

A kernel reads memory, whatever is there. So operators check for themselves what they were given, on
the reference too: what a program may do must not depend on the machine.
"""

from collections.abc import Sequence
from typing import Optional

import torch
from torch import Tensor

from .gate import GATES
from .spec import LIFCall


def check_fits(name: str, tensor: Tensor, shape: Sequence[int], x: Tensor) -> None:
    """Refuse a tensor of another shape, or elsewhere than the input.

    Raises:
        ValueError: Says which it is.
    """
    if tensor.shape != torch.Size(shape):
        raise ValueError(
            f'{name} needs the shape {tuple(shape)} for an input of shape {tuple(x.shape)}, got '
            f'{tuple(tensor.shape)}'
        )
    if tensor.device != x.device:
        raise ValueError(f'{name} is on {tensor.device}, the input on {x.device}')


def check_spikes(spikes: Tensor, axes: int) -> None:
    """Refuse spikes of another rank: maps for 5 axes, anything over time for 1.

    Raises:
        ValueError: Says what was given.
    """
    if spikes.dim() < axes or (axes > 1 and spikes.dim() > axes) or not spikes.shape[0]:
        form = '(T, B, C, H, W)' if axes > 1 else '(T, ...)'
        raise ValueError(
            f'spikes need the shape {form} and at least one time step, got {tuple(spikes.shape)}'
        )


def check_bits(bits: Tensor, rows: int, n: int) -> None:
    """Refuse what is not rows of n spikes as bits.

    Raises:
        ValueError: Says what was given.
    """
    if bits.dtype != torch.uint8 or bits.shape != (rows, (n + 7) // 8):
        raise ValueError(
            f'{rows} x {n} spikes are bits of shape {(rows, (n + 7) // 8)} in torch.uint8, got '
            f'{tuple(bits.shape)} in {bits.dtype}'
        )


def check_gate(gate: Optional[str], shortcut: Optional[Tensor]) -> None:
    """Refuse an unknown gate, one without a shortcut, or a shortcut without one.

    Raises:
        ValueError: Names what there is.
    """
    if gate is not None and gate not in GATES:
        raise ValueError(f'unknown gate {gate!r}: choose one of {sorted(GATES)}')
    if (gate is None) != (shortcut is None):
        raise ValueError(
            f'a gate joins spikes with a shortcut: got gate={gate!r} and '
            f'{"no shortcut" if shortcut is None else "a shortcut"}'
        )


def check_steps(x: Tensor, time_steps: Optional[int]) -> None:
    """Refuse a neuron without a time step.

    Args:
        x: As of :func:`mmsnn.ops.lif`.
        time_steps: Likewise.

    Raises:
        ValueError: Says what was given.
    """
    steps = time_steps if time_steps is not None else x.shape[0] if x.dim() else 0
    if steps < 1:
        given = '' if time_steps is None else f' and time_steps={time_steps}'
        raise ValueError(
            f'there has to be at least one time step, got an input of shape {tuple(x.shape)}{given}'
        )


def check_levels(levels: int) -> None:
    """Refuse numbers of spikes that a byte doesn't count.

    Raises:
        ValueError: Says what was given.
    """
    if not 1 <= levels <= 255:
        raise ValueError(f'levels must be a number of spikes from 1 to 255, got {levels}')


def check_followed() -> None:
    """Refuse to hand on potentials where a compiler or a trace looks on.

    Raises:
        ValueError: Says so.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        raise ValueError(
            'a compiler can not follow potentials from call to call: stream with the model as it '
            'is, without torch.compile'
        )


def check_call(call: LIFCall) -> None:
    """Refuse tensors that don't fit together.

    Raises:
        ValueError: Names the one that doesn't.
    """
    x, shortcut, time_steps = call.x, call.shortcut, call.time_steps
    check_gate(call.gate, shortcut)
    check_steps(x, time_steps or None)
    check_channels(call, scale=call.scale, shift=call.shift)
    if shortcut is not None:
        check_fits('shortcut', shortcut, (time_steps, *x.shape) if time_steps else x.shape, x)


def check_channels(call: LIFCall, **values: Optional[Tensor]) -> None:
    """Refuse values that are not one for each channel.

    Raises:
        ValueError: Names the first.
    """
    x, axis = call.x, call.channel_axis
    for name, value in values.items():
        if value is None:
            continue
        if x.dim() <= axis or value.shape != x.shape[axis : axis + 1]:
            form = '(B, C, ...)' if call.time_steps else '(T, B, C, ...)'
            raise ValueError(
                f'{name} needs the shape (C,) of an input {form}, got {tuple(value.shape)} for an '
                f'input of shape {tuple(x.shape)}'
            )
        check_fits(name, value, value.shape, x)


def check_windows(x: Tensor, kernel: Sequence, stride: Sequence, padding: Sequence) -> None:
    """Refuse what can't be pooled: as of :func:`mmsnn.ops.spike_max_pool2d`, in pairs.

    Raises:
        ValueError: Names what it is.
    """
    if x.dim() != 4:
        raise ValueError(f'max pooling takes (N, C, H, W), got a tensor of shape {tuple(x.shape)}')
    if not len(kernel) == len(stride) == len(padding) == 2:
        raise ValueError(
            f'windows come in pairs, got kernel_size {kernel}, stride {stride}, padding {padding}'
        )
    for k, s, p, n in zip(kernel, stride, padding, x.shape[2:]):
        if k < 1 or s < 1:
            raise ValueError(f'kernel_size and stride must be positive, got {kernel} and {stride}')
        if not 0 <= p <= k // 2:
            raise ValueError(
                f'padding must lie between 0 and half of kernel_size, got {padding} for {kernel}'
            )
        if n < 1 or n + 2 * p < k:
            raise ValueError(
                f'an input of shape {tuple(x.shape)} is too small for a window of {kernel} with '
                f'padding {padding}'
            )


def expand_weights(spikes: Tensor, *weights: Tensor) -> list:
    """The weights of :func:`mmsnn.ops.attention_decode` as views of their full shapes.

    Raises:
        ValueError: Spikes of another rank, or weights that don't broadcast or are whole numbers.
    """
    check_spikes(spikes, 5)
    steps, batch, channels, height, width = spikes.shape
    shapes = (steps, batch), (steps, batch, channels), (steps, batch, height, width)
    for name, weight, shape in zip(('temporal', 'channel', 'spatial'), weights, shapes):
        if weight.dim() != len(shape) or any(n not in (1, m) for n, m in zip(weight.shape, shape)):
            raise ValueError(
                f'{name} needs the shape {shape}, or 1 for any size, for spikes of shape '
                f'{tuple(spikes.shape)}, got {tuple(weight.shape)}'
            )
        if not weight.is_floating_point():
            raise ValueError(f'{name} has a floating dtype, got {weight.dtype}')
        check_fits(name, weight, weight.shape, spikes)
    return [weight.expand(shape) for weight, shape in zip(weights, shapes)]
