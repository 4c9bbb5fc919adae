"""PyTorch's own settings, whatever those of the caller are."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Optional

import torch


def autocast_dtype(device: str) -> Optional[torch.dtype]:
    """What autocast casts to on devices of this type, or None where there is none."""
    if device == 'meta' or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def without_autocast(device: str) -> AbstractContextManager:
    """For the length of a ``with`` block, operands keep their dtypes."""
    return torch.autocast(device, enabled=False) if autocast_dtype(device) else nullcontext()


@contextmanager
def torch_defaults(device: str = 'cpu') -> Iterator[None]:
    """Without autocast, gradients and another default device, for the length of a ``with`` block.

    What is found out about the machine at its first use must not depend on where that was: in a
    step under autocast, the reference that kernels are compared with would round to bfloat16.

    Args:
        device: Type of the device that computes.
    """
    with torch.device('cpu'), torch.no_grad(), without_autocast('cpu'), without_autocast(device):
        yield
