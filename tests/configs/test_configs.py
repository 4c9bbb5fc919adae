"""Every config in configs/ builds, takes one training step and predicts."""

from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)


def _num_classes(model):
    head = model.get('bbox_head') or model['roi_head']['bbox_head']
    return head['num_classes']


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_builds_trains_and_predicts(path):
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    data = demo_mm_inputs(
        2, [[3, 64, 64], [3, 64, 80]], num_items=[2, 1], num_classes=_num_classes(cfg.model)
    )
    before = [param.detach().clone() for param in model.parameters()]
    losses = model.train().train_step(data, optim_wrapper)
    assert all(torch.isfinite(loss).all() for loss in losses.values()), losses
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters()))

    with torch.no_grad():
        predictions = model.eval().test_step(
            demo_mm_inputs(1, [[3, 64, 64]], num_classes=_num_classes(cfg.model))
        )
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
        assert cfg[f'{key}_dataloader']['dataset']['ann_file']
    assert cfg.optim_wrapper.type == 'OptimWrapper'
