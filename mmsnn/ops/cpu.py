"""The C kernels on tensors: finds or builds the library, and calls it through ctypes.

Tensors that come here are checked and laid out by library.py; nothing here knows autograd.
"""

import ctypes
import os
from functools import lru_cache
from typing import Optional

import torch
from torch import Tensor

from . import build

DTYPES = {torch.float32: 0, torch.bfloat16: 1}
RESETS = {'hard': 0, 'soft': 1}
SURROGATES = {'rectangle': 0, 'triangle': 1, 'arctan': 2, 'sigmoid': 3}
GATES = {'': 0, 'or': 1, 'add': 2, 'and': 3, 'iand': 4}

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
    """`struct lif` of kernels.c, field by field."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in (
            'steps', 'n', 'channels', 'inner', 'x_step', 'shortcut_step', 'grad_step')),
        *((name, ctypes.c_int32) for name in (
            'dtype', 'reset', 'detach', 'surrogate', 'gate', 'packed', 'shared', 'threads')),
        *((name, ctypes.c_float) for name in ('decay', 'gain', 'v_threshold', 'width')),
        *((name, ctypes.c_void_p) for name in (
            'x', 'scale', 'shift', 'shortcut', 'out', 'grad', 'by_grad', 'by_x', 'by_one',
            'grad_x', 'grad_shortcut', 'channel_sums', 'leak_sums')),
    ]  # fmt: skip


@lru_cache(maxsize=None)
def load() -> ctypes.CDLL:
    """The library: the installed one, one in the user's cache, or one built now.

    Raises:
        mmsnn.ops.build.BuildError: There is none and none can be built.
    """
    if build.INSTALLED.exists():
        try:
            return _open(build.INSTALLED)
        except OSError:
            pass  # stale or of another platform
    reason = ''
    for variant in range(len(build.VARIANTS)):
        try:
            path = build.cached_path(variant)
            try:
                return _open(path)
            except OSError:
                build.build(path, variant)
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
    pointer, count, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    for name in ('lif_forward', 'lif_backward', 'channel_stats'):
        getattr(library, f'mmsnn_{name}').argtypes = [ctypes.POINTER(_Lif)]
    library.mmsnn_pack.argtypes = [pointer, pointer, count, count, number, number]
    library.mmsnn_unpack.argtypes = [pointer, pointer, count, number, number]
    return library


def _threads(elements: int) -> int:
    return 1 if _forked or elements < GRAIN else torch.get_num_threads()


def _pointer(tensor: Optional[Tensor]) -> Optional[int]:
    return None if tensor is None else tensor.data_ptr()


def _problem(x: Tensor, channel_axis: int, steps: int, shared: bool, **fields) -> _Lif:
    inner = x if shared else x[0]
    return _Lif(
        steps=steps,
        n=inner.numel(),
        # Memory order: all axes with a smaller stride than the channels' lie inside a channel.
        channels=inner.shape[channel_axis] if inner.dim() > channel_axis else 1,
        inner=inner.stride(channel_axis) if inner.dim() > channel_axis else max(inner.numel(), 1),
        x_step=0 if shared else x.stride(0),
        dtype=DTYPES[x.dtype],
        shared=shared,
        threads=_threads(steps * inner.numel()),
        x=x.data_ptr(),
        **fields,
    )


def _leak_and_shape(decay, input_scale, v_threshold, reset, detach_reset, surrogate, width, gate):
    return dict(
        decay=decay,
        gain=input_scale,
        v_threshold=v_threshold,
        reset=RESETS[reset],
        detach=detach_reset,
        surrogate=SURROGATES[surrogate],
        width=width,
        gate=GATES[gate or ''],
    )


def _call(name: str, problem: _Lif) -> None:
    if not getattr(load(), f'mmsnn_{name}')(problem):
        raise MemoryError(f'mmsnn_{name} found no memory for its work arrays')


def lif(x: Tensor, out: Tensor, scale, shift, shortcut, time_steps: int, *neuron) -> Tensor:
    """Forward into `out` (T, ...), which has the inner layout of `x`; fills and returns it.

    Args:
        x: (T, B, C, ...), or (B, C, ...) where `time_steps` is not 0; each step dense.
        out: (T, B, C, ...), dense.
        scale: (C,) float32, or None.
        shift: (C,) float32, or None.
        shortcut: As `out`, any distance between steps; or None.
        time_steps: T of shared input, else 0.
        *neuron: decay, input_scale, v_threshold, reset, detach_reset, surrogate, width, gate.
    """
    problem = _problem(x, out.shape[0], bool(time_steps))
    _set(problem, scale=scale, shift=shift, shortcut=shortcut, out=out)
    return out
