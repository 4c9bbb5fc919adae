"""Detectors from Python."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet import apis
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.runner import save_checkpoint

from mmsnn.apis import inference_detector, init_classifier, init_detector, profile
from mmsnn.compat import CheckpointError
from mmsnn.samples import DIGITS as DIGITS_SAMPLES

DIGITS = 'configs/digits/spiking-retinanet_sg-r10_asd_fpn_digits.py'
DIGITS_CLS = 'configs/digits/sg-r10_asd_digits-cls.py'


@pytest.fixture
def config(request):
    cfg = Config.fromfile(request.config.rootpath / DIGITS)
    cfg.model.test_cfg.score_thr = 0.0
    return cfg


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def test_the_same_boxes_as_mmdetection(config, image):
    model = init_detector(config)
    assert not model.training
    theirs = apis.init_detector(config.copy(), device='cpu')
    theirs.load_state_dict(model.state_dict())
    found = inference_detector(model, image).pred_instances
    expected = apis.inference_detector(theirs, image).pred_instances
    assert len(found) > 0
    torch.testing.assert_close(found.bboxes, expected.bboxes)
    torch.testing.assert_close(found.scores, expected.scores)


def test_files_arrays_and_both(config, image, tmp_path):
    model = init_detector(config)
    path = tmp_path / 'x.png'
    cv2.imwrite(str(path), image)
    one = inference_detector(model, image)
    several = inference_detector(model, [path, image, str(path)])
    assert len(several) == 3
    for found in several:
        torch.testing.assert_close(found.pred_instances.bboxes, one.pred_instances.bboxes)
    assert (image == cv2.imread(str(path))).all(), 'the input is left alone'


def test_the_config_stays_and_gives_the_classes(config):
    before = config.pretty_text
    model = init_detector(config, cfg_options={'model.backbone.time_steps': 2})
    assert config.pretty_text == before
    assert model.backbone.time_steps == 2
    assert model.dataset_meta['classes'] == tuple('0123456789')


def test_checkpoint(config, tmp_path):
    path = tmp_path / 'model.pth'
    model = init_detector(config)
    meta = dict(dataset_meta=dict(classes=tuple('abcdefghij')))
    save_checkpoint(dict(state_dict=model.state_dict(), meta=meta), str(path))
    loaded = init_detector(config, path, palette='random')
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    assert loaded.dataset_meta['classes'] == tuple('abcdefghij')
    assert loaded.dataset_meta['palette'] == 'random'
    with pytest.raises(CheckpointError, match='another architecture'):
        init_detector(config, path, cfg_options={'model.bbox_head.num_classes': 7})


@pytest.mark.parametrize(
    ('init', 'config'), [(init_detector, DIGITS), (init_classifier, DIGITS_CLS)]
)
def test_a_file_that_holds_code_is_refused(init, config, request, tmp_path):
    config = request.config.rootpath / config
    ran = tmp_path / 'ran'
    state = dict(state_dict=init(config).state_dict(), extra=Command(ran))
    torch.save(state, tmp_path / 'model.pth')
    with pytest.raises(CheckpointError, match='could run code'):
        init(config, tmp_path / 'model.pth')
    assert not ran.exists()
    init(config, tmp_path / 'model.pth', trust_checkpoint=True)
    assert ran.exists()


class Command:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.path),)


def test_profile_takes_what_inference_takes(image):
    """Pictures one by one, in any form, are the batches of a loader."""
    model = init_detector('spiking-retinanet_sg-r10_asd_fpn_digits')
    paths = sorted((DIGITS_SAMPLES / 'val').iterdir())[:3]
    by_path = profile(model, paths)
    assert by_path.images == 3
    arrays = [cv2.imread(str(path)) for path in paths]
    assert profile(model, arrays).sops == by_path.sops
    batches = [
        dict(inputs=[data['inputs']], data_samples=[data['data_samples']])
        for data in (
            Compose(get_test_pipeline_cfg(model.cfg))(dict(img_path=str(path), img_id=0))
            for path in paths
        )
    ]
    assert profile(model, batches).energy == by_path.energy
    assert profile(model, str(paths[0])).images == profile(model, image).images == 1
    assert profile(model, paths, max_batches=2).images == 2
    with pytest.raises(ValueError, match='dtype float64'):
        profile(model, image / 255.0)


def test_one_import():
    """Nothing else has to be imported."""
    code = 'import mmsnn; print(mmsnn.apis.profile.__name__, mmsnn.deploy.fuse.__name__)'
    done = subprocess.run([sys.executable, '-c', code], text=True, capture_output=True)
    assert done.stdout.endswith('profile fuse\n'), done.stderr
