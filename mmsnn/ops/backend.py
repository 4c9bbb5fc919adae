"""Which kernels compute: by device, dtype and what is installed, unless somebody says otherwise."""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Optional

import torch
from torch import Tensor

logger = logging.getLogger('mmsnn')

#: Device and dtypes of each kernel backend; ``'reference'`` takes everything.
KERNELS = {
    'c': ('cpu', (torch.float32, torch.bfloat16)),
    'triton': ('cuda', (torch.float32, torch.bfloat16, torch.float16)),
}
#: The same of pooling and decoding, whose spikes may be bytes.
MAP_KERNELS = {'c': ('cpu', (torch.float32, torch.bfloat16, torch.uint8))}
#: The same of rounding to bytes.
BYTE_KERNELS = {'c': ('cpu', (torch.float32,))}
BACKENDS = ('auto', 'reference', *KERNELS)

#: Kernel backends that were tried, and why they can't be used ('' for those that can).
_tried: dict = {}


class BackendError(RuntimeError):
    """A backend that was asked for by name can't be used."""


def _checked(name: str, source: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f'unknown backend {name!r}{source}: choose one of {list(BACKENDS)}')
    return name


_chosen = _checked(os.environ.get('MMSNN_BACKEND', 'auto'), ' in MMSNN_BACKEND')


def set_backend(name: str) -> None:
    """Choose the backend of this process; the environment variable MMSNN_BACKEND does the same.

    A backend is used for the device and dtypes it has kernels for; the reference takes the rest.

    Args:
        name: ``'auto'``, ``'reference'`` (PyTorch), ``'c'`` (CPU, float32 and bfloat16) or
            ``'triton'`` (CUDA, float32, bfloat16 and float16).

    Raises:
        ValueError: Unknown name.
        BackendError: It can't be used here; the message says why.
    """
    global _chosen
    _checked(name, '')
    if name in KERNELS and why_not(name):
        raise BackendError(f'backend {name!r} cannot be used: {why_not(name)}')
    _chosen = name


def get_backend() -> str:
    """The name given to :func:`set_backend` or MMSNN_BACKEND, else ``'auto'``."""
    return _chosen


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """:func:`set_backend` for the length of a ``with`` block.

    Args:
        name: As of :func:`set_backend`.

    Raises:
        ValueError: Unknown name.
        BackendError: It can't be used here; the message says why.

    Example:
        >>> from mmsnn.ops import get_backend, use_backend
        >>> with use_backend('reference'):
        ...     get_backend()
        'reference'
    """
    before = _chosen
    set_backend(name)
    try:
        yield
    finally:
        set_backend(before)


def why_not(name: str) -> str:
    """Why a kernel backend can't be used, or '' if it can; loads and checks it the first time."""
    if name not in _tried:
        from .library import engine
        from .self_check import self_check

        try:
            engine(name).load()
            _tried[name] = self_check(name)
        except Exception as error:  # whatever it is, the reference goes on
            _tried[name] = f'{error}'.replace('\n', ' ') or type(error).__name__
    return _tried[name]


def kernel_for(x: Tensor, kernels: dict = KERNELS) -> Optional[str]:
    """Name of the kernel backend that would compute on `x`, as far as known without trying it.

    Args:
        x: The input.
        kernels: ``KERNELS``, ``MAP_KERNELS`` or ``BYTE_KERNELS``, by what is to be computed.
    """
    if _chosen == 'reference':
        return None
    for name, (device, dtypes) in kernels.items():
        if _chosen in ('auto', name) and x.device.type == device and x.dtype in dtypes:
            return None if _tried.get(name) and _chosen == 'auto' else name
    return None


def ready_kernel_for(x: Tensor, kernels: dict = KERNELS) -> Optional[str]:
    """As :func:`kernel_for`, tried: None means the reference, and the log has said why.

    Raises:
        BackendError: The backend was asked for by name and can't be used.
    """
    name = kernel_for(x, kernels)
    if name is None or not why_not(name):
        return name
    if _chosen == name:
        raise BackendError(f'backend {name!r} (MMSNN_BACKEND) cannot be used: {why_not(name)}')
    logger.warning('mmsnn runs without its %s kernels, slower: %s', name, why_not(name))
    return None
