"""The neuron's kernels for CUDA GPUs, in Triton.

Every lane of a program walks one element through all time steps, in memory order, so that any dense
layout will do. As in the C kernels the order of operations is the reference's, and multiply-adds
are not fused: spikes are equal bit for bit.
"""

import torch
import triton
import triton.language as tl

from ..gate import GATES
from ..spec import ILIF, RESETS, LIFCall, LIFGrads
from ..surrogate import SURROGATES

BLOCK = 512


def check_device() -> None:
    """Raise where there is nothing to compile for.

    Raises:
        RuntimeError: No GPU that torch can use.
    """
    if not (torch.cuda.is_available() or triton.knobs.runtime.interpret):
        raise RuntimeError('torch finds no GPU')


@triton.jit
def _current(x, scale, shift, input_scale, SCALE: tl.constexpr, SHIFT: tl.constexpr):
    if SCALE:
        x = x * scale
    if SHIFT:
        x = x + shift
    return x * input_scale


@triton.jit
def _shortcut(pointer, t, step, offsets, mask, n, PACKED: tl.constexpr):
    if PACKED:
        # Shifts: Triton can't know that nothing is negative, and divides with care.
        row = (n + 7) >> 3
        byte = tl.load(pointer + t * row + (offsets >> 3), mask, 0).to(tl.int32)
        return ((byte >> (offsets & 7).to(tl.int32)) & 1).to(tl.float32)
    else:
        return tl.load(pointer + t * step + offsets, mask, 0).to(tl.float32)


@triton.jit
def _channel(offsets, channels, inner, WIDE: tl.constexpr):
    # Division in 64 bits is a call, for which registers are kept free or saved.
    if not WIDE:
        offsets = offsets.to(tl.int32)
    return offsets // inner % channels


@triton.jit
def _forward(
    x_pointer, scale_pointer, shift_pointer, shortcut_pointer, out_pointer, steps, n, channels,
    inner, x_step, shortcut_step, decay, input_scale, v_threshold, SCALE: tl.constexpr,
    SHIFT: tl.constexpr, RESET: tl.constexpr, GATE: tl.constexpr, WIDE: tl.constexpr,
    SIZE: tl.constexpr,
):  # fmt: skip
    offsets = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    mask = offsets < n
    channel = _channel(offsets, channels, inner, WIDE)
    scale = tl.load(scale_pointer + channel, mask, 0) if SCALE else 1.0
    shift = tl.load(shift_pointer + channel, mask, 0) if SHIFT else 0.0
    v = tl.zeros((SIZE,), tl.float32)
    at = tl.zeros((1,), tl.int64)  # t, wide enough for offsets
    for _ in range(steps):
        x = tl.load(x_pointer + at * x_step + offsets, mask, 0).to(tl.float32)
        h = decay * v + _current(x, scale, shift, input_scale, SCALE, SHIFT)
        s = (h - v_threshold >= 0).to(tl.float32)
        v = h * (1 - s) if RESET == 0 else h - v_threshold * s
        if GATE != 0:
            other = _shortcut(shortcut_pointer, at, shortcut_step, offsets, mask, n, False)
            if GATE == 1:
                s = s + (1 - s) * other
            elif GATE == 2:
                s = s + other
            elif GATE == 3:
                s = s * other
            else:
                s = (1 - s) * other
        tl.store(out_pointer + at * n + offsets, s.to(out_pointer.dtype.element_ty), mask)
        at += 1


@triton.jit
def _slope(u, width, SURROGATE: tl.constexpr):
    distance = tl.abs(u)
    if SURROGATE == 0:
        return tl.where(distance < width / 2, 1.0, 0.0) / width
    elif SURROGATE == 1:
        return tl.maximum(1 - distance / width, 0.0) / width
    elif SURROGATE == 2:
        z = 3.141592653589793 / width * u
        return 1 / (width * (1 + z * z))
    else:
        e = tl.exp(-4 / width * distance)
        return 4 / width * (e / ((1 + e) * (1 + e)))


@triton.jit
def _backward(
    grad_pointer, x_pointer, scale_pointer, shift_pointer, shortcut_pointer, h_pointer,
    grad_coef_pointer, grad_x_pointer, grad_shortcut_pointer, sums_pointer, leak_pointer, steps, n,
    channels, inner, x_step, shortcut_step, grad_step, decay, input_scale, v_threshold, width,
    SCALE: tl.constexpr, SHIFT: tl.constexpr, RESET: tl.constexpr, DETACH: tl.constexpr,
    SURROGATE: tl.constexpr, GATE: tl.constexpr, PACKED: tl.constexpr, SHARED: tl.constexpr,
    GRAD_COEF: tl.constexpr, GRAD_X: tl.constexpr, GRAD_SHORTCUT: tl.constexpr, SUMS: tl.constexpr,
    LEAK: tl.constexpr, WIDE: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    offsets = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    mask = offsets < n
    channel = _channel(offsets, channels, inner, WIDE)
    scale = tl.load(scale_pointer + channel, mask, 0) if SCALE else 1.0
    shift = tl.load(shift_pointer + channel, mask, 0) if SHIFT else 0.0
    a = tl.load(grad_coef_pointer + channel, mask, 0) if GRAD_COEF else 1.0
    # h[t] again, kept in scratch memory that each program alone reads back.
    v = tl.zeros((SIZE,), tl.float32)
    at = tl.zeros((1,), tl.int64)  # t, wide enough for offsets
    for _ in range(steps):
        x = tl.load(x_pointer + at * x_step + offsets, mask, 0).to(tl.float32)
        h = decay * v + _current(x, scale, shift, input_scale, SCALE, SHIFT)
        s = (h - v_threshold >= 0).to(tl.float32)
        v = h * (1 - s) if RESET == 0 else h - v_threshold * s
        tl.store(h_pointer + at * n + offsets, h, mask)
        at += 1
    v_grad = tl.zeros((SIZE,), tl.float32)
    total = tl.zeros((SIZE,), tl.float32)
    sum_x = tl.zeros((SIZE,), tl.float32)
    sum_decay = tl.zeros((SIZE,), tl.float32)
    sum_gain = tl.zeros((SIZE,), tl.float32)
    for _ in range(steps):
        at -= 1
        h = tl.load(h_pointer + at * n + offsets, mask, 0)
        x = tl.load(x_pointer + at * x_step + offsets, mask, 0).to(tl.float32)
        g = tl.load(grad_pointer + at * grad_step + offsets, mask, 0).to(tl.float32)
        s = (h - v_threshold >= 0).to(tl.float32)
        if GRAD_SHORTCUT:
            other_grad = g if GATE == 2 else g * s if GATE == 3 else g * (1 - s)
            other_grad = other_grad.to(grad_shortcut_pointer.dtype.element_ty)
            tl.store(grad_shortcut_pointer + at * n + offsets, other_grad, mask)
        if (GATE != 0) and (GATE != 2):
            other = _shortcut(shortcut_pointer, at, shortcut_step, offsets, mask, n, PACKED)
            g = g * (1 - other) if GATE == 1 else g * other if GATE == 3 else -g * other
        if not DETACH:
            g = g - (h * v_grad if RESET == 0 else v_threshold * v_grad)
        slope = _slope(h - v_threshold, width, SURROGATE)
        h_grad = (v_grad * (1 - s) if RESET == 0 else v_grad) + slope * g
        if LEAK:
            sum_gain += h_grad * _current(x, scale, shift, 1.0, SCALE, SHIFT)
            before = tl.load(h_pointer + (at - 1) * n + offsets, mask & (at > 0), 0)
            fired = (before - v_threshold >= 0).to(tl.float32)
            v = before * (1 - fired) if RESET == 0 else before - v_threshold * fired
            sum_decay += h_grad * v
        y_grad = input_scale * h_grad
        total += y_grad
        sum_x += y_grad * x
        if GRAD_X and not SHARED:
            to = (a * y_grad).to(grad_x_pointer.dtype.element_ty)
            tl.store(grad_x_pointer + at * n + offsets, to, mask)
        v_grad = decay * h_grad
    if GRAD_X and SHARED:
        to = (a * total).to(grad_x_pointer.dtype.element_ty)
        tl.store(grad_x_pointer + offsets, to, mask)
    if SUMS:
        tl.store(sums_pointer + offsets, total, mask)
        tl.store(sums_pointer + n + offsets, sum_x, mask)
    if LEAK:
        tl.store(leak_pointer + offsets, sum_decay, mask)
        tl.store(leak_pointer + n + offsets, sum_gain, mask)


@triton.jit
def _whole(h, levels):
    # From 1/4 on, h - 1/2 is exact, and h + 1/2 is not; below it is negative.
    return tl.minimum(tl.where(h > 0, tl.floor(h - 0.5) + 1, 0.0), levels)


@triton.jit
def _ilif_forward(
    x_pointer, out_pointer, steps, n, x_step, levels, decay, v_threshold, SIZE: tl.constexpr
):
    offsets = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    mask = offsets < n
    u = tl.zeros((SIZE,), tl.float32)
    at = tl.zeros((1,), tl.int64)
    for _ in range(steps):
        x = tl.load(x_pointer + at * x_step + offsets, mask, 0).to(tl.float32)
        h = decay * u + tl.div_rn(x, v_threshold)
        s = _whole(h, levels)
        u = h - s
        tl.store(out_pointer + at * n + offsets, s.to(out_pointer.dtype.element_ty), mask)
        at += 1


@triton.jit
def _ilif_backward(
    grad_pointer, x_pointer, h_pointer, grad_x_pointer, steps, n, grad_step, x_step, levels, decay,
    v_threshold, DETACH: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    offsets = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    mask = offsets < n
    u = tl.zeros((SIZE,), tl.float32)
    at = tl.zeros((1,), tl.int64)
    for _ in range(steps):
        x = tl.load(x_pointer + at * x_step + offsets, mask, 0).to(tl.float32)
        h = decay * u + tl.div_rn(x, v_threshold)
        u = h - _whole(h, levels)
        tl.store(h_pointer + at * n + offsets, h, mask)
        at += 1
    u_grad = tl.zeros((SIZE,), tl.float32)
    for _ in range(steps):
        at -= 1
        h = tl.load(h_pointer + at * n + offsets, mask, 0)
        g = tl.load(grad_pointer + at * grad_step + offsets, mask, 0).to(tl.float32)
        if not DETACH:
            g = g - u_grad
        h_grad = u_grad + tl.where((h >= 0) & (h <= levels), g, 0.0)
        x_grad = tl.div_rn(h_grad, v_threshold).to(grad_x_pointer.dtype.element_ty)
        tl.store(grad_x_pointer + at * n + offsets, x_grad, mask)
        u_grad = decay * h_grad


@triton.jit
def _pack(x_pointer, bits_pointer, binary_pointer, n, SIZE: tl.constexpr):
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    byte = chunk * SIZE + tl.arange(0, SIZE)
    bit = tl.arange(0, 8)
    offsets = byte[:, None] * 8 + bit[None, :]
    x = tl.load(x_pointer + row * n + offsets, offsets < n, 0).to(tl.float32)
    tl.atomic_min(binary_pointer, tl.min(((x == 0) | (x == 1)).to(tl.int32)))
    value = tl.sum((x != 0).to(tl.int32) << bit[None, :], 1)
    size = (n + 7) // 8
    tl.store(bits_pointer + row * size + byte, value.to(tl.uint8), byte < size)


@triton.jit
def _unpack(bits_pointer, x_pointer, n, SIZE: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    x = _shortcut(bits_pointer, 0, 0, offsets, offsets < n, n, True)
    tl.store(x_pointer + offsets, x.to(x_pointer.dtype.element_ty), offsets < n)


def _extent(call: LIFCall) -> tuple:
    """T, elements of a step, channels, elements inside a channel, distance between steps."""
    x, time_steps = call.x, call.time_steps
    inner = x if time_steps else x[0]
    n = inner.numel()
    channels = inner.shape[1] if inner.dim() > 1 else 1
    return (
        call.steps,
        n,
        channels,
        inner.stride(1) if channels > 1 else n,
        0 if time_steps else x.stride(0),
    )


def _wide(n) -> bool:
    """Whether 32 bits don't count the elements of a step and of the last program beyond it."""
    return n + BLOCK > 2**31


def _shortcut_step(shortcut) -> int:
    return 0 if shortcut is None else shortcut.stride(0)


def _gate_code(gate) -> int:
    return 0 if gate is None else GATES[gate].code


def lif(call: LIFCall, out) -> None:
    """See :meth:`mmsnn.ops.Backend.lif`."""
    x, neuron, scale, shift, shortcut, gate, *_ = call
    steps, n, channels, inner, x_step = _extent(call)
    _forward[(triton.cdiv(n, BLOCK),)](
        x, scale, shift, shortcut, out, steps, n, channels, inner, x_step,
        _shortcut_step(shortcut), neuron.decay, neuron.input_scale, neuron.v_threshold,
        SCALE=scale is not None, SHIFT=shift is not None, RESET=RESETS[neuron.reset],
        GATE=_gate_code(gate), WIDE=_wide(n), SIZE=BLOCK, enable_fp_fusion=False,
    )  # fmt: skip


def lif_backward(grad, call: LIFCall, grads: LIFGrads) -> None:
    """See :meth:`mmsnn.ops.Backend.lif_backward`."""
    x, neuron, scale, shift, shortcut, gate, time_steps, _ = call
    steps, n, channels, inner, x_step = _extent(call)
    h = x.new_empty(steps, n, dtype=torch.float32)
    sums = None if grads.channel_sums is None else x.new_empty(2, n, dtype=torch.float32)
    leak = None if grads.leak_sums is None else x.new_empty(2, n, dtype=torch.float32)
    _backward[(triton.cdiv(n, BLOCK),)](
        grad, x, scale, shift, shortcut, h, grads.grad_coef, grads.x, grads.shortcut, sums, leak,
        steps, n, channels, inner, x_step, _shortcut_step(shortcut), grad.stride(0), neuron.decay,
        neuron.input_scale, neuron.v_threshold, neuron.surrogate_width, SCALE=scale is not None,
        SHIFT=shift is not None, RESET=RESETS[neuron.reset], DETACH=bool(neuron.detach_reset),
        SURROGATE=SURROGATES[neuron.surrogate].code, GATE=_gate_code(gate),
        PACKED=shortcut is not None and shortcut.dtype == torch.uint8, SHARED=time_steps > 0,
        GRAD_COEF=grads.grad_coef is not None, GRAD_X=grads.x is not None,
        GRAD_SHORTCUT=grads.shortcut is not None, SUMS=sums is not None, LEAK=leak is not None,
        WIDE=_wide(n), SIZE=BLOCK, enable_fp_fusion=False,
    )  # fmt: skip
    # Summed over time by the kernel; the rest is a sum that torch does as well and repeatably.
    if sums is not None:
        by_channel = sums.view(2, -1, channels, inner)
        torch.sum(by_channel, (1, 3), dtype=torch.float64, out=grads.channel_sums)
    if leak is not None:
        torch.sum(leak, 1, dtype=torch.float64, out=grads.leak_sums)


def ilif(x, neuron: ILIF, out) -> None:
    """See :meth:`mmsnn.ops.Backend.ilif`."""
    n = x[0].numel()
    _ilif_forward[(triton.cdiv(n, BLOCK),)](
        x, out, x.shape[0], n, x.stride(0), float(neuron.levels), neuron.decay, neuron.v_threshold,
        SIZE=BLOCK, enable_fp_fusion=False,
    )  # fmt: skip


def ilif_backward(grad, x, neuron: ILIF, grad_x) -> None:
    """See :meth:`mmsnn.ops.Backend.ilif_backward`."""
    steps, n = x.shape[0], x[0].numel()
    h = x.new_empty(steps, n, dtype=torch.float32)
    _ilif_backward[(triton.cdiv(n, BLOCK),)](
        grad, x, h, grad_x, steps, n, grad.stride(0), x.stride(0), float(neuron.levels),
        neuron.decay, neuron.v_threshold, DETACH=bool(neuron.detach_reset), SIZE=BLOCK,
        enable_fp_fusion=False,
    )  # fmt: skip


def pack(x, rows: int, bits) -> bool:
    """Dense `x` to rows of bits in memory order; False, and no bits, where it isn't 0 or 1."""
    n = x.numel() // rows
    binary = torch.ones((), dtype=torch.int32, device=x.device)
    if n:
        size = BLOCK // 8
        _pack[(rows, triton.cdiv((n + 7) // 8, size))](
            x, bits, binary, n, SIZE=size, enable_fp_fusion=False
        )
    return bool(binary)


def unpack(bits, x) -> None:
    """One row of bits to the values of dense `x`, in memory order."""
    n = x.numel()
    if n:
        _unpack[(triton.cdiv(n, BLOCK),)](bits, x, n, SIZE=BLOCK, enable_fp_fusion=False)
