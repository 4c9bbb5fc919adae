"""What the hook hands to the visualizer."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.visualization import Visualizer

from mmsnn.engine import ClsVisualizationHook
from mmsnn.structures import ClsDataSample


@pytest.fixture
def drawn(monkeypatch):
    calls = []

    class Recorder:
        def add_datasample(self, name, image, sample, **kwargs):
            calls.append((name, image, sample, kwargs))

    monkeypatch.setattr(Visualizer, 'get_current_instance', classmethod(lambda cls: Recorder()))
    return calls


RUNNER = SimpleNamespace(iter=100, work_dir='work', timestamp='now')


def batch(frames=False):
    image = torch.zeros(3, 4, 5, dtype=torch.uint8)
    image[0] = 9  # blue comes first in mmcv
    inputs = [torch.ones(6, 2, 4, 5) if frames else image] * 3
    return dict(inputs=inputs), [ClsDataSample().set_gt_label(i) for i in range(3)]


def test_off_by_default(drawn):
    data, samples = batch()
    ClsVisualizationHook().after_test_iter(RUNNER, 0, data, samples)
    ClsVisualizationHook().after_val_iter(RUNNER, 0, data, samples)
    assert not drawn


def test_every_test_sample_gets_a_file_of_its_own(drawn):
    data, samples = batch()
    hook = ClsVisualizationHook(draw=True, test_out_dir='shown')
    for i in range(2):
        hook.after_test_iter(RUNNER, i, data, samples)
    assert len({call[3]['out_file'] for call in drawn}) == 6
    assert drawn[0][3]['out_file'] == 'work/now/shown/000001.png'
    assert [int(call[2].gt_label) for call in drawn] == [0, 1, 2] * 2
    image = drawn[0][1]
    assert image.shape == (4, 5, 3)
    assert image[0, 0].tolist() == [0, 0, 9], 'RGB'


def test_validation_by_interval(drawn):
    data, samples = batch()
    hook = ClsVisualizationHook(draw=True, interval=3)
    for i in range(7):
        hook.after_val_iter(RUNNER, i, data, samples)
    assert [call[3]['step'] for call in drawn] == [100, 103, 106]


def test_event_frames_become_pictures(drawn):
    data, samples = batch(frames=True)
    ClsVisualizationHook(draw=True).after_test_iter(RUNNER, 0, data, samples)
    assert drawn[0][1].shape == (4, 5, 3)
    assert drawn[0][1].dtype == np.uint8


class Files:
    """A data set of files."""

    def __init__(self, *paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def get_data_info(self, i):
        return dict(img_path=self.paths[i])


@pytest.mark.parametrize(
    ('paths', 'names'),
    [
        (('d/a/1.jpg', 'd/a/2.jpg', 'd/b/3.jpg'), ['1.png', '2.png', '3.png']),
        (('d/a/1.jpg', 'd/b/1.jpg', 'd/b/2.jpg'), ['a/1.png', 'b/1.png', 'b/2.png']),
        (('d/1.jpg', 'd/1.png', 'd/2.jpg'), ['1.jpg.png', '1.png.png', '2.jpg.png']),
        (('d/batch:0', 'd/batch:1', 'd/batch:2'), ['batch:0.png', 'batch:1.png', 'batch:2.png']),
        (('one.aedat4',) * 3, ['000001.png', '000002.png', '000003.png']),
    ],
)
def test_pictures_are_named_by_the_rule_of_detectors(drawn, paths, names):
    loader = SimpleNamespace(dataset=Files(*paths))
    runner = SimpleNamespace(**vars(RUNNER), test_dataloader=loader)
    data, samples = batch()
    for sample, path in zip(samples, paths):
        sample.set_metainfo(dict(img_path=path))
    hook = ClsVisualizationHook(draw=True, test_out_dir='shown')
    hook.before_test(runner)
    hook.after_test_iter(runner, 0, data, samples)
    assert [call[3]['out_file'] for call in drawn] == [f'work/now/shown/{name}' for name in names]
