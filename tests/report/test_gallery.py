"""Which images are shown."""

import numpy as np
import pytest

from mmsnn.report.gallery import _split, attention_summary, choose


@pytest.mark.parametrize('number', range(1, 14))
@pytest.mark.parametrize('images', [1, 2, 3, 9, 10])
def test_no_image_twice(images, number):
    order = list(range(100, 100 + images))
    chosen = choose(order, number)
    indices = [i for i, _ in chosen]
    assert len(set(indices)) == len(indices) == min(images, number)
    assert indices == sorted(indices), 'from the worst to the best'
    assert chosen[0] == (100, 'worst')
    if min(images, number) >= 3:
        assert chosen[-1] == (order[-1], 'best')


def test_thirds():
    groups = [group for _, group in choose(list(range(50)), 9)]
    assert groups == ['worst'] * 3 + ['typical'] * 3 + ['best'] * 3
    assert [i for i, group in choose(list(range(50)), 9) if group == 'typical'] == [23, 24, 25]


def test_attention_inside_and_outside_of_boxes():
    """A map of 4 x 4 cells over 40 x 40 pixels; the box covers the upper left four cells."""
    values = np.zeros((4, 4), np.float32)
    values[:2, :2] = 1
    true = [dict(box=[0.0, 0.0, 20.0, 20.0])]
    assert _split(values, true, (40, 40)) == (1, 0)
    assert _split(values, [dict(box=[0.0, 0.0, 40.0, 20.0])], (40, 40)) == (0.5, 0)
    assert _split(values, [], (40, 40)) == (None, None)
    assert _split(values, [dict(box=[0.0, 0.0, 40.0, 40.0])], (40, 40)) == (0.25, None)


def test_attention_of_all_images():
    def seen(a, b, inside):
        keys = {key: [a, b] for key in ('temporal', 'channel', 'spatial')}
        return dict(attention={'neck': dict(keys, inside=inside, outside=None)})

    (row,) = attention_summary([seen(0.2, 0.6, 0.5), seen(0.3, 0.9, None), seen(0.4, 0.5, 1.0)])
    assert row['temporal'] == row['channel'] == row['spatial'] == [0.2, 0.9]
    assert row['steps'] == pytest.approx([0.3, 2 / 3])
    assert row['inside'] == 0.75
    assert row['outside'] is None
    assert attention_summary([dict(attention={})]) == []
