"""Triton's kernels as a backend, for GPUs that torch calls CUDA."""

import importlib
from functools import cache
from types import ModuleType
from typing import Optional

import torch
from torch import Tensor

from ..spec import ILIF, LIFCall, LIFGrads
from .base import Backend

_HALF_AND_FULL = torch.float32, torch.bfloat16, torch.float16


@cache
def _kernels() -> ModuleType:
    # Not at the top: Triton is not everywhere, and takes its time to load.
    return importlib.import_module('.triton_kernels', __package__)


class Triton(Backend):
    """Neurons and bits; Triton compiles them at the first use."""

    name = 'triton'
    device = 'cuda'
    dtypes = dict.fromkeys(
        ('lif', 'lif_backward', 'ilif', 'ilif_backward', 'pack', 'unpack'), _HALF_AND_FULL
    )
    spike_dtypes = (*_HALF_AND_FULL, torch.uint8)

    def load(self) -> None:
        """Nothing to build.

        Raises:
            ImportError: Triton is not installed.
            RuntimeError: No GPU that torch can use.
        """
        _kernels().check_device()

    def lif(self, call: LIFCall, out: Tensor) -> None:
        """See the base."""
        _kernels().lif(call, out)

    def lif_backward(self, grad: Tensor, call: LIFCall, grads: LIFGrads) -> None:
        """See the base."""
        _kernels().lif_backward(grad, call, grads)

    def ilif(self, x: Tensor, neuron: ILIF, out: Tensor, u: Optional[Tensor] = None) -> None:
        """See the base; without potentials to go on from."""
        assert u is None  # it doesn't say hands_on
        _kernels().ilif(x, neuron, out)

    def ilif_backward(self, grad: Tensor, x: Tensor, neuron: ILIF, grad_x: Tensor) -> None:
        """See the base."""
        _kernels().ilif_backward(grad, x, neuron, grad_x)

    def pack(self, x: Tensor, rows: int, bits: Tensor) -> bool:
        """See the base."""
        return _kernels().pack(x, rows, bits)

    def unpack(self, bits: Tensor, x: Tensor) -> None:
        """See the base."""
        _kernels().unpack(bits, x)
