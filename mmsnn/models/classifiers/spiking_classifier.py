"""Recognition: backbone, an optional neck, and a head."""

from typing import Optional, Union

from mmdet.registry import MODELS
from mmengine.model import BaseModel
from torch import Tensor

from ...structures import ClsDataSample
from ..data_preprocessors import ClsDataPreprocessor
from ..layers import fold_frames


@MODELS.register_module()
class SpikingClassifier(BaseModel):
    """A classifier of images or event frames, trained and tested by mmengine's runner.

    Its backbone is a detector's: a checkpoint starts one by
    ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone.')``.

    Args:
        backbone: Spiking backbone such as ``SGResNet``; or an ANN, with ``decoder=None`` in the
            head.
        head: ``SpikingClsHead``.
        neck: Anything between the two.
        data_preprocessor: Default ``ClsDataPreprocessor`` without normalisation.
        init_cfg: As in MMDetection.

    Raises:
        ValueError: A head whose ``in_channels`` differ from what the backbone gives.

    Example:
        >>> import torch
        >>> from mmsnn.models import SpikingClassifier
        >>> model = SpikingClassifier(
        ...     dict(type='SGResNet', depth=10, base_channels=8, stem='cifar'),
        ...     dict(type='SpikingClsHead', num_classes=10, in_channels=64)).eval()
        >>> model(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
        >>> model(torch.rand(2, 3, 32, 32), mode='predict')[0].pred_label.shape
        torch.Size([1])
    """

    def __init__(
        self,
        backbone: dict,
        head: dict,
        neck: Union[dict, list, None] = None,
        data_preprocessor: Optional[dict] = None,
        init_cfg: Union[dict, list, None] = None,
    ):
        data_preprocessor = data_preprocessor or dict(type='ClsDataPreprocessor')
        super().__init__(MODELS.build(data_preprocessor), init_cfg)
        self.backbone = MODELS.build(backbone)
        self.neck = None if neck is None else MODELS.build(neck)
        self.head = MODELS.build(head)
        channels = getattr(self.backbone, 'out_channels', None)
        takes = getattr(self.head, 'in_channels', None)
        if neck is None and channels and takes is not None and channels[-1] != takes:
            raise ValueError(
                f'channels do not match: {type(self.backbone).__name__} gives {channels[-1]} at '
                f'its last level, but {type(self.head).__name__} was built with in_channels={takes}'
            )

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Run backbone and neck.

        Args:
            inputs: Images (B, C, H, W), or event frames (T, B, C, H, W).

        Returns:
            The levels.

        Raises:
            ValueError: As of the backbone.
        """
        time_first = inputs.dim() == 5 and isinstance(self.data_preprocessor, ClsDataPreprocessor)
        if time_first and len(inputs) == getattr(self.backbone, 'time_steps', None):
            # Now the backbone can't take as many samples for time.
            inputs = fold_frames(inputs)
        feats = self.backbone(inputs)
        return feats if self.neck is None else self.neck(feats)

    def forward(
        self,
        inputs: Tensor,
        data_samples: Optional[list[ClsDataSample]] = None,
        mode: str = 'tensor',
    ) -> Union[Tensor, dict, list[ClsDataSample]]:
        """What mmengine's runner calls.

        Args:
            inputs: Images (B, C, H, W), or event frames (T, B, C, H, W).
            data_samples: What is known of them.
            mode: ``'loss'``, ``'predict'`` or ``'tensor'``.

        Returns:
            Losses by name; samples with predictions; or logits (B, K).

        Raises:
            ValueError: Another mode.
        """
        if mode not in ('loss', 'predict', 'tensor'):
            raise ValueError(f"mode must be 'loss', 'predict' or 'tensor', got {mode!r}")
        feats = self.extract_feat(inputs)
        if mode == 'loss':
            return self.head.loss(feats, data_samples)
        return self.head(feats) if mode == 'tensor' else self.head.predict(feats, data_samples)
