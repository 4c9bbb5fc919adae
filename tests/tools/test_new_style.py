"""Pure-Python configs, in which types are classes, through the tools."""

import numpy as np
import pytest
from digits_detector import DIGITS, NARROW
from in_process import run_in_process
from mmengine.config import Config
from new_style import write_new_style

from mmsnn.apis import inference_classifier, inference_detector, init_classifier, init_detector

DIGITS_CLS = 'configs/digits/sg-r10_asd_digits-cls.py'


@pytest.fixture
def new_style(digits_root, monkeypatch, tmp_path, request):
    """Path of a config of the repository in the new style."""
    monkeypatch.setenv('MMSNN_DIGITS_ROOT', str(digits_root))

    def write(path, **settings):
        cfg = Config.fromfile(request.config.rootpath / path)
        cfg.merge_from_dict(settings)
        write_new_style(cfg, tmp_path / 'new_style.py')
        return tmp_path / 'new_style.py'

    return write


def test_train_and_test(new_style, monkeypatch, tmp_path, capfd):
    config = new_style(DIGITS)
    assert 'type=SpikingRetinaNet' in config.read_text()
    options = [*NARROW, 'train_cfg.max_epochs=1']
    work_dir = tmp_path / 'run'
    run_in_process(monkeypatch, 'train.py', config, '--amp', '--work-dir', work_dir, *options)
    assert 'BF16OptimWrapper' in (work_dir / config.name).read_text()
    checkpoint = work_dir / 'epoch_1.pth'
    arguments = [checkpoint, '--tta', '--work-dir', tmp_path / 'test', *options]
    run_in_process(monkeypatch, 'test.py', config, *arguments)
    assert 'coco/bbox_mAP: ' in capfd.readouterr().out


def test_apis(new_style):
    image = np.zeros((40, 50, 3), np.uint8)
    detector = init_detector(new_style(DIGITS))
    assert detector.dataset_meta['classes'] == tuple('0123456789')
    assert inference_detector(detector, image).pred_instances.bboxes.shape[1] == 4
    classifier = init_classifier(new_style(DIGITS_CLS))
    assert inference_classifier(classifier, image).pred_score.shape == (10,)
