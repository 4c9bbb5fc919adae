import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmsnn.datasets import DatasetError, check_config_datasets
from mmsnn.datasets.checks.classes import check_trained_classes, trained_classes


def checkpoint(*classes, **meta):
    return {'state_dict': {}, 'meta': {'dataset_meta': {'classes': list(classes)}, **meta}}


def test_classes_of_a_checkpoint():
    assert trained_classes(checkpoint('a', 'b')) == ('a', 'b')
    assert trained_classes({'meta': {'dataset_meta': {'CLASSES': ('a',)}}}) == ('a',)
    assert trained_classes({'meta': {'dataset_meta': [{'classes': ('a',)}] * 2}}) == ('a',)
    for unknown in ({}, {'meta': None}, {'meta': {}}, {'meta': {'dataset_meta': {}}}):
        assert trained_classes(unknown) is None
    for odd in (None, 'abc', [], 3):
        assert trained_classes({'meta': {'dataset_meta': {'classes': odd}}}) is None


def test_other_order_than_trained():
    found = {'test_dataloader.dataset': {'classes': ('dog', 'cat')}, 'other': {'classes': None}}
    check_trained_classes(found, checkpoint('dog', 'cat'), 'a.pth')
    check_trained_classes(found, checkpoint('x', 'y', 'z'), 'a.pth')  # another architecture
    check_trained_classes(found, {'state_dict': {}}, 'a.pth')
    with pytest.raises(DatasetError) as caught:
        check_trained_classes(found, checkpoint('cat', 'dog'), 'a.pth')
    text = str(caught.value)
    assert 'test_dataloader.dataset are not those that a.pth was trained on' in text
    assert 'orders them anew' in text
    assert "metainfo=dict(classes=('cat', 'dog'))" in text
    assert '--no-data-check' in text
    with pytest.raises(DatasetError, match='has no wolf; has also dog'):
        check_trained_classes(found, checkpoint('wolf', 'cat'), 'a.pth')


def test_image_folders_in_another_order(tmp_path):
    for name in ('cat', 'dog'):
        (tmp_path / name).mkdir()
        assert cv2.imwrite(str(tmp_path / name / '1.png'), np.zeros((4, 4, 3), np.uint8))
    dataset = {'type': 'ImageFolder', 'data_root': str(tmp_path)}
    trained = checkpoint('dog', 'cat')

    def check(**kwargs):
        cfg = Config({'test_dataloader': {'dataset': {**dataset, **kwargs}}})
        check_config_datasets(cfg, ('test',), None, trained, 'a.pth')

    with pytest.raises(DatasetError, match='orders them anew'):
        check()
    check(metainfo={'classes': ('dog', 'cat')})


def test_data_that_are_not_looked_at():
    """What the config says of their classes is compared all the same."""

    def check(*classes, **dataset):
        cfg = Config({'test_dataloader': {'dataset': dataset}})
        check_config_datasets(cfg, ('test',), None, checkpoint(*classes), 'a.pth')

    check('a', 'b', type='NobodyKnows')
    check('a', 'b', type='NobodyKnows', metainfo={'classes': ('a', 'b')})
    far = {'type': 'CocoDataset', 'data_root': 's3://a', 'metainfo': {'classes': ('b', 'a')}}
    with pytest.raises(DatasetError, match='orders them anew'):
        check('a', 'b', **far)
    from mmdet.datasets import VOCDataset

    voc = VOCDataset.METAINFO['classes']
    check(*voc, type='VOCDataset')
    with pytest.raises(DatasetError, match='orders them anew'):
        check(*reversed(voc), type='VOCDataset')
