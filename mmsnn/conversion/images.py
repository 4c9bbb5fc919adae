"""Images to calibrate by, without labels: of a config's training data, or of a folder."""

import os
from typing import Any, Optional

import torch
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import BaseModel
from torch import Tensor

from ..apis.model import test_dataset
from ..compat import quiet_coco
from ..config_types import type_name
from ..datasets import DatasetError, datasets_of
from ..datasets.image_files import list_images

#: Images that run at once.
BATCH_SIZE = 8


def calibration_images(
    cfg: Config, model: BaseModel, count: int, folder: Optional[str] = None
) -> list[Tensor]:
    """Load images by the test pipeline, without anything that is known of them.

    Args:
        cfg: The config of the model.
        model: The detector or classifier, whose preprocessor makes the batches.
        count: How many; fewer where there are fewer. They are spread over the data set.
        folder: Folder of images; None for the training data of the config.

    Returns:
        Batches (B, C, H, W), as the backbone takes them.

    Raises:
        DatasetError: There are no images, they can't be read, each is of one colour, or they are
            no images but event frames.
    """
    pipeline = [
        transform
        for transform in test_dataset(cfg).get('pipeline') or []
        if 'Annotations' not in type_name(transform)
    ]
    if not pipeline:
        raise DatasetError(
            'the config has no test_dataloader with a pipeline, by which images are loaded to '
            'calibrate: give it one'
        )
    items = _of_folder(folder, pipeline, count) if folder else _of_dataset(cfg, pipeline, count)
    batches = []
    for start in range(0, len(items), BATCH_SIZE):
        data = model.data_preprocessor(pseudo_collate(items[start : start + BATCH_SIZE]), False)
        batches.append(data['inputs'])
    where = folder or "the config's training data"
    if batches[0].dim() != 4:
        raise DatasetError(
            f'{where}: calibration takes images, and these are event frames of shape '
            f'{tuple(batches[0].shape[1:])}: there is no ANN of them. Leave --images out'
        )
    raw = [torch.as_tensor(item['inputs']) for item in items]
    if all((image == image.flatten(1)[:, :1, None]).all() for image in raw):
        raise DatasetError(
            f'{where}: each of the {len(items)} images is of one colour, by which no layer can be '
            'calibrated: take pictures such as the model will see'
        )
    return batches


def _of_folder(folder: str, pipeline: list[dict], count: int) -> list[dict]:
    if not os.path.isdir(folder):
        raise DatasetError(f'{folder}: no such folder of images to calibrate by. Check the path')
    paths, _ = list_images(folder)
    if not paths:
        raise DatasetError(f'{folder}: holds no image to calibrate by. Check the path')
    load = Compose([TRANSFORMS.build(transform) for transform in pipeline])
    return [load(dict(img_path=paths[i], img_id=i)) for i in _spread(len(paths), count)]


def _of_dataset(cfg: Config, pipeline: list[dict], count: int) -> list[dict]:
    settings = next((dataset for *_, dataset in datasets_of(cfg, ('train',))), None)
    if settings is None:
        raise DatasetError(
            'the config has no training data to calibrate by: name a folder of images by '
            '--image-dir DIR'
        )
    try:
        with quiet_coco():
            dataset: Any = DATASETS.build({**settings, 'pipeline': pipeline})
    except FileNotFoundError as error:
        raise DatasetError(
            f"the config's training data, to calibrate by, are not there: {error}. Name a folder "
            'of images by --image-dir DIR'
        ) from error
    if not len(dataset):
        raise DatasetError("the config's training data, to calibrate by, are empty")
    return [dataset[i] for i in _spread(len(dataset), count)]


def _spread(size: int, count: int) -> list[int]:
    """Up to ``count`` numbers below ``size``, evenly spread."""
    count = min(size, count)
    return [i * size // count for i in range(count)]
