"""Classifiers, in the manner of mmdet.apis."""

import os
from collections.abc import Sequence
from typing import Optional, Union

import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.model import BaseModel

from ..config_types import type_name
from ..structures import ClsDataSample
from .images import Image, as_list, path_or_bgr
from .model import ConfigLike, init_model, test_dataset


def init_classifier(
    config: ConfigLike,
    checkpoint: Union[str, os.PathLike, None] = None,
    device: str = 'cpu',
    cfg_options: Optional[dict] = None,
    trust_checkpoint: bool = False,
) -> BaseModel:
    """Build a classifier, and load its weights.

    Args:
        config: Path of a config, the name of one of mmsnn's, or the config.
        checkpoint: Path of a checkpoint, or ``'mmsnn://NAME'`` for one that comes with mmsnn; None
            takes the one that comes with the config where that was given by its name, and leaves
            the weights as they are built otherwise.
        device: Where to put it.
        cfg_options: Settings that override those of the config.
        trust_checkpoint: Load a file that holds more than weights, which lets it run any code.

    Returns:
        The model in eval mode, with the config as ``model.cfg`` and the names of the classes as
        ``model.dataset_meta``.

    Raises:
        CheckpointError: The checkpoint is missing, damaged, of another architecture, or holds more
            than weights and is not trusted.

    Example:
        >>> from mmsnn.apis import init_classifier
        >>> model = init_classifier('configs/digits/sg-r10_asd_digits-cls.py')
        >>> model.dataset_meta['classes'][:3]
        ('0', '1', '2')
    """
    return init_model(config, checkpoint, device, cfg_options, trust_checkpoint)


def inference_classifier(
    model: BaseModel, images: Union[Image, Sequence[Image]]
) -> Union[ClsDataSample, list[ClsDataSample]]:
    """Classify pictures with the test pipeline of the model's config.

    Args:
        model: From :func:`init_classifier`.
        images: Paths, Pillow images, or arrays as mmcv loads them, (H, W, 3) of uint8 in BGR, or
            grey (H, W); one or several, which may be mixed, or an array (N, H, W, 3).

    Returns:
        One sample with ``pred_score`` and ``pred_label``, or a list where several were given.

    Raises:
        ValueError: An array that is no picture, or may be one in several ways.

    Example:
        >>> import numpy as np
        >>> from mmsnn.apis import inference_classifier, init_classifier
        >>> model = init_classifier('configs/digits/sg-r10_asd_digits-cls.py')
        >>> inference_classifier(model, np.zeros((20, 20, 3), np.uint8)).pred_score.shape
        torch.Size([10])
    """
    pictures, several = as_list(images)
    loaded, from_file = _pipelines(model.cfg)
    batch: dict = dict(inputs=[], data_samples=[])
    for picture in pictures:
        image = path_or_bgr(picture, model.cfg)
        if isinstance(image, np.ndarray):
            shape = image.shape[:2]
            item = loaded(dict(img=image.copy(), img_shape=shape, ori_shape=shape))
        else:
            item = from_file(dict(img_path=image))
        for key, values in batch.items():
            values.append(item[key])
    with torch.no_grad():
        samples = model.test_step(batch)
    return samples if several else samples[0]


def _pipelines(cfg: Config) -> tuple[Compose, Compose]:
    """The test pipeline for images that are loaded, and for paths."""
    transforms = list(test_dataset(cfg)['pipeline'])
    load = dict(type='LoadImageFromFile')
    if type_name(transforms[0]) == 'LoadImageFromFile':
        load = transforms.pop(0)
    build = [TRANSFORMS.build(transform) for transform in transforms]
    return Compose(build), Compose([TRANSFORMS.build(load), *build])
