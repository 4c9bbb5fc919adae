"""Classifiers from Python."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import save_checkpoint

from mmsnn.apis import inference_classifier, init_classifier
from mmsnn.structures import ClsDataSample

DIGITS = 'configs/digits/sg-r10_asd_digits-cls.py'
CIFAR100 = 'configs/sg_resnet/sg-r18_asd_cifar100.py'


@pytest.fixture
def config(request):
    return Config.fromfile(request.config.rootpath / DIGITS)


def test_files_and_arrays_give_the_same(config, tmp_path):
    model = init_classifier(config)
    assert not model.training
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'x.png'), image)
    one = inference_classifier(model, image)
    assert isinstance(one, ClsDataSample)
    several = inference_classifier(model, [tmp_path / 'x.png', str(tmp_path / 'x.png')])
    assert len(several) == 2
    for found in several:
        torch.testing.assert_close(found.pred_score, one.pred_score)
    assert one.pred_score.sum() == pytest.approx(1, rel=1e-5)
    assert (image == cv2.imread(str(tmp_path / 'x.png'))).all(), 'the input is left alone'


def test_checkpoint_and_options(config, tmp_path):
    path = str(tmp_path / 'model.pth')
    model = init_classifier(config)
    with torch.no_grad():
        model.head.fc.bias[3] = 50.0
    meta = dict(dataset_meta=dict(classes=tuple('abcdefghij')))
    save_checkpoint(dict(state_dict=model.state_dict(), meta=meta), path)
    loaded = init_classifier(config, path, cfg_options={'model.backbone.time_steps': 2})
    assert loaded.backbone.time_steps == 2
    found = inference_classifier(loaded, np.zeros((16, 16, 3), np.uint8))
    assert loaded.dataset_meta['classes'][int(found.pred_label)] == 'd'


def test_a_pipeline_that_does_not_load(request, tmp_path):
    """CIFAR's items are images already, and any picture is brought to its size."""
    cfg = Config.fromfile(request.config.rootpath / CIFAR100)
    cfg.model.backbone.base_channels = 8
    cfg.model.head.in_channels = 64
    model = init_classifier(cfg)
    assert len(model.dataset_meta['classes']) == 100
    cv2.imwrite(str(tmp_path / 'x.png'), np.zeros((50, 40, 3), np.uint8))
    assert inference_classifier(model, str(tmp_path / 'x.png')).pred_score.shape == (100,)
