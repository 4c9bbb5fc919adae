import torch
from mmdet.registry import MODELS
from torch import Tensor

from mmsnn.models.layers import SpikingNeuron
from mmsnn.ops import NeuronState, fire


@MODELS.register_module()
class AdaptiveNeuron(SpikingNeuron):
    """LIF whose threshold grows by ``growth`` with each spike, and leaks back."""

    def __init__(self, decay: float = 0.5, growth: float = 0.2, **kwargs):
        super().__init__(**kwargs)
        self.decay, self.growth = decay, growth

    def fire(self, x: Tensor) -> Tensor:
        """Currents (T, ...) to spikes, 0 and 1."""
        return self.fire_from(x, NeuronState())

    def fire_from(self, x: Tensor, state: NeuronState) -> Tensor:
        """The same from where the call before ended, for streams."""
        v, extra = state.tensors or (torch.zeros_like(x[0]), torch.zeros_like(x[0]))
        spikes = []
        for current in x:
            h = self.decay * v + current
            s = fire(h - (self.v_threshold + extra))
            v = h * (1 - s)
            extra = self.decay * extra + self.growth * s
            spikes.append(s)
        state.tensors = v.detach(), extra.detach()
        return torch.stack(spikes)


@MODELS.register_module()
class TernaryNeuron(SpikingNeuron):
    """LIF with soft reset that fires -1 below the negative threshold."""

    values = 'signed'

    def fire(self, x: Tensor) -> Tensor:
        """Currents (T, ...) to spikes, -1, 0 and 1."""
        v = torch.zeros_like(x[0])
        spikes = []
        for current in x:
            h = 0.5 * v + current
            s = fire(h - self.v_threshold) - fire(-h - self.v_threshold)
            v = h - self.v_threshold * s
            spikes.append(s)
        return torch.stack(spikes)
