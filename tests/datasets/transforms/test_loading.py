"""The loader names pictures that are broken, and loads all others as mmcv does."""

import os

import cv2
import mmcv.transforms
import numpy as np
import pytest
from mmdet.registry import TRANSFORMS

from mmsnn.datasets.checks.images import find_loader, image_problem
from mmsnn.datasets.transforms import LoadImageFromFile, loading


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    path = tmp_path / 'whole.jpg'
    cv2.imwrite(str(path), cv2.GaussianBlur(pixels, (5, 5), 2))
    return path


def break_it(path, how):
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    if how == 'cut':
        del data[middle : middle + 500]
    elif how == 'zeros':
        data[middle : middle + 500] = bytes(500)
    else:
        data[middle : middle + 500] = b'\xff' * 500
    broken = path.with_name(f'{how}.jpg')
    broken.write_bytes(data)
    return broken


@pytest.fixture
def warned(monkeypatch):
    lines = []
    monkeypatch.setattr(loading, 'print_log', lambda message, **_: lines.append(message))
    return lines


def test_configs_get_it():
    loader = TRANSFORMS.build(dict(type='LoadImageFromFile', color_type='unchanged'))
    assert type(loader) is LoadImageFromFile
    for kind in ('LoadImageFromFile', 'mmcv.LoadImageFromFile', mmcv.transforms.LoadImageFromFile):
        assert find_loader([dict(type=kind)]) is not None


@pytest.mark.parametrize('how', ['cut', 'zeros', 'ones'])
def test_broken_in_the_middle(picture, how, warned, capfd):
    """Start and end are whole, so the check of headers can't see it; the decoder does."""
    broken = break_it(picture, how)
    assert image_problem(str(broken)) is None
    loader = LoadImageFromFile()
    for _ in range(2):
        found = loader(dict(img_path=str(broken)))['img']
        assert np.array_equal(found, cv2.imread(str(broken)))
    (line,) = warned
    assert str(broken) in line
    assert 'broken in the middle' in line
    # OpenCV's own words came twice, from cv2.imread, and not from the loader.
    assert capfd.readouterr().err.count('Corrupt JPEG data') == 2


def test_others_are_as_they_were(picture, warned, capfd):
    found, theirs = (
        cls()(dict(img_path=str(picture)))
        for cls in (LoadImageFromFile, mmcv.transforms.LoadImageFromFile)
    )
    assert np.array_equal(found.pop('img'), theirs.pop('img'))
    assert found == theirs
    assert warned == []


def test_what_others_print_stays(capfd):
    with loading._decoder_words() as words:
        os.write(2, b'libpng warning: iCCP: known incorrect sRGB profile\nsomething else\n')
    assert words == ['libpng warning: iCCP: known incorrect sRGB profile']
    assert capfd.readouterr().err == 'something else\n'


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_a_picture_that_cannot_be_decoded(picture, backend):
    picture.write_bytes(picture.read_bytes()[:60])
    options = dict(imdecode_backend=backend)
    with pytest.raises((OSError, AssertionError), match=f'failed to load image: {picture}'):
        LoadImageFromFile(**options)(dict(img_path=str(picture)))
    assert LoadImageFromFile(ignore_empty=True, imdecode_backend='pillow')(
        dict(img_path=str(picture))
    ) is None  # fmt: skip
    with pytest.raises(FileNotFoundError, match='no_such'):
        LoadImageFromFile()(dict(img_path='no_such.jpg'))
