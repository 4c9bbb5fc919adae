"""Every config in configs/ builds, takes one training step and predicts."""

import pytest
import torch
from config_models import CONFIGS, build, data_of, is_classifier, is_of_events
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.registry import init_default_scope


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_builds_trains_and_predicts(path):
    cfg, model, optim_wrapper = build(path)
    before = [param.detach().clone() for param in model.parameters()]
    losses = model.train().train_step(data_of(cfg, train=True), optim_wrapper)
    assert all(torch.isfinite(loss).all() for loss in losses.values()), losses
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters()))

    masks = 'mask_head' in cfg.model.get('roi_head', {})
    if masks:  # what is sure of nothing finds nothing, and draws no mask
        model.roi_head.test_cfg.score_thr = 0
    with torch.no_grad():
        predictions = model.eval().test_step(data_of(cfg, train=False))
    if is_classifier(cfg):
        assert [len(sample.pred_score) for sample in predictions] == [
            cfg.model.head.num_classes
        ] * 2
        assert all(sample.pred_score.sum() == pytest.approx(1, rel=1e-4) for sample in predictions)
    else:
        instances = predictions[0].pred_instances
        assert instances.bboxes.shape == (len(instances.scores), 4)
        if masks:
            assert len(instances.scores) > 0
            assert instances.masks.shape == (len(instances.scores), 64, 64)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_complete_by_itself(path):
    """What tools/train.py and tools/test.py need is there, without MMDetection's own configs."""
    cfg = Config.fromfile(path)
    assert cfg.custom_imports['imports'] == ['mmsnn']
    assert cfg.default_scope == 'mmdet'
    for key in ('train', 'val', 'test'):
        assert cfg[f'{key}_cfg'] is not None
        assert cfg[f'{key}_dataloader']['dataset']['data_root']
        if not is_classifier(cfg) and not is_of_events(cfg):
            assert cfg[f'{key}_dataloader']['dataset']['ann_file']
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
    """Spiking ones as they are, and those of an ANN with T times as many channels."""
    cfg = Config.fromfile(path)
    backbone = cfg.model.backbone
    for key in ('train', 'val', 'test'):
        for transform in cfg[f'{key}_dataloader'].dataset.pipeline:
            if transform.type in ('LoadEventFrames', 'LoadEventWindow'):
                if 'time_steps' in backbone:
                    assert transform.time_steps == backbone.time_steps
                if transform.type == 'LoadEventWindow':
                    bins = transform.representation.bins
                    steps = transform.time_steps if backbone.type == 'ResNet' else 1
                    assert backbone.in_channels == 2 * bins * steps
