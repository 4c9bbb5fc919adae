import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.registry import init_default_scope

from mmsnn.datasets import DatasetError, ImageFolder, ImageNet, check_cls_dataset

LIST = 'cat/1.png 0\n\ndog/a b.png 1\n'


def write_image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), pixels)


@pytest.fixture
def root(tmp_path):
    for i, name in enumerate(['dog/a b.png', 'cat/1.png', 'cat/in/2.JPG', 'emu/x.png']):
        write_image(tmp_path / 'img' / name, i)
    (tmp_path / 'img/cat/notes.txt').write_text('')
    (tmp_path / 'img/cat/._1.png').write_text('')
    (tmp_path / 'img/.cache').mkdir()
    (tmp_path / 'img/readme.md').write_text('')
    (tmp_path / 'list.txt').write_text(LIST)
    return tmp_path


def items(dataset, start):
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    return [(str(Path(info['img_path']).relative_to(start)), info['gt_label']) for info in infos]


def message(cls=ImageFolder, **kwargs):
    with pytest.raises(DatasetError) as caught:
        cls(**{key: str(v) if isinstance(v, Path) else v for key, v in kwargs.items()})
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_folders_in_order(root):
    dataset = ImageFolder(data_root=str(root), data_prefix=dict(img='img'))
    assert dataset.metainfo['classes'] == ('cat', 'dog', 'emu')
    assert items(dataset, root / 'img') == [
        ('cat/1.png', 0),
        ('cat/in/2.JPG', 0),
        ('dog/a b.png', 1),
        ('emu/x.png', 2),
    ]
    assert dataset.get_gt_labels().tolist() == [0, 0, 1, 2]
    assert dataset.get_cat_ids(2) == [1]
    same = ImageFolder(data_root=str(root / 'img'))
    assert items(same, root / 'img') == items(dataset, root / 'img')


def test_classes_fix_the_order(root):
    dataset = ImageFolder(data_root=str(root / 'img'), metainfo=dict(classes=('emu', 'cat')))
    assert items(dataset, root / 'img') == [('emu/x.png', 0), ('cat/1.png', 1), ('cat/in/2.JPG', 1)]
    text = message(data_root=root / 'img', metainfo=dict(classes=('cat', 'cow')))
    assert f'{root / "img"} has no folder cow of the 2 classes' in text
    assert 'It has: cat, dog, emu' in text


def test_list(root):
    dataset = ImageFolder(data_root=str(root), ann_file='list.txt', data_prefix='img')
    assert items(dataset, root / 'img') == [('cat/1.png', 0), ('dog/a b.png', 1)]
    assert 'classes' not in dataset.metainfo
    init_default_scope('mmdet')
    loaded = DATASETS.build(
        dict(
            type='ImageFolder',
            data_root=str(root),
            ann_file='list.txt',
            data_prefix=dict(img='img/'),
            pipeline=[dict(type='LoadImageFromFile'), dict(type='PackClsInputs')],
        )
    )[1]
    assert loaded['inputs'].shape == (3, 20, 30)
    np.testing.assert_array_equal(
        loaded['inputs'].permute(1, 2, 0), cv2.imread(str(root / 'img/dog/a b.png'))
    )
    assert loaded['data_samples'].gt_label.tolist() == [1]


@pytest.mark.parametrize(
    ('line', 'said'),
    [
        ('cat/1.png', "line 3: 'cat/1.png' is not"),
        ('cat/1.png -1', "line 3: 'cat/1.png -1' is not"),
        ('cat/1.png 1.0', "line 3: 'cat/1.png 1.0' is not"),
        ('7', "line 3: '7' is not"),
        ('cat/1.png 2', 'line 3: cat/1.png has the label 2, but metainfo.classes has 2 classes'),
    ],
)
def test_bad_line(root, line, said):
    (root / 'list.txt').write_text(f'cat/1.png 0\n\n{line}\n')
    classes = dict(classes=('cat', 'dog'))
    text = message(data_root=root, ann_file='list.txt', data_prefix='img', metainfo=classes)
    assert f'{root / "list.txt"}, {said}' in text


def test_bad_list(root):
    (root / 'list.txt').write_text('\n')
    assert 'list.txt lists no images' in message(data_root=root, ann_file='list.txt')
    (root / 'list.txt').write_bytes(b'\xff\xd8\xff')
    assert 'list.txt cannot be read as text' in message(data_root=root, ann_file='list.txt')
    text = message(data_root=root, ann_file='gone.txt')
    assert f'annotation file {root / "gone.txt"} does not exist' in text


def test_missing_folders(root):
    assert f'data root {root / "gone"} does not exist' in message(data_root=root / 'gone')
    text = message(data_root=root, data_prefix='gone')
    assert f'image folder {root / "gone"} does not exist' in text


def test_no_class_folders(root):
    text = message(data_root=root / 'img/dog')
    assert f'{root / "img/dog"} holds images but no class folders' in text
    assert 'ann_file' in text
    (root / 'empty').mkdir()
    assert f'{root / "empty"} holds no class folders' in message(data_root=root / 'empty')


def test_class_without_images(root):
    (root / 'img/cow').mkdir()
    text = message(data_root=root / 'img')
    assert f'the class folder {root / "img/cow"} holds no images' in text
    names = ('cat', 'dog')
    ImageFolder(data_root=str(root / 'img'), metainfo=dict(classes=names))


def test_image_files(root, monkeypatch):
    dataset = ImageFolder(data_root=str(root / 'img'))
    folder, names = dataset.image_files()
    assert folder == str(root / 'img')
    assert names == ['cat/1.png', 'cat/in/2.JPG', 'dog/a b.png', 'emu/x.png']
    monkeypatch.setattr('mmsnn.datasets.image_folder.MAX_OPENED', 2)
    assert dataset.image_files() == (folder, names[::2])


def test_absolute_prefix_needs_no_data_root(root):
    dataset = ImageFolder(data_root=str(root / 'gone'), data_prefix=str(root / 'img'))
    assert len(dataset) == 4
    text = message(data_root=root / 'gone', data_prefix=str(root / 'neither'))
    assert text == f'the image folder {root / "neither"} does not exist.'


def test_what_macos_leaves_is_no_image(root):
    before = items(ImageFolder(data_root=str(root / 'img')), root)
    (root / 'img/__MACOSX/cat').mkdir(parents=True)
    for name in ('__MACOSX/cat/._1.png', 'cat/._1.png'):
        (root / 'img' / name).write_bytes(b'\0\5\x16\7')
    assert items(ImageFolder(data_root=str(root / 'img')), root) == before


def test_pipes_are_no_images(root):
    os.mkfifo(root / 'img/cat/pipe.jpg')
    with pytest.raises(DatasetError, match=r'cat/pipe.jpg \(it is no regular file\)'):
        check_cls_dataset(dict(type='ImageFolder', data_root=str(root / 'img')))
    os.mkfifo(root / 'pipe.txt')
    assert 'pipe.txt cannot be read' in message(data_root=root, ann_file='pipe.txt')


def test_paths_and_labels_that_cannot_be(root):
    (root / 'list.txt').write_text('a.jpg ' + '9' * 5000)
    assert 'list.txt, line 1' in message(data_root=root, ann_file='list.txt')
    (root / 'list.txt').write_text('a\0b.jpg 0')
    with pytest.raises(DatasetError, match='embedded null byte'):
        check_cls_dataset(dict(type='ImageFolder', data_root=str(root), ann_file='list.txt'))


def test_imagenet(tmp_path):
    write_image(tmp_path / 'train/n02/n02_1.JPEG')
    write_image(tmp_path / 'train/n01/n01_7.JPEG')
    write_image(tmp_path / 'val/n01/ILSVRC2012_val_00000001.JPEG')
    write_image(tmp_path / 'val/n02/ILSVRC2012_val_00000002.JPEG')
    train = ImageNet(data_root=str(tmp_path))
    assert items(train, tmp_path) == [('train/n01/n01_7.JPEG', 0), ('train/n02/n02_1.JPEG', 1)]
    val = ImageNet(data_root=str(tmp_path), split='val')
    assert val.metainfo['classes'] == train.metainfo['classes'] == ('n01', 'n02')
    with pytest.raises(ValueError, match="split must be train or val: got 'test'"):
        ImageNet(data_root=str(tmp_path), split='test')


def test_imagenet_with_a_flat_val(tmp_path):
    write_image(tmp_path / 'val/ILSVRC2012_val_00000001.JPEG')
    text = message(cls=ImageNet, data_root=tmp_path, split='val')
    assert 'holds images but no class folders' in text
    (tmp_path / 'meta').mkdir()
    (tmp_path / 'meta/val.txt').write_text('ILSVRC2012_val_00000001.JPEG 65\n')
    val = ImageNet(data_root=str(tmp_path), split='val', ann_file='meta/val.txt')
    assert items(val, tmp_path) == [('val/ILSVRC2012_val_00000001.JPEG', 65)]
    assert val.image_files()[1] == ['ILSVRC2012_val_00000001.JPEG']
