"""The torch.library operators: what torch.compile, torch.export and autograd see of the kernels.

Every operator runs without a kernel too, on the reference, so that a program exported on one
machine runs on any. Autocast has no rule here because it needs none: a neuron takes what comes,
computes in float32 inside and gives spikes in the dtype it was given.

Spikes that backward needs again are kept as bits in memory order, whatever the layout.
"""

import importlib

import torch
from torch import Tensor

from . import backend, reference


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


def _operator(schema: str, implementation, fake) -> torch._ops.OpOverload:
    name = schema.split('(')[0]
    _LIBRARY.define(schema, tags=_TAGS)
    _LIBRARY.impl(name, implementation, 'CompositeExplicitAutograd')
    torch.library.register_fake(f'mmsnn::{name}', fake, lib=_LIBRARY)
    return getattr(torch.ops.mmsnn, name).default


# ---- layouts -------------------------------------------------------------------------------------


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


def _same_strides(shape, strides, others) -> bool:
    return all(a == b for n, a, b in zip(shape, strides, others) if n != 1)


def _laid_out(tensor: Tensor, like: Tensor, layout: tuple) -> Tensor:
    """(T, ...) in the dtype of `like` and with steps in this layout, copied if they aren't."""
    shape, strides = layout
    if tensor.dtype == like.dtype and _same_strides(shape, tensor.stride()[1:], strides):
        return tensor
    return _empty_steps(like, tensor.shape[0], layout).copy_(tensor)


def _input_laid_out(x: Tensor, time_steps: int, layout: tuple) -> Tensor:
    if _same_strides(layout[0], x.stride() if time_steps else x.stride()[1:], layout[1]):
        return x
    return torch.empty_like(x).copy_(x) if time_steps else _laid_out(x, x, layout)


# ---- the neuron ----------------------------------------------------------------------------------


def _affine(x, scale, shift, mean, invstd):
    """(C,) scale and shift in the dtype that potentials have, statistics folded in."""
    dtype = reference.compute_dtype(x.dtype)
    scale, shift = (None if v is None else v.to(dtype).contiguous() for v in (scale, shift))
    if mean is not None:
        scale = scale * invstd
        shift = shift - mean * scale
    return scale, shift


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
    neuron = _neuron(decay_tensor, input_scale_tensor, *neuron)
    scale, shift = _affine(x, scale, shift, mean, invstd)
    layout = _inner_layout(x, time_steps)
    out = _empty_steps(x, time_steps or x.shape[0], layout, dtype)
    kernel = backend.ready_kernel_for(x) if kernel == '' else kernel
    if kernel is None:
        return out.copy_(
            reference.lif(x, *neuron, scale, shift, shortcut, gate, time_steps or None, dtype)
        )
    x = _input_laid_out(x, time_steps, layout)
    if shortcut is not None:
        shortcut = _laid_out(shortcut, out, layout)
    engine(kernel).lif(x, scale, shift, shortcut, gate, time_steps, neuron, out)
    return out


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
    *neuron_gate_steps_needs, kernel='',
):  # fmt: skip
    *neuron, gate, time_steps, needs = neuron_gate_steps_needs
    need_x, need_scale, need_shift, need_shortcut, need_decay, need_input_scale = needs
    neuron = _neuron(decay_tensor, input_scale_tensor, *neuron)
    weight, bias = scale, shift
    scale, shift = _affine(x, scale, shift, mean, invstd)
    layout = _inner_layout(x, time_steps)
    kernel = backend.ready_kernel_for(x) if kernel == '' else kernel
    through_stats = mean is not None and need_x
    need_sums = need_scale or need_shift or through_stats
    channels = x.shape[1 if time_steps else 2] if need_sums else 0

    if kernel is None:
        if shortcut is not None and shortcut.dtype == torch.uint8:
            shortcut = _unpack_steps(shortcut, x, layout)

        def run(by, **wanted):
            return reference.lif_backward(
                grad, x, *neuron, scale, shift, shortcut, gate, time_steps or None, *by
            )
    else:
        x = _input_laid_out(x, time_steps, layout)
        grad = _laid_out(grad, x, layout)
        if shortcut is not None and shortcut.dtype != torch.uint8:
            shortcut = _laid_out(shortcut, x, layout)

        def run(by, x_grad=False, shortcut_grad=False, sums=False, leak=False):
            double = dict(dtype=torch.float64, device=x.device)
            wanted = (
                torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)
                if x_grad and time_steps
                else _empty_steps(x, x.shape[0], layout) if x_grad else None,
                _empty_steps(x, grad.shape[0], layout) if shortcut_grad else None,
                torch.zeros(2, channels, **double) if sums else None,
                torch.zeros(2, **double) if leak else None,
            )  # fmt: skip
            engine(kernel).lif_backward(
                grad, x, scale, shift, shortcut, gate, time_steps, neuron, by, *wanted
            )
            return wanted

    no = (None, None, None)
    rest = dict(shortcut_grad=need_shortcut, leak=need_decay or need_input_scale)
    if through_stats:
        # The sums come before the gradient they are part of. Two passes that compute all of it
        # move less memory than one that leaves dL/dy behind for the other, and round once.
        _, grad_shortcut, sums, leak = run(no, sums=True, **rest)
        dtype = scale.dtype
        mean_grad = (sums[0] * channels / x.numel()).to(dtype)
        slope = ((sums[1] - mean * sums[0]) * invstd * channels / x.numel()).to(dtype) * invstd
        by = (scale, -scale * slope, scale * (slope * mean - mean_grad))
        grad_x = run(by, x_grad=True)[0]
    else:
        grad_x, grad_shortcut, sums, leak = run(
            (scale, None, None), x_grad=need_x, sums=need_sums, **rest
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
        kept = pack_or_keep(_laid_out(shortcut, x, layout), shortcut.shape[0])
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
    kernel = backend.ready_kernel_for(x) if kernel == '' else kernel
    if kernel is None:
        return reference.channel_stats(x, 1 if time_steps else 2)
    x = _input_laid_out(x, time_steps, _inner_layout(x, time_steps))
    channels = x.shape[1 if time_steps else 2]
    # Against cancellation, sums are taken from a value near the mean. One of the channel's own, and
    # not the running mean, for a pass that is recomputed later must give the same bits.
    origin = (x[0] if time_steps else x[0, 0]).flatten(1)[:, 0].float().contiguous()
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
    x = torch.empty_strided(size, stride, dtype=dtype, device=bits.device)
    kernel = backend.ready_kernel_for(x) if kernel == '' else kernel
    if kernel is None:
        n = x.numel()
        x.as_strided((1, n), (n, 1)).copy_(reference.unpack(bits, n, dtype))
    else:
        engine(kernel).unpack(bits, x)
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


# ---- self-check ----------------------------------------------------------------------------------


def self_check(kernel: str) -> str:
    """Compare a kernel backend with the reference on small inputs; '' or what differs."""
    device, dtypes = backend.KERNELS[kernel]
    cases = [
        ('hard', False, 'arctan', 'or', 0),
        ('soft', False, 'sigmoid', 'iand', 0),
        ('hard', True, 'triangle', 'and', 3),
        ('soft', True, 'rectangle', 'add', 0),
        ('hard', False, 'arctan', None, 3),
    ]

    def sample(*shape, step):  # numbers without a generator, whose state belongs to the user
        n = torch.Size(shape).numel()
        return (torch.arange(n, dtype=torch.float32) * step).sin().view(shape)

    for dtype in dtypes:
        for reset, detach, surrogate, gate, time_steps in cases:
            shape = (2, 5, 9, 8) if time_steps else (3, 2, 5, 9, 8)
            x = (1.5 * sample(*shape, step=1.7)).to(device, dtype)
            if gate == 'iand':
                x = x.transpose(-1, -3).contiguous().transpose(-1, -3)
            grad = sample(3, 2, 5, 9, 8, step=0.3).to(device, dtype)
            shortcut = (sample(3, 2, 5, 9, 8, step=2.3) > 0.3).to(device, dtype) if gate else None
            scale, shift = (1 + sample(5, step=0.9)).to(device), sample(5, step=1.1).to(device) / 4
            mean, invstd = shift, scale.abs() + 0.5
            if gate is None or gate == 'add':
                mean = invstd = None
            leak = x.new_tensor(0.5, dtype=torch.float32)
            inputs = (x, scale, shift, shortcut, leak, leak + 0.25, mean, invstd)
            neuron = (0.5, 1.0, 0.6, reset, detach, surrogate, 0.8, gate, time_steps)
            needs = [True, True, True, gate is not None, True, True]
            ours, theirs = (
                (_lif(*inputs, *neuron, kernel=k),
                 *_lif_backward(grad, *inputs, *neuron, needs, kernel=k))
                for k in (kernel, None)
            )  # fmt: skip
            if not torch.equal(ours[0], theirs[0]):
                return f'its self-check found wrong spikes ({dtype}, {reset} reset, gate {gate})'
            for a, b in zip(ours[1:], theirs[1:]):
                tolerance = 1e-4 if a.dtype == torch.float32 else 2e-2
                if not torch.allclose(a, b, rtol=tolerance, atol=tolerance):
                    return f'its self-check found wrong gradients ({dtype}, {surrogate} surrogate)'
        stats = [_channel_stats(x, time_steps, kernel=k) for k in (kernel, None)]
        bits = [_pack((x > 0).to(dtype), 1, kernel=k) for k in (kernel, None)]
        back = _unpack(bits[0], x.shape, x.stride(), dtype, kernel=kernel)
        if not (
            all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(*stats))
            and torch.equal(*bits)
            and torch.equal(back, (x > 0).to(dtype))
        ):
            return f'its self-check found wrong statistics or bits ({dtype})'
    return ''
