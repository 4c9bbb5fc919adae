"""The whole chain can learn: eight real COCO images by heart."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# RetinaNet with SG ResNet-18 as in the COCO config; from scratch it wants a norm in neck and head.
CONFIG = """
_base_ = {base!r}
norm_cfg = dict(type='GN', num_groups=32, requires_grad=True)
channels = [128, 256, 512]
model = dict(
    neck=[dict(type='ASDNeck', in_channels=channels),
          dict(type='FPN', in_channels=channels, out_channels=256, add_extra_convs='on_input',
               num_outs=5, norm_cfg=norm_cfg)],
    bbox_head=dict(norm_cfg=norm_cfg, stacked_convs=2))
load = dict(type='LoadImageFromFile')
annotations = dict(type='LoadAnnotations', with_bbox=True)
resize = dict(type='Resize', scale=(320, 320), keep_ratio=True)
pack = dict(type='PackDetInputs',
            meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
data = dict(data_root={root!r}, ann_file={annotations!r}, data_prefix=dict(img='train2017/'))
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False,
    dataset=dict(type='RepeatDataset', times={repeats}, dataset=dict(
        type='CocoDataset', filter_cfg=dict(filter_empty_gt=True),
        pipeline=[load, annotations, resize, pack], **data),
        _delete_=True))
val_dataloader = dict(
    num_workers=0, persistent_workers=False,
    dataset=dict(pipeline=[load, resize, annotations, pack], **data))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file={annotations!r})
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1, val_interval=1)
iterations = {repeats} * 4
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', T_max=iterations, begin=0, end=iterations, by_epoch=False)]
optim_wrapper = dict(
    _delete_=True, type='OptimWrapper', clip_grad=dict(max_norm=10),
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.0))
randomness = dict(seed=0)
default_hooks = dict(logger=dict(interval=10))
"""


def eight_images(root, out):
    """An annotation file of the eight images of three boxes or more whose smallest is largest."""
    data = json.loads((root / 'annotations/instances_train2017.json').read_text())
    smallest, count = {}, {}
    for annotation in data['annotations']:
        area = 0 if annotation['iscrowd'] else annotation['bbox'][2] * annotation['bbox'][3]
        image_id = annotation['image_id']
        smallest[image_id] = min(area, smallest.get(image_id, area))
        count[image_id] = count.get(image_id, 0) + 1
    ranked = sorted(smallest, key=lambda image_id: -smallest[image_id])
    chosen = [image_id for image_id in ranked if count[image_id] >= 3][:8]
    data['images'] = [image for image in data['images'] if image['id'] in chosen]
    data['annotations'] = [a for a in data['annotations'] if a['image_id'] in chosen]
    assert len(data['images']) == 8
    out.write_text(json.dumps(data))


@pytest.mark.slow
def test_eight_real_images_by_heart(coco_tiny, tool, tmp_path, capsys):
    annotations = tmp_path / 'eight.json'
    eight_images(coco_tiny, annotations)
    config = tmp_path / 'by_heart.py'
    base = 'configs/spiking_retinanet/spiking-retinanet_sg-r18_asd_fpn_1x_coco.py'
    config.write_text(
        CONFIG.format(
            base=str(ROOT / base),
            root=f'{coco_tiny}/',
            annotations=str(annotations),
            repeats=100,
        )
    )
    done = tool('train.py', config, '--work-dir', tmp_path / 'run', timeout=3600)
    tested = tool('test.py', config, tmp_path / 'run/epoch_1.pth', '--work-dir', tmp_path / 'test')
    maps = [
        float(re.findall(r'coco/bbox_mAP: ([\d.]+)', output)[-1])
        for output in (done.stdout, tested.stdout)
    ]
    with capsys.disabled():
        print(f'mAP on the same eight images: {maps[0]}')
    assert maps[0] == maps[1]
    assert maps[0] >= 0.80, maps
