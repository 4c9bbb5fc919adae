"""The C kernels on tensors: finds or builds the library, and calls it through ctypes.

Tensors that come here are checked and laid out by library.py; nothing here knows autograd.
"""

import ctypes
import math
import os
from functools import cache, lru_cache
from typing import Optional

import torch
from torch import Tensor

from . import build, units

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.uint8: 2}
#: Of weights by the dtype that holds them: pairs of 8 and of 16 bits.
WEIGHTS = {torch.float32: 0, torch.int16: 3, torch.int32: 4}
RESETS = {'hard': 0, 'soft': 1}
SURROGATES = {'rectangle': 0, 'triangle': 1, 'arctan': 2, 'sigmoid': 3}
GATES = {None: 0, 'or': 1, 'add': 2, 'and': 3, 'iand': 4}

#: Elements below which a second thread costs more than it brings (torch's own grain size).
GRAIN = 32768

_forked = False


def _after_fork() -> None:
    # libgomp's threads stay in the parent, and a child that asks for them waits for ever.
    global _forked
    _forked = True


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_after_fork)


class _Lif(ctypes.Structure):
    """`struct lif` of the kernels, field by field."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in (
            'steps', 'n', 'channels', 'inner', 'x_step', 'shortcut_step', 'out_step', 'grad_step',
            'grad_start')),
        *((name, ctypes.c_int32) for name in (
            'dtype', 'spike_dtype', 'grad_x_dtype', 'reset', 'detach', 'surrogate', 'gate',
            'packed', 'shared', 'threads')),
        *((name, ctypes.c_float) for name in ('decay', 'gain', 'v_threshold', 'width')),
        *((name, ctypes.c_void_p) for name in (
            'x', 'scale', 'shift', 'shortcut', 'out', 'grad', 'by_grad', 'by_x', 'by_one',
            'y_grad', 'grad_x', 'grad_shortcut', 'channel_sums', 'leak_sums')),
    ]  # fmt: skip


class _Pool(ctypes.Structure):
    """`struct pool` of the kernels."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in (
            'images', 'height', 'width', 'inner', 'out_height', 'out_width', 'kernel_height',
            'kernel_width', 'stride_height', 'stride_width', 'pad_height', 'pad_width',
            'out_start')),
        *((name, ctypes.c_int32) for name in ('dtype', 'packed', 'threads')),
        *((name, ctypes.c_void_p) for name in ('x', 'grad', 'out')),
    ]  # fmt: skip


class _Conv(ctypes.Structure):
    """`struct conv` of the kernels."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in (
            'images', 'height', 'width', 'channels', 'out_height', 'out_width', 'out_channels',
            'kernel_height', 'kernel_width', 'stride_height', 'stride_width', 'pad_height',
            'pad_width', 'dilation_height', 'dilation_width', 'x_step', 'parts')),
        *((name, ctypes.c_void_p) for name in ('x', 'weight', 'scale', 'shift')),
    ]  # fmt: skip


class _EventConv(ctypes.Structure):
    """`struct event_conv` of the kernels."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in (
            'steps', 'images', 'height', 'width', 'channels', 'out_height', 'out_width', 'outputs',
            'groups', 'blocks', 'kernel_height', 'kernel_width', 'stride_height', 'stride_width',
            'pad_height', 'pad_width', 'dilation_height', 'dilation_width', 'x_step', 'parts')),
        *((name, ctypes.c_int32) for name in ('dtype', 'threads')),
        *((name, ctypes.c_void_p) for name in ('x', 'weight', 'scale', 'shift', 'out')),
    ]  # fmt: skip


class _Decode(ctypes.Structure):
    """`struct decode` of the kernels."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ('steps', 'images', 'rows', 'columns', 'x_step')),
        *((name, ctypes.c_int32) for name in ('dtype', 'out_dtype', 'last', 'threads')),
        *((name, ctypes.c_void_p) for name in (
            'x', 'by_row', 'by_column', 'out', 'row_mean', 'column_mean', 'max')),
    ]  # fmt: skip


@cache
def load() -> ctypes.CDLL:
    """The library: the installed one, one in the user's cache, or one built now.

    Where units are hidden from it or $MMSNN_KERNEL_FLAGS is set, it is another than the installed
    one.

    Raises:
        mmsnn.ops.build.BuildError: There is none and none can be built.
    """
    flags = (*units.build_flags(), *build.kernel_flags())
    if not flags and build.INSTALLED.exists():
        try:
            return _open(build.INSTALLED)
        except OSError:
            pass  # stale or of another platform
    reason = ''
    for variant in range(len(build.VARIANTS)):
        try:
            path = build.cached_path(variant, flags)
            try:
                return _open(path)
            except OSError:
                build.build(path, variant, flags)
            return _open(path)
        except (build.BuildError, OSError) as error:
            # The first reason is the telling one; the variants after it are poorer.
            reason = reason or str(error)
    raise build.BuildError(reason)


def _open(path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    library.mmsnn_source.restype = ctypes.c_char_p
    if library.mmsnn_source().decode() != build.source_key():
        raise OSError(f'{path} was built from another source')
    _check_codes(library)
    pointer, count, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    for structure, names in (
        (_Lif, ('lif_forward', 'lif_backward', 'input_grad_of', 'channel_stats')),
        (_Pool, ('max_pool', 'max_pool_backward')),
        (_Decode, ('attention_decode', 'rate_decode', 'attention_statistics')),
        (_EventConv, ('event_conv',)),
    ):
        for name in names:
            getattr(library, f'mmsnn_{name}').argtypes = [ctypes.POINTER(structure)]
    library.mmsnn_pooled_lif_backward.argtypes = [ctypes.POINTER(_Lif), ctypes.POINTER(_Pool)]
    library.mmsnn_conv_lif.argtypes = [ctypes.POINTER(_Lif), ctypes.POINTER(_Conv)]
    library.mmsnn_event_conv_lif.argtypes = [ctypes.POINTER(_Lif), ctypes.POINTER(_EventConv)]
    library.mmsnn_pack.argtypes = [pointer, pointer, count, count, number, number]
    library.mmsnn_unpack.argtypes = [pointer, pointer, count, number, number]
    real = ctypes.c_float
    library.mmsnn_to_bytes.argtypes = [pointer, pointer, count, real, real, number]
    return library


def _check_codes(library: ctypes.CDLL) -> None:
    """Refuse a library in which a number of the structs means something else than here."""
    library.mmsnn_code.argtypes = [ctypes.c_char_p]
    names = {str(dtype).removeprefix('torch.'): code for dtype, code in DTYPES.items()}
    weights = {'int8': WEIGHTS[torch.int16], 'int16': WEIGHTS[torch.int32]}
    for codes in (names, weights, RESETS, SURROGATES, GATES):
        for name, code in codes.items():
            name = name or 'no gate'
            theirs = library.mmsnn_code(name.encode())
            if theirs != code:
                raise OSError(f'{name!r} is {code} in mmsnn and {theirs} in its C kernels')


def _threads(elements: int) -> int:
    return 1 if _forked or elements < GRAIN else torch.get_num_threads()


def _pointer(tensor: Optional[Tensor], dtype: Optional[torch.dtype] = None) -> Optional[int]:
    """Where the values of a tensor are; with a dtype, one after the other in that.

    Raises:
        ValueError: They are elsewhere or otherwise: what a kernel would read isn't theirs.
    """
    if tensor is None:
        return None
    address = tensor.data_ptr()
    plain = tensor.is_cpu and not tensor.is_neg() and (address or not tensor.numel())
    if not plain or (dtype and (tensor.dtype != dtype or not tensor.is_contiguous())):
        form = f'one {dtype} after the other' if dtype else 'memory of the CPU'
        raise ValueError(
            f'a kernel needs {form}, got {tensor.dtype} on {tensor.device} of shape '
            f'{tuple(tensor.shape)} and strides {tensor.stride()}'
        )
    return address


def _vector(values: Optional[Tensor], n: int) -> Optional[int]:
    """Where n values in float32 are."""
    if values is not None and values.numel() != n:
        raise ValueError(f'a kernel needs {n} values, got {values.numel()}')
    return _pointer(values, torch.float32)


def _call(name: str, x: Tensor, *args, **fields) -> None:
    if x.numel():
        _run(name, _lif(x, *args, x=_pointer(x), **fields))


def _lif(
    x: Tensor, time_steps: int, /, *neuron, gate: Optional[str] = None, spike_dtype=None, **fields
) -> _Lif:
    """A `struct lif` of what is common to all and `fields`."""
    decay, gain, v_threshold, reset, detach, surrogate, width = neuron or _NO_NEURON
    inner = x if time_steps else x[0]
    n = inner.numel()
    channels = inner.shape[1] if inner.dim() > 1 else 1
    return _Lif(
        steps=time_steps or x.shape[0],
        n=n,
        channels=channels,
        # In dense memory the axes with smaller strides than the channels' lie inside a channel.
        inner=inner.stride(1) if channels > 1 else n,
        x_step=0 if time_steps else x.stride(0),
        dtype=DTYPES[x.dtype],
        spike_dtype=DTYPES[spike_dtype or x.dtype],
        reset=RESETS[reset],
        detach=detach,
        surrogate=SURROGATES[surrogate],
        gate=GATES[gate],
        shared=time_steps > 0,
        threads=_threads(x.numel()),
        decay=decay,
        gain=gain,
        v_threshold=v_threshold,
        width=width,
        **fields,
    )


def _run(name: str, *problem: ctypes.Structure) -> None:
    done = getattr(load(), f'mmsnn_{name}')(*problem)
    if done == 0:
        raise MemoryError(f'mmsnn_{name}: no memory for its work arrays')
    if done < 0:
        raise RuntimeError(f'mmsnn_{name}: this CPU lacks the units that it needs')


_NO_NEURON = (0.0, 1.0, 1.0, 'hard', False, 'arctan', 1.0)


def _shortcut(shortcut: Optional[Tensor], packed: bool) -> dict:
    if shortcut is None:
        return {}
    address = _pointer(shortcut, torch.uint8 if packed else None)
    step = 0 if packed else shortcut.stride(0)
    return dict(shortcut=address, packed=packed, shortcut_step=step)


# Below, a tensor with a time axis is (T, B, C, ...) with dense steps any distance apart, all of one
# inner layout; `time_steps` is not 0 where `x` is (B, C, ...), shared by all steps. `neuron` is
# decay, input_scale, v_threshold, reset, detach_reset, surrogate and width. library.py sees to it.


def lif_problem(x, shortcut, gate, time_steps, neuron, out) -> _Lif:
    """What :func:`solve_lif` solves for data of this layout: without addresses."""
    return _lif(
        x,
        time_steps,
        *neuron,
        gate=gate,
        spike_dtype=out.dtype,
        out_step=out.stride(0),
        shortcut_step=0 if shortcut is None else shortcut.stride(0),
    )


def solve_lif(problem: _Lif, x, scale, shift, shortcut, out) -> None:
    """Forward into `out`."""
    problem = _Lif.from_buffer_copy(problem)  # its own: several threads may be here
    if (shortcut is None) != (problem.gate == GATES[None]):
        raise ValueError('a gate joins spikes with a shortcut: there is one without the other')
    problem.x, problem.out = _pointer(x), _pointer(out)
    problem.scale = _vector(scale, problem.channels)
    problem.shift = _vector(shift, problem.channels)
    problem.shortcut = _pointer(shortcut)
    problem.threads = _threads(x.numel())
    _run('lif_forward', problem)


def lif(x, scale, shift, shortcut, gate, time_steps, neuron, out) -> None:
    """Forward into `out`."""
    if x.numel():
        problem = lif_problem(x, shortcut, gate, time_steps, neuron, out)
        solve_lif(problem, x, scale, shift, shortcut, out)


def lif_backward(
    grad, x, scale, shift, shortcut, gate, time_steps, neuron, by, grad_x, grad_shortcut,
    channel_sums, leak_sums, pooled=None,
) -> None:  # fmt: skip
    """Gradients into the four before the last, where they are given; see reference.lif_backward.

    Where the spikes went through a max pool, ``pooled`` is their bits and the pool's windows, and
    ``grad`` (T * B, C, H', W') is that of what came out of it.
    """
    if not x.numel():
        return
    by_grad, by_x, by_one = by
    # Of one value where there is no axis of channels.
    channels = x.shape[1 if time_steps else 2] if x.dim() > (1 if time_steps else 2) else 1
    problem = _lif(
        x,
        time_steps,
        *neuron,
        gate=gate,
        x=_pointer(x),
        scale=_vector(scale, channels),
        shift=_vector(shift, channels),
        grad=_pointer(grad),
        grad_step=grad.stride(0),
        by_grad=_vector(by_grad, channels),
        by_x=_vector(by_x, channels),
        by_one=_vector(by_one, channels),
        grad_x=_pointer(grad_x),
        grad_x_dtype=DTYPES[x.dtype if grad_x is None else grad_x.dtype],
        grad_shortcut=_pointer(grad_shortcut),
        channel_sums=_pointer(channel_sums, torch.float64),
        leak_sums=_pointer(leak_sums, torch.float64),
        # Backward has no other use for bytes: they are bits.
        **_shortcut(shortcut, packed=shortcut is not None and shortcut.dtype == torch.uint8),
    )
    if pooled is None:
        _run('lif_backward', problem)
        return
    bits, windows = pooled
    size = (problem.steps * x.shape[-4], *x.shape[-3:])
    channels_last = problem.inner == 1
    _run(
        'pooled_lif_backward',
        problem,
        _pool(
            size, channels_last, windows, grad.shape[2:], x.dtype, packed=True,
            x=_pointer(bits, torch.uint8), grad=_pointer(grad),
        ),
    )  # fmt: skip


@cache
def has_dot_products() -> bool:
    """Whether :func:`conv_lif` can be called: a compiler and a CPU that have what it needs."""
    return units.has_vnni() and bool(load().mmsnn_has_dot_products())


def conv_lif(x, weights, geometry, neuron, shortcut, gate, out) -> None:
    """Bytes to bytes, into `out`; maps (T, B, C, H, W) with channels last, steps any way apart."""
    shortcut_step = 0 if shortcut is None else shortcut.stride(0)
    shapes = x.shape, x.stride(0), weights.q.shape, out.shape, out.stride(0), shortcut_step
    # Fifty fields take longer than the conv of a small map, and are the same every time.
    problems = _conv_lif(*shapes, geometry, neuron, gate, torch.get_num_threads(), _forked)
    lif, conv = _Lif.from_buffer_copy(problems[0]), _Conv.from_buffer_copy(problems[1])
    outputs = 64 * weights.q.shape[1]
    lif.out, lif.shortcut = _pointer(out), _pointer(shortcut)
    conv.x, conv.weight = _pointer(x), _pointer(weights.q, torch.int8)
    conv.scale = _vector(weights.scale, outputs * conv.parts)
    conv.shift = _vector(weights.shift, outputs)
    _run('conv_lif', lif, conv)


@lru_cache(maxsize=1024)
def _conv_lif(
    size, x_step, weight_size, out_size, out_step, shortcut_step, geometry, neuron, gate, *_
) -> tuple[_Lif, _Conv]:
    """The problem of :func:`conv_lif` without addresses."""
    decay, gain, v_threshold, reset, *_ = neuron
    steps, images, channels, height, width = size
    _, _, out_channels, out_height, out_width = out_size
    parts, _, kernel_height, kernel_width = weight_size[:4]
    pairs = zip(('stride', 'pad', 'dilation'), geometry)
    axes = 'height', 'width'
    conv = _Conv(
        images=images,
        height=height,
        width=width,
        channels=channels,
        out_height=out_height,
        out_width=out_width,
        out_channels=out_channels,
        kernel_height=kernel_height,
        kernel_width=kernel_width,
        **{f'{name}_{axis}': v for name, pair in pairs for axis, v in zip(axes, pair)},
        x_step=x_step,
        parts=parts,
    )
    work = math.prod(out_size) * channels * kernel_height * kernel_width // 64
    lif = _Lif(
        steps=steps,
        n=math.prod(out_size[1:]),
        channels=out_channels,
        inner=1,
        shortcut_step=shortcut_step,
        out_step=out_step,
        spike_dtype=DTYPES[torch.uint8],
        reset=RESETS[reset],
        gate=GATES[gate],
        threads=_threads(work),
        decay=decay,
        gain=gain,
        v_threshold=v_threshold,
    )
    return lif, conv


def input_grad(y_grad, x, time_steps, by, grad_x) -> None:
    """by[0] * dL/dcurrent + by[1] * x + by[2] into `grad_x`, which may be `y_grad` itself."""
    by_grad, by_x, by_one = by
    _call(
        'input_grad_of',
        x,
        time_steps,
        by_grad=_vector(by_grad, x.shape[1 if time_steps else 2]),
        by_x=_vector(by_x, by_grad.numel()),
        by_one=_vector(by_one, by_grad.numel()),
        y_grad=_pointer(y_grad),
        grad_x=_pointer(grad_x),
        grad_x_dtype=DTYPES[grad_x.dtype],
    )


def channel_moments(x, origin, time_steps, channel_sums) -> None:
    """Sums of x - origin and of its square by channel, into (2, C) float64."""
    _call(
        'channel_stats',
        x,
        time_steps,
        shift=_vector(origin, channel_sums.shape[1]),
        channel_sums=_pointer(channel_sums, torch.float64),
    )


def pack(x: Tensor, rows: int, bits: Tensor) -> bool:
    """Dense `x` to rows of bits in memory order; False, and no bits, where it isn't 0 or 1."""
    n = x.numel() // rows
    addresses = _pointer(x), _pointer(bits, torch.uint8)
    return bool(load().mmsnn_pack(*addresses, rows, n, DTYPES[x.dtype], _threads(n)))


def unpack(bits: Tensor, x: Tensor) -> None:
    """One row of bits to the values of dense `x`, in memory order."""
    n = x.numel()
    addresses = _pointer(bits, torch.uint8), _pointer(x)
    load().mmsnn_unpack(*addresses, n, DTYPES[x.dtype], _threads(n))


def to_bytes(x: Tensor, inverse: float, zero: float, out: Tensor) -> None:
    """round(x * inverse + zero) of dense float32, clipped to a byte, into `out`."""
    n = x.numel()
    load().mmsnn_to_bytes(_pointer(x), _pointer(out), n, inverse, zero, _threads(n))


# Below, maps are (..., C, H, W) in one of two layouts, contiguous or with channels last.


def _pool(size, channels_last: bool, windows, out_size, dtype, **fields) -> _Pool:
    n, channels, height, width = size
    pairs = zip(('kernel', 'stride', 'pad'), windows)
    return _Pool(
        images=n if channels_last else n * channels,
        height=height,
        width=width,
        inner=channels if channels_last else 1,
        out_height=out_size[0],
        out_width=out_size[1],
        **{f'{key}_{axis}': v for key, pair in pairs for axis, v in zip(('height', 'width'), pair)},
        dtype=DTYPES[dtype],
        threads=_threads(n * channels * height * width),
        **fields,
    )


def max_pool(x: Tensor, windows, channels_last: bool, out: Tensor) -> None:
    """Maxima of `x` into `out`; `windows` is kernel size, stride and padding, in pairs."""
    problem = _pool(
        x.shape, channels_last, windows, out.shape[2:], x.dtype, x=_pointer(x), out=_pointer(out)
    )
    _run('max_pool', problem)


def max_pool_backward(grad: Tensor, kept: Tensor, windows, channels_last: bool, grad_x) -> None:
    """Gradient into `grad_x`, from the input as it was kept: bits (uint8), or as it is."""
    problem = _pool(
        grad_x.shape,
        channels_last,
        windows,
        grad.shape[2:],
        grad_x.dtype,
        packed=kept.dtype == torch.uint8,
        x=_pointer(kept),
        grad=_pointer(grad),
        out=_pointer(grad_x),
    )
    _run('max_pool_backward', problem)


def _decode(name: str, spikes: Tensor, channels_last: bool, **fields) -> None:
    steps, images, channels, *size = spikes.shape
    matrix = channels, size[0] * size[1]
    rows, columns = reversed(matrix) if channels_last else matrix
    problem = _Decode(
        steps=steps,
        images=images,
        rows=rows,
        columns=columns,
        x_step=spikes.stride(0),
        dtype=DTYPES[spikes.dtype],
        last=channels_last,
        threads=_threads(spikes.numel()),
        x=_pointer(spikes),
        **fields,
    )
    _run(name, problem)


def attention_decode(spikes: Tensor, by_channel: Tensor, spatial: Tensor, channels_last, out):
    """Sum over time into `out`, with float32 weights (T, B, C) and (T, B, H, W)."""
    steps, images, channels, height, width = spikes.shape
    weights = (
        _vector(by_channel, steps * images * channels),
        _vector(spatial, steps * images * height * width),
    )
    by_row, by_column = reversed(weights) if channels_last else weights
    _decode(
        'attention_decode',
        spikes,
        channels_last,
        by_row=by_row,
        by_column=by_column,
        out=_pointer(out),
        out_dtype=DTYPES[out.dtype],
    )


def attention_statistics(spikes: Tensor, channels_last, channel_mean, spatial_mean, spatial_max):
    """Into the last three, float32."""
    means = _pointer(channel_mean, torch.float32), _pointer(spatial_mean, torch.float32)
    row_mean, column_mean = reversed(means) if channels_last else means
    _decode(
        'attention_statistics',
        spikes,
        channels_last,
        row_mean=row_mean,
        column_mean=column_mean,
        max=_pointer(spatial_max, torch.float32),
    )


def rate_decode(spikes: Tensor, out: Tensor) -> None:
    """Mean over time into `out`; steps of any one dense layout."""
    problem = _Decode(
        steps=spikes.shape[0],
        columns=out.numel(),
        x_step=spikes.stride(0),
        dtype=DTYPES[spikes.dtype],
        out_dtype=DTYPES[out.dtype],
        threads=_threads(spikes.numel()),
        x=_pointer(spikes),
        out=_pointer(out),
    )
    _run('rate_decode', problem)


# ---- convs by events -----------------------------------------------------------------------------


def event_conv(x, weights, geometry, out) -> None:
    """Bytes to currents in `out`; maps (T, B, C, H, W) with channels last, steps of `x` apart."""
    conv = _event_conv(x.shape, x.stride(0), weights.q.shape, weights.q.dtype, out.shape, geometry)
    _run('event_conv', _addressed(conv, x, weights, out=_pointer(out, None)))


def event_conv_lif(x, weights, geometry, neuron, shortcut, gate, out) -> None:
    """As :func:`event_conv`, through neurons to bytes in `out`."""
    decay, gain, v_threshold, reset, *_ = neuron
    conv = _event_conv(x.shape, x.stride(0), weights.q.shape, weights.q.dtype, out.shape, geometry)
    lif = _Lif(
        steps=out.shape[0],
        n=out[0].numel(),
        channels=out.shape[2],
        inner=1,
        shortcut_step=0 if shortcut is None else shortcut.stride(0),
        out_step=out.stride(0),
        spike_dtype=DTYPES[torch.uint8],
        reset=RESETS[reset],
        gate=GATES[gate],
        decay=decay,
        gain=gain,
        v_threshold=v_threshold,
        shortcut=_pointer(shortcut),
        out=_pointer(out),
    )
    _run('event_conv_lif', lif, _addressed(conv, x, weights))


def _addressed(problem: _EventConv, x, weights, **fields) -> _EventConv:
    """A problem of its own, as several threads may be here, with addresses."""
    conv = _EventConv.from_buffer_copy(problem)
    outputs = (32 if weights.q.dtype == torch.float32 else 64) * conv.groups * conv.blocks
    conv.x, conv.weight = _pointer(x), _pointer(weights.q, weights.q.dtype)
    conv.scale = _vector(weights.scale, outputs * conv.parts)
    conv.shift = _vector(weights.shift, outputs)
    # A spike is a few operations for each output that it reaches, and a byte at least one.
    conv.threads = _threads(x.numel() * conv.blocks)
    for name, value in fields.items():
        setattr(conv, name, value)
    return conv


@lru_cache(maxsize=1024)
def _event_conv(size, x_step, weight_size, dtype, out_size, geometry) -> _EventConv:
    """The problem of :func:`event_conv` without addresses."""
    parts, groups, blocks, kernel_width, kernel_height, channels, _ = weight_size
    pairs = zip(('stride', 'pad', 'dilation'), geometry)
    return _EventConv(
        steps=size[0],
        images=size[1],
        height=size[3],
        width=size[4],
        channels=channels,
        out_height=out_size[3],
        out_width=out_size[4],
        outputs=out_size[2] // groups,
        groups=groups,
        blocks=blocks,
        kernel_height=kernel_height,
        kernel_width=kernel_width,
        **{f'{k}_{axis}': v for k, p in pairs for axis, v in zip(('height', 'width'), p)},
        x_step=x_step,
        parts=parts,
        dtype=WEIGHTS[dtype],
    )
