"""The multi-step leaky integrate-and-fire neuron."""

from collections.abc import Callable, Iterator, Sequence
from typing import Optional, Union

import torch
from torch import Tensor

from . import dispatch, operators, reference
from .backends.base import Backend
from .checks import check_call, check_followed, check_steps
from .layout import inner_layout
from .operators.lif import Arguments
from .pool import check_windows, spike_max_pool2d
from .spec import LIF, RESETS, LIFCall, NeuronState
from .surrogate import SURROGATES, check_surrogate


def lif(
    x: Tensor,
    decay: Union[float, Tensor] = 0.5,
    input_scale: Union[float, Tensor] = 1.0,
    v_threshold: float = 1.0,
    reset: str = 'hard',
    detach_reset: bool = False,
    surrogate: str = 'arctan',
    surrogate_width: float = 1.0,
    *,
    scale: Optional[Tensor] = None,
    shift: Optional[Tensor] = None,
    shortcut: Optional[Tensor] = None,
    gate: Optional[str] = None,
    time_steps: Optional[int] = None,
    dtype: Optional[torch.dtype] = None,
    out: Optional[Tensor] = None,
    pool: Optional[Sequence] = None,
    state: Optional[NeuronState] = None,
) -> Tensor:
    r"""Iterative leaky integrate-and-fire over all time steps, starting from v = 0.

    .. math::
        y[t] &= scale \cdot x[t] + shift \\
        h[t] &= decay \cdot v[t-1] + input\_scale \cdot y[t] \\
        s[t] &= [h[t] \ge V_{th}] \\
        v[t] &= h[t] (1 - s[t]) \quad\text{(hard reset)} \qquad
        v[t] = h[t] - V_{th} s[t] \quad\text{(soft reset)} \\
        o[t] &= gate(s[t], shortcut[t])

    and one pass over the data does all of it where a kernel backend is at hand
    (:func:`mmsnn.ops.set_backend`). Backward keeps `x`, and the shortcut at a bit a value.

    decay = 1 is the IF neuron; decay = 1 - 1/tau with input_scale = 1/tau is the tau form
    h = v + (x - v) / tau. Source: STBP (Wu et al. 2018); Zheng et al. 2021, section 3.

    Half-precision inputs are integrated in float32: eight bits of mantissa are enough for a
    spike, not for a sum that is compared with a threshold.

    Args:
        x: Input currents, (T, ...): time first, anything behind it.
        decay: Leak factor, in [0, 1]; a tensor with one element is learnable.
        input_scale: Factor on the input; a tensor with one element is learnable.
        v_threshold: Firing threshold V_th, in units of the membrane potential.
        reset: ``'hard'`` (to 0) or ``'soft'`` (subtract V_th).
        detach_reset: Whether the gradient ignores the spike in the reset.
        surrogate: A key of ``SURROGATES``, also one of :func:`register_surrogate`.
        surrogate_width: Its width.
        scale: Factor on each channel of ``x``, (C,); ``x`` is then (T, B, C, ...).
        shift: Added to each channel behind ``scale``, (C,).
        shortcut: Spikes (T, ...) of the output's shape that meet the neuron's at the gate.
        gate: ``'or'``, ``'add'``, ``'and'`` or ``'iand'``, (1 - s) * shortcut.
        time_steps: T, where ``x`` is (B, C, ...): one current for every step.
        dtype: Dtype of the spikes where it isn't that of ``x``, for inference: there is no
            gradient then. ``torch.uint8`` is what integer convolutions take.
        out: Where the spikes go, in its own dtype: a part of a larger tensor, for inference.
        pool: Kernel size, stride and padding of a max pool (:func:`mmsnn.ops.spike_max_pool2d`)
            that comes last, for maps (T, B, C, H, W). On a CPU the maps in between are bytes, and
            bits as long as backward needs them; nothing else of them is ever in memory.
        state: Potentials (B, ...) to start from, those of the call before, and where the last ones
            are left for the next call: time steps in several calls give the spikes of all in one,
            bit for bit. Gradients end at them.

    Returns:
        Spikes (T, ...), 0 or 1 in the dtype of ``x`` or in ``dtype`` (with ``gate='add'``, their
        sum). Each step has the memory layout of ``x``.

    Raises:
        ValueError: Unknown reset, surrogate or gate, a threshold or width that is not positive, no
            time step, a gate without a shortcut or the other way round, shapes that don't fit, a
            state of another shape or under torch.compile, windows as of
            :func:`mmsnn.ops.spike_max_pool2d`, or ``out`` with a ``pool``.

    Example:
        >>> import torch
        >>> from mmsnn.ops import lif
        >>> lif(torch.tensor([[0.6], [0.8], [0.2]])).flatten()
        tensor([0., 1., 0.])
    """
    neuron = LIF(decay, input_scale, v_threshold, reset, detach_reset, surrogate, surrogate_width)
    _check_neuron(neuron)
    if time_steps is not None:
        check_steps(x, time_steps)
    call = LIFCall(x, _by_kernels(neuron), scale, shift, shortcut, gate, time_steps or 0)
    check_call(call)
    if out is not None:
        _check_out(x, time_steps, dtype, out)
        dtype = out.dtype
    if state is not None:
        call = call._replace(v=_potentials(call, state))
        if out is None and dtype in (None, x.dtype) and _learns(call):
            return _differentiable(call, pool)
    if pool is not None:
        if out is not None:
            raise ValueError('out takes spikes as they come, not those behind a pool')
        if state is None and _pools_in_one(call):
            return _pooled(Arguments.of(call), dtype, pool)
        return _then_pool(lambda dtype: _spikes(call, dtype), x, dtype, pool)
    return _spikes(call, dtype, out)


def _potentials(call: LIFCall, state: NeuronState) -> Tensor:
    check_followed()
    return state.begin(call.x, *inner_layout(call.x, call.time_steps))


def _learns(call: LIFCall) -> bool:
    """Whether there is a gradient of anything."""
    given = call.x, *call.neuron[:2], call.scale, call.shift, call.shortcut
    return torch.is_grad_enabled() and any(isinstance(v, Tensor) and v.requires_grad for v in given)


def _differentiable(call: LIFCall, pool: Optional[Sequence]) -> Tensor:
    """A call from potentials on, with its gradient.

    h[0] is the current of a first step from rest: decay * v + input_scale * y[0], to the last bit.
    The last potentials come from a pass of their own.
    """
    assert call.v is not None
    before = call.v.clone()
    with torch.no_grad():
        _spikes(call, None)
    decay, input_scale = (_without_axes(v) for v in call.neuron[:2])
    neuron = call.neuron._replace(decay=decay, input_scale=input_scale)
    currents = reference.currents_of(call._replace(neuron=neuron))
    if call.time_steps:
        currents = currents.expand(call.time_steps, *currents.shape)
    currents = currents.select_scatter(decay * before + currents[0], 0, 0)
    neuron = neuron._replace(input_scale=1.0)
    spikes = lif(currents, *neuron, shortcut=call.shortcut, gate=call.gate, pool=pool)
    return spikes.to(call.x.dtype)


def _from_potentials(
    call: LIFCall, backend: Backend, dtype: Optional[torch.dtype], out: Optional[Tensor]
) -> Tensor:
    """A checked call with potentials, without a gradient."""
    planned = backend.planned_lif(call, dtype, out)
    if planned is not None:
        return planned
    arguments = Arguments.of(call._replace(x=call.x.resolve_neg()))
    spikes = operators.lif._lif(*arguments, dtype=dtype, backend=backend, v=call.v)
    return spikes if out is None else out.copy_(spikes)


def _spikes(call: LIFCall, dtype: Optional[torch.dtype], out: Optional[Tensor] = None) -> Tensor:
    """A checked call."""
    backend = dispatch.handing_on(_backend('lif', call), call.v)
    if call.v is not None:
        with torch.no_grad():
            return _from_potentials(call, backend, dtype, out)
    if backend is dispatch.REFERENCE:
        # Without axes a tensor doesn't promote the potentials to its dtype.
        decay, input_scale = (_without_axes(v) for v in call.neuron[:2])
        neuron = call.neuron._replace(decay=decay, input_scale=input_scale)
        spikes = reference.lif(call._replace(neuron=neuron), dtype)
        return spikes if out is None else out.copy_(spikes)
    if not operators.is_watched(call.x):
        planned = backend.planned_lif(call, dtype, out)
        if planned is not None:
            return planned
    spikes = _operator(Arguments.of(call), dtype)
    return spikes if out is None else out.copy_(spikes)


@torch.no_grad()
def membrane_potentials(x: Tensor, neuron: LIF) -> Iterator[Tensor]:
    """The membrane potentials h[t] of :func:`lif`, before the reset.

    Args:
        x: Input currents, (T, ...).
        neuron: Its constants.

    Yields:
        One time step after the other, in the dtype that potentials have: float32 for half
        precision, else that of ``x``.

    Example:
        >>> import torch
        >>> from mmsnn.ops import LIF, membrane_potentials
        >>> [h.item() for h in membrane_potentials(torch.tensor([[0.5], [1.0], [0.25]]), LIF())]
        [0.5, 1.25, 0.25]
    """
    currents = (
        neuron.input_scale * frame.to(reference.compute_dtype(x.dtype)) for frame in x.unbind(0)
    )
    for step in reference.integrate(currents, neuron, reference.heaviside):
        yield step.h


def _without_axes(value: Union[float, Tensor]) -> Union[float, Tensor]:
    return value.reshape(()) if isinstance(value, Tensor) else value


def _check_neuron(neuron: LIF) -> None:
    check_surrogate(neuron.surrogate, neuron.surrogate_width)
    if neuron.reset not in RESETS:
        raise ValueError(f'unknown reset {neuron.reset!r}: choose one of {list(RESETS)}')
    if not neuron.v_threshold > 0:
        raise ValueError(f'v_threshold must be positive, got {neuron.v_threshold!r}')


def _check_out(x, time_steps, dtype, out) -> None:
    expected = x.shape if time_steps is None else (time_steps, *x.shape)
    if out.shape != expected or dtype not in (None, out.dtype):
        raise ValueError(
            f'out needs the shape {tuple(expected)} of the spikes and their dtype, '
            f'{dtype or out.dtype}, got {tuple(out.shape)} and {out.dtype}'
        )
    if any(n > 1 and stride == 0 for n, stride in zip(out.shape, out.stride())):
        raise ValueError(
            f'out needs memory for each spike, got an expanded tensor of strides {out.stride()}'
        )


def _operator(arguments: Arguments, dtype: Optional[torch.dtype]) -> Tensor:
    if dtype in (None, arguments.x.dtype):
        return operators.lif.lif(*arguments)
    return operators.lif.lif_as(*arguments, dtype)


def _pooled(arguments: Arguments, dtype: Optional[torch.dtype], pool: Sequence) -> Tensor:
    x, time_steps = arguments.x, arguments.time_steps
    windows = check_windows(x if time_steps else x[0], *pool)
    spikes, _ = operators.lif_pool.lif_pool(*arguments, *windows)
    return spikes.to(dtype or x.dtype).unflatten(0, (time_steps or x.shape[0], x.shape[-4]))


def _in_kernels(neuron: LIF) -> bool:
    return SURROGATES[neuron.surrogate].code is not None


def _by_kernels(neuron: LIF) -> LIF:
    """With a surrogate that the kernels have, where none is needed: spikes are the same by any."""
    if _in_kernels(neuron) or torch.is_grad_enabled():
        return neuron
    return neuron._replace(surrogate='arctan', surrogate_width=1.0)


def _backend(operation: str, call: LIFCall) -> Backend:
    """What computes a call, with its gradient; the reference where no kernel has its surrogate."""
    if not _in_kernels(call.neuron):
        return dispatch.REFERENCE
    return dispatch.choose(operation, call.x)


def _pools_in_one(call: LIFCall) -> bool:
    """Whether there is an operator for neuron and pool, whose gradient is the point of it."""
    if call.gate is not None or not torch.is_grad_enabled():
        return False
    return _backend('pooled_lif_backward', call) is not dispatch.REFERENCE


def _then_pool(fire: Callable, x: Tensor, dtype: Optional[torch.dtype], pool: Sequence) -> Tensor:
    # Spikes are exact in every dtype, and bytes are the least to carry around.
    in_bytes = x.device.type == 'cpu' and not torch.is_grad_enabled()
    spikes = fire(dtype=torch.uint8 if in_bytes else dtype)
    pooled = spike_max_pool2d(spikes.flatten(0, 1), *pool)
    return pooled.to(dtype or x.dtype).unflatten(0, spikes.shape[:2])


def norm_lif(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Optional[Tensor],
    running_var: Optional[Tensor],
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    decay: Union[float, Tensor] = 0.5,
    input_scale: Union[float, Tensor] = 1.0,
    v_threshold: float = 1.0,
    reset: str = 'hard',
    detach_reset: bool = False,
    surrogate: str = 'arctan',
    surrogate_width: float = 1.0,
    *,
    shortcut: Optional[Tensor] = None,
    gate: Optional[str] = None,
    time_steps: Optional[int] = None,
    dtype: Optional[torch.dtype] = None,
    pool: Optional[Sequence] = None,
    state: Optional[NeuronState] = None,
) -> Tensor:
    r"""Batch normalisation over time, batch and space, then :func:`lif` and its gate.

    .. math::
        y = weight_k \frac{x - \mu_k}{\sqrt{\sigma_k^2 + \epsilon}} + bias_k

    with mean and biased variance of channel k over all other axes in training, the running ones
    else; tdBN (Zheng et al. 2021) where `weight` is lambda * alpha * V_th. It equals
    ``lif(batch_norm(x), ...)``, in two passes over the data instead of a dozen, and backward keeps
    `x` alone: y is computed again.

    Args:
        x: (T, B, C, ...), or (B, C, ...) where `time_steps` is given.
        weight: (C,).
        bias: (C,).
        running_mean: (C,), updated in training, as `torch.nn.functional.batch_norm` does; or None
            in training.
        running_var: (C,), likewise.
        training: Whether to normalise by the statistics of `x`.
        momentum: Of the running statistics.
        eps: Added to the variance.
        decay: As of :func:`lif`, and so are the others.
        input_scale: Likewise.
        v_threshold: Likewise.
        reset: Likewise.
        detach_reset: Likewise.
        surrogate: Likewise.
        surrogate_width: Likewise.
        shortcut: Likewise.
        gate: Likewise.
        time_steps: Likewise.
        dtype: Likewise.
        pool: Likewise.
        state: Likewise.

    Returns:
        Spikes (T, B, C, ...) in the dtype of `x` or in `dtype`.

    Raises:
        ValueError: As of :func:`lif`, or one value a channel in training.
    """
    neuron = LIF(decay, input_scale, v_threshold, reset, detach_reset, surrogate, surrogate_width)

    def affine_lif(mean: Tensor, invstd: Tensor) -> Tensor:
        scale = weight * invstd
        return lif(
            x, *neuron, scale=scale, shift=bias - mean * scale, shortcut=shortcut, gate=gate,
            time_steps=time_steps, dtype=dtype, pool=pool, state=state,
        )  # fmt: skip

    if not training:
        if running_mean is None or running_var is None:
            raise ValueError('without statistics of its own a norm needs the running ones')
        return affine_lif(running_mean, torch.rsqrt(running_var + eps))
    _check_neuron(neuron)
    if time_steps is not None:
        check_steps(x, time_steps)
    call = LIFCall(x, _by_kernels(neuron), weight, bias, shortcut, gate, time_steps or 0)
    check_call(call)
    axis = call.channel_axis
    count = x.numel() // max(x.shape[axis], 1)
    if count < 2:
        raise ValueError(
            f'statistics need more than one value a channel, got an input of shape {tuple(x.shape)}'
        )
    # Potentials that are handed on are no argument of the operator of both.
    fast = state is None and _backend('lif', call) is not dispatch.REFERENCE
    if fast:
        mean, var = operators.lif.channel_stats(x.detach(), call.time_steps)
    else:
        mean, var = reference.channel_stats(x, axis)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_(var.to(running_var.dtype) * (count / (count - 1)), momentum)
    invstd = torch.rsqrt(var + eps)
    if not fast:
        return affine_lif(mean, invstd)
    arguments = Arguments.of(call, mean, invstd)
    if pool is None:
        return _operator(arguments, dtype)
    if _pools_in_one(call):
        return _pooled(arguments, dtype, pool)
    return _then_pool(lambda dtype: _operator(arguments, dtype), x, dtype, pool)
