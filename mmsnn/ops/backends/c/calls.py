"""The C kernels on tensors: finds or builds the library, and calls it through ctypes.

Tensors that come here are checked and laid out by the operators; nothing here knows autograd.
"""

import ctypes
import math
import os
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Optional

import torch
from torch import Tensor

from ... import units
from ...conv_lif import OUTPUTS
from ...event_weights import ROW
from ...gate import GATES
from ...layout import TILE, is_dense, tile_grid, tiles_of_conv
from ...spec import ILIF, LIF, RESETS, BitsConvCall, ConvCall, LIFCall, LIFGrads
from ...surrogate import SURROGATES
from ..base import Backend
from . import build, plan

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.uint8: 2}
#: Of weights by the dtype that holds them: pairs of 8 and of 16 bits.
WEIGHTS = {torch.float32: 0, torch.int16: 3, torch.int32: 4}
NO_GATE = 0

#: Elements below which a second thread costs more than it brings (torch's own grain size).
GRAIN = 32768

_forked = False


def _after_fork() -> None:
    # libgomp's threads stay in the parent, and a child that asks for them waits for ever.
    global _forked
    _forked = True


def is_forked() -> bool:
    """Whether this process is a child of a fork, in which the kernels have one thread."""
    return _forked


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
        *((name, ctypes.c_float) for name in ('decay', 'input_scale', 'v_threshold', 'width')),
        *((name, ctypes.c_void_p) for name in (
            'x', 'scale', 'shift', 'shortcut', 'out', 'grad', 'grad_coef', 'x_coef', 'bias_coef',
            'y_grad', 'grad_x', 'grad_shortcut', 'channel_sums', 'leak_sums', 'v')),
    ]  # fmt: skip


class _Ilif(ctypes.Structure):
    """`struct ilif` of the kernels."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ('steps', 'n', 'x_step', 'grad_step')),
        *((name, ctypes.c_int32) for name in (
            'levels', 'detach', 'dtype', 'spike_dtype', 'threads')),
        *((name, ctypes.c_float) for name in ('decay', 'v_threshold')),
        *((name, ctypes.c_void_p) for name in ('x', 'grad', 'out', 'grad_x', 'u')),
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
        *((name, ctypes.c_int32) for name in ('dtype', 'packed', 'threads')),
        *((name, ctypes.c_void_p) for name in ('x', 'weight', 'scale', 'shift', 'out')),
    ]  # fmt: skip


class _EventGrad(ctypes.Structure):
    """`struct event_grad` of the kernels."""

    _fields_ = [
        ('conv', _EventConv),
        *((name, ctypes.c_void_p) for name in ('grad', 'weight_grad')),
    ]  # fmt: skip


class _Winograd(ctypes.Structure):
    """`struct winograd` of the kernels."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in (
            'images', 'height', 'width', 'channels', 'pad_height', 'pad_width', 'rows', 'columns',
            'first', 'tiles')),
        ('threads', ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in ('bias', 'maps', 'places')),
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
        (_Ilif, ('ilif', 'ilif_backward')),
        (_Pool, ('max_pool', 'max_pool_backward')),
        (_Decode, ('attention_decode', 'rate_decode', 'attention_statistics')),
        (_EventConv, ('event_conv',)),
        (_EventGrad, ('event_weight_grad',)),
        (_Winograd, ('winograd_in', 'winograd_out')),
    ):
        for name in names:
            getattr(library, f'mmsnn_{name}').argtypes = [ctypes.POINTER(structure)]
    library.mmsnn_pooled_lif_backward.argtypes = [ctypes.POINTER(_Lif), ctypes.POINTER(_Pool)]
    library.mmsnn_conv_lif.argtypes = [ctypes.POINTER(_Lif), ctypes.POINTER(_Conv)]
    library.mmsnn_event_conv_lif.argtypes = [ctypes.POINTER(_Lif), ctypes.POINTER(_EventConv)]
    library.mmsnn_event_weights.argtypes = [
        ctypes.POINTER(_EventConv), pointer, ctypes.POINTER(count), pointer,
    ]  # fmt: skip
    library.mmsnn_pack.argtypes = [pointer, pointer, count, count, number, number]
    library.mmsnn_unpack.argtypes = [pointer, pointer, count, number, number]
    real = ctypes.c_float
    library.mmsnn_to_bytes.argtypes = [pointer, pointer, count, real, real, number]
    return library


def _check_codes(library: ctypes.CDLL) -> None:
    """Refuse a library in which a number of the structs or of a layout is another than here."""
    library.mmsnn_code.argtypes = [ctypes.c_char_p]
    names = {str(dtype).removeprefix('torch.'): code for dtype, code in DTYPES.items()}
    surrogates = {s.name: s.code for s in SURROGATES.values() if s.code is not None}
    gates = {'no gate': NO_GATE, **{gate.name: gate.code for gate in GATES.values()}}
    weights = {'int8': WEIGHTS[torch.int16], 'int16': WEIGHTS[torch.int32]}
    sizes = {'outputs of a block': OUTPUTS, 'numbers in a row': ROW, 'outputs of a tile': TILE}
    for codes in (names, weights, RESETS, surrogates, gates, sizes):
        for name, code in codes.items():
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


def _potentials(v: Optional[Tensor], n: int) -> Optional[int]:
    """Where n potentials in float32 are, dense in whatever order."""
    if v is None:
        return None
    if v.numel() != n or v.dtype != torch.float32 or not is_dense(v):
        raise ValueError(f'a kernel needs {n} dense potentials, got {v.dtype} {tuple(v.shape)}')
    return _pointer(v)


def _gate_code(gate: Optional[str]) -> int:
    return NO_GATE if gate is None else GATES[gate].code


def _lif(call: LIFCall, **fields) -> _Lif:
    """A `struct lif` of what is common to all and `fields`, without addresses but those."""
    x, time_steps, neuron = call.x, call.time_steps, call.neuron
    inner = x if time_steps else x[0]
    n = inner.numel()
    channels = inner.shape[1] if inner.dim() > 1 else 1
    common = dict(
        steps=call.steps,
        n=n,
        channels=channels,
        # In dense memory the axes with smaller strides than the channels' lie inside a channel.
        inner=inner.stride(1) if channels > 1 else n,
        x_step=0 if time_steps else x.stride(0),
        dtype=DTYPES[x.dtype],
        spike_dtype=DTYPES[x.dtype],
        reset=RESETS[neuron.reset],
        detach=neuron.detach_reset,
        surrogate=SURROGATES[neuron.surrogate].code,
        gate=_gate_code(call.gate),
        shared=time_steps > 0,
        threads=_threads(x.numel()),
        decay=neuron.decay,
        input_scale=neuron.input_scale,
        v_threshold=neuron.v_threshold,
        width=neuron.surrogate_width,
    )
    return _Lif(**{**common, **fields})


def _run(name: str, *problem: ctypes.Structure) -> None:
    done = getattr(load(), f'mmsnn_{name}')(*problem)
    if done == 0:
        raise MemoryError(f'mmsnn_{name}: no memory for its work arrays')
    if done < 0:
        raise RuntimeError(f'mmsnn_{name}: this CPU lacks the units that it needs')


def _shortcut(shortcut: Optional[Tensor], packed: bool) -> dict:
    if shortcut is None:
        return {}
    address = _pointer(shortcut, torch.uint8 if packed else None)
    step = 0 if packed else shortcut.stride(0)
    return dict(shortcut=address, packed=packed, shortcut_step=step)


def lif_struct(call: LIFCall, out: Tensor) -> _Lif:
    """What :func:`run_lif` runs for data of this layout: without addresses."""
    return _lif(
        call,
        spike_dtype=DTYPES[out.dtype],
        out_step=out.stride(0),
        shortcut_step=0 if call.shortcut is None else call.shortcut.stride(0),
    )


def run_lif(struct: _Lif, call: LIFCall, out: Tensor) -> None:
    """Forward into `out`."""
    struct = _Lif.from_buffer_copy(struct)  # its own: several threads may be here
    if (call.shortcut is None) != (struct.gate == NO_GATE):
        raise ValueError('a gate joins spikes with a shortcut: there is one without the other')
    struct.x, struct.out = _pointer(call.x), _pointer(out)
    struct.scale = _vector(call.scale, struct.channels)
    struct.shift = _vector(call.shift, struct.channels)
    struct.shortcut = _pointer(call.shortcut)
    struct.v = _potentials(call.v, struct.n)
    struct.threads = _threads(call.x.numel())
    _run('lif_forward', struct)


def _backward(grad: Tensor, call: LIFCall, grads: LIFGrads) -> _Lif:
    x = call.x
    # Of one value where there is no axis of channels.
    channels = x.shape[call.channel_axis] if x.dim() > call.channel_axis else 1
    return _lif(
        call,
        x=_pointer(x),
        scale=_vector(call.scale, channels),
        shift=_vector(call.shift, channels),
        grad=_pointer(grad),
        grad_step=grad.stride(0),
        grad_coef=_vector(grads.grad_coef, channels),
        grad_x=_pointer(grads.x),
        grad_x_dtype=DTYPES[x.dtype if grads.x is None else grads.x.dtype],
        grad_shortcut=_pointer(grads.shortcut),
        channel_sums=_pointer(grads.channel_sums, torch.float64),
        leak_sums=_pointer(grads.leak_sums, torch.float64),
        # Backward has no other use for bytes: they are bits.
        **_shortcut(call.shortcut, packed=_is_packed(call.shortcut)),
    )


def _is_packed(shortcut: Optional[Tensor]) -> bool:
    return shortcut is not None and shortcut.dtype == torch.uint8


def _ilif(x: Tensor, neuron: ILIF, **fields) -> _Ilif:
    return _Ilif(
        steps=x.shape[0],
        n=x[0].numel(),
        x_step=x.stride(0),
        levels=neuron.levels,
        detach=neuron.detach_reset,
        dtype=DTYPES[x.dtype],
        threads=_threads(x.numel()),
        decay=neuron.decay,
        v_threshold=neuron.v_threshold,
        x=_pointer(x),
        **fields,
    )


@cache
def has_dot_products() -> bool:
    """Whether :meth:`C.conv_lif` can be called: a compiler and a CPU that have what it needs."""
    if not units.has_vnni():
        return False
    try:
        return bool(load().mmsnn_has_dot_products())
    except (build.BuildError, OSError):
        return False


def _in_pairs(names: Sequence[str], windows: Sequence) -> dict[str, int]:
    """Fields of height and width for each of the names."""
    pairs = zip(names, windows)
    return {f'{k}_{axis}': v for k, pair in pairs for axis, v in zip(('height', 'width'), pair)}


@lru_cache(maxsize=1024)
def _neurons(size, step, shortcut_step, neuron: LIF, gate: Optional[str]) -> _Lif:
    """The neurons in a conv, that gives maps of this size, without addresses."""
    return _Lif(
        steps=size[0],
        n=math.prod(size[1:]),
        channels=size[2],
        inner=1,
        shortcut_step=shortcut_step,
        out_step=step,
        spike_dtype=DTYPES[torch.uint8],
        reset=RESETS[neuron.reset],
        gate=_gate_code(gate),
        decay=neuron.decay,
        input_scale=neuron.input_scale,
        v_threshold=neuron.v_threshold,
    )


def _neurons_of(call: ConvCall, out: Tensor) -> _Lif:
    """A struct of its own, as several threads may be here, with addresses."""
    shortcut = call.shortcut
    step = 0 if shortcut is None else shortcut.stride(0)
    struct = _neurons(out.shape, out.stride(0), step, call.neuron, call.gate)
    lif = _Lif.from_buffer_copy(struct)
    lif.out, lif.shortcut = _pointer(out), _pointer(shortcut)
    lif.v = _potentials(call.v, lif.n)
    return lif


@lru_cache(maxsize=1024)
def _conv(size, x_step, weight_size, out_size, geometry) -> _Conv:
    """The struct of :meth:`C.conv_lif` without addresses."""
    _, images, channels, height, width = size
    _, _, out_channels, out_height, out_width = out_size
    parts, _, kernel_height, kernel_width = weight_size[:4]
    return _Conv(
        images=images,
        height=height,
        width=width,
        channels=channels,
        out_height=out_height,
        out_width=out_width,
        out_channels=out_channels,
        kernel_height=kernel_height,
        kernel_width=kernel_width,
        **_in_pairs(('stride', 'pad', 'dilation'), geometry),
        x_step=x_step,
        parts=parts,
    )


def _pool(size, channels_last: bool, windows, out_size, dtype, **fields) -> _Pool:
    n, channels, height, width = size
    return _Pool(
        images=n if channels_last else n * channels,
        height=height,
        width=width,
        inner=channels if channels_last else 1,
        out_height=out_size[0],
        out_width=out_size[1],
        **_in_pairs(('kernel', 'stride', 'pad'), windows),
        dtype=DTYPES[dtype],
        threads=_threads(n * channels * height * width),
        **fields,
    )


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


def _event_conv_of(call: ConvCall, size: Sequence[int]) -> _EventConv:
    """A struct of its own, as several threads may be here, with addresses."""
    x, weights = call.x, call.weights
    q = weights.q
    struct = _event_conv(x.shape, x.stride(0), q.shape, q.dtype, size, call.geometry)
    conv = _EventConv.from_buffer_copy(struct)
    outputs = weights.block * conv.groups * conv.blocks
    conv.x, conv.weight = _pointer(x), _pointer(q, q.dtype)
    conv.scale = _vector(weights.scale, outputs * conv.parts)
    conv.shift = _vector(weights.shift, outputs)
    # A spike is a few operations for each output that it reaches, and a byte at least one.
    conv.threads = _threads(x.numel() * conv.blocks)
    return conv


@lru_cache(maxsize=1024)
def _event_conv(size, x_step, weight_size, dtype, out_size, geometry) -> _EventConv:
    """The struct of :meth:`C.event_conv` without addresses."""
    parts, groups, blocks, kernel_width, kernel_height, channels, _ = weight_size
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
        **_in_pairs(('stride', 'pad', 'dilation'), geometry),
        x_step=x_step,
        parts=parts,
        dtype=WEIGHTS[dtype],
    )


def _bits_conv_of(call: BitsConvCall, out_size: Sequence[int]) -> _EventConv:
    """The struct of a conv on bits; its weights, and what comes out, are not in it yet."""
    outputs, channels, kernel_height, kernel_width = call.weight.shape
    blocks = -(-outputs // call.groups // ROW)
    weight_size = 1, call.groups, blocks, kernel_width, kernel_height, channels, ROW
    struct = _event_conv(
        (1, *call.size), 0, weight_size, torch.float32, (1, *out_size), call.geometry
    )
    conv = _EventConv.from_buffer_copy(struct)
    conv.x, conv.packed = _pointer(call.bits, torch.uint8), True
    conv.threads = _threads(math.prod(call.size) * blocks)
    return conv


def _winograd(
    maps: Tensor, grid: tuple[int, int], places: Tensor, first: int, **fields: object
) -> _Winograd:
    """Maps of inputs or of outputs, and the rows and columns of tiles."""
    images, channels, height, width = maps.shape
    rows, columns = grid
    return _Winograd(
        images=images,
        height=height,
        width=width,
        channels=channels,
        rows=rows,
        columns=columns,
        first=first,
        tiles=places.shape[1],
        threads=_threads(places.numel()),
        maps=_pointer(maps),
        places=_pointer(places, torch.float32),
        **fields,
    )


_REAL = torch.float32, torch.bfloat16
_MAPS = torch.float32, torch.bfloat16, torch.uint8


class C(Backend):
    """Kernels in C for CPUs: vector code of the instruction sets that the machine has."""

    name = 'c'
    device = 'cpu'
    dtypes = {
        **dict.fromkeys(('lif', 'lif_backward', 'input_grad', 'channel_stats'), _REAL),
        **dict.fromkeys(('pack', 'unpack', 'max_pool', 'max_pool_backward'), _MAPS),
        **dict.fromkeys(('attention_decode', 'attention_statistics', 'rate_decode'), _MAPS),
        **dict.fromkeys(('pooled_lif_backward', 'ilif', 'ilif_backward'), _REAL),
        'to_bytes': (torch.float32,),
        **dict.fromkeys(('conv_lif', 'event_conv', 'event_conv_lif'), (torch.uint8,)),
        **dict.fromkeys(('bits_conv', 'bits_conv_weight_grad'), (torch.float32,)),
        **dict.fromkeys(('winograd_in', 'winograd_out'), (torch.float32,)),
    }
    spike_dtypes = _MAPS
    hands_on = True

    def load(self) -> None:
        """Find or build the library.

        Raises:
            mmsnn.ops.backends.c.build.BuildError: There is none and none can be built.
        """
        load()

    def supports(self, operation: str, x: Tensor) -> str:
        """As of the base; convs with their neurons need units of the CPU."""
        reason = super().supports(operation, x)
        if not reason and operation == 'conv_lif' and not has_dot_products():
            return 'convs with their neurons have no kernel here: it needs VNNI'
        return reason

    def lif(self, call: LIFCall, out: Tensor) -> None:
        """See the base."""
        run_lif(lif_struct(call, out), call, out)

    def planned_lif(
        self, call: LIFCall, dtype: Optional[torch.dtype], out: Optional[Tensor]
    ) -> Optional[Tensor]:
        """See the base."""
        planned = plan.find(self, lif_struct, call, dtype, out)
        if planned is None:
            return None
        struct, out = planned
        run_lif(struct, call, out)
        return out

    def lif_backward(self, grad: Tensor, call: LIFCall, grads: LIFGrads) -> None:
        """See the base."""
        _run('lif_backward', _backward(grad, call, grads))

    def pooled_lif_backward(
        self, grad: Tensor, call: LIFCall, grads: LIFGrads, bits: Tensor, windows: Sequence
    ) -> None:
        """See the base."""
        x = call.x
        lif = _backward(grad, call, grads)
        size = (call.steps * x.shape[-4], *x.shape[-3:])
        pool = _pool(
            size, lif.inner == 1, windows, grad.shape[2:], x.dtype, packed=True,
            x=_pointer(bits, torch.uint8), grad=_pointer(grad),
        )  # fmt: skip
        _run('pooled_lif_backward', lif, pool)

    def ilif(self, x: Tensor, neuron: ILIF, out: Tensor, u: Optional[Tensor] = None) -> None:
        """See the base."""
        struct = _ilif(x, neuron, out=_pointer(out), spike_dtype=DTYPES[out.dtype])
        struct.u = _potentials(u, struct.n)
        _run('ilif', struct)

    def ilif_backward(self, grad: Tensor, x: Tensor, neuron: ILIF, grad_x: Tensor) -> None:
        """See the base."""
        fields = dict(grad=_pointer(grad), grad_step=grad.stride(0), grad_x=_pointer(grad_x))
        _run('ilif_backward', _ilif(x, neuron, **fields))

    def input_grad(self, y_grad: Tensor, call: LIFCall, by: tuple, grad_x: Tensor) -> None:
        """See the base."""
        grad_coef, x_coef, bias_coef = (_vector(v, call.x.shape[call.channel_axis]) for v in by)
        _run(
            'input_grad_of',
            _lif(
                call._replace(gate=None),
                x=_pointer(call.x),
                grad_coef=grad_coef,
                x_coef=x_coef,
                bias_coef=bias_coef,
                y_grad=_pointer(y_grad),
                grad_x=_pointer(grad_x),
                grad_x_dtype=DTYPES[grad_x.dtype],
            ),
        )

    def channel_stats(self, x: Tensor, time_steps: int) -> tuple[Tensor, Tensor]:
        """See the base."""
        channels = x.shape[1 if time_steps else 2]
        # Against cancellation, sums are taken from a value near the mean. One of the channel's own,
        # and not the running mean, for a pass that is recomputed later must give the same bits.
        origin = (x[0] if time_steps else x[0, 0]).reshape(channels, -1)[:, 0].float().contiguous()
        sums = torch.zeros(2, channels, dtype=torch.float64, device='cpu')
        _run(
            'channel_stats',
            # One time step: how often a shared input is shown makes no difference.
            _lif(
                LIFCall(x, LIF(), time_steps=min(time_steps, 1)),
                x=_pointer(x),
                shift=_vector(origin, channels),
                channel_sums=_pointer(sums, torch.float64),
            ),
        )
        mean, square = sums * (channels / x.numel())
        return (mean + origin).float(), (square - mean * mean).clamp_min(0).float()

    def pack(self, x: Tensor, rows: int, bits: Tensor) -> bool:
        """See the base."""
        n = x.numel() // rows
        addresses = _pointer(x), _pointer(bits, torch.uint8)
        return bool(load().mmsnn_pack(*addresses, rows, n, DTYPES[x.dtype], _threads(n)))

    def unpack(self, bits: Tensor, x: Tensor) -> None:
        """See the base."""
        n = x.numel()
        addresses = _pointer(bits, torch.uint8), _pointer(x)
        load().mmsnn_unpack(*addresses, n, DTYPES[x.dtype], _threads(n))

    def to_bytes(self, x: Tensor, scale: float, zero: int, out: Tensor) -> None:
        """See the base."""
        n = x.numel()
        load().mmsnn_to_bytes(_pointer(x), _pointer(out), n, 1 / scale, zero, _threads(n))

    def max_pool(self, x: Tensor, windows: Sequence, channels_last: bool, out: Tensor) -> None:
        """See the base."""
        _run(
            'max_pool',
            _pool(
                x.shape, channels_last, windows, out.shape[2:], x.dtype, x=_pointer(x),
                out=_pointer(out),
            ),
        )  # fmt: skip

    def max_pool_backward(
        self, grad: Tensor, kept: Tensor, windows: Sequence, channels_last: bool, grad_x: Tensor
    ) -> None:
        """See the base."""
        _run(
            'max_pool_backward',
            _pool(
                grad_x.shape, channels_last, windows, grad.shape[2:], grad_x.dtype,
                packed=kept.dtype == torch.uint8, x=_pointer(kept), grad=_pointer(grad),
                out=_pointer(grad_x),
            ),
        )  # fmt: skip

    def attention_decode(
        self, spikes: Tensor, weights: Sequence[Tensor], channels_last: bool, out: Tensor
    ) -> None:
        """See the base."""
        steps, images, channels, height, width = spikes.shape
        temporal, channel, spatial = (w.float().contiguous() for w in weights)
        by_channel = temporal[..., None] * channel
        addresses = (
            _vector(by_channel, steps * images * channels),
            _vector(spatial, steps * images * height * width),
        )
        by_row, by_column = reversed(addresses) if channels_last else addresses
        _decode(
            'attention_decode',
            spikes,
            channels_last,
            by_row=by_row,
            by_column=by_column,
            out=_pointer(out),
            out_dtype=DTYPES[out.dtype],
        )

    def attention_statistics(
        self, spikes: Tensor, channels_last: bool, out: Sequence[Tensor]
    ) -> None:
        """See the base."""
        *means, spatial_max = (_pointer(v, torch.float32) for v in out)
        row_mean, column_mean = reversed(means) if channels_last else means
        _decode(
            'attention_statistics',
            spikes,
            channels_last,
            row_mean=row_mean,
            column_mean=column_mean,
            max=spatial_max,
        )

    def rate_decode(self, spikes: Tensor, out: Tensor) -> None:
        """See the base."""
        _run(
            'rate_decode',
            _Decode(
                steps=spikes.shape[0],
                columns=out.numel(),
                x_step=spikes.stride(0),
                dtype=DTYPES[spikes.dtype],
                out_dtype=DTYPES[out.dtype],
                threads=_threads(spikes.numel()),
                x=_pointer(spikes),
                out=_pointer(out),
            ),
        )

    def conv_lif(self, call: ConvCall, out: Tensor) -> None:
        """See the base."""
        x, weights = call.x, call.weights
        # Forty fields take longer than the conv of a small map, and are the same every time.
        struct = _conv(x.shape, x.stride(0), weights.q.shape, out.shape, call.geometry)
        lif, conv = _neurons_of(call, out), _Conv.from_buffer_copy(struct)
        window = conv.channels * conv.kernel_height * conv.kernel_width
        lif.threads = _threads(out.numel() * window // 64)
        outputs = weights.q.shape[1] * weights.q.shape[5]
        conv.x, conv.weight = _pointer(x), _pointer(weights.q, torch.int8)
        conv.scale = _vector(weights.scale, outputs * conv.parts)
        conv.shift = _vector(weights.shift, outputs)
        _run('conv_lif', lif, conv)

    def event_conv(self, call: ConvCall, out: Tensor) -> None:
        """See the base."""
        conv = _event_conv_of(call, out.shape)
        conv.out = _pointer(out)
        _run('event_conv', conv)

    def event_conv_lif(self, call: ConvCall, out: Tensor) -> None:
        """See the base."""
        _run('event_conv_lif', _neurons_of(call, out), _event_conv_of(call, out.shape))

    def bits_conv(self, call: BitsConvCall, bias: Optional[Tensor], out: Tensor) -> None:
        """See the base."""
        conv = _bits_conv_of(call, out.shape)
        outputs = conv.groups * conv.blocks * ROW
        # Not of the default dtype and device, whatever they are.
        weight = call.weight.new_empty(outputs * math.prod(call.weight.shape[1:]))
        steps = (ctypes.c_int64 * 4)(*call.weight.stride())
        load().mmsnn_event_weights(conv, _pointer(call.weight), steps, _pointer(weight))
        shift = call.weight.new_zeros(conv.groups, conv.blocks * ROW)
        if bias is not None:
            shift[:, : conv.outputs] = bias.reshape(conv.groups, -1)
        scale = call.weight.new_ones(outputs)
        conv.weight, conv.scale, conv.shift = (
            _pointer(v, torch.float32) for v in (weight, scale, shift)
        )
        conv.out = _pointer(out)
        _run('event_conv', conv)

    def bits_conv_weight_grad(self, grad: Tensor, call: BitsConvCall, out: Tensor) -> None:
        """See the base."""
        conv = _bits_conv_of(call, grad.shape)
        _run('event_weight_grad', _EventGrad(conv, _pointer(grad), _pointer(out, torch.float32)))

    def winograd_in(self, x: Tensor, padding: Sequence[int], first: int, places: Tensor) -> None:
        """See the base."""
        pads = dict(pad_height=padding[0], pad_width=padding[1])
        _run('winograd_in', _winograd(x, tiles_of_conv(x, padding), places, first, **pads))

    def winograd_out(self, places: Tensor, bias: Tensor, first: int, out: Tensor) -> None:
        """See the base."""
        address = _vector(bias, out.shape[1])
        _run('winograd_out', _winograd(out, tile_grid(out.shape[2:]), places, first, bias=address))
