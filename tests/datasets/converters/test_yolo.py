"""YOLO data become COCO data box for box."""

import pytest
from foreign_formats import CLASSES, make_yolo, save_image, write_labels

from mmsnn.datasets import DatasetError
from mmsnn.datasets.converters import read_yolo
from mmsnn.datasets.converters.coco import TOO_SMALL
from mmsnn.datasets.converters.yolo import label_path

BOX = '0 0.5 0.5 0.25 0.5'


def refused(root, *args, **kwargs):
    with pytest.raises(DatasetError) as caught:
        read_yolo(root, *args, **kwargs)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def flat(root, lines=(BOX,), names='cat\ndog\n', size=(64, 48), orientation=None):
    """One image with boxes, and one without a label file."""
    save_image(root / 'images' / 'a.jpg', size, orientation)
    save_image(root / 'images' / 'b.jpg')
    if names is not None:
        (root / 'classes.txt').write_text(names)
    return write_labels(root, 'a', lines)


def found(converted, split='train'):
    """Size and boxes by image."""
    coco = converted.splits[split]
    boxes = {image['id']: [] for image in coco['images']}
    for entry in coco['annotations']:
        assert entry['iscrowd'] == 0
        assert entry['area'] == entry['bbox'][2] * entry['bbox'][3]
        boxes[entry['image_id']].append((entry['category_id'] - 1, *entry['bbox']))
    return {
        image['file_name']: (image['width'], image['height'], boxes[image['id']])
        for image in coco['images']
    }


@pytest.mark.parametrize('by', ['folder', 'file'])
def test_boxes_are_those_that_were_written(tmp_path, by):
    expected = make_yolo(tmp_path, 16)
    converted = read_yolo(tmp_path if by == 'folder' else tmp_path / 'data.yaml')
    assert list(converted.splits) == ['train', 'val']
    for split, images in expected.items():
        got = found(converted, split)
        assert got.keys() == images.keys()
        for name, (width, height, boxes) in images.items():
            assert got[name][:2] == (width, height)
            assert got[name][2] == [pytest.approx(box, abs=1e-4) for box in boxes]
        names = [category['name'] for category in converted.splits[split]['categories']]
        assert tuple(names) == CLASSES


def test_folders_without_yaml(tmp_path):
    flat(tmp_path, [BOX, '', '1 0.25 0.25 0.5 0.5'])
    converted = read_yolo(tmp_path)
    assert found(converted) == {
        'images/a.jpg': (64, 48, [(0, 24, 12, 16, 24), (1, 0, 0, 32, 24)]),
        'images/b.jpg': (64, 48, []),
    }
    assert '--val-share' in converted.notes[0]
    write_labels(tmp_path, 'b', [])
    split = read_yolo(tmp_path, val_share=0.5)
    assert sorted({**found(split), **found(split, 'val')}) == ['images/a.jpg', 'images/b.jpg']


@pytest.mark.parametrize('place', ['images/{}', '{}/images'])
def test_split_folders_without_yaml(tmp_path, place):
    (tmp_path / 'classes.txt').write_text('cat')
    for split in ('train', 'valid'):
        save_image(tmp_path / place.format(split) / '1.jpg')
        label = tmp_path / place.format(split).replace('images', 'labels') / '1.txt'
        label.parent.mkdir(parents=True)
        label.write_text(BOX)
    save_image(tmp_path / 'images' / 'loose.jpg')
    converted = read_yolo(tmp_path)
    assert list(converted.splits) == ['train', 'val']
    assert len(found(converted, 'val')) == 1
    assert converted.skipped == {'images that lie outside of the folders train, val and test': 1}
    assert '--val-share is for data without splits' in refused(tmp_path, val_share=0.5)


@pytest.mark.parametrize(
    'lines',
    [
        'path: .\ntrain: images/train\nval: [images/val]',
        'path: ../datasets/elsewhere\ntrain: images/train\nval: images/val\ntest:',
        'train: ../images/train\nval: ../images/val',  # as Roboflow writes it
        'train: train.txt\nvalidation: val.txt',
        'path: {root}\ntrain: [images/train, images/train/0.jpg.txt]\nval: images/val',
    ],
)
def test_places_of_splits(tmp_path, lines):
    expected = make_yolo(tmp_path, 8)
    for split, images in expected.items():
        (tmp_path / f'{split}.txt').write_text(''.join(f'./{image}\n' for image in images))
    (tmp_path / 'images/train/0.jpg.txt').write_text('0.jpg\n')
    lines = lines.format(root=tmp_path)
    (tmp_path / 'data.yaml').write_text(f'{lines}\nnc: 3\nnames: [cat, dog, hen]\n')
    converted = read_yolo(tmp_path)
    assert {split: set(found(converted, split)) for split in converted.splits} == {
        split: set(images) for split, images in expected.items()
    }
    twice = {'images that train lists twice': 1} if '.jpg.txt' in lines else {}
    assert converted.skipped == twice


def test_images_elsewhere(tmp_path):
    make_yolo(tmp_path / 'set')
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'pets.yaml').write_text(
        f'path: {tmp_path}/set\ntrain: images/train\nval: images/train\nnames: [cat, dog, hen]'
    )
    converted = read_yolo(tmp_path / 'mine' / 'pets.yaml')
    assert converted.root == str(tmp_path)
    assert 'set/images/train/0.jpg' in found(converted)
    assert any('6 of the 6 images of val are in train' in note for note in converted.notes)


def test_boxes_belong_to_the_turned_picture(tmp_path):
    flat(tmp_path, orientation=6)
    converted = read_yolo(tmp_path)
    assert found(converted)['images/a.jpg'] == (48, 64, [(0, 18, 16, 12, 32)])
    assert any('1 images have an EXIF orientation' in note for note in converted.notes)


def test_outlines_become_boxes(tmp_path):
    flat(tmp_path, [BOX, '1 0.25 0.5 0.5 0.25 0.75 0.5 0.5 1.0'])
    converted = read_yolo(tmp_path)
    assert found(converted)['images/a.jpg'][2] == [(0, 24, 12, 16, 24), (1, 16, 12, 32, 36)]
    assert any(note.startswith('1 outlines') for note in converted.notes)


def test_boxes_of_poses(tmp_path):
    flat(tmp_path, [f'{BOX} 0.1 0.2 2 0.3 0.4 0'], None)
    (tmp_path / 'data.yaml').write_text('train: images\nnames: [cat]\nkpt_shape: [2, 3]\n')
    converted = read_yolo(tmp_path)
    assert found(converted)['images/a.jpg'][2] == [(0, 24, 12, 16, 24)]
    assert any(note.startswith('1 poses') for note in converted.notes)
    write_labels(tmp_path, 'a', [BOX])
    assert 'a box has 10' in refused(tmp_path)


def test_what_is_left_out_is_counted(tmp_path):
    flat(tmp_path, [BOX, BOX, '0 0.5 0.5 0.01 0.5'])
    write_labels(tmp_path, 'gone', [BOX])
    (tmp_path / 'images' / 'phone.heic').write_bytes(b'?')
    converted = read_yolo(tmp_path)
    assert len(found(converted)['images/a.jpg'][2]) == 1
    assert converted.skipped == {
        TOO_SMALL: 1,
        'lines that come twice in a label file': 1,
        'label files without an image': 1,
        '.heic files, which are no images': 1,
    }


@pytest.mark.parametrize(
    ('line', 'words'),
    [
        ('0 0.5 0.5 0.25', '3 numbers follow the class'),
        (f'{BOX} 0.9', 'has it a score, as predictions have?'),
        ('0 0.1 0.1 0.2 0.2 0.3 0.3 0.4', '7 numbers follow the class'),
        ('2 0.5 0.5 0.25 0.5', 'the class is 2, but there are 2 classes'),
        ('-1 0.5 0.5 0.25 0.5', 'the class is -1'),
        ('0.5 0.5 0.5 0.25 0.5', 'the class is 0.5'),
        ('0 32 24 16 24', '32 is no share of the picture'),
        ('0 0.5 nan 0.25 0.5', 'nan is no share'),
        ('0 0.5 0.5 -0.25 0.5', '-0.25 is no share'),
        ('cat 0.5 0.5 0.25 0.5', 'not all numbers'),
        ('0,0.5,0.5,0.25,0.5', 'not all numbers'),
    ],
)
def test_bad_lines_are_named(tmp_path, line, words):
    path = flat(tmp_path, [BOX, line])
    said = refused(tmp_path)
    assert said.startswith(f'{path}:2: ')
    assert words in said


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('train: images\nnames: [cat\n', 'data.yaml:3: '),
        ('- 1', 'is no data.yaml'),
        ('names: [cat, dog]', 'has no train, val or test'),
        ('train: pictures\nnames: [cat, dog]', 'train is pictures, and there is no'),
        ('train: labels\nnames: [cat, dog]', 'train (labels) has no images'),
        ('train: 3\nnames: [cat, dog]', 'train is 3'),
        ('train: images\npath: 3\nnames: [cat, dog]', 'path is 3'),
        ('train: images', 'does not name its classes'),
        ('train: images\nnames: cat', "names is 'cat'"),
        ('train: images\nnames: []', 'names no classes'),
        ('train: images\nnames: [cat, cat]', "2 classes named 'cat'"),
        ('train: images\nnames: [yes, no]', 'the name of class 0 is True'),
        ('train: images\nnames: {1: cat, 2: dog}', 'must be 0 to 1, got 1, 2'),
        ('train: images\nnc: 3\nnames: [cat, dog]', 'nc is 3, but names has 2'),
        ('train: images\nkpt_shape: 3\nnames: [cat, dog]', 'kpt_shape is 3'),
        ('train: list.txt\nnames: [cat, dog]', 'list.txt:2: there is no'),
    ],
)
def test_bad_yaml(tmp_path, text, words):
    flat(tmp_path)
    (tmp_path / 'data.yaml').write_text(text)
    (tmp_path / 'list.txt').write_text('images/a.jpg\nimages/gone.jpg\n')
    assert words in refused(tmp_path)


def test_names_are_asked_for_and_never_replaced(tmp_path):
    flat(tmp_path, names=None)
    assert 'Name them with --classes' in refused(tmp_path)
    converted = read_yolo(tmp_path, ['cat', 'dog'])
    assert converted.splits['train']['categories'][1] == dict(id=2, name='dog')
    flat(tmp_path)
    assert 'has the classes cat, dog, and --classes says dog' in refused(tmp_path, ['dog'])
    assert read_yolo(tmp_path, ['cat', 'dog'])


def test_what_is_missing_is_named(tmp_path):
    assert 'does not exist' in refused(tmp_path / 'gone')
    assert 'has neither a data.yaml nor images' in refused(tmp_path)
    path = flat(tmp_path)
    path.rename(tmp_path / 'a.txt')
    assert f'would be {path}' in refused(tmp_path)
    (tmp_path / 'a.txt').rename(path)
    path.write_bytes(b'\xff\xfe')
    assert 'not a text in UTF-8' in refused(tmp_path)
    flat(tmp_path)
    (tmp_path / 'images' / 'b.jpg').write_bytes(b'')
    assert 'images/b.jpg (empty, 0 bytes)' in refused(tmp_path)
    (tmp_path / 'one.yaml').write_text('')
    (tmp_path / 'two.yaml').write_text('')
    assert 'several .yaml files: give one of one.yaml, two.yaml' in refused(tmp_path)
    assert 'is a file' in refused(tmp_path / 'classes.txt')


def test_label_paths():
    assert label_path('/a/images/b/images/c/1.jpg') == '/a/images/b/labels/c/1.txt'
    assert label_path('/a/obj_train_data/1.jpg') == '/a/obj_train_data/1.txt'
