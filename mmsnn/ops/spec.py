"""The records that operations and backends hand on: a neuron, a surrogate, a gate, one call."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional, Union

import torch
from torch import Tensor

#: Ways to reset a neuron that fired, and their codes in the kernels.
RESETS = {'hard': 0, 'soft': 1}


class LIF(NamedTuple):
    """The constants of a leaky integrate-and-fire neuron (:func:`mmsnn.ops.lif`).

    Args:
        decay: Leak factor, in [0, 1]; a tensor with one element is learnable.
        input_scale: Factor on the input; a tensor with one element is learnable.
        v_threshold: Firing threshold V_th, in units of the membrane potential.
        reset: ``'hard'`` (to 0) or ``'soft'`` (subtract V_th).
        detach_reset: Whether the gradient ignores the spike in the reset.
        surrogate: A key of ``SURROGATES``, also one of :func:`mmsnn.ops.register_surrogate`.
        surrogate_width: Its width, in units of the membrane potential.

    Example:
        >>> from mmsnn.ops import LIF
        >>> LIF(decay=0.25, reset='soft').v_threshold
        1.0
    """

    decay: Union[float, Tensor] = 0.5
    input_scale: Union[float, Tensor] = 1.0
    v_threshold: float = 1.0
    reset: str = 'hard'
    detach_reset: bool = False
    surrogate: str = 'arctan'
    surrogate_width: float = 1.0

    @property
    def learns(self) -> bool:
        """Whether a constant of it is a tensor."""
        return isinstance(self.decay, Tensor) or isinstance(self.input_scale, Tensor)


class ILIF(NamedTuple):
    """The constants of a neuron that gives whole numbers of spikes (:func:`mmsnn.ops.ilif`).

    Args:
        levels: D, the most spikes of one time step.
        decay: Leak factor, in [0, 1].
        v_threshold: Firing threshold V_th, in units of the current.
        detach_reset: Whether the gradient ignores the spikes in the reset.
    """

    levels: int = 4
    decay: float = 0.5
    v_threshold: float = 1.0
    detach_reset: bool = False


class Surrogate(NamedTuple):
    """A stand-in for the derivative of the step function.

    Args:
        name: What neurons call it.
        derivative: g(u, width), of u = h - V_th of any shape.
        reach: How many widths away from the threshold it is exactly zero from.
        code: Its number in the kernels, or None where they don't have it.
    """

    name: str
    derivative: Callable[[Tensor, float], Tensor]
    reach: float = math.inf
    code: Optional[int] = None


class Gate(NamedTuple):
    """A way to join the spikes of a neuron with those of a shortcut.

    Args:
        name: What calls name it.
        code: Its number in the kernels.
        join: (spikes s, shortcut) to what comes out.
        derivative: (gradient of that, s, shortcut) to the gradients of s and of the shortcut.
        needs_shortcut: Whether the derivative reads the shortcut.
    """

    name: str
    code: int
    join: Callable[[Tensor, Tensor], Tensor]
    derivative: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    needs_shortcut: bool = True


class LIFCall(NamedTuple):
    """One call of a neuron: what it gets and what it is.

    Args:
        x: (T, B, C, ...), time first; or (B, C, ...), shared by all of ``time_steps``.
        neuron: Its constants.
        scale: Factor on each channel of ``x``, (C,).
        shift: Added to each channel behind ``scale``, (C,).
        shortcut: What meets the spikes at the gate, of their shape; bits in rows of a time step
            where a backward pass kept them so.
        gate: Name of the gate.
        time_steps: T of an ``x`` that all share, else 0.
        v: (B, C, ...), the potentials that it starts from, and where it leaves those that it ends
            with; default 0, and nowhere.
    """

    x: Tensor
    neuron: LIF
    scale: Optional[Tensor] = None
    shift: Optional[Tensor] = None
    shortcut: Optional[Tensor] = None
    gate: Optional[str] = None
    time_steps: int = 0
    v: Optional[Tensor] = None

    @property
    def steps(self) -> int:
        """The number of time steps."""
        return self.time_steps or (self.x.shape[0] if self.x.dim() else 0)

    @property
    def channel_axis(self) -> int:
        """Axis of the channels in ``x``."""
        return 1 if self.time_steps else 2


@dataclass
class NeuronState:
    """What neurons hand on from one call to the next (:func:`mmsnn.ops.lif`): at first, nothing.

    Args:
        tensors: (B, ...) each, of B recordings that go on side by side, and 0 at rest; empty where
            nothing has been handed on yet.

    Example:
        >>> import torch
        >>> from mmsnn.ops import NeuronState, lif
        >>> state = NeuronState()
        >>> lif(torch.tensor([[0.75]]), state=state).item(), state.tensors
        (0.0, (tensor([0.7500]),))
        >>> lif(torch.tensor([[0.75]]), state=state).item(), state.tensors
        (1.0, (tensor([0.]),))
    """

    tensors: tuple[Tensor, ...] = ()

    def begin(self, x: Tensor, shape: Sequence[int], strides: Sequence[int]) -> Tensor:
        """The potentials of a neuron that has them alone.

        Args:
            x: Its currents; the potentials are on their device, and in float32 where that is more.
            shape: Of the potentials, (B, ...).
            strides: Of their memory.

        Returns:
            A tensor that stays part of this state: what is written there is handed on.

        Raises:
            ValueError: What has been handed on has another shape, dtype or device.
        """
        dtype = compute_dtype(x.dtype)
        if self.tensors:
            (v,) = self.tensors
            if (v.shape, v.dtype, v.device) != (torch.Size(shape), dtype, x.device):
                raise ValueError(
                    f'the potentials handed on are {v.dtype} {tuple(v.shape)} on {v.device}, and '
                    f'these currents are for {dtype} {tuple(shape)} on {x.device}: as many '
                    'recordings, of the same size, have to come at every call. Reset the state '
                    'before others come'
                )
            if v.stride() == tuple(strides):
                return v
        fresh = torch.empty_strided(shape, strides, dtype=dtype, device=x.device)
        self.tensors = (fresh.copy_(self.tensors[0]) if self.tensors else fresh.zero_(),)
        return self.tensors[0]

    def select(self, recordings: Sequence[Optional[int]]) -> None:
        """Which recordings go on, in another order, and which begin.

        Args:
            recordings: For each of the next call, its place in the last one, or None where it
                begins, at rest.
        """
        places = [-1 if i is None else i for i in recordings]
        if not self.tensors or places == list(range(len(self.tensors[0]))):
            return
        selected = []
        for v in self.tensors:
            index = torch.tensor(places, device=v.device)
            fresh = (index < 0).view(-1, *[1] * (v.dim() - 1))
            # index_select keeps no memory layout; the next call brings it about.
            selected.append(v.index_select(0, index.clamp_min(0)).masked_fill(fresh, 0))
        self.tensors = tuple(selected)


class ConvCall(NamedTuple):
    """One call of a conv on spikes in bytes, and of the neurons in it.

    Args:
        x: (T, B, C, H, W) in ``torch.uint8``.
        weights: In the order of its kernel.
        geometry: Stride, padding and dilation, in pairs.
        neuron: Constants of the neurons behind it, where there are some.
        shortcut: (T, B, C_out, H', W') in ``torch.uint8``, for the gate.
        gate: Name of the gate.
        v: As of :class:`LIFCall`, (B, C_out, H', W').
    """

    x: Tensor
    weights: Any
    geometry: tuple
    neuron: LIF = LIF()
    shortcut: Optional[Tensor] = None
    gate: Optional[str] = None
    v: Optional[Tensor] = None


class BitsConvCall(NamedTuple):
    """One call of a conv on spikes in bits, or of the gradient of its weights.

    Args:
        bits: (1, n) in ``torch.uint8``, of maps whose channels come last in memory.
        size: (N, C, H, W) of the maps.
        weight: (C_out, C / groups, kH, kW) in any memory format.
        geometry: Stride, padding and dilation, in pairs.
        groups: As of conv2d.
    """

    bits: Tensor
    size: tuple
    weight: Tensor
    geometry: tuple
    groups: int = 1


class LIFGrads(NamedTuple):
    """Where the gradients of a call go that are wanted; None for the others.

    Args:
        x: grad_coef * dL/dcurrent, of the shape of ``x``, summed over time where all steps share
            it.
        grad_coef: (C,), or None for 1.
        shortcut: dL/dshortcut, (T, B, C, ...).
        channel_sums: (2, C) float64: sums of dL/dcurrent and of dL/dcurrent * x by channel.
        leak_sums: (2,) float64: the gradients of decay and input_scale.
    """

    x: Optional[Tensor] = None
    grad_coef: Optional[Tensor] = None
    shortcut: Optional[Tensor] = None
    channel_sums: Optional[Tensor] = None
    leak_sums: Optional[Tensor] = None


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """What is computed in: float32 for half precision and bytes, else the input's own dtype."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16, torch.uint8) else dtype
