"""Which backend computes: by device, dtype and what is installed, unless one is set explicitly."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from typing import Optional

import torch
from torch import Tensor

from .backends.base import Backend
from .backends.reference import Reference
from .units import SettingError

logger = logging.getLogger('mmsnn')

#: Takes what no other backend does.
REFERENCE = Reference()

#: What :func:`set_backend` takes, by name.
BACKENDS: dict[str, Optional[Backend]] = {'auto': None, REFERENCE.name: REFERENCE}

#: What each has to pass before it is used; the reference has nothing to pass.
_checks: dict[str, Callable[[Backend], str]] = {}

#: Backends that were tried, and why they can't be used ('' for those that can).
_tried: dict[str, str] = {}

_chosen = os.environ.get('MMSNN_BACKEND', 'auto')


class BackendError(RuntimeError):
    """A backend that was asked for by name can't be used."""


def register(backend: Backend, check: Callable[[Backend], str]) -> None:
    """Offer a backend, in front of those that are there.

    Args:
        backend: The backend.
        check: Gives '' where its results are right, else what is wrong.

    Raises:
        ValueError: Its name is taken or empty.
    """
    if not backend.name or backend.name in BACKENDS:
        taken = list(BACKENDS)
        raise ValueError(f'a backend needs a name other than {taken}, got {backend.name!r}')
    BACKENDS[backend.name], _checks[backend.name] = backend, check
    _tried.pop(backend.name, None)


def _check_name(name: str, source: str) -> None:
    if name not in BACKENDS:
        raise SettingError(f'unknown backend {name!r}{source}: choose one of {list(BACKENDS)}')


def set_backend(name: str) -> None:
    """Choose the backend of this process; the environment variable MMSNN_BACKEND does the same.

    A backend is used for the operations, devices and dtypes that it has kernels for; the reference
    takes the rest.

    Args:
        name: ``'auto'``, ``'reference'`` (PyTorch), ``'c'`` (CPU, float32 and bfloat16),
            ``'triton'`` (CUDA, float32, bfloat16 and float16), or one of
            :func:`mmsnn.ops.register_backend`.

    Raises:
        ValueError: Unknown name.
        BackendError: It can't be used here; the message says why.
    """
    global _chosen
    _check_name(name, '')
    if name in _checks and why_not(name):
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


def names() -> tuple[str, ...]:
    """Names of all backends but the reference, the first to be asked last."""
    return tuple(name for name in BACKENDS if name in _checks)


def named(name: str) -> Backend:
    """The backend of this name, tried or not.

    Raises:
        ValueError: There is none.
    """
    _check_name(name, '')
    backend = BACKENDS[name]
    if backend is None:
        raise ValueError(f'{name!r} is none of the backends {[REFERENCE.name, *names()]}')
    return backend


def why_not(name: str) -> str:
    """Why a backend can't be used, or '' if it can; loads and checks it the first time."""
    if name not in _tried:
        backend = named(name)
        try:
            backend.load()
            _tried[name] = _checks[name](backend)
        except Exception as error:  # whatever it is, the reference goes on
            _tried[name] = f'{error}'.replace('\n', ' ') or type(error).__name__
    return _tried[name]


def _candidates(operation: str, x: Tensor) -> Iterator[Backend]:
    """Backends that would compute, best first, as far as known without trying them."""
    if _chosen == 'auto':
        for name, backend in reversed(BACKENDS.items()):
            if backend is None or backend is REFERENCE:
                return  # the first two: they come last
            if not _tried.get(name) and not backend.supports(operation, x):
                yield backend
    elif _chosen != REFERENCE.name:
        _check_name(_chosen, ' in MMSNN_BACKEND')
        backend = named(_chosen)
        if not backend.supports(operation, x):
            yield backend


def expected(operation: str, x: Tensor) -> Backend:
    """The backend that would compute on `x`, as far as known without trying it.

    Args:
        operation: One of ``OPERATIONS``.
        x: The first tensor of it.
    """
    return next(_candidates(operation, x), REFERENCE)


def choose(operation: str, x: Tensor) -> Backend:
    """As :func:`expected`, tried; where one can't be used, the log says why, once.

    While a compiler traces, nothing is tried.

    Raises:
        BackendError: The backend was asked for by name and can't be used.
    """
    tracing = torch.compiler.is_compiling()
    for backend in _candidates(operation, x):
        if tracing or _tried.get(backend.name) == '':
            return backend
        reason = why_not(backend.name)
        if not reason:
            return backend
        if _chosen == backend.name:
            raise BackendError(f'backend {backend.name!r} (MMSNN_BACKEND) cannot be used: {reason}')
        logger.warning('mmsnn runs without its %s kernels, slower: %s', backend.name, reason)
    return REFERENCE


def handing_on(backend: Backend, potentials: Optional[Tensor]) -> Backend:
    """The backend, or the reference where there are potentials that it doesn't hand on.

    Args:
        backend: As of :func:`choose`.
        potentials: Those of a call, or None.
    """
    return backend if potentials is None or backend.hands_on else REFERENCE
