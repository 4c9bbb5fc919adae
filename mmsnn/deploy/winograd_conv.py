"""3x3 convs of real values with a quarter of the products."""

import torch
from torch import Tensor, nn

from .. import ops
from ..ops.layout import tiles_of_conv
from .packed_conv import PackedConv2d

#: Channels on either side below which moving values takes longer than multiplying them.
CHANNELS = 32
#: Tiles of 4x4 outputs below which reading the weights, four times as many as those of the conv,
#: takes longer than the conv.
TILES = 16


class WinogradConv2d(PackedConv2d):
    r"""A 3x3 conv by :func:`mmsnn.ops.winograd_conv2d` where that is faster, for inference.

    Sums are rounded otherwise than in ``conv2d``: at 256 channels errors are 4 times those of
    ``conv2d``, 1e-5 of the largest value. Its weights take four times the memory besides. Maps of
    a few tiles, and whatever autograd, a trace or a profiler is to see, are computed by ``conv2d``.

    Args:
        conv: The conv to replace, whose weights it takes.
    """

    @staticmethod
    def suits(conv: nn.Conv2d) -> bool:
        """Whether a plain conv is one of 3x3 that has channels enough."""
        return (
            conv.kernel_size == (3, 3)
            and conv.stride == conv.dilation == (1, 1)
            and conv.groups == 1
            and min(conv.in_channels, conv.out_channels) >= CHANNELS
            and conv.weight.dtype == torch.float32
        )

    def _pack(self) -> ops.WinogradWeights:
        return ops.pack_winograd_weights(self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: (N, C, H, W) in the dtype of the weights.

        Returns:
            (N, C_out, H', W').
        """
        plain = x.dtype == torch.float32 and x.is_cpu and x.dim() == 4
        if not plain or ops.is_watched(x) or torch.is_autocast_enabled('cpu'):
            return super().forward(x)
        rows, columns = tiles_of_conv(x, self._geometry[1])
        backend = ops.choose('winograd_in', x)
        if min(rows, columns) < 1 or len(x) * rows * columns < TILES or backend.name == 'reference':
            return super().forward(x)
        return ops.winograd_conv2d(x, self._weights, self._geometry[1], backend)
