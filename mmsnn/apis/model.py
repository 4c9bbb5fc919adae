"""From a config, and a checkpoint where there is one, to a model that predicts."""

import copy
import os
from typing import Optional, Union

from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope

from ..checkpoints import SCHEME, shipped_checkpoints
from ..compat import load_weights
from ..config_files import config_file
from ..config_types import find_type
from ..datasets import datasets_of

ConfigLike = Union[str, os.PathLike, Config]


def init_model(
    config: ConfigLike,
    checkpoint: Union[str, os.PathLike, None],
    device: str,
    cfg_options: Optional[dict],
    trust_checkpoint: bool,
) -> BaseModel:
    """What :func:`~mmsnn.apis.init_detector` and ``init_classifier`` have in common.

    Args:
        config: As of :func:`~mmsnn.apis.init_classifier`, and so are the others.
        checkpoint: Likewise.
        device: Likewise.
        cfg_options: Likewise.
        trust_checkpoint: Likewise.

    Returns:
        The model in eval mode, with ``cfg`` and ``dataset_meta``.
    """
    if isinstance(config, Config):
        cfg = copy.deepcopy(config)
    else:
        given, path = os.fspath(config), config_file(config)
        cfg = Config.fromfile(path)
        name = given[:-3] if given.endswith('.py') else given
        if checkpoint is None and path != given and name in shipped_checkpoints():
            checkpoint = SCHEME + name
    if cfg_options is not None:
        cfg.merge_from_dict(cfg_options)
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    model = MODELS.build(cfg.model)
    meta = {}
    if checkpoint is not None:
        meta = load_weights(model, checkpoint, trust_checkpoint).get('meta', {})
    model.cfg = cfg
    model.dataset_meta = {**known_classes(cfg), **(meta.get('dataset_meta') or {})}
    return model.to(device).eval()


def test_dataset(cfg: Config) -> dict:
    """The config of the test data, inside its wrappers.

    Args:
        cfg: The config.

    Returns:
        The first one; empty without test data.
    """
    return next((dataset for *_, dataset in datasets_of(cfg, ('test',))), {})


def known_classes(cfg: Config) -> dict:
    """What is known of the classes without the data: from the config, or from the data set.

    Args:
        cfg: The config.

    Returns:
        ``classes``, and ``palette``, as far as they are known.
    """
    dataset = test_dataset(cfg)
    cls = find_type(dataset, DATASETS)
    return {**getattr(cls, 'METAINFO', {}), **(dataset.get('metainfo') or {})}
