"""Convs that keep their weights in a form of their own beside them."""

from typing import Any, Optional

from torch import nn

from .integer_conv import weights_state


class PackedConv2d(nn.Conv2d):
    """A conv that takes the place of another, with weights that are packed once.

    They are packed anew where the weights were written since, and in copies.

    Args:
        conv: The conv to replace, whose weights it takes.
    """

    def __init__(self, conv: nn.Conv2d):
        assert not isinstance(conv.padding, str)  # only plain convs are replaced
        # PyTorch annotates the pairs of a conv as tuples of any length.
        geometry: dict[str, Any] = {
            name: getattr(conv, name)
            for name in ('kernel_size', 'stride', 'padding', 'dilation', 'groups')
        }
        has_bias = conv.bias is not None
        super().__init__(
            conv.in_channels, conv.out_channels, bias=has_bias, device='meta', **geometry
        )
        self.weight, self.bias = conv.weight, conv.bias
        self._geometry = conv.stride, conv.padding, conv.dilation
        self._packed: Optional[tuple[tuple, Any]] = None

    def _pack(self) -> Any:
        """The weights as the kernels read them."""
        raise NotImplementedError

    @property
    def _weights(self) -> Any:
        state = weights_state(self)
        if self._packed is None or self._packed[0] != state:
            self._packed = state, self._pack()
        return self._packed[1]

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_packed': None}
