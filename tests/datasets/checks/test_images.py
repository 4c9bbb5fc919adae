import os
import struct
import zlib

import cv2
import mmcv
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from PIL import Image, UnidentifiedImageError

from mmsnn.datasets import DatasetError, check_cls_dataset, check_coco_dataset
from mmsnn.datasets.checks import images
from mmsnn.datasets.checks.images import (
    Loader,
    Picture,
    check_image_files,
    find_loader,
    look_at_image,
    look_at_images,
)

PIXELS = np.random.default_rng(0).integers(0, 255, (24, 40, 3), dtype=np.uint8)
RGB = Image.fromarray(PIXELS)


def save(path, image=RGB, orientation=None, **kwargs):
    if orientation is not None:
        kwargs['exif'] = Image.Exif()
        kwargs['exif'][0x112] = orientation
    image.save(path, **kwargs)
    return str(path)


def as_loaded(path, loader):
    with open(path, 'rb') as file:
        content = file.read()
    return mmcv.imfrombytes(content, loader.color_type, backend=loader.backend).shape[1::-1]


# --- formats -------------------------------------------------------------------------------------


FORMATS = {
    'cmyk.jpg': RGB.convert('CMYK'),
    'grey.jpg': RGB.convert('L'),
    '16-bit.png': Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 256),
    '16-bit.tif': Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 256),
    'palette.png': RGB.convert('P'),
    'alpha.png': RGB.convert('RGBA'),
    'bilevel.png': RGB.convert('1'),
    'a.bmp': RGB,
    'a.webp': RGB,
    'a.ppm': RGB,
    'Überfall 画像.jpg': RGB,
}


@pytest.mark.parametrize('name', FORMATS)
def test_what_the_run_can_read(tmp_path, name):
    path = save(tmp_path / name, FORMATS[name])
    assert as_loaded(path, Loader()) == (40, 24)
    assert look_at_image(path, Loader()) == Picture(40, 24, 1)


def test_gif_is_as_good_as_the_decoder(tmp_path):
    path = save(tmp_path / 'a.gif', RGB.convert('P'))
    assert look_at_image(path, Loader(backend='pillow')) == Picture(40, 24, 1)
    readable = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) is not None
    found = look_at_image(path, Loader())
    assert found == (Picture(40, 24, 1) if readable else 'not an image that cv2 can read')


def test_what_only_the_loader_can_read(tmp_path):
    """A format that Pillow does not know, and OpenCV does."""
    assert cv2.imwrite(str(tmp_path / 'a.hdr'), PIXELS.astype(np.float32))
    (tmp_path / 'a.hdr').rename(tmp_path / 'a.png')
    with pytest.raises(UnidentifiedImageError):
        Image.open(tmp_path / 'a.png')
    assert look_at_image(str(tmp_path / 'a.png'), Loader()) == Picture(40, 24, 1)


def test_more_pixels_than_pillow_allows(tmp_path, monkeypatch):
    tiff, png = save(tmp_path / 'a.tif'), save(tmp_path / 'a.png')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    for path in (tiff, png):
        assert look_at_image(path, Loader()) == Picture(40, 24, 1)
    assert 'too large for Pillow' in look_at_image(tiff, Loader(backend='pillow'))


def test_broken_in_the_middle(tmp_path):
    path = tmp_path / 'a.jpg'
    save(path)
    content = bytearray(path.read_bytes())
    content[20:-10] = bytes(len(content) - 30)
    path.write_bytes(content)
    assert look_at_image(str(path), Loader()) == 'not an image that cv2 can read'


# --- orientation ---------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['a.jpg', 'a.png'])
@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize(
    'loader',
    [
        Loader(),
        Loader('grayscale'),
        Loader('unchanged'),
        Loader('color_ignore_orientation'),
        Loader(backend='pillow'),
        Loader('unchanged', 'pillow'),
    ],
)
def test_size_is_that_of_the_loaded_picture(tmp_path, name, orientation, loader):
    path = save(tmp_path / name, orientation=orientation)
    assert look_at_image(path, loader)[:2] == as_loaded(path, loader)


def coco(root, orientation=None, side='stored', count=4, size=(40, 24)):
    """Pictures with an orientation, and the config of a data set of them."""
    (root / 'img').mkdir()
    names = [f'{i}.jpg' for i in range(count)]
    for name in names:
        save(root / 'img' / name, RGB.resize(size), orientation)
    width, height = size if side == 'stored' else size[::-1]
    entries = [
        {'id': i, 'file_name': name, 'width': width, 'height': height}
        for i, name in enumerate(names)
    ]
    box = {'category_id': 1, 'bbox': [2, 2, 10, 10], 'area': 100, 'iscrowd': 0}
    boxes = [{**box, 'id': i + 1, 'image_id': i} for i in range(count)]
    file = {
        'images': entries,
        'annotations': boxes,
        'categories': [{'id': 1, 'name': 'cat'}],
    }
    config = {
        'type': 'CocoDataset',
        'ann_file': 'ann.json',
        'data_root': str(root),
        'data_prefix': {'img': 'img'},
        'metainfo': {'classes': ('cat',)},
    }

    def check(**kwargs):
        found = check_coco_dataset({**config, **kwargs}, read=lambda path: file)
        return found['warnings']

    (root / 'ann.json').touch()
    return file, check


def test_entries_of_pictures_as_stored(tmp_path):
    _, check = coco(tmp_path, orientation=6)
    with pytest.raises(DatasetError) as caught:
        check()
    text = str(caught.value)
    assert '4 of the 4 images' in text
    assert '0.jpg is 24x40 as loaded, its entry says 40x24 (EXIF orientation 6)' in text
    assert 'color_ignore_orientation' in text
    loader = {'type': 'LoadImageFromFile', 'color_type': 'color_ignore_orientation'}
    assert check(pipeline=[loader]) == []


def test_entries_of_pictures_as_turned(tmp_path):
    _, check = coco(tmp_path, orientation=8, side='turned')
    assert check() == []
    with pytest.raises(DatasetError, match=r'0\.jpg is 40x24 as loaded, its entry says 24x40'):
        check(pipeline=[{'type': 'LoadImageFromFile', 'color_type': 'unchanged'}])


def test_orientation_that_the_size_does_not_tell(tmp_path):
    _, check = coco(tmp_path, orientation=3)
    (text,) = check()
    assert '4 of the 4 images' in text
    assert 'EXIF orientation' in text


def test_size_of_another_picture(tmp_path):
    file, check = coco(tmp_path, count=150)
    file['images'][7].update(width=80, height=48)
    (text,) = check()
    assert '1 of the 150 images' in text
    assert '7.jpg is 40x24 as loaded, its entry says 80x48. Correct width and height' in text
    for entry in file['images'][:2]:
        entry.update(width=80, height=48)
    with pytest.raises(DatasetError, match='3 of the 150 images'):
        check()


def test_a_pixel_more_is_no_other_size(tmp_path):
    file, check = coco(tmp_path)
    for entry in file['images']:
        entry.update(width=41, height=23.4)
    assert check() == []


# --- loaders -------------------------------------------------------------------------------------


class OwnLoader(LoadImageFromFile):
    """Reads what it likes."""


def test_find_loader():
    assert find_loader(None) == find_loader([]) == Loader()
    load = {'type': 'LoadImageFromFile', 'color_type': 'grayscale', 'imdecode_backend': 'pillow'}
    assert find_loader([{'type': 'X'}, load]) == Loader('grayscale', 'pillow')
    assert find_loader([{'type': LoadImageFromFile, 'imdecode_backend': None}]) == Loader()
    assert find_loader([{'type': OwnLoader}]) is None
    assert find_loader([{'type': 'NobodyKnows'}]) is None


def test_own_loader_reads_what_it_likes(tmp_path):
    np.save(tmp_path / 'a.npy', PIXELS)
    arguments = (['a.npy', 'gone.npy'], str(tmp_path), None, '', 'Fetch them')
    good, (warning,) = check_image_files(*arguments)
    assert good == {}
    assert '1 of the 2 images cannot be used' in warning
    assert 'gone.npy (missing)' in warning
    with pytest.raises(DatasetError, match=r'2 of the 2 images .* Fetch them$'):
        check_image_files(*arguments[:2], Loader(), *arguments[3:])


def test_own_loader_of_a_classifier(tmp_path):
    for name in ('cat', 'dog'):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / 'a.npy', PIXELS)
    dataset = {'type': 'ImageFolder', 'data_root': str(tmp_path), 'extensions': ['.npy']}
    own = [{'type': OwnLoader}]
    assert check_cls_dataset({**dataset, 'pipeline': own})['images'] == 2
    with pytest.raises(DatasetError, match=r'2 of the 2 images .* cat/a.npy \(not an image'):
        check_cls_dataset(dataset)


def test_ignore_empty_passes_over_what_is_missing(tmp_path):
    _, check = coco(tmp_path)
    (tmp_path / 'img/1.jpg').unlink()
    pipeline = [{'type': 'LoadImageFromFile', 'ignore_empty': True}]
    (text,) = check(pipeline=pipeline)
    assert '1 of the 4 images' in text
    with pytest.raises(DatasetError, match=r'1\.jpg'):  # MMDetection refuses it in tests
        check(pipeline=pipeline, test_mode=True)


# --- the cache -----------------------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch):
    """Names of the files that are opened."""
    names, look = [], images.look_at_image

    def spy(path, loader):
        names.append(os.path.basename(path))
        return look(path, loader)

    monkeypatch.setattr(images, 'look_at_image', spy)
    return names


def test_second_time_opens_only_what_changed(tmp_path, opened):
    names = [f'{i}.png' for i in range(5)]
    for name in names:
        save(tmp_path / name)
    (tmp_path / '4.png').write_bytes(b'')
    first = look_at_images(names, str(tmp_path), Loader())
    assert sorted(opened) == names
    opened.clear()
    assert look_at_images(names, str(tmp_path), Loader()) == first
    assert opened == ['4.png']  # what was bad is looked at again
    save(tmp_path / '1.png', RGB.resize((8, 6)))
    os.utime(tmp_path / '2.png', ns=(1, 1))
    opened.clear()
    second = look_at_images(names, str(tmp_path), Loader())
    assert sorted(opened) == ['1.png', '2.png', '4.png']
    assert second == {**first, '1.png': Picture(8, 6, 1)}
    opened.clear()
    look_at_images(names[:1], str(tmp_path), Loader('unchanged'))  # may see it otherwise
    assert opened == ['0.png']


@pytest.mark.parametrize('damage', [b'', b'[]', b'{"0.png": [1]}', b'{"0.png": 1}', b'\xff'])
def test_broken_cache_is_written_anew(tmp_path, opened, image_cache, damage):
    save(tmp_path / '0.png')
    for _ in range(2):
        assert look_at_images(['0.png'], str(tmp_path), Loader()) == {'0.png': Picture(40, 24, 1)}
    assert opened == ['0.png']
    (cache,) = (image_cache / 'images').iterdir()
    good = cache.read_bytes()
    cache.write_bytes(damage)
    assert look_at_images(['0.png'], str(tmp_path), Loader()) == {'0.png': Picture(40, 24, 1)}
    assert cache.read_bytes() == good


def test_without_a_cache(tmp_path, opened, image_cache):
    (image_cache / 'images').write_text('a file where the folder should be')
    save(tmp_path / '0.png')
    for _ in range(2):
        assert look_at_images(['0.png'], str(tmp_path), Loader()) == {'0.png': Picture(40, 24, 1)}
    assert opened == ['0.png'] * 2


def test_png_cut_at_a_chunk(tmp_path):
    """Without its end, a PNG is decoded to see whether the pixels are there."""
    path = tmp_path / 'a.png'
    save(path)
    content = path.read_bytes()
    body = zlib.compress(b'')
    bad = content[:33] + struct.pack('>I', len(body)) + b'IDAT' + body
    path.write_bytes(bad)
    assert look_at_image(str(path), Loader()) == 'truncated'
