"""Transforms of event frames: one draw for a sample, and nothing leaks from frame to frame."""

import math

import numpy as np
import pytest
import torch
from mmdet.registry import TRANSFORMS

from mmsnn.datasets import DatasetError
from mmsnn.datasets.transforms import (
    NDA,
    EventCutout,
    EventRandomFlip,
    EventRandomRoll,
    EventRandomRotate,
    EventRandomShear,
    LoadEventFrames,
    PackEventInputs,
    ResizeEventFrames,
)
from mmsnn.structures import ClsDataSample

RANDOM = {
    'EventRandomFlip': dict(prob=0.5),
    'EventRandomRoll': dict(max_shift=3),
    'EventRandomRotate': dict(max_angle=40.0),
    'EventRandomShear': dict(max_angle=40.0),
    'EventCutout': dict(max_size=9),
    'NDA': dict(),
}


def frames(seed=0, shape=(4, 2, 12, 16)):
    return np.random.default_rng(seed).integers(0, 5, shape).astype(np.float32)


@pytest.fixture(autouse=True)
def seed():
    np.random.seed(0)


@pytest.mark.parametrize('name', RANDOM)
def test_all_time_steps_and_polarities_move_alike(name):
    transform = TRANSFORMS.build(dict(type=name, **RANDOM[name]))
    for _ in range(20):
        single = frames(shape=(1, 1, 12, 16)) + 1
        scale = np.arange(8, dtype=np.float32).reshape(4, 2, 1, 1)
        before = single * scale
        out = transform(dict(frames=before.copy()))['frames']
        assert out.shape == (4, 2, 12, 16)
        assert out.dtype == np.float32
        # Frame k held k times the same picture and still does; the frame of zeros got nothing.
        np.testing.assert_array_equal(out, out[:1, 1:] * scale)


@pytest.mark.parametrize('name', RANDOM)
def test_draws_differ_and_follow_the_seed(name):
    transform = TRANSFORMS.build(dict(type=name, **RANDOM[name]))

    def run():
        np.random.seed(3)
        return [transform(dict(frames=frames()))['frames'].tobytes() for _ in range(12)]

    first = run()
    assert len(set(first)) > 1
    assert first == run()
    assert name in repr(transform)


@pytest.mark.parametrize('name', RANDOM)
def test_the_input_array_is_left_alone(name):
    transform, before = TRANSFORMS.build(dict(type=name, **RANDOM[name])), frames()
    for _ in range(10):
        transform(dict(frames=before))
    np.testing.assert_array_equal(before, frames())


def fix(transform, *draw):
    """Give a transform its draw."""
    transform._draw = lambda *args: draw[0] if len(draw) == 1 else draw
    return transform


def test_flip():
    out = EventRandomFlip(1.0)(dict(frames=frames()))
    np.testing.assert_array_equal(out['frames'], frames()[..., ::-1])
    assert out['flip'] is True
    out = EventRandomFlip(0.0)(dict(frames=frames()))
    np.testing.assert_array_equal(out['frames'], frames())
    assert out['flip'] is False


def test_roll_loses_no_event_and_reaches_every_shift():
    before = np.zeros((1, 1, 12, 16), np.float32)
    before[0, 0, 6, 8] = 1
    seen = set()
    transform = EventRandomRoll(2)
    for _ in range(300):
        out = transform(dict(frames=before))['frames']
        assert out.sum() == 1
        row, column = np.argwhere(out)[0, 2:]
        seen.add((int(row) - 6, int(column) - 8))
    assert seen == {(row, column) for row in range(-2, 3) for column in range(-2, 3)}


def test_rotation_by_a_right_angle():
    square = frames(shape=(2, 2, 12, 12))
    out = fix(EventRandomRotate(), 90.0)(dict(frames=square))['frames']
    assert any(np.array_equal(out, np.rot90(square, k, axes=(-2, -1))) for k in (1, 3))
    out = fix(EventRandomRotate(), 0.0)(dict(frames=frames()))['frames']
    np.testing.assert_array_equal(out, frames())


@pytest.mark.parametrize('angle', [-35.0, 10.0, 60.0])
def test_rotation_keeps_distances_on_a_frame_that_is_no_square(angle):
    before = np.zeros((1, 1, 41, 81), np.float32)
    before[0, 0, 20, 52] = 1  # 12 right of the middle
    before[..., 19:22, 51:54] = 1
    out = fix(EventRandomRotate(), angle)(dict(frames=before))['frames'][0, 0]
    row, column = np.argwhere(out).mean(axis=0) - (20, 40)
    assert math.hypot(row, column) == pytest.approx(12, abs=0.5)
    assert abs(math.degrees(math.atan2(row, column))) == pytest.approx(abs(angle), abs=3)


def test_shear_moves_rows_by_their_distance_from_the_middle():
    before = np.zeros((1, 1, 21, 61), np.float32)
    before[..., 30] = 1
    out = fix(EventRandomShear(), 45.0)(dict(frames=before))['frames'][0, 0]
    columns = out.argmax(axis=1) - 30
    assert (out.sum(axis=1) == 1).all()
    assert columns.tolist() == list(range(-10, 11))


def test_cutout_is_a_square_of_at_most_its_size():
    transform, sides = EventCutout(5), set()
    for _ in range(300):
        out = transform(dict(frames=np.ones((2, 2, 30, 30), np.float32)))['frames']
        hole = np.argwhere(out[0, 0] == 0)
        height, width = np.ptp(hole, axis=0) + 1
        assert len(hole) == height * width
        assert max(height, width) <= 5
        sides.add(int(max(height, width)))
    assert sides == {1, 2, 3, 4, 5}
    out = fix(transform, 4, 0, 29)(dict(frames=np.ones((1, 1, 30, 30), np.float32)))['frames']
    assert (out == 0).sum() == 2 * 3  # over the corner


def test_nda_flips_and_takes_one_of_each():
    transform = NDA(flip_prob=1.0)
    kinds = [type(choice) for choice in transform.choices]
    assert kinds == [EventRandomRoll, EventRandomRotate, EventRandomShear, EventCutout]
    seen = []
    for i, choice in enumerate(transform.choices):
        transform.choices[i] = lambda results, choice=choice: seen.append(choice) or results
    for _ in range(100):
        out = transform(dict(frames=frames()))
        np.testing.assert_array_equal(out['frames'], frames()[..., ::-1])
    assert len(seen) == 100
    assert {type(choice) for choice in seen} == set(kinds)
    assert len(NDA(max_shear=0, max_cutout=0).choices) == 2


@pytest.mark.parametrize(
    ('mode', 'exact'), [('area', True), ('bilinear', True), ('nearest', False)]
)
def test_resize(mode, exact):
    results = dict(frames=frames(), img_shape=(12, 16), ori_shape=(12, 16))
    out = ResizeEventFrames((6, 8), mode)(results)
    assert out['frames'].shape == (4, 2, 6, 8)
    assert out['img_shape'] == (6, 8)
    assert out['ori_shape'] == (12, 16)
    # At half the size, area and bilinear are the mean of 2x2 pixels; nearest takes one of them.
    mean = frames().reshape(4, 2, 6, 2, 8, 2).mean(axis=(3, 5))
    expected = frames()[..., ::2, ::2] if mode == 'nearest' else mean
    np.testing.assert_allclose(out['frames'], expected, rtol=1e-6)
    assert ResizeEventFrames(48).size == (48, 48)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(sensor_size=(5, 3, 1)), r'LoadEventFrames: sensor_size is \(5, 3, 1\)'),
        (dict(sensor_size=(8.9, 8)), r'sensor_size is \(8.9, 8\)'),
        (dict(time_steps=0), 'LoadEventFrames: time_steps is 0'),
        (dict(split_by='number'), "split_by is 'number'"),
    ],
)
def test_loaders_that_cannot_be(kwargs, message):
    with pytest.raises(DatasetError, match=message):
        LoadEventFrames(**{'time_steps': 2, **kwargs})


def test_load_and_pack(tmp_path):
    path = tmp_path / 'a.npy'
    np.save(path, np.array([[1, 2, 10, 1], [4, 0, 20, 0]]))
    results = dict(img_path=str(path), gt_label=3, sample_idx=7)
    results = LoadEventFrames(2, 'time', [5, 3])(results)
    assert np.argwhere(results['frames']).tolist() == [[0, 1, 2, 1], [1, 0, 0, 4]]
    packed = PackEventInputs()(EventRandomFlip(1.0)(results))
    assert set(packed) == {'inputs', 'data_samples'}
    assert packed['inputs'].dtype == torch.float32
    assert packed['inputs'].nonzero().tolist() == [[0, 1, 2, 3], [1, 0, 0, 0]]
    sample = packed['data_samples']
    assert isinstance(sample, ClsDataSample)
    assert sample.gt_label.tolist() == [3]
    assert (sample.img_path, sample.sample_idx) == (str(path), 7)
    assert (sample.img_shape, sample.ori_shape, sample.flip) == ((3, 5), (3, 5), True)
    assert 'gt_label' not in PackEventInputs()(dict(frames=frames()))['data_samples']
