"""Every config in configs/ builds, takes one training step and predicts."""

from pathlib import Path

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

import pytest
import torch
from mmdet.registry import MODELS, TRANSFORMS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

from mmsnn.structures import ClsDataSample

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)


def is_classifier(cfg):
    return cfg.model.type == 'SpikingClassifier'


def detection_data(model, train):
    head = model.get('bbox_head') or model['roi_head']['bbox_head']
    if train:
        return demo_mm_inputs(
            2,
            [[3, 64, 64], [3, 64, 80]],
            num_items=[2, 1],
            num_classes=head['num_classes'],
        )
    return demo_mm_inputs(1, [[3, 64, 64]], num_classes=head['num_classes'])


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


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_builds_trains_and_predicts(path):
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    data_of = recognition_data if is_classifier(cfg) else detection_data
    before = [param.detach().clone() for param in model.parameters()]
    losses = model.train().train_step(data_of(cfg.model, train=True), optim_wrapper)
    assert all(torch.isfinite(loss).all() for loss in losses.values()), losses
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters()))

    with torch.no_grad():
        predictions = model.eval().test_step(data_of(cfg.model, train=False))
    if is_classifier(cfg):
        assert [len(sample.pred_score) for sample in predictions] == [
            cfg.model.head.num_classes
        ] * 2
        assert all(sample.pred_score.sum() == pytest.approx(1, rel=1e-4) for sample in predictions)
    else:
        instances = predictions[0].pred_instances
        assert instances.bboxes.shape == (len(instances.scores), 4)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_complete_by_itself(path):
    """What tools/train.py and tools/test.py need is there, without MMDetection's own configs."""
    cfg = Config.fromfile(path)
    assert cfg.custom_imports['imports'] == ['mmsnn']
    assert cfg.default_scope == 'mmdet'
    for key in ('train', 'val', 'test'):
        assert cfg[f'{key}_cfg'] is not None
        assert cfg[f'{key}_dataloader']['dataset']['data_root']
        assert is_classifier(cfg) or cfg[f'{key}_dataloader']['dataset']['ann_file']
    assert cfg.optim_wrapper.type == 'OptimWrapper'


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_pipelines_build(path):
    """Every transform is registered, and takes its arguments."""
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    for key in ('train', 'test'):
        for transform in cfg[f'{key}_dataloader'].dataset.pipeline:
            TRANSFORMS.build(transform)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_frames_and_model_have_one_t(path):
    cfg = Config.fromfile(path)
    for key in ('train', 'val', 'test'):
        for transform in cfg[f'{key}_dataloader'].dataset.pipeline:
            if transform.type == 'LoadEventFrames':
                assert transform.time_steps == cfg.model.backbone.time_steps
