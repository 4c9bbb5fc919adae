"""The neuron for inference on a CPU, prepared once for each layout.

On small maps PyTorch's dispatcher, layouts and a structure of thirty fields take longer than the
neuron itself, and come out the same every time. So they are found once, and a call fills in the
addresses.
"""

from functools import lru_cache
from typing import NamedTuple, Optional

import torch
from torch import Tensor

from . import backend, cpu, library
from .spec import LIF


class _Plan(NamedTuple):
    problem: cpu._Lif  # without addresses
    size: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype


def lif(
    x: Tensor,
    scale: Optional[Tensor],
    shift: Optional[Tensor],
    shortcut: Optional[Tensor],
    neuron: LIF,
    gate: Optional[str],
    time_steps: int,
    dtype: Optional[torch.dtype],
    out: Optional[Tensor],
) -> Optional[Tensor]:
    """Spikes without a gradient and past the dispatcher; all arguments are checked.

    Args:
        x: As of :func:`mmsnn.ops.lif`, and all others.
        scale: Likewise.
        shift: Likewise.
        shortcut: Likewise.
        neuron: Its constants.
        gate: Likewise.
        time_steps: T, or 0 where ``x`` has it.
        dtype: Likewise.
        out: Likewise.

    Returns:
        Spikes, or None where this is a case for the operator: a gradient, a leak that learns,
        somebody who traces, another device, data that has to be laid out first, or an ``out`` that
        shares memory with what is read.
    """
    if library.is_watched(x) or backend.ready_kernel_for(x) != 'c':
        return None
    if isinstance(neuron.decay, Tensor) or isinstance(neuron.input_scale, Tensor):
        return None
    tensors = x, scale, shift, shortcut
    given = *tensors, out
    if not all(v is None or (v.is_cpu and not v.is_neg()) for v in given):
        return None
    layouts = [None if v is None else (v.shape, v.stride(), v.dtype) for v in given]
    plan = _plan(*layouts, neuron, gate, time_steps, dtype)
    if plan is None:
        return None
    if out is None:
        out = torch.empty_strided(plan.size, plan.strides, dtype=plan.dtype)
    elif _shares_memory(out, tensors):
        return None
    cpu.solve_lif(plan.problem, *tensors, out)
    return out


def _shares_memory(out: Tensor, tensors: tuple) -> bool:
    begin, end = library.span(out)
    spans = [library.span(v) for v in tensors if v is not None]
    return any(first < end and begin < last for first, last in spans)


@lru_cache(maxsize=4096)
def _plan(x, scale, shift, shortcut, out, neuron, gate, time_steps, dtype) -> Optional[_Plan]:
    x, scale, shift, shortcut, out = (
        None if layout is None else torch.empty_strided(*layout[:2], dtype=layout[2], device='meta')
        for layout in (x, scale, shift, shortcut, out)
    )
    library.check_lif(x, scale, shift, shortcut, gate, time_steps or None)
    if not library.gives('c', dtype or x.dtype, shortcut, gate):
        return None
    laid_out = library.lif_layout(x, shortcut, time_steps, dtype)
    same = laid_out[0] is x and laid_out[1] is shortcut
    fresh = laid_out[2]
    if out is None:
        out = fresh
    elif (
        (out.shape, out.dtype) != (fresh.shape, fresh.dtype)
        or not library.same_strides(out.shape[1:], out.stride()[1:], fresh.stride()[1:])
        or (len(out) > 1 and out.stride(0) < fresh.stride(0))  # steps on top of each other
    ):
        return None
    plain = all(
        v is None or (v.dtype == torch.float32 and v.is_contiguous()) for v in (scale, shift)
    )
    if not (same and plain and x.numel()):
        return None
    problem = cpu.lif_problem(x, shortcut, gate, time_steps, neuron, out)
    return _Plan(problem, out.shape, out.stride(), out.dtype)
