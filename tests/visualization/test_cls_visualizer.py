"""Pictures with classes on them."""

import mmcv
import numpy as np
import pytest
import torch

from mmsnn.structures import ClsDataSample
from mmsnn.visualization import ClsVisualizer, event_picture, input_picture


@pytest.fixture
def visualizer():
    visualizer = ClsVisualizer('test_cls_visualizer')
    visualizer.dataset_meta = dict(classes=('cat', 'dog', 'bird'))
    return visualizer


def sample(label=None, scores=(0.2, 0.7, 0.1)):
    found = ClsDataSample().set_pred_score(torch.tensor(scores))
    return found if label is None else found.set_gt_label(label)


def test_says_what_is_true_and_what_was_found(visualizer):
    lines, right = visualizer._describe(sample(0), topk=2)
    assert lines == ['true: cat', 'dog 0.70', 'cat 0.20']
    assert right is False
    assert visualizer._describe(sample(1), topk=1) == (['true: dog', 'dog 0.70'], True)
    assert visualizer._describe(sample(), topk=1) == (['dog 0.70'], None)


def test_small_pictures_are_enlarged(visualizer, tmp_path):
    image = np.zeros((8, 10, 3), np.uint8)
    image[:, :5] = (200, 30, 10)
    visualizer.add_datasample('x', image, sample(1), out_file=str(tmp_path / 'x.png'))
    drawn = mmcv.imread(tmp_path / 'x.png', channel_order='rgb')
    height, width = 8 * 28, 10 * 28
    assert drawn.shape[1] == width
    assert drawn.shape[0] > height, 'a strip with the text, above the picture'
    strip, picture = drawn[:-height], drawn[-height:]
    assert (strip == 255).all(-1).any(), 'the text'
    assert strip[0, -1].tolist() == [0, 90, 0], 'green: the class is right'
    assert (picture[:, : width // 2] == (200, 30, 10)).all()
    assert not picture[:, width // 2 :].any()


def test_without_a_sample_it_is_the_picture(visualizer, tmp_path):
    image = np.full((300, 300, 3), 70, np.uint8)
    visualizer.add_datasample('x', image, out_file=str(tmp_path / 'x.png'))
    assert (mmcv.imread(tmp_path / 'x.png') == 70).all()


def test_event_picture():
    frames = np.zeros((4, 2, 3, 3))
    frames[0, 1, 0, 0] = 5  # ON
    frames[3, 0, 2, 2] = 5  # OFF
    picture = event_picture(frames)
    assert picture.shape == (3, 3, 3)
    assert picture[0, 0].tolist() == [255, 0, 0]
    assert picture[2, 2].tolist() == [0, 0, 255]
    assert picture[1, 1].tolist() == [255, 255, 255]
    assert (event_picture(np.zeros((2, 2, 4, 4))) == 255).all()


@pytest.mark.parametrize(('channels', 'shown'), [(1, [0, 0, 0]), (2, [0, 0, 0]), (4, [2, 1, 0])])
def test_input_of_any_number_of_channels(channels, shown):
    """Three are BGR; of others what can be shown."""
    inputs = torch.arange(channels, dtype=torch.uint8)[:, None, None].expand(channels, 2, 5)
    picture = input_picture(inputs)
    assert picture.shape == (2, 5, 3)
    assert picture[0, 0].tolist() == shown
