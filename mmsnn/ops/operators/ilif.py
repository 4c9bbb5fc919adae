"""The neuron that gives whole numbers of spikes, and its gradient."""

from typing import Optional

import torch

from ..backends.base import Backend
from ..checks import check_fits, check_levels, check_steps
from ..dispatch import choose
from ..layout import empty_steps, inner_layout, input_laid_out, laid_out
from ..spec import ILIF
from .base import define, differentiate

NEURON = 'int levels, float decay, float v_threshold, bool detach_reset'


def _ilif(
    x,
    *neuron,
    dtype: Optional[torch.dtype] = None,
    backend: Optional[Backend] = None,
    u: Optional[torch.Tensor] = None,
):
    dtype = dtype or x.dtype
    check_steps(x, None)
    check_levels(neuron[0])
    layout = inner_layout(x, 0)
    backend = backend or choose('ilif', x)
    gives = backend.gives(dtype, None, None)
    # Of whole numbers float32 has all that other dtypes have.
    out = empty_steps(x, x.shape[0], layout, dtype if gives else torch.float32)
    if out.numel():
        handed_on = () if u is None else (u,)
        backend.ilif(input_laid_out(x, 0, layout), ILIF(*neuron), out, *handed_on)
    return out.to(dtype)


def _ilif_fake(x, *neuron, dtype: Optional[torch.dtype] = None):
    inner = torch.empty_like(x[0])
    return empty_steps(x, x.shape[0], (inner.shape, inner.stride()), dtype)


ilif = define(f'ilif(Tensor x, {NEURON}) -> Tensor', _ilif, _ilif_fake)


def _ilif_as(*args):
    return _ilif(*args[:-1], dtype=args[-1])


def _ilif_as_fake(*args):
    return _ilif_fake(*args[:-1], dtype=args[-1])


# Spikes in another dtype than the currents: for inference, without a gradient.
ilif_as = define(
    f'ilif_as(Tensor x, {NEURON}, ScalarType dtype) -> Tensor', _ilif_as, _ilif_as_fake
)


def _ilif_backward(grad, x, *neuron, backend: Optional[Backend] = None):
    check_steps(x, None)
    check_levels(neuron[0])
    check_fits('the gradient', grad, x.shape, x)
    layout = inner_layout(x, 0)
    grad_x = empty_steps(x, x.shape[0], layout)
    if x.numel():
        backend = backend or choose('ilif_backward', x)
        x = input_laid_out(x, 0, layout)
        backend.ilif_backward(laid_out(grad, x, layout), x, ILIF(*neuron), grad_x)
    return grad_x


def _ilif_backward_fake(grad, x, *neuron):
    return _ilif_fake(x)


ilif_backward = define(
    f'ilif_backward(Tensor grad, Tensor x, {NEURON}) -> Tensor',
    _ilif_backward,
    _ilif_backward_fake,
)


def _keep(ctx, inputs, output):
    x, *ctx.neuron = inputs
    ctx.save_for_backward(x)


def _differentiate(ctx, grad):
    return ilif_backward(grad, *ctx.saved_tensors, *ctx.neuron), None, None, None, None


differentiate('ilif', _differentiate, _keep)
