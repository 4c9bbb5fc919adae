"""Defining operators, and when a call has to go through PyTorch's dispatcher."""

from collections.abc import Callable

import torch
from torch import Tensor

LIBRARY = torch.library.Library('mmsnn', 'DEF')
_TAGS = (torch.Tag.needs_fixed_stride_order, torch.Tag.pt2_compliant_tag)


def is_traced(x: Tensor) -> bool:
    """Whether a compiler, a trace, a mode or a transform is to see a call: values may be absent."""
    return (
        torch.compiler.is_compiling()
        or type(x) is not Tensor
        or torch.jit.is_tracing()
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.is_functorch_wrapped_tensor(x)
    )


def is_watched(x: Tensor) -> bool:
    """Whether autograd or a profiler is to see a call, or it :func:`is_traced`."""
    return is_traced(x) or torch.is_grad_enabled() or torch.autograd.profiler._is_profiler_enabled


def define(schema: str, implementation: Callable, fake: Callable) -> Callable:
    """Define an operator ``mmsnn::name``.

    Args:
        schema: As ``torch.library`` takes it.
        implementation: On all devices.
        fake: The same on tensors without values.

    Returns:
        What calls it.
    """
    name = schema.split('(')[0]
    LIBRARY.define(schema, tags=_TAGS)
    LIBRARY.impl(name, implementation, 'CompositeExplicitAutograd')
    torch.library.register_fake(f'mmsnn::{name}', fake, lib=LIBRARY)
    operator = getattr(torch.ops.mmsnn, name).default

    # The dispatcher's round trip takes longer than a kernel on a small map. It would also have
    # resolved views with the negative bit, whose memory has the other sign.
    def call(x, *args):
        if is_watched(x):
            return operator(x, *args)
        return implementation(
            *(v.resolve_neg() if isinstance(v, Tensor) else v for v in (x, *args))
        )

    return call


def differentiate(name: str, backward: Callable, keep: Callable) -> None:
    """Give an operator its gradient.

    Args:
        name: Of the operator.
        backward: (ctx, gradients of its results) to those of its arguments.
        keep: (ctx, arguments, results), puts into ctx what backward needs.
    """
    torch.library.register_autograd(f'mmsnn::{name}', backward, setup_context=keep, lib=LIBRARY)
