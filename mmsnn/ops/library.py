"""The torch.library operators: what torch.compile, torch.export and autograd see of the kernels.

Every operator runs without a kernel too, on the reference, so that a program exported on one
machine runs on any. Autocast has no rule here because it needs none: a neuron takes what comes,
computes in float32 inside and gives spikes in the dtype it was given.

Spikes that backward needs again are kept as bits in memory order, whatever the layout.
"""

import importlib
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Optional

import torch
from torch import Tensor

from . import backend, reference


@cache
def engine(kernel: str):
    """The module of a kernel backend; all have the functions of cpu.py."""
    # Not at the top: Triton is not everywhere, and takes its time to load.
    return importlib.import_module({'c': '.cpu', 'triton': '.gpu'}[kernel], __package__)


_LIBRARY = torch.library.Library('mmsnn', 'DEF')
_TAGS = (torch.Tag.needs_fixed_stride_order, torch.Tag.pt2_compliant_tag)

# Neuron: as the arguments of `mmsnn.ops.lif`; a learnable decay or input_scale comes as a tensor.
# time_steps: T where x is (B, C, ...), shared by all steps; 0 where x is (T, B, C, ...).
# mean, invstd: where given, x is first normalised by them, and they are differentiated through as
# statistics of x itself over all axes but the channels'.
_INPUTS = 'Tensor x, Tensor? scale, Tensor? shift, Tensor? shortcut, Tensor? decay_tensor, ' \
    'Tensor? input_scale_tensor, Tensor? mean, Tensor? invstd'  # fmt: skip
_NEURON = 'float decay, float input_scale, float v_threshold, str reset, bool detach_reset, ' \
    'str surrogate, float surrogate_width, str? gate, int time_steps'  # fmt: skip


def is_watched(x: Tensor) -> bool:
    """Whether autograd, a compiler, a trace, a mode, a transform or a profiler is to see a call."""
    return (
        torch.compiler.is_compiling()
        or torch.is_grad_enabled()
        or type(x) is not Tensor
        or torch.jit.is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.is_functorch_wrapped_tensor(x)
        or torch.autograd.profiler._is_profiler_enabled
    )


def _operator(schema: str, implementation, fake) -> Callable:
    name = schema.split('(')[0]
    _LIBRARY.define(schema, tags=_TAGS)
    _LIBRARY.impl(name, implementation, 'CompositeExplicitAutograd')
    torch.library.register_fake(f'mmsnn::{name}', fake, lib=_LIBRARY)
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


# ---- what operators take -------------------------------------------------------------------------

# A kernel reads memory, whatever is there. So operators check for themselves what they were given,
# on the reference too: what a program may do must not depend on the machine.


def _check(name: str, tensor: Tensor, shape: Sequence[int], x: Tensor) -> None:
    if tensor.shape != torch.Size(shape):
        raise ValueError(
            f'{name} needs the shape {tuple(shape)} for an input of shape {tuple(x.shape)}, got '
            f'{tuple(tensor.shape)}'
        )
    if tensor.device != x.device:
        raise ValueError(f'{name} is on {tensor.device}, the input on {x.device}')


def _check_spikes(spikes: Tensor, axes: int) -> None:
    if spikes.dim() < axes or (axes > 1 and spikes.dim() > axes) or not spikes.shape[0]:
        form = '(T, B, C, H, W)' if axes > 1 else '(T, ...)'
        raise ValueError(
            f'spikes need the shape {form} and at least one time step, got {tuple(spikes.shape)}'
        )


def _check_bits(bits: Tensor, rows: int, n: int) -> None:
    if bits.dtype != torch.uint8 or bits.shape != (rows, (n + 7) // 8):
        raise ValueError(
            f'{rows} x {n} spikes are bits of shape {(rows, (n + 7) // 8)} in torch.uint8, got '
            f'{tuple(bits.shape)} in {bits.dtype}'
        )


def check_gate(gate: Optional[str], shortcut: Optional[Tensor]) -> None:
    """Refuse an unknown gate, one without a shortcut, or a shortcut without one.

    Raises:
        ValueError: Names what there is.
    """
    if gate is not None and gate not in reference.GATES:
        raise ValueError(f'unknown gate {gate!r}: choose one of {sorted(reference.GATES)}')
    if (gate is None) != (shortcut is None):
        raise ValueError(
            f'a gate joins spikes with a shortcut: got gate={gate!r} and '
            f'{"no shortcut" if shortcut is None else "a shortcut"}'
        )


def check_lif(x, scale, shift, shortcut, gate, time_steps) -> None:
    """Refuse tensors that don't fit together.

    Args:
        x: As of :func:`mmsnn.ops.lif`, and all others.
        scale: Likewise.
        shift: Likewise.
        shortcut: Likewise.
        gate: Likewise.
        time_steps: Likewise.

    Raises:
        ValueError: Names the one that doesn't.
    """
    check_gate(gate, shortcut)
    steps = time_steps if time_steps is not None else x.shape[0] if x.dim() else 0
    if steps < 1:
        given = '' if time_steps is None else f' and time_steps={time_steps}'
        raise ValueError(
            f'lif needs at least one time step, got input of shape {tuple(x.shape)}{given}'
        )
    _check_channels(x, time_steps, scale=scale, shift=shift)
    if shortcut is not None:
        _check('shortcut', shortcut, (time_steps, *x.shape) if time_steps else x.shape, x)


def _check_channels(x: Tensor, time_steps: Optional[int], **values: Optional[Tensor]) -> None:
    axis = 1 if time_steps else 2
    for name, value in values.items():
        if value is None:
            continue
        if x.dim() <= axis or value.shape != x.shape[axis : axis + 1]:
            form = '(B, C, ...)' if time_steps else '(T, B, C, ...)'
            raise ValueError(
                f'{name} needs the shape (C,) of an input {form}, got {tuple(value.shape)} for an '
                f'input of shape {tuple(x.shape)}'
            )
        _check(name, value, value.shape, x)


def check_windows(x: Tensor, kernel: Sequence, stride: Sequence, padding: Sequence) -> None:
    """Refuse what can't be pooled: as of :func:`mmsnn.ops.spike_max_pool2d`, in pairs.

    Raises:
        ValueError: Names what it is.
    """
    if x.dim() != 4:
        raise ValueError(f'max pooling takes (N, C, H, W), got a tensor of shape {tuple(x.shape)}')
    if not len(kernel) == len(stride) == len(padding) == 2:
        raise ValueError(
            f'windows come in pairs, got kernel_size {kernel}, stride {stride}, padding {padding}'
        )
    for k, s, p, n in zip(kernel, stride, padding, x.shape[2:]):
        if k < 1 or s < 1:
            raise ValueError(f'kernel_size and stride must be positive, got {kernel} and {stride}')
        if not 0 <= p <= k // 2:
            raise ValueError(
                f'padding must lie between 0 and half of kernel_size, got {padding} for {kernel}'
            )
        if n < 1 or n + 2 * p < k:
            raise ValueError(
                f'an input of shape {tuple(x.shape)} is too small for a window of {kernel} with '
                f'padding {padding}'
            )


# ---- layouts -------------------------------------------------------------------------------------


def span(x: Tensor) -> tuple[int, int]:
    """Where the elements of `x` begin and end in memory."""
    first = x.data_ptr()
    last = sum((n - 1) * stride for n, stride in zip(x.shape, x.stride()))
    return first, first + (last + 1) * x.element_size() if x.numel() else first


def is_dense(x: Tensor) -> bool:
    """Whether the elements fill a stretch of memory, each once, in any order of axes."""
    if x.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted((s, n) for s, n in zip(x.stride(), x.shape) if n != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def _inner_layout(x: Tensor, time_steps: int) -> tuple:
    """Shape and dense strides of one time step; those of `x` where they are dense."""
    inner = x if time_steps else x[0]
    return inner.shape, (inner if is_dense(inner) else torch.empty_like(inner)).stride()


def _empty_steps(x: Tensor, steps: int, layout: tuple, dtype=None) -> Tensor:
    shape, strides = layout
    n = 1
    for size in shape:
        n = n * size
    return x.new_empty_strided((steps, *shape), (n, *strides), dtype=dtype or x.dtype)


def same_strides(shape, strides, others) -> bool:
    """Whether both lay out this shape alike: an axis of one element may have any stride."""
    return all(a == b for n, a, b in zip(shape, strides, others) if n != 1)


def _laid_out(tensor: Tensor, like: Tensor, layout: tuple) -> Tensor:
    """(T, ...) in the dtype of `like` and with steps in this layout, copied if they aren't."""
    shape, strides = layout
    if tensor.dtype == like.dtype and same_strides(shape, tensor.stride()[1:], strides):
        return tensor
    return _empty_steps(like, tensor.shape[0], layout).copy_(tensor)


def _input_laid_out(x: Tensor, time_steps: int, layout: tuple) -> Tensor:
    if same_strides(layout[0], x.stride() if time_steps else x.stride()[1:], layout[1]):
        return x
    return torch.empty_like(x).copy_(x) if time_steps else _laid_out(x, x, layout)


# ---- the neuron ----------------------------------------------------------------------------------


def _affine(x, scale, shift, mean, invstd):
    """(C,) scale and shift in the dtype that potentials have, statistics folded in."""
    dtype = reference.compute_dtype(x.dtype)
    scale, shift, mean, invstd = (
        None if v is None else v.to(dtype).contiguous() for v in (scale, shift, mean, invstd)
    )
    if mean is not None:
        scale = scale * invstd
        shift = shift - mean * scale
    return scale, shift


def _check_neuron(x, scale, shift, shortcut, mean, invstd, gate, time_steps) -> None:
    check_lif(x, scale, shift, shortcut, gate, time_steps or None)
    given = [v is not None for v in (mean, invstd, scale, shift)]
    if any(given[:2]) and not all(given):
        raise ValueError('mean and invstd come together, with a scale and a shift')
    _check_channels(x, time_steps, mean=mean, invstd=invstd)


def _neuron(decay_tensor, input_scale_tensor, decay, input_scale, *rest) -> tuple:
    if decay_tensor is not None:
        decay = float(decay_tensor)
    if input_scale_tensor is not None:
        input_scale = float(input_scale_tensor)
    return (decay, input_scale, *rest)


def _lif(
    x, scale, shift, shortcut, decay_tensor, input_scale_tensor, mean, invstd,
    *neuron_gate_steps, dtype=None, kernel='',
):  # fmt: skip
    *neuron, gate, time_steps = neuron_gate_steps
    _check_neuron(x, scale, shift, shortcut, mean, invstd, gate, time_steps)
    neuron = _neuron(decay_tensor, input_scale_tensor, *neuron)
    scale, shift = _affine(x, scale, shift, mean, invstd)
    kernel = backend.ready_kernel_for(x) if kernel == '' else kernel
    if kernel is not None and not gives(kernel, dtype or x.dtype, shortcut, gate):
        # Exact in float32, and rounded to what was asked for as the reference does it.
        spikes = _lif(
            x, scale, shift, shortcut, None, None, None, None, *neuron, gate, time_steps,
            dtype=torch.float32, kernel=kernel,
        )  # fmt: skip
        return spikes.to(dtype or x.dtype)
    if kernel is None:
        spikes = reference.lif(x, *neuron, scale, shift, shortcut, gate, time_steps or None, dtype)
        return _empty_steps(x, len(spikes), _inner_layout(x, time_steps), dtype).copy_(spikes)
    x, shortcut, out = lif_layout(x, shortcut, time_steps, dtype)
    engine(kernel).lif(x, scale, shift, shortcut, gate, time_steps, neuron, out)
    return out


def gives(kernel: str, dtype: torch.dtype, shortcut: Optional[Tensor], gate) -> bool:
    """Whether a kernel backend gives this dtype behind this gate."""
    if gate == 'add' and shortcut is not None and dtype not in (torch.float32, shortcut.dtype):
        return False  # only the sum is rounded
    return dtype == torch.uint8 or dtype in backend.KERNELS[kernel][1]


def lif_layout(x, shortcut, time_steps, dtype):
    """Input and shortcut in one layout, copied where they aren't in it, and the empty output."""
    layout = _inner_layout(x, time_steps)
    out = _empty_steps(x, time_steps or x.shape[0], layout, dtype)
    x = _input_laid_out(x, time_steps, layout)
    return x, None if shortcut is None else _laid_out(shortcut, out, layout), out


def _lif_fake(x, *args):
    time_steps = args[-1]
    inner = torch.empty_like(x if time_steps else x[0])
    return _empty_steps(x, time_steps or x.shape[0], (inner.shape, inner.stride()))


lif = _operator(f'lif({_INPUTS}, {_NEURON}) -> Tensor', _lif, _lif_fake)


def _lif_as(*args):
    return _lif(*args[:-1], dtype=args[-1])


def _lif_as_fake(x, *args):
    return _lif_fake(x, *args[:-1]).to(args[-1])


# Spikes in another dtype than the currents: for inference, without a gradient.
lif_as = _operator(
    f'lif_as({_INPUTS}, {_NEURON}, ScalarType dtype) -> Tensor', _lif_as, _lif_as_fake
)


def _lif_backward(
    grad, x, scale, shift, shortcut, decay_tensor, input_scale_tensor, mean, invstd,
    *neuron_gate_steps_needs, kernel='', pooled=None,
):  # fmt: skip
    *neuron, gate, time_steps, needs = neuron_gate_steps_needs
    need_x, need_scale, need_shift, need_shortcut, need_decay, need_input_scale = needs
    _check_backward(grad, x, scale, shift, shortcut, mean, invstd, gate, time_steps, pooled)
    neuron = _neuron(decay_tensor, input_scale_tensor, *neuron)
    weight, bias = scale, shift
    scale, shift = _affine(x, scale, shift, mean, invstd)
    if mean is not None:
        mean, invstd = mean.to(scale.dtype), invstd.to(scale.dtype)
    layout = _inner_layout(x, time_steps)
    kernel = backend.ready_kernel_for(x) if kernel == '' else kernel
    through_stats = mean is not None and need_x
    need_sums = need_scale or need_shift or through_stats
    channels = x.shape[1 if time_steps else 2] if need_sums else 0

    if kernel is None:
        if shortcut is not None and shortcut.dtype == torch.uint8:
            shortcut = _unpack_steps(shortcut, x, layout)

        def run(by, x_grad=None, shortcut_grad=False, sums=False, leak=False):
            return reference.lif_backward(  # all of them, whatever is wanted
                grad, x, *neuron, scale, shift, shortcut, gate, time_steps or None, *by
            )
    else:
        x = _input_laid_out(x, time_steps, layout)
        if pooled is None:
            grad = _laid_out(grad, x, layout)
        if shortcut is not None and shortcut.dtype != torch.uint8:
            shortcut = _laid_out(shortcut, x, layout)
        elif shortcut is not None:
            shortcut = shortcut.contiguous()

        steps = time_steps or x.shape[0]
        through = {} if pooled is None else dict(pooled=pooled)

        def like_x(dtype):
            if time_steps:
                return torch.empty_strided(x.shape, x.stride(), dtype=dtype, device=x.device)
            return _empty_steps(x, x.shape[0], layout, dtype)

        def run(by, x_grad=None, shortcut_grad=False, sums=False, leak=False):
            double = dict(dtype=torch.float64, device=x.device)
            wanted = (
                like_x(x_grad) if x_grad else None,
                _empty_steps(x, steps, layout) if shortcut_grad else None,
                torch.zeros(2, channels, **double) if sums else None,
                torch.zeros(2, **double) if leak else None,
            )  # fmt: skip
            engine(kernel).lif_backward(
                grad, x, scale, shift, shortcut, gate, time_steps, neuron, by, *wanted, **through
            )
            return wanted

    no = (None, None, None)
    rest = dict(shortcut_grad=need_shortcut, leak=need_decay or need_input_scale)
    if through_stats:
        # The sums come before the gradient they are part of: dL/dcurrent stays behind for a light
        # second pass, in float32, so that half precision is rounded once.
        y_grad, grad_shortcut, sums, leak = run(no, x_grad=torch.float32, sums=True, **rest)
        dtype = scale.dtype
        share = channels / max(x.numel(), 1)
        mean_grad = (sums[0] * share).to(dtype)
        slope = ((sums[1] - mean * sums[0]) * invstd * share).to(dtype) * invstd
        by = (scale, -scale * slope, scale * (slope * mean - mean_grad))
        if kernel is None:
            grad_x = run(by)[0]
        else:
            grad_x = y_grad if x.dtype == torch.float32 else like_x(x.dtype)
            engine(kernel).input_grad(y_grad, x, time_steps, by, grad_x)
    else:
        grad_x, grad_shortcut, sums, leak = run(
            (scale, None, None), x_grad=x.dtype if need_x else None, sums=need_sums, **rest
        )
    grad_scale = None
    if need_scale:
        grad_scale = sums[1] if mean is None else (sums[1] - mean * sums[0]) * invstd
        grad_scale = grad_scale.to(weight.dtype)
    grads = (
        grad_x,
        grad_scale,
        sums[0].to(bias.dtype) if need_shift else None,
        grad_shortcut,
        leak[0].to(decay_tensor.dtype).view(decay_tensor.shape) if need_decay else None,
        leak[1].to(input_scale_tensor.dtype).view(input_scale_tensor.shape)
        if need_input_scale
        else None,
    )
    return tuple(g if need and g is not None else x.new_empty(0) for g, need in zip(grads, needs))


def _check_backward(
    grad, x, scale, shift, shortcut, mean, invstd, gate, time_steps, pooled
) -> None:
    # The shortcut may have come as bits, and is not needed where it was added.
    if shortcut is None and gate in (None, 'add'):
        gate = None
    elif shortcut is not None and shortcut.dtype == torch.uint8:
        steps = time_steps or x.shape[0]
        _check_bits(shortcut, steps, x.numel() if time_steps else x.numel() // max(steps, 1))
        _check('shortcut', shortcut, shortcut.shape, x)
        shortcut = x.expand(time_steps, *x.shape) if time_steps else x
    _check_neuron(x, scale, shift, shortcut, mean, invstd, gate, time_steps)
    if pooled is None:
        _check('the gradient', grad, (time_steps, *x.shape) if time_steps else x.shape, x)


def _lif_backward_fake(
    grad, x, scale, shift, shortcut, decay_tensor, input_scale_tensor, mean, invstd,
    *neuron_gate_steps_needs,
):  # fmt: skip
    *_, time_steps, needs = neuron_gate_steps_needs
    inner = torch.empty_like(x if time_steps else x[0])
    layout = (inner.shape, inner.stride())
    like = (
        inner if time_steps else _empty_steps(x, x.shape[0], layout),
        scale,
        shift,
        _empty_steps(x, grad.shape[0], layout),
        decay_tensor,
        input_scale_tensor,
    )
    return tuple(torch.empty_like(g) if need else x.new_empty(0) for g, need in zip(like, needs))


lif_backward = _operator(
    f'lif_backward(Tensor grad, {_INPUTS}, {_NEURON}, bool[] needs) '
    '-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)',
    _lif_backward,
    _lif_backward_fake,
)


def _keep(ctx, inputs, output):
    x, scale, shift, shortcut, *rest = inputs
    gate, time_steps = inputs[-2:]
    kept = None
    if gate in ('or', 'and', 'iand'):
        layout = _inner_layout(x, time_steps)
        kept = _laid_out(shortcut, x, layout)
        if not is_dense(kept):  # packing would choose an order of axes of its own
            kept = _empty_steps(x, shortcut.shape[0], layout).copy_(kept)
        kept = pack_or_keep(kept, shortcut.shape[0])
    ctx.shortcut_dtype = None if shortcut is None else shortcut.dtype
    ctx.save_for_backward(x, scale, shift, kept, *rest[:4])
    ctx.neuron = rest[4:]


def _differentiate(ctx, grad):
    needs = [*ctx.needs_input_grad[:4], *ctx.needs_input_grad[4:6]]
    grads = lif_backward(grad, *ctx.saved_tensors, *ctx.neuron, needs)
    grads = [g if need else None for g, need in zip(grads, needs)]
    return (*grads, *[None] * (2 + len(ctx.neuron)))


torch.library.register_autograd('mmsnn::lif', _differentiate, setup_context=_keep, lib=_LIBRARY)


# ---- statistics ----------------------------------------------------------------------------------


def _channel_stats(x, time_steps, kernel=''):
    if x.dim() < (2 if time_steps else 3):
        form = '(B, C, ...)' if time_steps else '(T, B, C, ...)'
        raise ValueError(f'statistics by channel need {form}, got the shape {tuple(x.shape)}')
    kernel = backend.ready_kernel_for(x) if kernel == '' else kernel
    if kernel is None or not x.numel():
        return reference.channel_stats(x, 1 if time_steps else 2)
    x = _input_laid_out(x, time_steps, _inner_layout(x, time_steps))
    channels = x.shape[1 if time_steps else 2]
    # Against cancellation, sums are taken from a value near the mean. One of the channel's own, and
    # not the running mean, for a pass that is recomputed later must give the same bits.
    origin = (x[0] if time_steps else x[0, 0]).reshape(channels, -1)[:, 0].float().contiguous()
    sums = torch.zeros(2, channels, dtype=torch.float64, device=x.device)
    # time_steps = 1: the statistics of a shared input do not depend on how often it is shown.
    engine(kernel).channel_moments(x, origin, min(time_steps, 1), sums)
    mean, square = sums * (channels / x.numel())
    return (mean + origin).float(), (square - mean * mean).clamp_min(0).float()


def _channel_stats_fake(x, time_steps):
    channels = x.shape[1 if time_steps else 2]
    dtype = reference.compute_dtype(x.dtype)
    return x.new_empty(channels, dtype=dtype), x.new_empty(channels, dtype=dtype)


channel_stats = _operator(
    'channel_stats(Tensor x, int time_steps) -> (Tensor mean, Tensor var)',
    _channel_stats,
    _channel_stats_fake,
)


# ---- bits ----------------------------------------------------------------------------------------


def _pack(x, rows, kernel=''):
    if not is_dense(x):
        raise ValueError(f'pack_spikes takes dense tensors, got strides {x.stride()}')
    if rows < 1 or x.numel() % rows:
        raise ValueError(f'{x.numel()} spikes are not {rows} rows of one length')
    kernel = backend.ready_kernel_for(x) if kernel == '' else kernel
    n = x.numel() // rows
    if kernel is None:
        bits = reference.pack(x.as_strided((rows, n), (n, 1)))
    else:
        bits = torch.empty(rows, (n + 7) // 8, dtype=torch.uint8, device=x.device)
        bits = bits if engine(kernel).pack(x, rows, bits) else None
    if bits is None:
        raise ValueError('only zeros and ones fit in a bit, got a tensor with other values')
    return bits


def _pack_fake(x, rows):
    return x.new_empty(rows, (x.numel() // rows + 7) // 8, dtype=torch.uint8)


pack_spikes = _operator('pack_spikes(Tensor x, int rows) -> Tensor', _pack, _pack_fake)


def _unpack(bits, size, stride, dtype, kernel=''):
    _check_bits(bits, 1, math.prod(size))
    x = torch.empty_strided(size, stride, dtype=dtype, device=bits.device)
    if not is_dense(x):
        raise ValueError(f'unpack_spikes gives dense tensors, not the strides {tuple(stride)}')
    kernel = backend.ready_kernel_for(x) if kernel == '' else kernel
    if kernel is None:
        n = x.numel()
        x.as_strided((1, n), (n, 1)).copy_(reference.unpack(bits, n, dtype))
    else:
        engine(kernel).unpack(bits.contiguous(), x)
    return x


def _unpack_fake(bits, size, stride, dtype):
    return torch.empty_strided(size, stride, dtype=dtype, device=bits.device)


unpack_spikes = _operator(
    'unpack_spikes(Tensor bits, SymInt[] size, SymInt[] stride, ScalarType dtype) -> Tensor',
    _unpack,
    _unpack_fake,
)


def _unpack_steps(bits: Tensor, x: Tensor, layout: tuple) -> Tensor:
    out = _empty_steps(x, bits.shape[0], layout)
    n = out[0].numel()
    out.as_strided((bits.shape[0], n), (n, 1)).copy_(reference.unpack(bits, n, x.dtype))
    return out


def pack_or_keep(x: Tensor, rows: int = 1) -> Tensor:
    """Bits where `x` is spikes, `x` itself where it isn't.

    A graph can't branch on values: under torch.compile, anything but spikes is an error.
    """
    if not is_dense(x):
        x = x.contiguous()
    try:
        return pack_spikes(x, rows)
    except ValueError:
        return x


# ---- max pooling ---------------------------------------------------------------------------------


def _memory_format(x: Tensor) -> torch.memory_format:
    """What maps (N, C, H, W) are laid out in: contiguous, or channels_last where `x` is."""
    last = torch.channels_last
    if not x.is_contiguous() and x.is_contiguous(memory_format=last):
        return last
    return torch.contiguous_format


def _pooled(size, windows) -> list:
    return [
        *size[:2],
        *(
            (n + 2 * pad - kernel) // stride + 1
            for n, kernel, stride, pad in zip(size[2:], *windows)
        ),
    ]


def _max_pool(x, *windows, kernel=''):
    check_windows(x, *windows)
    layout = _memory_format(x)
    kernel = backend.ready_kernel_for(x, backend.MAP_KERNELS) if kernel == '' else kernel
    out = _max_pool_fake(x, *windows)
    if not out.numel():
        return out
    if kernel is None:
        return out.copy_(reference.max_pool2d(x, *windows))
    x = x.contiguous(memory_format=layout)
    engine(kernel).max_pool(x, windows, layout == torch.channels_last, out)
    return out


def _max_pool_fake(x, *windows):
    size = _pooled(x.shape, windows)
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=_memory_format(x))


_WINDOWS = 'SymInt[] kernel_size, SymInt[] stride, SymInt[] padding'
max_pool = _operator(f'max_pool(Tensor x, {_WINDOWS}) -> Tensor', _max_pool, _max_pool_fake)


def _max_pool_backward(grad, kept, size, channels_last, *windows, kernel=''):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    if not grad.is_floating_point():
        raise ValueError(f'a gradient has a floating dtype, got {grad.dtype}')
    grad_x = _max_pool_backward_fake(grad, kept, size, channels_last)
    check_windows(grad_x, *windows)
    _check('the gradient', grad, _pooled(size, windows), grad_x)
    if kept.dtype == torch.uint8:
        _check_bits(kept, 1, grad_x.numel())
        kept = kept.contiguous()
    elif kept.dtype == grad.dtype:
        kept = kept.contiguous(memory_format=layout)
    else:
        raise ValueError(f'the input was kept in {kept.dtype}, its gradient is in {grad.dtype}')
    _check('the input', kept, kept.shape if kept.dtype == torch.uint8 else size, grad_x)
    kernel = backend.ready_kernel_for(grad, backend.MAP_KERNELS) if kernel == '' else kernel
    if not grad.numel():
        return grad_x
    if kernel is None:
        if kept.dtype == torch.uint8:
            kept = _unpack(kept, size, grad_x.stride(), grad.dtype, kernel=kernel)
        return grad_x.copy_(reference.max_pool2d_backward(grad, kept, *windows))
    grad = grad.contiguous(memory_format=layout)
    engine(kernel).max_pool_backward(grad, kept, windows, channels_last, grad_x)
    return grad_x


def _max_pool_backward_fake(grad, kept, size, channels_last, *windows):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(size, dtype=grad.dtype, device=grad.device, memory_format=layout)


max_pool_backward = _operator(
    'max_pool_backward(Tensor grad, Tensor kept, SymInt[] size, bool channels_last, '
    f'{_WINDOWS}) -> Tensor',
    _max_pool_backward,
    _max_pool_backward_fake,
)


def _keep_pooled(ctx, inputs, output):
    x, *ctx.windows = inputs
    layout = _memory_format(x)
    ctx.size, ctx.channels_last = x.shape, layout == torch.channels_last
    ctx.save_for_backward(pack_or_keep(x.contiguous(memory_format=layout)))


def _differentiate_pool(ctx, grad):
    (kept,) = ctx.saved_tensors
    grad_x = max_pool_backward(grad, kept, ctx.size, ctx.channels_last, *ctx.windows)
    return grad_x, None, None, None


torch.library.register_autograd(
    'mmsnn::max_pool', _differentiate_pool, setup_context=_keep_pooled, lib=_LIBRARY
)


# ---- a neuron and the max pool behind it --------------------------------------------------------

# Shortcut and gate are None. Between the two, spikes are bytes, and bits for backward: these maps
# are the largest of a network.


def _maps_laid_out(x: Tensor, time_steps: int) -> Tensor:
    """Maps (T, B, C, H, W), or (B, C, H, W) with time_steps, in a memory format of maps."""
    if time_steps:
        return x.contiguous(memory_format=_memory_format(x))
    return steps_laid_out(x, _step_format(x))


def _check_lif_pool(x: Tensor, neuron: Sequence, windows: Sequence) -> None:
    shortcut, gate, time_steps = neuron[2], *neuron[-2:]
    if x.dim() != (4 if time_steps else 5) or shortcut is not None or gate is not None:
        form = '(B, C, H, W)' if time_steps else '(T, B, C, H, W)'
        raise ValueError(
            f'lif_pool takes maps {form} and no shortcut, got the shape {tuple(x.shape)}'
        )
    check_lif(x, None, None, None, None, time_steps or None)
    check_windows(x if time_steps else x[0], *windows)


def _lif_pool(x, *args, kernel=''):
    *neuron, kernel_size, stride, padding = args
    _check_lif_pool(x, neuron, (kernel_size, stride, padding))
    kernel = backend.ready_kernel_for(x, backend.MAP_KERNELS) if kernel == '' else kernel
    x = _maps_laid_out(x, neuron[-1])
    spikes = _lif(x, *neuron, dtype=torch.uint8, kernel=kernel).flatten(0, 1)
    pooled = _max_pool(spikes, kernel_size, stride, padding, kernel=kernel)
    return pooled.to(x.dtype), _pack(spikes, 1, kernel=kernel)


def _lif_pool_fake(x, *args):
    *neuron, kernel_size, stride, padding = args
    spikes = _lif_fake(_maps_laid_out(x, neuron[-1]), *neuron).flatten(0, 1)
    return _max_pool_fake(spikes, kernel_size, stride, padding), _pack_fake(spikes, 1)


lif_pool = _operator(
    f'lif_pool({_INPUTS}, {_NEURON}, {_WINDOWS}) -> (Tensor pooled, Tensor bits)',
    _lif_pool,
    _lif_pool_fake,
)


def _lif_pool_backward(grad, x, *args, kernel=''):
    *neuron, bits, kernel_size, stride, padding, needs = args
    windows = kernel_size, stride, padding
    time_steps = neuron[-1]
    _check_lif_pool(x, neuron, windows)
    steps = time_steps or x.shape[0]
    size = [steps * x.shape[-4], *x.shape[-3:]]
    _check('the gradient', grad, _pooled(size, windows), x)
    _check_bits(bits, 1, math.prod(size))
    _check('bits', bits, bits.shape, x)
    kernel = backend.ready_kernel_for(x, backend.MAP_KERNELS) if kernel == '' else kernel
    x = _maps_laid_out(x, time_steps)
    layout = _memory_format(x if time_steps else x[0])
    grad, bits = grad.to(x.dtype), bits.contiguous()
    if kernel is not None and grad.numel():
        grad = grad.contiguous(memory_format=layout)
        return _lif_backward(grad, x, *neuron, needs, kernel=kernel, pooled=(bits, windows))
    last = layout == torch.channels_last
    grad = _max_pool_backward(grad, bits, size, last, *windows, kernel=kernel)
    return _lif_backward(grad.unflatten(0, (steps, -1)), x, *neuron, needs, kernel=kernel)


def _lif_pool_backward_fake(grad, x, *args):
    *neuron, _, _, _, _, needs = args
    x = _maps_laid_out(x, neuron[-1])
    return _lif_backward_fake(x.new_empty(neuron[-1] or x.shape[0]), x, *neuron, needs)


lif_pool_backward = _operator(
    f'lif_pool_backward(Tensor grad, {_INPUTS}, {_NEURON}, Tensor bits, {_WINDOWS}, bool[] needs) '
    '-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)',
    _lif_pool_backward,
    _lif_pool_backward_fake,
)


def _keep_spikes(ctx, inputs, output):
    *inputs, kernel_size, stride, padding = inputs
    ctx.save_for_backward(*inputs[:8], output[1])
    ctx.neuron, ctx.windows = inputs[8:], (kernel_size, stride, padding)


def _differentiate_both(ctx, grad, _):
    needs = list(ctx.needs_input_grad[:6])
    *tensors, bits = ctx.saved_tensors
    grads = lif_pool_backward(grad, *tensors, *ctx.neuron, bits, *ctx.windows, needs)
    grads = [g if need else None for g, need in zip(grads, needs)]
    return (*grads, *[None] * (5 + len(ctx.neuron)))


torch.library.register_autograd(
    'mmsnn::lif_pool', _differentiate_both, setup_context=_keep_spikes, lib=_LIBRARY
)


# ---- decoding: for inference, without a gradient -------------------------------------------------


def _decode_kernel(spikes: Tensor):
    return backend.ready_kernel_for(spikes, backend.MAP_KERNELS) if spikes.numel() else None


def _step_format(spikes: Tensor) -> torch.memory_format:
    return _memory_format(spikes[0])


def steps_laid_out(spikes: Tensor, layout: torch.memory_format) -> Tensor:
    """Every step in this layout, any distance apart."""
    if spikes[0].is_contiguous(memory_format=layout):
        return spikes
    return spikes.flatten(0, 1).contiguous(memory_format=layout).unflatten(0, spikes.shape[:2])


def _attention_statistics(spikes, kernel=''):
    _check_spikes(spikes, 5)
    kernel = _decode_kernel(spikes) if kernel == '' else kernel
    out = _attention_statistics_fake(spikes)
    if kernel is None:
        return tuple(a.copy_(b) for a, b in zip(out, reference.attention_statistics(spikes)))
    layout = _step_format(spikes)
    spikes = steps_laid_out(spikes, layout)
    engine(kernel).attention_statistics(spikes, layout == torch.channels_last, *out)
    return out


def _attention_statistics_fake(spikes):
    steps, batch, channels, height, width = spikes.shape
    shapes = (steps, batch, channels), *[(steps, batch, height, width)] * 2
    dtype = reference.compute_dtype(spikes.dtype)
    return tuple(spikes.new_empty(shape, dtype=dtype) for shape in shapes)


attention_statistics = _operator(
    'attention_statistics(Tensor spikes) '
    '-> (Tensor channel_mean, Tensor spatial_mean, Tensor spatial_max)',
    _attention_statistics,
    _attention_statistics_fake,
)


def expand_weights(spikes: Tensor, *weights: Tensor) -> list:
    """The weights of :func:`mmsnn.ops.attention_decode` as views of their full shapes.

    Raises:
        ValueError: Spikes of another rank, or weights that don't broadcast.
    """
    _check_spikes(spikes, 5)
    steps, batch, channels, height, width = spikes.shape
    shapes = (steps, batch), (steps, batch, channels), (steps, batch, height, width)
    for name, weight, shape in zip(('temporal', 'channel', 'spatial'), weights, shapes):
        if weight.dim() != len(shape) or any(n not in (1, m) for n, m in zip(weight.shape, shape)):
            raise ValueError(
                f'{name} needs the shape {shape}, or 1 for any size, for spikes of shape '
                f'{tuple(spikes.shape)}, got {tuple(weight.shape)}'
            )
        _check(name, weight, weight.shape, spikes)
    return [weight.expand(shape) for weight, shape in zip(weights, shapes)]


def _attention_decode(spikes, temporal, channel, spatial, kernel=''):
    weights = expand_weights(spikes, temporal, channel, spatial)
    kernel = _decode_kernel(spikes) if kernel == '' else kernel
    out = _attention_decode_fake(spikes, temporal)
    if kernel is None or out.dtype not in (torch.float32, torch.bfloat16):
        return out.copy_(reference.attention_decode(spikes, *weights))
    layout = _step_format(spikes)
    spikes = steps_laid_out(spikes, layout)
    temporal, channel, spatial = (w.float().contiguous() for w in weights)
    engine(kernel).attention_decode(
        spikes, temporal[..., None] * channel, spatial, layout == torch.channels_last, out
    )
    return out


def _attention_decode_fake(spikes, temporal, *others):
    layout = _step_format(spikes)
    return torch.empty_like(spikes[0], dtype=temporal.dtype, memory_format=layout)


attention_decode = _operator(
    'attention_decode(Tensor spikes, Tensor temporal, Tensor channel, Tensor spatial) -> Tensor',
    _attention_decode,
    _attention_decode_fake,
)


def _rate_decode(spikes, kernel=''):
    _check_spikes(spikes, 1)
    kernel = _decode_kernel(spikes) if kernel == '' else kernel
    out = _rate_decode_fake(spikes)
    if kernel is None:
        return out.copy_(reference.rate_decode(spikes))
    engine(kernel).rate_decode(_input_laid_out(spikes, 0, (out.shape, out.stride())), out)
    return out


def _rate_decode_fake(spikes):
    shape, strides = _inner_layout(spikes, 0)
    dtype = torch.float32 if spikes.dtype == torch.uint8 else spikes.dtype
    return spikes.new_empty_strided(shape, strides, dtype=dtype)


rate_decode = _operator('rate_decode(Tensor spikes) -> Tensor', _rate_decode, _rate_decode_fake)


# ---- bytes ---------------------------------------------------------------------------------------


def _to_bytes(x, scale, zero, kernel=''):
    kernel = backend.ready_kernel_for(x, backend.BYTE_KERNELS) if kernel == '' else kernel
    if kernel is None:
        return reference.to_bytes(x, scale, zero)
    x = x if is_dense(x) else x.contiguous()
    out = torch.empty_like(x, dtype=torch.uint8)
    engine(kernel).to_bytes(x, 1 / scale, zero, out)
    return out


def _to_bytes_fake(x, scale, zero):
    return torch.empty_like(x, dtype=torch.uint8)


to_bytes = _operator(
    'to_bytes(Tensor x, float scale, int zero) -> Tensor', _to_bytes, _to_bytes_fake
)
