"""VOC data become COCO data box for box."""

import pytest
from foreign_formats import CLASSES, make_voc, save_image, voc_object, write_list, write_voc
from mmdet.datasets import CocoDataset, VOCDataset

from mmsnn.datasets import DatasetError
from mmsnn.datasets.converters import read_voc, write_coco
from mmsnn.datasets.converters.coco import TOO_SMALL


def refused(root, *args, **kwargs):
    with pytest.raises(DatasetError) as caught:
        read_voc(root, *args, **kwargs)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def boxes(converted, split='train'):
    return [entry['bbox'] for entry in converted.splits[split]['annotations']]


def test_boxes_are_those_of_mmdetection(tmp_path):
    root = make_voc(tmp_path / 'VOC2007', 16)
    out = tmp_path / 'coco'
    write_coco(read_voc(root), out)
    crowds = 0
    for split in ('train', 'val'):
        metainfo = dict(classes=CLASSES)
        voc = VOCDataset(
            ann_file=str(root / 'ImageSets' / 'Main' / f'{split}.txt'),
            data_prefix=dict(sub_data_root=str(root)), metainfo=metainfo, test_mode=True,
        )  # fmt: skip
        coco = CocoDataset(
            data_root=str(root), ann_file=str(out / f'{split}.json'), data_prefix=dict(img=''),
            metainfo=metainfo, test_mode=True,
        )  # fmt: skip
        assert len(voc) == len(coco) == (12 if split == 'train' else 4)
        for theirs, ours in zip(voc, coco):
            assert theirs['img_path'] == ours['img_path']
            assert (theirs['width'], theirs['height']) == (ours['width'], ours['height'])
            assert len(theirs['instances']) == len(ours['instances']) > 0
            for a, b in zip(theirs['instances'], ours['instances']):
                assert (a['bbox'], a['bbox_label']) == (b['bbox'], b['bbox_label'])
                assert a['ignore_flag'] == b['ignore_flag']
                crowds += b['ignore_flag']
    assert crowds > 3


def test_pixels_counted_from_0(tmp_path):
    write_voc(tmp_path, 'a', voc_object('cat', (0, 4, 20, 30)))
    assert boxes(read_voc(tmp_path, zero_based=True)) == [[0, 4, 20, 26]]
    converted = read_voc(tmp_path)
    assert boxes(converted) == [[-1, 3, 20, 26]]
    assert any('--zero-based' in note for note in converted.notes)


def test_lists(tmp_path):
    root = make_voc(tmp_path, 8)
    names = [f'{i:06d}' for i in range(8)]
    write_list(root, 'trainval', names)
    write_list(root, 'cat_train', [f'{name}  1' for name in names])
    write_list(root, 'few', [names[3], '', names[3], names[0]])
    converted = read_voc(root)
    assert list(converted.splits) == ['train', 'val', 'trainval']
    whole = converted.splits['trainval']
    assert [image['file_name'] for image in whole['images']] == [
        f'JPEGImages/{name}.jpg' for name in names
    ]
    assert whole['categories'] == [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    few = read_voc(root, ['few'])
    assert [image['file_name'][11:17] for image in few.splits['few']['images']] == [
        '000003', '000000',
    ]  # fmt: skip
    assert few.skipped == {'names that come twice in few.txt': 1}
    assert 'ImageSets/Main has no dev.txt' in refused(root, ['dev'])
    assert '--val-share' in refused(root, val_share=0.5)


def test_images_in_two_lists_are_noted(tmp_path):
    root = make_voc(tmp_path, 8)
    write_list(root, 'test', ['000000', '000007'])
    notes = read_voc(root).notes
    assert [note for note in notes if '1 of the 2 images of test are in train' in note]


def test_without_lists(tmp_path):
    for i in range(10):
        write_voc(tmp_path, f'{i}', voc_object('cat', (1, 1, 9, 9)), suffix='.png')
    save_image(tmp_path / 'JPEGImages' / 'more.jpg')
    converted = read_voc(tmp_path)
    assert len(converted.splits['train']['images']) == 10
    assert converted.skipped == {'images without an annotation file': 1}
    assert '--val-share' in converted.notes[0]
    train, val = (
        {image['file_name'] for image in coco['images']}
        for coco in read_voc(tmp_path, val_share=0.3).splits.values()
    )
    assert (len(train), len(val), train & val) == (7, 3, set())
    assert 'leaves 0 to validate' in refused(tmp_path, val_share=0.01)
    assert 'between 0 and 1' in refused(tmp_path, val_share=2)


def test_classes_given(tmp_path):
    objects = [voc_object(name, (1, 1, 9, 9)) for name in ('hen', 'cat', 'dog', 'cat')]
    write_voc(tmp_path, 'a', ''.join(objects))
    converted = read_voc(tmp_path, classes=['hen', 'cat'])
    coco = converted.splits['train']
    assert [entry['category_id'] for entry in coco['annotations']] == [1, 2, 2]
    assert coco['categories'] == [dict(id=1, name='hen'), dict(id=2, name='cat')]
    assert converted.skipped == {"objects named 'dog', which is not in --classes": 1}
    assert 'There are: cat, dog, hen' in refused(tmp_path, classes=['Cat'])
    assert "2 classes named 'cat'" in refused(tmp_path, classes=['cat', 'cat'])


def test_boxes_that_are_left_out_are_counted(tmp_path):
    objects = voc_object('cat', (5, 5, 5, 9)) + voc_object('cat', (5, 5, 8, 9))
    write_voc(tmp_path, 'a', objects)
    write_list(tmp_path, 'train', ['a'])
    write_list(tmp_path, 'trainval', ['a'])
    converted = read_voc(tmp_path)
    assert boxes(converted) == boxes(converted, 'trainval') == [[4, 4, 3, 4]]
    assert converted.skipped == {TOO_SMALL: 1}


@pytest.mark.parametrize('said', [(48, 64), None, (0, 0)])
def test_size_is_that_of_the_turned_picture(tmp_path, said):
    write_voc(tmp_path, 'a', voc_object('cat', (1, 1, 9, 60)), (64, 48), orientation=6, said=said)
    converted = read_voc(tmp_path)
    image = converted.splits['train']['images'][0]
    assert (image['width'], image['height']) == (48, 64)
    assert any('EXIF orientation' in note for note in converted.notes)


def test_boxes_of_another_picture_are_refused(tmp_path):
    path = write_voc(tmp_path, 'a', voc_object('cat', (1, 1, 9, 9)), orientation=8)
    text = refused(tmp_path)
    assert f'{path}:3: <size> is 64x48' in text
    assert 'orientation 8: save it upright' in text
    write_voc(tmp_path, 'a', voc_object('cat', (1, 1, 9, 9)), said=(32, 24))
    assert 'is 64x48 as loaded' in refused(tmp_path)


@pytest.mark.parametrize(
    ('old', 'new', 'line', 'words'),
    [
        ('<xmin>2</xmin>', '<xmin>two</xmin>', 12, "<xmin> is 'two', not a number"),
        ('<xmin>2</xmin>', '<xmin>inf</xmin>', 12, "<xmin> is 'inf'"),
        ('<xmin>2</xmin>', '<xmin>30</xmin>', 11, '(30, 3, 20, 30) ends before it begins'),
        ('<ymax>30</ymax>', '', 11, '<bndbox> has no <ymax>'),
        ('<name>cat</name>', '', 8, 'no <name>'),
        ('bndbox>', 'box>', 8, 'no <bndbox>'),
        ('</object>', '', 18, 'no XML: mismatched tag'),
        ('<width>64', '<width>wide', 4, "<width> is 'wide'"),
        ('</annotation>', '', 19, 'no XML: no element found'),
    ],
)
def test_bad_lines_are_named(tmp_path, old, new, line, words):
    path = write_voc(tmp_path, 'a', voc_object('cat', (2, 3, 20, 30), 0))
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    said = refused(tmp_path)
    assert said.startswith(f'{path}:{line}: ')
    assert words in said


def test_what_is_missing_is_named(tmp_path):
    assert 'no folder Annotations. Give the one that has' in refused(tmp_path)
    root = make_voc(tmp_path / 'VOCdevkit' / 'VOC2012', 4)
    assert f'Give one of: {root}' in refused(tmp_path)
    write_list(root, 'val', ['000003', 'gone'])
    assert f'{root}/ImageSets/Main/val.txt:2: there is no' in refused(root)
    write_voc(root, 'gone')
    (root / 'JPEGImages' / 'gone.jpg').unlink()
    assert 'val.txt:2: ' in refused(root)
    (root / 'JPEGImages' / 'gone.jpg').write_bytes(b'')
    assert 'JPEGImages/gone.jpg (empty, 0 bytes)' in refused(root)
    save_image(root / 'JPEGImages' / 'gone.jpg')
    save_image(root / 'JPEGImages' / 'gone.bmp')
    (root / 'Annotations' / 'gone.xml').write_text('<annotation></annotation>')
    assert 'several images are called gone: gone.bmp, gone.jpg' in refused(root)
    write_list(root, 'val', [])
    assert 'val.txt lists no images' in refused(root)
