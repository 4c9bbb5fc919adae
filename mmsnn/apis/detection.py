"""Detectors, in the manner of mmdet.apis, whose own functions lack what is said below."""

import copy
import os
from collections.abc import Sequence
from typing import Optional, Union

import numpy as np
from mmcv.transforms import Compose
from mmdet import apis
from mmdet.structures import DetDataSample
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.model import BaseModel

from .images import Image, as_list, path_or_bgr
from .model import ConfigLike, init_model, known_classes


def init_detector(
    config: ConfigLike,
    checkpoint: Union[str, os.PathLike, None] = None,
    palette: str = 'none',
    device: str = 'cpu',
    cfg_options: Optional[dict] = None,
    trust_checkpoint: bool = False,
) -> BaseModel:
    """Build a detector, and load its weights.

    As ``mmdet.apis.init_detector``, except that checkpoints are loaded as weights only and must be
    of this architecture, that the classes are the config's where there is no checkpoint, not
    COCO's, that a config which is handed in stays as it is, and that the device is the CPU unless
    another one is given.

    Args:
        config: Path of a config, the name of one of mmsnn's, or the config.
        checkpoint: Path of a checkpoint, or ``'mmsnn://NAME'`` for one that comes with mmsnn; None
            takes the one that comes with the config where that was given by its name, and leaves
            the weights as they are built otherwise.
        palette: Colours of the classes in pictures: ``'coco'``, ``'voc'``, ``'citys'`` or
            ``'random'``; ``'none'`` takes the data set's.
        device: Where to put it, such as ``'cuda:0'``.
        cfg_options: Settings that override those of the config.
        trust_checkpoint: Load a file that holds more than weights, which lets it run any code.

    Returns:
        The model in eval mode, with the config as ``model.cfg`` and the names of the classes as
        ``model.dataset_meta``.

    Raises:
        CheckpointError: The checkpoint is missing, damaged, of another architecture, or holds more
            than weights and is not trusted.

    Example:
        >>> from mmsnn.apis import init_detector
        >>> config = 'configs/digits/spiking-retinanet_sg-r10_asd_fpn_digits.py'
        >>> model = init_detector(config, cfg_options={'model.backbone.time_steps': 2})
        >>> model.backbone.time_steps, model.dataset_meta['classes'][:3]
        (2, ('0', '1', '2'))
        >>> trained = init_detector('spiking-retinanet_sg-r10_asd_fpn_digits')
    """
    model = init_model(config, checkpoint, device, cfg_options, trust_checkpoint)
    if palette != 'none':
        model.dataset_meta['palette'] = palette
    else:
        known = known_classes(model.cfg).get('palette')
        model.dataset_meta['palette'] = known or model.dataset_meta.get('palette', 'random')
    return model


def inference_detector(
    model: BaseModel,
    imgs: Union[Image, Sequence[Image]],
    test_pipeline: Optional[Compose] = None,
) -> Union[DetDataSample, list[DetDataSample]]:
    """Find objects in pictures with the test pipeline of the model's config.

    Args:
        model: From :func:`init_detector`.
        imgs: Paths, Pillow images, or arrays as mmcv loads them, (H, W, 3) of uint8 in BGR, or
            grey (H, W); one or several, which may be mixed, or an array (N, H, W, 3).
        test_pipeline: Another pipeline than the config's.

    Returns:
        One sample with ``pred_instances`` (``bboxes`` (N, 4) as x1, y1, x2, y2 in pixels of the
        picture, ``scores`` and ``labels`` (N,)), or a list where several were given.

    Raises:
        ValueError: An array that is no picture, or may be one in several ways.

    Example:
        >>> import numpy as np
        >>> from mmsnn.apis import inference_detector, init_detector
        >>> model = init_detector('configs/digits/spiking-retinanet_sg-r10_asd_fpn_digits.py')
        >>> found = inference_detector(model, np.zeros((100, 100, 3), np.uint8)).pred_instances
        >>> found.bboxes.shape[1], len(found.scores) == len(found.labels)
        (4, True)
    """
    pictures, several = as_list(imgs)
    found = []
    for picture in pictures:
        img = path_or_bgr(picture, model.cfg)
        pipeline = test_pipeline or _pipeline(model.cfg, isinstance(img, np.ndarray))
        found.append(apis.inference_detector(model, img, pipeline))
    return found if several else found[0]


def _pipeline(cfg: Config, loaded: bool) -> Compose:
    """The test pipeline; mmdet.apis would change it in the config for what follows an array."""
    transforms = copy.deepcopy(get_test_pipeline_cfg(cfg))
    if loaded:
        transforms[0].type = 'mmdet.LoadImageFromNDArray'
    return Compose(transforms)
