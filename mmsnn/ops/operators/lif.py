"""The neuron, its gradient, and the statistics of a norm in front of it.

Autocast has no rule here because it needs none: a neuron takes what comes, computes in float32
inside and gives spikes in the dtype it was given. Spikes that backward needs again are kept as bits
in memory order, whatever the layout.
"""

from typing import NamedTuple, Optional, Union

import torch
from torch import Tensor

from ..backends.base import Backend
from ..checks import check_bits, check_call, check_channels, check_fits, check_steps
from ..dispatch import REFERENCE, choose
from ..gate import GATES
from ..layout import (
    empty_steps,
    inner_layout,
    input_laid_out,
    is_dense,
    laid_out,
    lif_layout,
)
from ..spec import LIF, LIFCall, LIFGrads, compute_dtype
from .base import define, differentiate
from .bits import pack_or_keep

INPUTS = 'Tensor x, Tensor? scale, Tensor? shift, Tensor? shortcut, Tensor? decay_tensor, ' \
    'Tensor? input_scale_tensor, Tensor? mean, Tensor? invstd'  # fmt: skip
NEURON = 'float decay, float input_scale, float v_threshold, str reset, bool detach_reset, ' \
    'str surrogate, float surrogate_width, str? gate, int time_steps'  # fmt: skip


def _apart(leak: Union[float, Tensor]) -> tuple[float, Optional[Tensor]]:
    return (1.0, leak) if isinstance(leak, Tensor) else (float(leak), None)


class Arguments(NamedTuple):
    """A neuron as schemas have it: ``INPUTS``, then ``NEURON``.

    Schemas cannot type float-or-Tensor, so a learnable decay or input_scale is passed as a tensor
    beside the float. Where mean and invstd are given, x is first normalised by them, and they are
    differentiated through as statistics of x itself over all axes but the channels'.
    """

    x: Tensor
    scale: Optional[Tensor]
    shift: Optional[Tensor]
    shortcut: Optional[Tensor]
    decay_tensor: Optional[Tensor]
    input_scale_tensor: Optional[Tensor]
    mean: Optional[Tensor]
    invstd: Optional[Tensor]
    decay: float
    input_scale: float
    v_threshold: float
    reset: str
    detach_reset: bool
    surrogate: str
    surrogate_width: float
    gate: Optional[str]
    time_steps: int

    @classmethod
    def of(
        cls, call: LIFCall, mean: Optional[Tensor] = None, invstd: Optional[Tensor] = None
    ) -> 'Arguments':
        """The arguments of a call."""
        neuron = call.neuron
        decay, decay_tensor = _apart(neuron.decay)
        input_scale, input_scale_tensor = _apart(neuron.input_scale)
        return cls(
            call.x, call.scale, call.shift, call.shortcut, decay_tensor, input_scale_tensor, mean,
            invstd, decay, input_scale, float(neuron.v_threshold), neuron.reset,
            bool(neuron.detach_reset), neuron.surrogate, float(neuron.surrogate_width), call.gate,
            call.time_steps,
        )  # fmt: skip

    def call(self) -> LIFCall:
        """The call, with the values of tensors for constants and without the statistics."""
        decay, input_scale = (
            number if tensor is None else float(tensor)
            for number, tensor in (
                (self.decay, self.decay_tensor),
                (self.input_scale, self.input_scale_tensor),
            )
        )
        neuron = LIF(decay, input_scale, *self[10:15])
        return LIFCall(self.x, neuron, *self[1:4], self.gate, self.time_steps)

    def check_statistics(self) -> None:
        """Refuse statistics that don't belong to the input.

        Raises:
            ValueError: Says what was given.
        """
        given = [v is not None for v in (self.mean, self.invstd, self.scale, self.shift)]
        if any(given[:2]) and not all(given):
            raise ValueError('mean and invstd come together, with a scale and a shift')
        call = LIFCall(self.x, LIF(), time_steps=self.time_steps)
        check_channels(call, mean=self.mean, invstd=self.invstd)

    def affine(self) -> tuple[Optional[Tensor], Optional[Tensor]]:
        """(C,) scale and shift in the dtype that potentials have, statistics folded in."""
        dtype = compute_dtype(self.x.dtype)
        scale, shift, mean, invstd = (
            None if v is None else v.to(dtype).contiguous()
            for v in (self.scale, self.shift, self.mean, self.invstd)
        )
        if mean is None:
            return scale, shift
        assert scale is not None  # check_statistics
        assert shift is not None
        assert invstd is not None
        scale = scale * invstd
        return scale, shift - mean * scale


# ---- forward -------------------------------------------------------------------------------------


def _lif(
    *args,
    dtype: Optional[torch.dtype] = None,
    backend: Optional[Backend] = None,
    v: Optional[Tensor] = None,
):
    arguments = Arguments(*args)
    call = arguments.call()
    check_call(call)
    arguments.check_statistics()
    scale, shift = arguments.affine()
    call = call._replace(scale=scale, shift=shift, v=v)
    backend = backend or choose('lif', call.x)
    if backend.gives(dtype or call.x.dtype, call.shortcut, call.gate):
        if backend.takes_any_layout:
            layout = inner_layout(call.x, call.time_steps)
            out = empty_steps(call.x, call.steps, layout, dtype)
        else:
            call, out = lif_layout(call, dtype)
        if out.numel():
            backend.lif(call, out)
        return out
    # Exact in float32, and rounded to what was asked for as the reference does it.
    call, out = lif_layout(call, torch.float32)
    if out.numel():
        backend.lif(call, out)
    return out.to(dtype or call.x.dtype)


def _lif_fake(x, *args):
    time_steps = args[-1]
    inner = torch.empty_like(x if time_steps else x[0])
    return empty_steps(x, time_steps or x.shape[0], (inner.shape, inner.stride()))


lif = define(f'lif({INPUTS}, {NEURON}) -> Tensor', _lif, _lif_fake)


def _lif_as(*args):
    return _lif(*args[:-1], dtype=args[-1])


def _lif_as_fake(x, *args):
    return _lif_fake(x, *args[:-1]).to(args[-1])


# Spikes in another dtype than the currents: for inference, without a gradient.
lif_as = define(f'lif_as({INPUTS}, {NEURON}, ScalarType dtype) -> Tensor', _lif_as, _lif_as_fake)


# ---- backward ------------------------------------------------------------------------------------


class Needs(NamedTuple):
    """Which gradients are wanted."""

    x: bool
    scale: bool
    shift: bool
    shortcut: bool
    decay: bool
    input_scale: bool


def _lif_backward(grad, *args, backend: Optional[Backend] = None, pooled=None):
    """Gradients of what is differentiable, in the order of :class:`Needs`.

    Where the spikes went through a max pool, ``pooled`` is their bits and the pool's windows, and
    ``grad`` (T * B, C, H', W') is that of what came out of it.
    """
    arguments, needs = Arguments(*args[:-1]), Needs(*args[-1])
    _check_backward(grad, arguments.call(), pooled)
    arguments.check_statistics()
    call, layout = _laid_out_call(arguments)
    through_statistics = arguments.mean is not None and needs.x
    grads = _places(call, layout, needs, through_statistics)
    backend = backend or choose('lif_backward', call.x)
    if pooled is not None:
        backend.pooled_lif_backward(grad, call, grads, *pooled)
    elif call.x.numel():
        backend.lif_backward(laid_out(grad, call.x, layout), call, grads)
    grad_x = grads.x
    if through_statistics:
        grad_x = _through_statistics(arguments, call, grads, backend)
    return _results(arguments, needs, grads._replace(x=grad_x))


def _laid_out_call(arguments: Arguments) -> tuple[LIFCall, tuple]:
    """The call with all its tensors in one layout, and that."""
    call = arguments.call()
    layout = inner_layout(call.x, call.time_steps)
    shortcut = call.shortcut
    if shortcut is not None:
        in_bits = shortcut.dtype == torch.uint8
        shortcut = shortcut.contiguous() if in_bits else laid_out(shortcut, call.x, layout)
    scale, shift = arguments.affine()
    x = input_laid_out(call.x, call.time_steps, layout)
    return call._replace(x=x, scale=scale, shift=shift, shortcut=shortcut), layout


def _like_input(call: LIFCall, dtype: torch.dtype) -> Tensor:
    x = call.x
    if call.time_steps:
        return torch.empty_strided(x.shape, x.stride(), dtype=dtype, device=x.device)
    return empty_steps(x, x.shape[0], (x.shape[1:], x.stride()[1:]), dtype)


def _places(call: LIFCall, layout: tuple, needs: Needs, through_statistics: bool) -> LIFGrads:
    """Where gradients go; empty but for the sums, which begin at 0.

    Through statistics, the sums come before the gradient they are part of: dL/dcurrent stays behind
    for a light second pass, unrounded, so that half precision is rounded once.
    """
    x = call.x
    need_sums = needs.scale or needs.shift or through_statistics
    channels = x.shape[call.channel_axis] if need_sums else 0
    dtype = compute_dtype(x.dtype) if through_statistics else x.dtype

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=x.device)

    return LIFGrads(
        x=_like_input(call, dtype) if needs.x else None,
        grad_coef=None if through_statistics else call.scale,
        shortcut=empty_steps(x, call.steps, layout) if needs.shortcut else None,
        channel_sums=zeros(2, channels) if need_sums else None,
        leak_sums=zeros(2) if needs.decay or needs.input_scale else None,
    )


def _through_statistics(
    arguments: Arguments, call: LIFCall, grads: LIFGrads, backend: Backend
) -> Tensor:
    r"""dL/dx where the statistics are those of x itself.

    With y' = dL/dcurrent, n values a channel and z = (x - mean) invstd:
    scale (y' - mean of y' - z * mean of y' z) as coefficients of y', x and 1.
    """
    x, scale, y_grad, sums = call.x, call.scale, grads.x, grads.channel_sums
    assert scale is not None  # statistics come with a scale
    assert y_grad is not None
    assert sums is not None
    assert arguments.mean is not None
    assert arguments.invstd is not None
    mean, invstd = (v.to(scale.dtype) for v in (arguments.mean, arguments.invstd))
    share = len(mean) / max(x.numel(), 1)
    mean_grad = (sums[0] * share).to(scale.dtype)
    slope = ((sums[1] - mean * sums[0]) * invstd * share).to(scale.dtype) * invstd
    by = (scale, -scale * slope, scale * (slope * mean - mean_grad))
    grad_x = y_grad if x.dtype == y_grad.dtype else _like_input(call, x.dtype)
    if x.numel():
        if backend.supports('input_grad', x):
            backend = choose('input_grad', x)
        backend.input_grad(y_grad, call, by, grad_x)
    return grad_x


def _results(arguments: Arguments, needs: Needs, grads: LIFGrads) -> tuple[Tensor, ...]:
    """What the operator gives, empty where it isn't wanted."""
    x, sums = arguments.x, grads.channel_sums
    found: list[Optional[Tensor]] = [grads.x, None, None, grads.shortcut, None, None]
    if sums is not None:
        by_scale = sums[1]
        if arguments.mean is not None and arguments.invstd is not None:
            mean, invstd = (
                v.to(compute_dtype(x.dtype)) for v in (arguments.mean, arguments.invstd)
            )
            by_scale = (sums[1] - mean * sums[0]) * invstd
        found[1:3] = _like(by_scale, arguments.scale), _like(sums[0], arguments.shift)
    if grads.leak_sums is not None:
        decay, input_scale = grads.leak_sums
        found[4] = _like(decay, arguments.decay_tensor)
        found[5] = _like(input_scale, arguments.input_scale_tensor)
    return tuple(
        value if need and value is not None else x.new_empty(0)  # its own: outputs share no memory
        for need, value in zip(needs, found)
    )


def _like(value: Tensor, tensor: Optional[Tensor]) -> Optional[Tensor]:
    return None if tensor is None else value.to(tensor.dtype).view(tensor.shape)


def _check_backward(grad: Tensor, call: LIFCall, pooled) -> None:
    x, shortcut, steps = call.x, call.shortcut, call.steps
    # The shortcut may have come as bits, or not at all where the gradient doesn't need it.
    if shortcut is None and call.gate in GATES and not GATES[call.gate].needs_shortcut:
        call = call._replace(gate=None)
    elif shortcut is not None and shortcut.dtype == torch.uint8:
        check_bits(shortcut, steps, x.numel() if call.time_steps else x.numel() // max(steps, 1))
        check_fits('shortcut', shortcut, shortcut.shape, x)
        spikes = x.expand(steps, *x.shape) if call.time_steps else x
        call = call._replace(shortcut=spikes)
    check_call(call)
    if pooled is None:
        shape = (call.time_steps, *x.shape) if call.time_steps else x.shape
        check_fits('the gradient', grad, shape, x)


def _lif_backward_fake(grad, *args):
    arguments, needs = Arguments(*args[:-1]), args[-1]
    x, time_steps = arguments.x, arguments.time_steps
    inner = torch.empty_like(x if time_steps else x[0])
    layout = (inner.shape, inner.stride())
    like = (
        inner if time_steps else empty_steps(x, x.shape[0], layout),
        arguments.scale,
        arguments.shift,
        empty_steps(x, grad.shape[0], layout),
        arguments.decay_tensor,
        arguments.input_scale_tensor,
    )
    return tuple(torch.empty_like(g) if need else x.new_empty(0) for g, need in zip(like, needs))


lif_backward = define(
    f'lif_backward(Tensor grad, {INPUTS}, {NEURON}, bool[] needs) '
    '-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)',
    _lif_backward,
    _lif_backward_fake,
)


def _keep(ctx, inputs, output):
    arguments = Arguments(*inputs)
    x, shortcut, gate = arguments.x, arguments.shortcut, arguments.gate
    kept = None
    if gate is not None and GATES[gate].needs_shortcut:
        layout = inner_layout(x, arguments.time_steps)
        kept = laid_out(shortcut, x, layout)
        if not is_dense(kept):  # packing would choose an order of axes of its own
            kept = empty_steps(x, shortcut.shape[0], layout).copy_(kept)
        kept = pack_or_keep(kept, shortcut.shape[0])
    ctx.save_for_backward(x, arguments.scale, arguments.shift, kept, *inputs[4:8])
    ctx.neuron = inputs[8:]


def _differentiate(ctx, grad):
    needs = list(ctx.needs_input_grad[:6])
    grads = lif_backward(grad, *ctx.saved_tensors, *ctx.neuron, needs)
    grads = [g if need else None for g, need in zip(grads, needs)]
    return (*grads, *[None] * (2 + len(ctx.neuron)))


differentiate('lif', _differentiate, _keep)


# ---- statistics ----------------------------------------------------------------------------------


def _channel_stats(x, time_steps, backend: Optional[Backend] = None):
    if x.dim() < (2 if time_steps else 3):
        form = '(B, C, ...)' if time_steps else '(T, B, C, ...)'
        raise ValueError(f'statistics by channel need {form}, got the shape {tuple(x.shape)}')
    check_steps(x, time_steps or None)
    backend = backend or choose('channel_stats', x)
    if not x.numel():
        backend = REFERENCE
    x = input_laid_out(x, time_steps, inner_layout(x, time_steps))
    return backend.channel_stats(x, time_steps)


def _channel_stats_fake(x, time_steps):
    channels = x.shape[1 if time_steps else 2]
    dtype = compute_dtype(x.dtype)
    return x.new_empty(channels, dtype=dtype), x.new_empty(channels, dtype=dtype)


channel_stats = define(
    'channel_stats(Tensor x, int time_steps) -> (Tensor mean, Tensor var)',
    _channel_stats,
    _channel_stats_fake,
)
