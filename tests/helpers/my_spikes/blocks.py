import torch
from mmdet.registry import MODELS
from torch import Tensor

from mmsnn.models.backbones import SpikingBlock
from mmsnn.models.layers import build_neuron, spiking_layer


@MODELS.register_module()
class MaxBlock(SpikingBlock):
    """O = max(R, S), of whatever whole numbers the neurons give."""

    takes_bytes = True

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        if self.downsample is not None:
            self.downsample_neuron = build_neuron(kwargs['act_cfg'])

    def forward(self, s: Tensor, time_steps: int) -> Tensor:
        """Spikes (T*B, C, H, W) to spikes."""
        x = shortcut = s
        for i in range(1, self.num_convs + 1):
            x = spiking_layer(*self.layer(i), x, time_steps, binary=self.binary)
        if self.downsample is not None:
            layer = *self.downsample, self.downsample_neuron
            shortcut = spiking_layer(*layer, s, time_steps, binary=self.binary)
        return torch.maximum(x, shortcut)
