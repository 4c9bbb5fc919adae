import copy
import json
import logging

import pytest
from mmengine.config import Config
from PIL import Image

from mmsnn.datasets import DatasetError, check_config_datasets

CLASSES = ('cat', 'dog')


@pytest.fixture
def said(monkeypatch):
    """Warnings, a line each."""
    lines = []

    def note(text, logger, level):
        assert (logger, level) == ('current', logging.WARNING)
        assert '\n' not in text
        lines.append(text)

    monkeypatch.setattr('mmsnn.datasets.checks.config.print_log', note)
    return lines


class Val:
    """A validation set of three images, and others beside it."""

    def __init__(self, root):
        self.root = root
        self.dataset = self.add('val', [1, 2, 3])
        self.metric = {'type': 'CocoMetric', 'ann_file': str(root / 'val.json')}

    def add(self, name, ids, prefix='', change=None):
        (self.root / name).mkdir(exist_ok=True)
        coco = {
            'images': [
                {'id': i, 'file_name': f'{prefix}{i}.png', 'width': 40, 'height': 24} for i in ids
            ],
            'annotations': [
                {
                    'id': k + 1,
                    'image_id': i,
                    'category_id': 1 + k % 2,
                    'bbox': [2, 2, 10, 10],
                    'area': 100,
                    'iscrowd': 0,
                }
                for k, i in enumerate(ids)
            ],
            'categories': [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'dog'}],
        }
        for image in coco['images']:
            Image.new('RGB', (40, 24)).save(self.root / name / image['file_name'])
        if change is not None:
            change(coco)
        (self.root / f'{name}.json').write_text(json.dumps(coco))
        return {
            'type': 'CocoDataset',
            'data_root': str(self.root),
            'ann_file': f'{name}.json',
            'data_prefix': {'img': name},
            'metainfo': {'classes': CLASSES},
            'test_mode': True,
        }

    def check(self, *metrics, dataset=None, split='val', **kwargs):
        metric = {**self.metric, **kwargs}
        evaluator = list(metrics) or metric
        cfg = {
            f'{split}_dataloader': {'dataset': copy.deepcopy(dataset or self.dataset)},
            f'{split}_evaluator': evaluator,
        }
        return check_config_datasets(Config(cfg), (split,))

    def message(self, *args, **kwargs):
        with pytest.raises(DatasetError) as caught:
            self.check(*args, **kwargs)
        assert '\n' not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def val(tmp_path):
    return Val(tmp_path)


def file_of(val, name):
    return str(val.root / f'{name}.json')


def test_good(val, said):
    val.check()
    val.check(
        {'type': 'mmdet.CocoMetric', 'ann_file': file_of(val, 'val')}, {'type': 'DumpResults'}
    )
    val.check({'type': 'CocoMetric'})
    val.check(split='test')
    assert said == []


def test_missing_file(val):
    text = val.message(ann_file=file_of(val, 'gone'))
    assert text.startswith(f'val_evaluator.ann_file {file_of(val, "gone")} does not exist')
    text = val.message({'type': 'Speed'}, {'type': 'CocoMetric', 'ann_file': 'gone.json'})
    assert text.startswith('val_evaluator.1.ann_file gone.json does not exist')
    val.check(ann_file='s3://bucket/a.json')
    val.check(ann_file='gone.json', backend_args={'backend': 'petrel'})


def test_masks(val, said):
    text = val.message(metric=['bbox', 'segm'])
    assert 'has no segmentation, which val_evaluator asks for by metric' in text
    val.check(metric='bbox')
    val.check(metric='segm', format_only=True)

    def change(coco):
        for entry in coco['annotations']:
            entry['segmentation'] = [[2, 2, 12, 2, 12, 12]]
        coco['annotations'][0]['segmentation'] = {'size': [24, 40], 'counts': 'PPYo1'}

    val.add('masks', [1, 2, 3], change=change)
    val.check(metric='segm', ann_file=file_of(val, 'masks'))
    assert said == []


@pytest.mark.parametrize(
    ('model', 'warns'),
    [
        (dict(type='RetinaNet', bbox_head=dict(type='RetinaHead')), True),
        (dict(type='MaskRCNN', roi_head=dict(mask_head=dict(type='FCNMaskHead'))), False),
        (dict(type='RTMDet', bbox_head=dict(type='RTMDetInsSepBNHead')), False),
        (dict(type='MyNet'), False),
    ],
)
def test_models_without_masks(val, said, model, warns):
    evaluator = {'type': 'CocoMetric', 'metric': ['bbox', 'segm']}
    cfg = dict(val_dataloader=dict(dataset=val.dataset), val_evaluator=evaluator, model=model)
    check_config_datasets(Config(cfg), ('val',))
    assert ['no part of the model seems to find masks' in line for line in said] == [True] * warns


def test_other_images(val):
    for name, ids, prefix, what in (
        ('fewer', [1, 2], '', '1 of its 3 image ids are not in it (3)'),
        ('none', [7, 8, 9], '', '3 of its 3 image ids are not in it (1)'),
        ('texts', ['1', '2', '3'], '', '3 of its 3 image ids are not in it (1)'),
        ('more', [1, 2, 3, 4], '', '1 more images have boxes there, which would count as missed'),
        ('others', [1, 2, 3], 'x', 'the image of id 1 is x1.png there and 1 here'),
    ):
        val.add(name, ids, prefix)
        text = val.message(ann_file=file_of(val, name))
        assert text.startswith(f'val_evaluator.ann_file {file_of(val, name)} is not of the images')
        assert what in text, name
        assert text.endswith(f'Set it to {file_of(val, "val")}')


def test_same_images_by_another_name(val, said):
    def change(coco):
        coco['annotations'] = coco['annotations'][:3]  # image 4 has no boxes
        for image in coco['images']:
            image['file_name'] = f'val2017/{image["id"]}.jpg'

    val.add('copy', [1, 2, 3, 4], change=change)
    val.check(ann_file=file_of(val, 'copy'))
    assert said == []


def test_images_left_out_on_purpose(val, said):
    val.check(dataset={**val.dataset, 'indices': 1})
    (text,) = said
    assert 'leaves out 2 images' in text
    assert 'mAP will be too low' in text


def test_concat(val):
    other = val.add('other', [4, 5])
    both = {'type': 'ConcatDataset', 'datasets': [val.dataset, other]}
    text = val.message(dataset=both)
    assert '2 of its 5 image ids are not in it (4)' in text
    assert f'the images of all of {file_of(val, "val")}, {file_of(val, "other")}' in text
    val.add('all', [1, 2, 3, 4, 5])
    val.check(dataset=both, ann_file=file_of(val, 'all'))
    val.check({'type': 'CocoMetric'}, dataset=both)

    own = {**val.metric, 'ann_file': file_of(val, 'other')}
    several = {'type': 'MultiDatasetsEvaluator', 'dataset_prefixes': ['a', 'b']}
    cfg = {
        'val_dataloader': {'dataset': both},
        'val_evaluator': {**several, 'metrics': [val.metric, own]},
    }
    check_config_datasets(Config(cfg), ('val',))
    cfg['val_evaluator']['metrics'].reverse()
    with pytest.raises(DatasetError, match=r'^val_evaluator.metrics.0.ann_file .* is not of'):
        check_config_datasets(Config(cfg), ('val',))


def test_images_that_come_twice(val):
    again = {'type': 'ConcatDataset', 'datasets': [val.dataset, val.dataset]}
    for metric in (val.metric, {'type': 'CocoMetric'}):
        assert 'both have an image of the id 1' in val.message(metric, dataset=again)
    repeated = {'type': 'RepeatDataset', 'times': 3, 'dataset': val.dataset}
    assert 'gives every image 3 times' in val.message(dataset=repeated)
    val.check(dataset={**repeated, 'times': 1})


def test_order_of_classes(val):
    val.add('swapped', [1, 2, 3], change=lambda coco: coco['categories'].reverse())
    text = val.message(ann_file=file_of(val, 'swapped'))
    assert f'val_evaluator: {file_of(val, "swapped")} lists its categories in another order' in text
    val.check(ann_file=file_of(val, 'swapped'), sort_categories=True)
    text = val.message(ann_file=file_of(val, 'swapped'), format_only=True, outfile_prefix='a')
    assert 'in another order' in text
    val.add('renamed', [1, 2, 3], change=lambda coco: coco['categories'][1].update(name='wolf'))
    assert 'no category named dog' in val.message(ann_file=file_of(val, 'renamed'))


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (lambda c: c['annotations'][1].update(id=0), 'cannot use the id 0: of 0'),
        (lambda c: c['annotations'][1].update(id='0'), "cannot use the id '0'"),
        (lambda c: c['annotations'][1].update(id='a1'), "cannot use the id 'a1'"),
        (lambda c: c['annotations'][1].pop('iscrowd'), "has no 'iscrowd'"),
        (lambda c: c['annotations'][1].update(iscrowd=None), 'has iscrowd=None'),
        (lambda c: [a.update(iscrowd=1) for a in c['annotations']], 'keeps 0 of 3 boxes'),
        (lambda c: [a.update(area=0) for a in c['annotations']], 'keeps 0 of 3 boxes'),
        (lambda c: c['annotations'].clear(), 'no boxes of the classes to evaluate on'),
    ],
)
def test_entries_that_are_scored(val, change, said):
    dataset = val.add('bad', [1, 2, 3], change=change)
    assert said in val.message(ann_file=file_of(val, 'bad'), dataset=dataset)


def test_id_0_is_good_enough_where_no_file_is_scored(val):
    dataset = val.add('zero', [1, 2, 3], change=lambda c: c['annotations'][0].update(id=0))
    val.check({'type': 'CocoMetric'}, dataset=dataset)
    val.check({'type': 'VOCMetric'}, dataset=dataset)


def test_file_without_boxes_to_score(val):
    val.add('crowds', [1, 2, 3], change=lambda c: [a.update(iscrowd=1) for a in c['annotations']])
    text = val.message(ann_file=file_of(val, 'crowds'))
    assert 'has no box to evaluate on (3 are crowds' in text
    assert 'mAP will be -1.000' in text


def test_ids_of_mixed_types(val):
    def change(coco):
        coco['images'][0]['id'] = coco['annotations'][0]['image_id'] = 'one'

    dataset = val.add('mixed', [1, 2, 3], change=change)
    for metric in ({**val.metric, 'ann_file': file_of(val, 'mixed')}, {'type': 'CocoMetric'}):
        assert 'some image ids are numbers' in val.message(metric, dataset=dataset)

    def change_category(coco):
        coco['categories'][0]['id'] = coco['annotations'][0]['category_id'] = 'c'
        coco['annotations'][2]['category_id'] = 'c'

    dataset = val.add('cats', [1, 2, 3], change=change_category)
    text = val.message(ann_file=file_of(val, 'cats'), dataset=dataset)
    assert 'some category ids are numbers' in text


def test_test_set_without_annotations(val, said):
    dataset = val.add('test', [1, 2, 3], change=lambda coco: coco.pop('annotations'))
    own = {'ann_file': file_of(val, 'test'), 'dataset': dataset, 'split': 'test'}
    val.check(format_only=True, outfile_prefix='results', **own)
    assert said == []
    val.check(**own)  # for pictures and predictions
    assert len(said) == 1
    assert 'mAP will be -1.000' in said[0]
    assert "'annotations' is missing" in val.message(**{**own, 'split': 'val'})


def test_other_metrics_are_not_judged(val):
    for kind in ('LVISMetric', 'NobodyKnows', None):
        val.check({'type': kind, 'ann_file': file_of(val, 'val')})


# --- what the rules rest on ----------------------------------------------------------------------


def average_precision(image=lambda i: i, annotation=lambda k: k + 1, classes=('cat', 'dog')):
    """mAP of perfect predictions."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    api = COCO()
    api.dataset = {
        'images': [{'id': image(i)} for i in range(1, 5)],
        'annotations': [
            {
                'id': annotation(k),
                'image_id': image(1 + k // 2),
                'category_id': 1 + k % 2,
                'bbox': [10 + 40 * (k % 2), 10, 30, 30],
                'area': 900,
                'iscrowd': 0,
            }
            for k in range(8)
        ],
        'categories': [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'dog'}],
    }
    api.createIndex()
    keys = ('image_id', 'category_id', 'bbox')
    found = [{**{k: a[k] for k in keys}, 'score': 0.9} for a in api.dataset['annotations']]
    scoring = COCOeval(api, api.loadRes(found), 'bbox')
    scoring.evaluate()
    scoring.accumulate()
    scoring.summarize()
    return scoring.stats[0]


def test_what_coco_makes_of_ids():
    assert average_precision() == pytest.approx(1)
    assert average_precision(image=lambda i: f'i{i}') == pytest.approx(1)
    assert average_precision(annotation=lambda k: k) < 0.9  # one box counts as missed
    with pytest.raises(ValueError, match='could not convert'):
        average_precision(annotation=lambda k: f'a{k}')
    with pytest.raises(TypeError, match='not supported between'):
        average_precision(image=lambda i: f'i{i}' if i % 2 else i)
