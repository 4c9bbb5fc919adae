"""Which files are images, and what is made of them is called."""

import cv2
import numpy as np
import pytest

from mmsnn.datasets.image_files import (
    UnreadableImageError,
    list_images,
    output_names,
    read_rgb,
)


def test_every_image_below_a_folder_is_listed(tmp_path):
    names = ['B.JPG', 'a.png', 'notes.txt', '._a.png', 'sub/c.PNG', 'sub/deep/d.Tiff', '.git/e.png']
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    images, others = list_images(str(tmp_path))
    listed = ['B.JPG', 'a.png', 'sub/c.PNG', 'sub/deep/d.Tiff']
    assert images == [str(tmp_path / name) for name in listed]
    assert others == [str(tmp_path / 'notes.txt')]


@pytest.mark.parametrize(
    ('paths', 'suffix', 'expected'),
    [
        (['/x/a/1.jpg', '/x/b/2.jpg'], None, ['1.jpg', '2.jpg']),
        (['/x/a/1.jpg', '/x/b/1.jpg', '/x/2.jpg'], None, ['a/1.jpg', 'b/1.jpg', '2.jpg']),
        (['/x/a/1.jpg', '/x/b/1.JPG'], None, ['a/1.jpg', 'b/1.JPG']),
        (['/x/1.jpg', '/x/2.png'], '.json', ['1.json', '2.json']),
        (['/x/1.jpg', '/x/1.png'], '.json', ['1.jpg.json', '1.png.json']),
        (['/x/a/1.jpg', '/x/b/1.jpg'], '.json', ['a/1.json', 'b/1.json']),
        (['/x/1.jpg', '/x/1.jpg'], '.json', ['1.json', '1.json']),
        (['/x/overview.jpg'], '.png', ['overview.jpg.png']),
    ],
)
def test_no_two_images_share_a_name(paths, suffix, expected):
    names = output_names(paths, suffix, taken=['overview.png'])
    assert [names[path] for path in paths] == expected


def test_unreadable(tmp_path):
    image = np.zeros((4, 5, 3), np.uint8)
    image[..., 0] = 9
    cv2.imwrite(str(tmp_path / 'x.png'), image)
    assert read_rgb(str(tmp_path / 'x.png'))[0, 0].tolist() == [0, 0, 9]
    (tmp_path / 'empty.png').touch()
    (tmp_path / 'text.jpg').write_text('no image at all')
    for name, why in (('empty.png', 'empty, 0 bytes'), ('text.jpg', 'not an'), ('no.png', 'miss')):
        with pytest.raises(UnreadableImageError, match=rf'{name} \({why}'):
            read_rgb(str(tmp_path / name))
