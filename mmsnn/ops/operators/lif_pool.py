"""A neuron and the max pool behind it.

Shortcut and gate are None. Between the two, spikes are bytes, and bits for backward: these maps are
the largest of a network.
"""

import math
from collections.abc import Sequence
from typing import Optional

import torch

from ..backends.base import Backend
from ..checks import check_bits, check_fits, check_steps, check_windows
from ..dispatch import choose
from ..layout import maps_laid_out, memory_format
from . import bits as spike_bits
from . import lif, pool
from .base import define, differentiate
from .lif import INPUTS, NEURON, Arguments
from .pool import WINDOWS


def _check(arguments: Arguments, windows: Sequence) -> None:
    x, time_steps = arguments.x, arguments.time_steps
    joined = arguments.shortcut is not None or arguments.gate is not None
    if x.dim() != (4 if time_steps else 5) or joined:
        form = '(B, C, H, W)' if time_steps else '(T, B, C, H, W)'
        raise ValueError(
            f'lif_pool takes maps {form} and no shortcut, got the shape {tuple(x.shape)}'
        )
    check_steps(x, time_steps or None)
    check_windows(x if time_steps else x[0], *windows)


def _lif_pool(*args, backend: Optional[Backend] = None):
    arguments, windows = Arguments(*args[:-3]), args[-3:]
    _check(arguments, windows)
    x = maps_laid_out(arguments.x, arguments.time_steps)
    arguments = arguments._replace(x=x)
    spikes = lif._lif(*arguments, dtype=torch.uint8, backend=backend).flatten(0, 1)
    pooled = pool._max_pool(spikes, *windows, backend=backend)
    return pooled.to(x.dtype), spike_bits._pack(spikes, 1, backend=backend)


def _lif_pool_fake(x, *args):
    *neuron, kernel_size, stride, padding = args
    spikes = lif._lif_fake(maps_laid_out(x, neuron[-1]), *neuron).flatten(0, 1)
    pooled = pool._max_pool_fake(spikes, kernel_size, stride, padding)
    return pooled, spike_bits._pack_fake(spikes, 1)


lif_pool = define(
    f'lif_pool({INPUTS}, {NEURON}, {WINDOWS}) -> (Tensor pooled, Tensor bits)',
    _lif_pool,
    _lif_pool_fake,
)


def _lif_pool_backward(grad, *args, backend: Optional[Backend] = None):
    *neuron, bits, kernel_size, stride, padding, needs = args
    arguments, windows = Arguments(*neuron), (kernel_size, stride, padding)
    _check(arguments, windows)
    x, time_steps = arguments.x, arguments.time_steps
    steps = time_steps or x.shape[0]
    size = [steps * x.shape[-4], *x.shape[-3:]]
    check_fits('the gradient', grad, pool.pooled_size(size, windows), x)
    check_bits(bits, 1, math.prod(size))
    check_fits('bits', bits, bits.shape, x)
    x = maps_laid_out(x, time_steps)
    arguments = arguments._replace(x=x)
    layout = memory_format(x if time_steps else x[0])
    grad, bits = grad.to(x.dtype), bits.contiguous()
    chosen = backend or choose('pooled_lif_backward', x)
    if grad.numel() and not chosen.supports('pooled_lif_backward', x):
        grad = grad.contiguous(memory_format=layout)
        pooled = bits, windows
        return lif._lif_backward(grad, *arguments, needs, backend=chosen, pooled=pooled)
    last = layout == torch.channels_last
    grad = pool._max_pool_backward(grad, bits, size, last, *windows, backend=backend)
    grad = grad.unflatten(0, (steps, -1))
    return lif._lif_backward(grad, *arguments, needs, backend=backend)


def _lif_pool_backward_fake(grad, x, *args):
    *neuron, _, _, _, _, needs = args
    x = maps_laid_out(x, neuron[-1])
    return lif._lif_backward_fake(x.new_empty(neuron[-1] or x.shape[0]), x, *neuron, needs)


lif_pool_backward = define(
    f'lif_pool_backward(Tensor grad, {INPUTS}, {NEURON}, Tensor bits, {WINDOWS}, bool[] needs) '
    '-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)',
    _lif_pool_backward,
    _lif_pool_backward_fake,
)


def _keep(ctx, inputs, output):
    *inputs, kernel_size, stride, padding = inputs
    ctx.save_for_backward(*inputs[:8], output[1])
    ctx.neuron, ctx.windows = inputs[8:], (kernel_size, stride, padding)


def _differentiate(ctx, grad, _):
    needs = list(ctx.needs_input_grad[:6])
    *tensors, bits = ctx.saved_tensors
    grads = lif_pool_backward(grad, *tensors, *ctx.neuron, bits, *ctx.windows, needs)
    grads = [g if need else None for g, need in zip(grads, needs)]
    return (*grads, *[None] * (5 + len(ctx.neuron)))


differentiate('lif_pool', _differentiate, _keep)
