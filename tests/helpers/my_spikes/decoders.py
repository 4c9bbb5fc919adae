import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor

from mmsnn.models.layers import LevelsDecoder


@MODELS.register_module()
class TopDownDecoder(LevelsDecoder):
    """Firing rates, each level's weighted by the mean rate of the level above it."""

    def decode(self, levels: tuple[Tensor, ...]) -> list[Tensor]:
        """Spikes (T, B, C, H, W) of all levels to maps (B, C, H, W)."""
        rates = [spikes.mean(0) for spikes in levels]
        maps = [rates[-1]]
        for rate, above in zip(rates[-2::-1], rates[:0:-1]):
            weights = F.interpolate(above.mean(1, keepdim=True), rate.shape[-2:])
            maps.insert(0, rate * (1 + weights))
        return maps
