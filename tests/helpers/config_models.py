"""A training step of any config in configs/, on random data."""

from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

from mmsnn.structures import ClsDataSample

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)


def is_classifier(cfg):
    return cfg.model.type == 'SpikingClassifier'


def is_of_events(cfg):
    return cfg.model.data_preprocessor.type == 'EventDetDataPreprocessor'


def detection_data(model, train):
    head = model.get('bbox_head') or model['roi_head']['bbox_head']
    # MMDetection's labels begin with 1: of a single class it has none.
    classes = max(2, head['num_classes'])
    if not train:
        return demo_mm_inputs(1, [[3, 64, 64]], num_classes=classes)
    data = demo_mm_inputs(
        2,
        [[3, 64, 64], [3, 64, 80]],
        num_items=[2, 1],
        num_classes=classes,
        with_mask='mask_head' in model.get('roi_head', {}),
    )
    if head['num_classes'] == 1:
        for sample in data['data_samples']:
            sample.gt_instances.labels.zero_()
    return data


def recognition_data(model, train):
    """Images of bytes, or event counts with T of the model."""
    backbone, classes = model.backbone, model.head.num_classes
    channels = backbone.get('in_channels', 3)
    shape = (channels, 32, 32) if 'stem' in backbone else (channels, 64, 64)
    if channels == 2:
        inputs = [torch.randint(3, (backbone.time_steps, *shape)).float() for _ in range(2)]
    else:
        inputs = [torch.randint(256, shape, dtype=torch.uint8) for _ in range(2)]
    samples = [ClsDataSample().set_gt_label(i * (classes - 1)) for i in range(2)]
    return dict(inputs=inputs, data_samples=samples)


def build(path):
    """The config, its model with the weights that a training begins with, and the optimiser."""
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return cfg, model, build_optim_wrapper(model, cfg.optim_wrapper)


def data_of(cfg, train):
    """Two images and what is true of them, or one to find boxes in."""
    make = recognition_data if is_classifier(cfg) else detection_data
    data = make(cfg.model, train)
    if not is_classifier(cfg) and is_of_events(cfg):
        backbone = cfg.model.backbone  # an ANN has time as channels
        shape = backbone.get('time_steps', 1), backbone.in_channels
        sizes = [image.shape[-2:] for image in data['inputs']]
        data['inputs'] = [torch.randint(3, (*shape, *size)).float() for size in sizes]
    return data
