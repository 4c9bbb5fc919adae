"""The base of the gates."""

from collections.abc import Sequence
from typing import Optional

from torch import Tensor, nn


class Gate(nn.Module):
    """Base of the gates; a gate without weights is one ``forward``.

    A gate that :func:`mmsnn.ops.lif` can do in the pass of the last neuron says so by ``fused``.

    Args:
        channels: Channels of the joined spikes.
        norm_cfg: Norm layer, for gates that have weights.
        act_cfg: Neuron, for gates that have weights.
    """

    #: Name of the same gate in :func:`mmsnn.ops.lif`.
    fused: Optional[str] = None
    #: Whether spikes, 0 and 1, come out as spikes.
    binary = True
    #: The ``values`` of neurons whose spikes it joins, for which its formula holds.
    takes: Sequence[str] = ('binary',)
    #: Whether its formula holds for spikes in bytes (mmsnn.deploy); others get float32.
    takes_bytes = False
    #: ``values`` of the network's neurons, one of ``takes`` (:func:`build_gate`).
    values = 'binary'

    def __init__(
        self,
        channels: Optional[int] = None,
        norm_cfg: Optional[dict] = None,
        act_cfg: Optional[dict] = None,
    ):
        super().__init__()

    def forward(self, residual: Tensor, shortcut: Tensor, time_steps: int) -> Tensor:
        """Join two spike tensors.

        Args:
            residual: R, (T*B, C, H, W).
            shortcut: S, same shape.
            time_steps: Number of time steps, T.

        Returns:
            O, same shape.
        """
        raise NotImplementedError
