"""3x3 convs of real values with a quarter of the products."""

from typing import Optional

import torch
from torch import Tensor, nn

from .. import ops
from ..ops.winograd import tiles_of
from .integer_conv import weights_state

#: Channels on either side below which moving values takes longer than multiplying them.
CHANNELS = 32
#: Tiles of 4x4 outputs below which reading the weights, four times as many as those of the conv,
#: takes longer than the conv.
TILES = 16


class WinogradConv2d(nn.Conv2d):
    r"""A 3x3 conv by :func:`mmsnn.ops.winograd_conv2d` where that is faster, for inference.

    Sums are rounded otherwise than in ``conv2d``: at 256 channels errors are 4 times those of
    ``conv2d``, 1e-5 of the largest value. Its weights take four times the memory besides. Maps of
    a few tiles, and whatever autograd, a trace or a profiler is to see, are computed by ``conv2d``.

    Args:
        conv: The conv to replace, whose weights it takes.
    """

    def __init__(self, conv: nn.Conv2d):
        assert not isinstance(conv.padding, str)  # only plain convs are replaced
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            3,
            padding=conv.padding,  # type: ignore[arg-type]  # a pair, annotated as of any length
            bias=conv.bias is not None,
            device='meta',
        )
        self.weight, self.bias = conv.weight, conv.bias
        self._packed: Optional[tuple[tuple, ops.WinogradWeights]] = None

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

    @property
    def _weights(self) -> ops.WinogradWeights:
        state = weights_state(self)
        if self._packed is None or self._packed[0] != state:
            self._packed = state, ops.pack_winograd_weights(self.weight, self.bias)
        return self._packed[1]

    def forward(self, x: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: (N, C, H, W) in the dtype of the weights.

        Returns:
            (N, C_out, H', W').
        """
        if x.dtype != torch.float32 or not x.is_cpu or ops.is_watched(x):
            return super().forward(x)
        assert not isinstance(self.padding, str)
        padding = self.padding[0], self.padding[1]
        size = [n + 2 * pad - 2 for n, pad in zip(x.shape[2:], padding)]
        if min(size) < 1 or len(x) * tiles_of(size) < TILES or _has_no_kernel(x):
            return super().forward(x)
        return ops.winograd_conv2d(x, self._weights, padding)

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_packed': None}


def _has_no_kernel(x: Tensor) -> bool:
    return ops.choose('winograd_in', x).name == 'reference'
