"""Event frames for MMDetection's detectors."""

from collections.abc import Sequence
from typing import Optional, Union

from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class EventDetDataPreprocessor(DetDataPreprocessor):
    """MMDetection's data preprocessor for samples that are event frames (T, C, H, W).

    MMDetection's own puts the batch first and takes the size of such a sample from the wrong axes.
    This one lets it see time as channels: it pads, and sets ``pad_shape`` and
    ``batch_input_shape``, as for images, and the backbone finds time where no batch can be
    (:func:`~mmsnn.models.layers.fold_frames`). Counts of events aren't normalised.

    Args:
        pad_size_divisor: As in MMDetection.
        pad_value: As in MMDetection.
        boxtype2tensor: As in MMDetection.
        non_blocking: As in MMDetection.
        batch_augments: As in MMDetection.

    Raises:
        ValueError: Samples that are no event frames, or of different T.

    Example:
        >>> import torch
        >>> from mmsnn.models import EventDetDataPreprocessor
        >>> batch = [torch.zeros(5, 2, 30, 40), torch.zeros(5, 2, 40, 30)]
        >>> preprocess = EventDetDataPreprocessor(pad_size_divisor=32)
        >>> preprocess(dict(inputs=batch, data_samples=None))['inputs'].shape
        torch.Size([2, 10, 64, 64])
    """

    def __init__(
        self,
        pad_size_divisor: int = 1,
        pad_value: Union[float, int] = 0,
        boxtype2tensor: bool = True,
        non_blocking: bool = False,
        batch_augments: Optional[Sequence[dict]] = None,
    ):
        super().__init__(
            pad_size_divisor=pad_size_divisor,
            pad_value=pad_value,
            boxtype2tensor=boxtype2tensor,
            non_blocking=non_blocking,
            batch_augments=batch_augments,
        )

    def forward(self, data: dict, training: bool = False) -> dict:
        """Make a batch.

        Args:
            data: ``inputs``, a list of (T, C, H, W), and ``data_samples``.
            training: Whether to draw batch augmentations.

        Returns:
            dict: ``inputs``, float32 (B, T * C, H, W), and ``data_samples``.
        """
        samples: list[Tensor] = list(data['inputs'])
        for sample in samples:
            if sample.dim() != 4:
                raise ValueError(
                    f'{type(self).__name__} takes event frames (T, C, H, W), got a sample of '
                    f"shape {tuple(sample.shape)}: images take MMDetection's DetDataPreprocessor"
                )
        lengths = sorted({len(sample) for sample in samples})
        if len(lengths) != 1:
            raise ValueError(
                f'event frames of different numbers of time steps {lengths} cannot be one batch: '
                'give LoadEventFrames one time_steps for all'
            )
        return super().forward({**data, 'inputs': [x.flatten(0, 1) for x in samples]}, training)
