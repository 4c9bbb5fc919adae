"""Which images are shown."""

import pytest

from mmsnn.report.gallery import choose


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
