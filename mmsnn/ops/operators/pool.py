"""Max pooling of maps."""

from typing import Optional

import torch

from ..backends.base import Backend
from ..checks import check_bits, check_fits, check_windows
from ..dispatch import choose
from ..layout import memory_format
from .base import define, differentiate
from .bits import pack_or_keep

WINDOWS = 'SymInt[] kernel_size, SymInt[] stride, SymInt[] padding'


def pooled_size(size, windows) -> list:
    """(N, C, H', W') of maps of this size."""
    return [
        *size[:2],
        *(
            (n + 2 * pad - kernel) // stride + 1
            for n, kernel, stride, pad in zip(size[2:], *windows)
        ),
    ]


def _max_pool(x, *windows, backend: Optional[Backend] = None):
    check_windows(x, *windows)
    out = _max_pool_fake(x, *windows)
    if out.numel():
        layout = memory_format(x)
        backend = backend or choose('max_pool', x)
        x = x.contiguous(memory_format=layout)
        backend.max_pool(x, windows, layout == torch.channels_last, out)
    return out


def _max_pool_fake(x, *windows):
    size = pooled_size(x.shape, windows)
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=memory_format(x))


max_pool = define(f'max_pool(Tensor x, {WINDOWS}) -> Tensor', _max_pool, _max_pool_fake)


def _max_pool_backward(
    grad, kept, size, channels_last, *windows, backend: Optional[Backend] = None
):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    if not grad.is_floating_point():
        raise ValueError(f'a gradient has a floating dtype, got {grad.dtype}')
    grad_x = _max_pool_backward_fake(grad, kept, size, channels_last)
    check_windows(grad_x, *windows)
    check_fits('the gradient', grad, pooled_size(size, windows), grad_x)
    if kept.dtype == torch.uint8:
        check_bits(kept, 1, grad_x.numel())
        kept = kept.contiguous()
    elif kept.dtype == grad.dtype:
        kept = kept.contiguous(memory_format=layout)
    else:
        raise ValueError(f'the input was kept in {kept.dtype}, its gradient is in {grad.dtype}')
    check_fits('the input', kept, kept.shape if kept.dtype == torch.uint8 else size, grad_x)
    if grad.numel():
        backend = backend or choose('max_pool_backward', grad)
        grad = grad.contiguous(memory_format=layout)
        backend.max_pool_backward(grad, kept, windows, channels_last, grad_x)
    return grad_x


def _max_pool_backward_fake(grad, kept, size, channels_last, *windows):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(size, dtype=grad.dtype, device=grad.device, memory_format=layout)


max_pool_backward = define(
    'max_pool_backward(Tensor grad, Tensor kept, SymInt[] size, bool channels_last, '
    f'{WINDOWS}) -> Tensor',
    _max_pool_backward,
    _max_pool_backward_fake,
)


def _keep(ctx, inputs, output):
    x, *ctx.windows = inputs
    layout = memory_format(x)
    ctx.size, ctx.channels_last = x.shape, layout == torch.channels_last
    ctx.save_for_backward(pack_or_keep(x.contiguous(memory_format=layout)))


def _differentiate(ctx, grad):
    (kept,) = ctx.saved_tensors
    grad_x = max_pool_backward(grad, kept, ctx.size, ctx.channels_last, *ctx.windows)
    return grad_x, None, None, None


differentiate('max_pool', _differentiate, _keep)
