"""Convs whose input is spikes."""

from typing import TYPE_CHECKING, Any, Optional

import torch
from mmcv.cnn import build_conv_layer
from torch import Tensor, nn

from ... import ops

if TYPE_CHECKING:  # Python 3.9 has no TypeGuard
    from typing import TypeGuard


class SpikeConv2d(nn.Conv2d):
    """``nn.Conv2d`` that keeps its input for backward at one bit a value where that is spikes.

    As :func:`mmsnn.ops.spike_conv2d`, with the weights, names and arguments of ``nn.Conv2d``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Spikes (N, C, H, W) to currents (N, C_out, H', W')."""
        if self.padding_mode != 'zeros' or isinstance(self.padding, str):
            return super().forward(x)
        options = self.stride, self.padding, self.dilation, self.groups
        # A graph can't ask whether the values are spikes.
        binary = not torch.compiler.is_compiling()
        return ops.spike_conv2d(x, self.weight, self.bias, *options, binary)


def build_conv(conv_cfg: Optional[dict], *args: Any, **kwargs: Any) -> nn.Module:
    """Build a conv on spikes.

    Args:
        conv_cfg: Config of any conv layer that mmcv can build; None for :class:`SpikeConv2d`.
        *args: Of the conv.
        **kwargs: Likewise.

    Returns:
        The conv.
    """
    return build_conv_layer(conv_cfg or dict(type=SpikeConv2d), *args, **kwargs)


def conv_of_spikes(conv: nn.Module, x: Tensor, binary: bool = True) -> Tensor:
    """The conv, keeping ``x`` for its backward pass at one bit a value where it can.

    Args:
        conv: Conv layer.
        x: Spikes (N, C, H, W).
        binary: Whether they are 0 and 1; an image, or sums of spikes, are kept as they are.

    Returns:
        Currents (N, C_out, H', W').
    """
    if not is_plain_conv(conv) or is_hooked(conv):
        return conv(x)
    assert not isinstance(conv.padding, str)  # is_plain_conv looked
    options = conv.stride, conv.padding, conv.dilation, conv.groups
    return ops.spike_conv2d(x, conv.weight, conv.bias, *options, binary)


def is_plain_conv(conv: nn.Module) -> 'TypeGuard[nn.Conv2d]':
    """Whether a layer is PyTorch's conv with zeros around, given in numbers."""
    return (
        type(conv) in (nn.Conv2d, SpikeConv2d)
        and conv.padding_mode == 'zeros'
        and not isinstance(conv.padding, str)
    )


def is_hooked(module: Optional[nn.Module]) -> bool:
    """Whether somebody watches what goes into a module or comes out."""
    return module is not None and bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
