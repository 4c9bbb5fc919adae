"""Pooling of spikes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ... import ops


class SpikeMaxPool2d(nn.Module):
    """Max pooling of spikes: 1 wherever one fell into the window.

    It equals ``nn.MaxPool2d``, and keeps a bit a value for its backward pass instead of indices
    (:func:`mmsnn.ops.spike_max_pool2d`).

    Args:
        kernel_size: Height and width of the window.
        stride: Distance between windows.
        padding: Rows and columns around the image that never win.
        binary: Whether the spikes are 0 and 1; others are kept as they are.
    """

    def __init__(self, kernel_size: int, stride: int, padding: int = 0, binary: bool = True):
        super().__init__()
        self.binary = binary
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """Pool.

        Args:
            x: Spikes (N, C, H, W).

        Returns:
            Spikes (N, C, H', W').
        """
        if not self.binary and torch.compiler.is_compiling() and x.dtype != torch.uint8:
            # A graph can't ask whether the values fit into bits.
            return F.max_pool2d(x, self.kernel_size, self.stride, self.padding)
        return ops.spike_max_pool2d(x, self.kernel_size, self.stride, self.padding)

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return f'{self.kernel_size}, stride={self.stride}, padding={self.padding}'
