from mmdet.registry import MODELS
from torch import Tensor

from mmsnn.models.layers import Gate


@MODELS.register_module()
class XorGate(Gate):
    """O = R XOR S."""

    def forward(self, residual: Tensor, shortcut: Tensor, time_steps: int) -> Tensor:
        """Return R XOR S."""
        return residual + shortcut - 2 * residual * shortcut
