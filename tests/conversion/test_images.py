"""Images to calibrate by: which, how they are loaded, and what is no image."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mmsnn.conversion import calibration_images
from mmsnn.datasets import DatasetError
from mmsnn.models import ClsDataPreprocessor

LOAD = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(16, 16), keep_ratio=False),
    dict(type='PackClsInputs'),
]
MODEL = SimpleNamespace(data_preprocessor=ClsDataPreprocessor(mean=[100.0] * 3, std=[50.0] * 3))


@pytest.fixture
def data(tmp_path):
    """A config of a data set of two classes, with ten pictures to train on."""
    init_default_scope('mmdet')
    for i in range(10):
        folder = tmp_path / 'train' / 'ab'[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.full((16, 16, 3), 20 * i, np.uint8)
        pixels[0] = 255
        Image.fromarray(pixels).save(folder / f'{i}.png')
    dataset = dict(type='ImageFolder', data_root=str(tmp_path), metainfo=dict(classes=('a', 'b')))
    train = dict(dataset, data_prefix=dict(img='train/'), pipeline=[])
    test = dict(dataset, data_prefix=dict(img='test/'), test_mode=True, pipeline=LOAD)
    return Config(dict(train_dataloader=dict(dataset=train), test_dataloader=dict(dataset=test)))


def levels(batches):
    """The grey of each picture, as it was drawn."""
    grey = torch.cat([batch[:, 0, -1, -1] for batch in batches])
    return sorted((grey * 50 + 100).round().int().tolist())


def test_training_data(data):
    batches = calibration_images(data, MODEL, 99)
    assert [tuple(batch.shape) for batch in batches] == [(8, 3, 16, 16), (2, 3, 16, 16)]
    assert levels(batches) == [20 * i for i in range(10)]
    # Of a data set that is sorted by class, some of each.
    some = levels(calibration_images(data, MODEL, 4))
    assert len(some) == 4
    assert {grey // 20 % 2 for grey in some} == {0, 1}


def test_annotations_are_not_asked_for(data):
    pipeline = data.test_dataloader.dataset.pipeline
    pipeline.insert(1, dict(type='LoadAnnotations', with_bbox=True))
    assert len(calibration_images(data, MODEL, 3)[0]) == 3


def test_folder(data, tmp_path):
    data.pop('train_dataloader')
    assert levels(calibration_images(data, MODEL, 10, str(tmp_path / 'train' / 'a'))) == [
        0, 40, 80, 120, 160
    ]  # fmt: skip


def one_colour(folder):
    folder.mkdir()
    for i in range(3):
        Image.new('RGB', (16, 16), (80 * i, 7, 9)).save(folder / f'{i}.png')


def test_refusals(data, tmp_path):
    (tmp_path / 'empty').mkdir()
    one_colour(tmp_path / 'plain')
    for folder, said in (
        ('none', 'none: no such folder of images'),
        ('empty', 'empty: holds no image'),
        ('plain', 'plain: each of the 3 images is of one colour'),
    ):
        with pytest.raises(DatasetError, match=said) as error:
            calibration_images(data, MODEL, 4, str(tmp_path / folder))
        assert '\n' not in str(error.value)
    no_train = Config(dict(test_dataloader=data.test_dataloader))
    with pytest.raises(DatasetError, match=r'no training data to calibrate by: .*--image-dir DIR'):
        calibration_images(no_train, MODEL, 4)
    no_test = Config(dict(train_dataloader=data.train_dataloader))
    with pytest.raises(DatasetError, match='no test_dataloader with a pipeline'):
        calibration_images(no_test, MODEL, 4)


def test_one_picture_of_one_colour_among_others_does(data, tmp_path):
    Image.new('RGB', (16, 16)).save(tmp_path / 'train' / 'a' / 'black.png')
    assert len(calibration_images(data, MODEL, 6, str(tmp_path / 'train' / 'a'))[0]) == 6


def test_event_frames(data):
    frames = torch.rand(2, 3, 3, 16, 16)
    model = SimpleNamespace(data_preprocessor=lambda *_: dict(inputs=frames))
    with pytest.raises(DatasetError, match='these are event frames'):
        calibration_images(data, model, 2)
