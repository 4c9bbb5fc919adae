"""What all convs on spikes in bytes have in common: their size, checks, layout and choice."""

from typing import Optional

import torch
from torch import Tensor

from .backends.base import Backend
from .checks import check_gate, check_steps
from .dispatch import BackendError, choose, handing_on
from .layout import output_size, steps_laid_out
from .spec import ConvCall, NeuronState

_LAST = torch.channels_last


def check_call(call: ConvCall, channels: int, kernel_size: tuple[int, int]) -> tuple[int, ...]:
    """Refuse what no conv with these weights takes.

    Args:
        call: Its weights are checked.
        channels: C that these take.
        kernel_size: (kH, kW) of them.

    Returns:
        The size (T, B, C_out, H', W') of what comes out.

    Raises:
        ValueError: Names what doesn't fit.
    """
    x, shortcut = call.x, call.shortcut
    stride, padding, dilation = call.geometry
    if min(*stride, *dilation) < 1 or min(padding) < 0:
        raise ValueError(f'no conv has the stride, padding and dilation {call.geometry}')
    fits = x.dtype == torch.uint8 and x.dim() == 5 and x.shape[2] == channels
    size = output_size(x.shape, kernel_size, call.geometry) if fits else (0, 0)
    if not fits or min(*size, *x.shape[3:]) < 1:
        raise ValueError(
            f'a conv of {channels} channels and kernel size {kernel_size} needs bytes '
            f'(T, B, {channels}, H, W), got {x.dtype} of shape {tuple(x.shape)}'
        )
    expected = (*x.shape[:2], call.weights.out_channels, *size)
    if shortcut is not None and (shortcut.dtype, shortcut.shape) != (torch.uint8, expected):
        raise ValueError(
            f'shortcut needs bytes of the shape {expected} of the spikes, got {shortcut.dtype} of '
            f'shape {tuple(shortcut.shape)}'
        )
    check_steps(x, None)
    check_gate(call.gate, shortcut)
    return expected


def from_state(call: ConvCall, size: tuple[int, ...], state: Optional[NeuronState]) -> ConvCall:
    """The call with the potentials of a state, channels last, if there is one."""
    if state is None:
        return call
    _, batch, channels, height, width = size
    strides = channels * height * width, 1, channels * width, channels
    return call._replace(v=state.begin(call.x, (batch, channels, height, width), strides))


def run(
    operation: str,
    call: ConvCall,
    size: tuple[int, ...],
    dtype: torch.dtype,
    backend: Optional[Backend] = None,
) -> Tensor:
    """Compute a checked call.

    Args:
        operation: ``'conv_lif'``, ``'event_conv'`` or ``'event_conv_lif'``.
        call: The call.
        size: Of what comes out.
        dtype: Likewise.
        backend: What computes; by default what is chosen.

    Returns:
        Maps of that size, channels last.

    Raises:
        BackendError: A backend was named that this machine hasn't.
    """
    x, shortcut = call.x, call.shortcut
    if backend is not None and backend.supports(operation, x):
        raise BackendError(backend.supports(operation, x))
    shape = size[0] * size[1], *size[2:]
    out = torch.empty(shape, dtype=dtype, device=x.device, memory_format=_LAST)
    out = out.unflatten(0, size[:2])
    if out.numel():
        # Spikes are the same with any surrogate, and what is prepared for one serves all.
        neuron = call.neuron._replace(surrogate='arctan', surrogate_width=1.0)
        backend = handing_on(backend or choose(operation, x), call.v)
        call = call._replace(
            x=steps_laid_out(x.resolve_neg(), _LAST),
            neuron=neuron,
            shortcut=None if shortcut is None else steps_laid_out(shortcut.resolve_neg(), _LAST),
        )
        getattr(backend, operation)(call, out)
    return out
