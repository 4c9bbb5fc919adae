"""The neuron for inference, prepared once for each layout.

On small maps PyTorch's dispatcher, layouts and a structure of thirty fields take longer than the
neuron itself, and come out the same every time. So they are found once, and a call fills in the
addresses.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor

from ...checks import check_call
from ...layout import lif_layout, same_strides, span
from ...spec import LIFCall
from ..base import Backend


class _Plan(NamedTuple):
    prepared: Any  # what `prepare` gave
    size: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype


def find(
    backend: Backend,
    prepare: Callable[[LIFCall, Tensor], Any],
    call: LIFCall,
    dtype: Optional[torch.dtype],
    out: Optional[Tensor],
) -> Optional[tuple[Any, Tensor]]:
    """What runs a call, and where its spikes go.

    Args:
        backend: Which spikes it gives is asked of it.
        prepare: Makes what runs calls of this layout, from tensors without memory.
        call: A checked call.
        dtype: Of the spikes, where it isn't that of the currents.
        out: Where they go, if that is known.

    Returns:
        What ``prepare`` gave, and the tensor of the spikes; or None where this is a case for the
        operator: a leak that learns, data that has to be laid out first, or an ``out`` that shares
        memory with what is read.
    """
    if call.neuron.learns:
        return None
    tensors = call.x, call.scale, call.shift, call.shortcut
    given = *tensors, out
    if not all(v is None or (v.is_cpu and not v.is_neg()) for v in given):
        return None
    layouts = [None if v is None else (v.shape, v.stride(), v.dtype) for v in given]
    plan = _plan(backend, prepare, *layouts, call.neuron, call.gate, call.time_steps, dtype)
    if plan is None:
        return None
    if out is None:
        out = torch.empty_strided(plan.size, plan.strides, dtype=plan.dtype)
    elif _shares_memory(out, tensors):
        return None
    return plan.prepared, out


def _shares_memory(out: Tensor, tensors: tuple) -> bool:
    begin, end = span(out)
    spans = [span(v) for v in tensors if v is not None]
    return any(first < end and begin < last for first, last in spans)


@lru_cache(maxsize=4096)
def _plan(
    backend, prepare, x, scale, shift, shortcut, out, neuron, gate, time_steps, dtype
) -> Optional[_Plan]:
    x, scale, shift, shortcut, out = (
        None if layout is None else torch.empty_strided(*layout[:2], dtype=layout[2], device='meta')
        for layout in (x, scale, shift, shortcut, out)
    )
    call = LIFCall(x, neuron, scale, shift, shortcut, gate, time_steps)
    check_call(call)
    if not backend.gives(dtype or x.dtype, shortcut, gate):
        return None
    laid_out, fresh = lif_layout(call, dtype)
    same = laid_out.x is x and laid_out.shortcut is shortcut
    if out is None:
        out = fresh
    elif (
        (out.shape, out.dtype) != (fresh.shape, fresh.dtype)
        or not same_strides(out.shape[1:], out.stride()[1:], fresh.stride()[1:])
        or (len(out) > 1 and out.stride(0) < fresh.stride(0))  # steps on top of each other
    ):
        return None
    plain = all(
        v is None or (v.dtype == torch.float32 and v.is_contiguous()) for v in (scale, shift)
    )
    if not (same and plain and x.numel()):
        return None
    return _Plan(prepare(call, out), out.shape, out.stride(), out.dtype)
