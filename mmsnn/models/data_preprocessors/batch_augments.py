"""Augmentations that mix the samples of a batch; time, where there is one, is the first axis."""

import numpy as np
import torch
from mmdet.registry import MODELS
from torch import Tensor


class BatchAugment:
    """Base of the augmentations.

    Args:
        alpha: Parameter of Beta(alpha, alpha), from which the share lambda is drawn.

    Raises:
        ValueError: ``alpha`` is not positive.
    """

    def __init__(self, alpha: float = 1.0):
        if not alpha > 0:
            raise ValueError(f'{type(self).__name__} needs a positive alpha, got {alpha!r}')
        self.alpha = alpha

    def __call__(self, inputs: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Mix every sample with another one of the batch.

        Args:
            inputs: (B, C, H, W) or (T, B, C, H, W).
            scores: Classes as distributions, (B, K).

        Returns:
            Mixed inputs and scores, of the same shapes.
        """
        share = float(np.random.beta(self.alpha, self.alpha))
        order = torch.from_numpy(np.random.permutation(len(scores))).to(inputs.device)
        inputs, share = self.mix(inputs, inputs.index_select(-4, order), share)
        return inputs, share * scores + (1 - share) * scores[order]

    def mix(self, inputs: Tensor, others: Tensor, share: float) -> tuple[Tensor, float]:
        """Mix, and say which share of the result comes from ``inputs``."""
        raise NotImplementedError


@MODELS.register_module()
class BatchMixUp(BatchAugment):
    """x = lambda * x_i + (1 - lambda) * x_j, and so the classes (Zhang et al. 2018, mixup).

    Args:
        alpha: Parameter of Beta(alpha, alpha), from which the share lambda is drawn.

    Example:
        >>> import torch
        >>> from mmsnn.models import BatchMixUp
        >>> inputs, scores = BatchMixUp(alpha=0.2)(torch.rand(2, 3, 8, 8), torch.eye(2))
        >>> inputs.shape, scores.sum(1)
        (torch.Size([2, 3, 8, 8]), tensor([1., 1.]))
    """

    def mix(self, inputs: Tensor, others: Tensor, share: float) -> tuple[Tensor, float]:
        """Blend."""
        return others.lerp(inputs, share), share


@MODELS.register_module()
class BatchCutMix(BatchAugment):
    """A box of x_j pasted into x_i, the classes by area (Yun et al. 2019, CutMix).

    The box has the area (1 - lambda) * H * W before it is cut at the borders; the classes go by the
    area that is left. All samples, and all time steps, have the box in the same place.

    Args:
        alpha: Parameter of Beta(alpha, alpha), from which the share lambda is drawn.
    """

    def mix(self, inputs: Tensor, others: Tensor, share: float) -> tuple[Tensor, float]:
        """Paste."""
        height, width = inputs.shape[-2:]
        side = (1 - share) ** 0.5
        y, x = np.random.randint(height), np.random.randint(width)
        half_h, half_w = int(height * side) // 2, int(width * side) // 2
        top, bottom = max(y - half_h, 0), min(y + half_h, height)
        left, right = max(x - half_w, 0), min(x + half_w, width)
        inputs = inputs.clone()
        inputs[..., top:bottom, left:right] = others[..., top:bottom, left:right]
        return inputs, 1 - (bottom - top) * (right - left) / (height * width)
