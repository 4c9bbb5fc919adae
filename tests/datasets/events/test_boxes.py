"""Boxes of both generations are read; broken files are named."""

import numpy as np
import pytest

from mmsnn.datasets import DatasetError
from mmsnn.datasets.events import crop_boxes, make_boxes, read_boxes

#: As the files of Gen1's first release, and those of today, have it.
OLD = [('ts', '<u8'), ('x', '<f4'), ('y', '<f4'), ('w', '<f4'), ('h', '<f4'), ('class_id', 'u1')]
OLD += [('confidence', '<f4'), ('track_id', '<u4')]
NEW = [('t', '<i8'), ('x', '<f4'), ('y', '<f4'), ('w', '<f4'), ('h', '<f4'), ('class_id', '<u4')]
NEW += [('track_id', '<u4'), ('class_confidence', '<f4')]
ROWS = [
    (300, 1.5, 2, 30, 40, 1, 0.5, 7),
    (100, 5, 6, 10, 20, 0, 1.0, 8),
    (100, 1, 1, 2, 2, 1, 1, 9),
]


def write(path, names, rows=ROWS):
    boxes = np.zeros(len(rows), names)
    for i, (t, x, y, w, h, class_id, confidence, track) in enumerate(rows):
        of_name = dict(ts=t, t=t, x=x, y=y, w=w, h=h, class_id=class_id, track_id=track)
        of_name.update(confidence=confidence, class_confidence=confidence)
        for name in boxes.dtype.names:
            boxes[name][i] = of_name[name]
    np.save(path, boxes)


@pytest.mark.parametrize('names', [OLD, NEW, np.dtype(NEW, align=True)])
def test_both_generations(tmp_path, names):
    assert np.dtype(NEW, align=True).itemsize == 40  # as Prophesee's have it
    write(tmp_path / 'a_bbox.npy', names)
    boxes = read_boxes(tmp_path / 'a_bbox.npy')
    assert boxes['t'].tolist() == [100, 100, 300]
    assert boxes['track_id'].tolist() == [8, 9, 7]  # of equal times as in the file
    assert boxes['class_id'].tolist() == [0, 1, 1]
    assert boxes['class_confidence'].tolist() == [1, 1, 0.5]
    assert [boxes[name][2] for name in 'xywh'] == [1.5, 2, 30, 40]


def test_boxes_that_cannot_be_used(tmp_path):
    path = tmp_path / 'a_bbox.npy'
    write(path, [field for field in NEW if field[0] not in ('t', 'h')])
    with pytest.raises(
        DatasetError, match=r'a_bbox\.npy has no field t or ts, h\. It has: x, y, w'
    ):
        read_boxes(path)
    write(path, NEW, [*ROWS, (400, 1, 1, -3, 2, 0, 1, 1)])
    with pytest.raises(DatasetError, match=r'box 3 has x=1\.0, y=1\.0, w=-3\.0, h=2\.0'):
        read_boxes(path)
    write(path, NEW, [(400, np.nan, 1, 3, 2, 0, 1, 1)])
    with pytest.raises(DatasetError, match=r'box 0 has x=nan'):
        read_boxes(path)
    write(path, NEW)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(DatasetError, match=r'a_bbox\.npy is truncated or broken'):
        read_boxes(path)
    path.write_bytes(b'PK' + whole)
    with pytest.raises(DatasetError, match=r'not a file of the format \.npy'):
        read_boxes(path)
    np.save(path, np.zeros((3, 8)))
    with pytest.raises(DatasetError, match=r'array of shape \(3, 8\) .*Expected: boxes with the'):
        read_boxes(path)
    with pytest.raises(DatasetError, match=r'gone_bbox\.npy cannot be read: No such file'):
        read_boxes(tmp_path / 'gone_bbox.npy')


def test_crop():
    boxes = make_boxes(4)
    boxes['x'], boxes['y'] = [-5, 300, 10, 310], [10, 230, 10, 0]
    boxes['w'], boxes['h'] = [20, 20, 30, 10], [5, 30, 30, 10]
    cut = crop_boxes(boxes, (304, 240))
    assert cut['x'].tolist() == [0, 300, 10, 304]
    assert cut['w'].tolist() == [15, 4, 30, 0]
    assert cut['h'].tolist() == [5, 10, 30, 10]
    assert boxes['x'].tolist() == [-5, 300, 10, 310]
