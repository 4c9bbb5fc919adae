"""Images and event frames of single samples to one normalised batch."""

from collections.abc import Sequence
from typing import Optional

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.model import BaseDataPreprocessor
from torch import Tensor


@MODELS.register_module()
class ClsDataPreprocessor(BaseDataPreprocessor):
    r"""Stack, normalise, and mix samples in training.

    .. math::
        x_c = (v_c - mean_c) / std_c

    Images (C, H, W) become (B, C, H, W); event frames (T, C, H, W) become (T, B, C, H, W).

    Args:
        mean: One number a channel, in the order after ``bgr_to_rgb``; None to leave values as they
            are, as for event counts.
        std: Likewise.
        bgr_to_rgb: Whether to turn the channel order of images that mmcv has loaded.
        batch_augments: Augmentations such as ``dict(type='BatchMixUp', alpha=0.2, prob=0.5)``. For
            each batch at most one is drawn, each with its ``prob``.
        num_classes: Number of classes; needed with ``batch_augments``.
        non_blocking: As in mmengine.

    Raises:
        ValueError: mean without std; probabilities that add up to more than 1; ``batch_augments``
            without ``num_classes``; samples of different shapes.

    Example:
        >>> import torch
        >>> from mmsnn.models import ClsDataPreprocessor
        >>> batch = [torch.zeros(3, 8, 8, dtype=torch.uint8)] * 2
        >>> ClsDataPreprocessor(mean=[127.5] * 3, std=[127.5] * 3)(dict(inputs=batch))[
        ...     'inputs'].unique()
        tensor([-1.])
    """

    def __init__(
        self,
        mean: Optional[Sequence[float]] = None,
        std: Optional[Sequence[float]] = None,
        bgr_to_rgb: bool = False,
        batch_augments: Sequence[dict] = (),
        num_classes: Optional[int] = None,
        non_blocking: bool = False,
    ):
        super().__init__(non_blocking)
        if (mean is None) != (std is None):
            raise ValueError(f'give mean and std, or neither: got mean={mean!r}, std={std!r}')
        self.normalises = mean is not None
        if self.normalises:
            for name, values in (('mean', mean), ('std', std)):
                column = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
                self.register_buffer(name, column, persistent=False)
        self.bgr_to_rgb = bgr_to_rgb
        if batch_augments and num_classes is None:
            raise ValueError('batch_augments mix classes: give the data preprocessor num_classes')
        self.num_classes = num_classes
        self.batch_augments = []
        self.probs = []
        for cfg in batch_augments:
            cfg = dict(cfg)
            self.probs.append(cfg.pop('prob', 1 / len(batch_augments)))
            self.batch_augments.append(MODELS.build(cfg))
        if any(p < 0 for p in self.probs) or sum(self.probs) > 1 + 1e-6:
            raise ValueError(
                'the prob of each of batch_augments must be at least 0, and all together at most '
                f'1, got {self.probs}'
            )

    def forward(self, data: dict, training: bool = False) -> dict:
        """Make a batch.

        Args:
            data: ``inputs``, a list of (C, H, W) or (T, C, H, W), or already a batch; and
                ``data_samples``, where known.
            training: Whether to draw batch augmentations.

        Returns:
            dict: ``inputs``, a float32 batch; ``data_samples``, which training with batch
            augmentations gives ``gt_score``.
        """
        data = self.cast_data(data)
        inputs = data['inputs']
        if not isinstance(inputs, Tensor):
            inputs = _stack(inputs)
        if self.bgr_to_rgb:
            inputs = inputs.flip(-3)
        inputs = inputs.float()
        if self.normalises:
            inputs = (inputs - self.mean) / self.std
        data_samples = data.get('data_samples')
        if training and self.batch_augments:
            assert data_samples is not None  # training has labels
            inputs, data_samples = self._augment(inputs, data_samples)
        return dict(inputs=inputs, data_samples=data_samples)

    def _augment(self, inputs: Tensor, data_samples: list) -> tuple[Tensor, list]:
        labels = torch.cat([sample.gt_label for sample in data_samples])
        assert self.num_classes is not None  # __init__ asks for it
        scores = F.one_hot(labels, self.num_classes).float()
        drawn = int(np.searchsorted(np.cumsum(self.probs), np.random.rand(), side='right'))
        if drawn < len(self.batch_augments):
            inputs, scores = self.batch_augments[drawn](inputs, scores)
        for sample, score in zip(data_samples, scores):
            sample.set_gt_score(score)
        return inputs, data_samples


def _stack(inputs: Sequence[Tensor]) -> Tensor:
    shapes = {tuple(x.shape) for x in inputs}
    if len(shapes) > 1:
        raise ValueError(
            f'samples of different shapes cannot be one batch: {sorted(shapes)}. Let the pipeline '
            'end with one size (RandomResizedCrop, Resize, CenterCrop) and, for events, one number '
            'of time steps'
        )
    if inputs[0].dim() not in (3, 4):
        raise ValueError(
            'a sample is an image (C, H, W) or event frames (T, C, H, W), got '
            f'{tuple(inputs[0].shape)}'
        )
    # Time comes first: behind it lies what every layer takes for the batch.
    return torch.stack(list(inputs), dim=inputs[0].dim() - 3)
