"""Which backends there are: those of mmsnn, and those of a user's own."""

from . import dispatch
from .backends.base import Backend
from .backends.c.calls import C
from .backends.triton import Triton
from .backends.verify import compare_with_reference


def register_backend(backend: Backend) -> None:
    """Let a backend of one's own compute, where it says that it can.

    It comes before those that are there, and is compared with the reference before its first use.

    Args:
        backend: An object of a class derived from :class:`Backend`.

    Raises:
        ValueError: Its name is empty or taken.

    Example:
        >>> import torch
        >>> from mmsnn import ops
        >>> class Doubles(ops.Backend):
        ...     name, device = 'doubles', 'cpu'
        ...     dtypes = {'rate_decode': (torch.float64,)}
        ...
        ...     def rate_decode(self, spikes, out):
        ...         torch.sum(spikes, 0, out=out).div_(len(spikes))
        >>> ops.register_backend(Doubles())
        >>> ops.rate_decode(torch.tensor([[1.0], [0.0]], dtype=torch.float64))
        tensor([0.5000], dtype=torch.float64)
    """
    dispatch.register(backend, compare_with_reference)


register_backend(Triton())
register_backend(C())
