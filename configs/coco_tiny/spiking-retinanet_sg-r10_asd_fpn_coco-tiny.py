# A narrow detector for a look at the whole chain on a small COCO-format set in a minute or two:
# MMSNN_COCO_ROOT=/path/to/coco points at the set.
_base_ = '../spiking_retinanet/spiking-retinanet_sg-r18_asd_fpn_1x_coco.py'
channels = [32, 64, 128]
model = dict(
    backbone=dict(depth=10, base_channels=16),
    neck=[
        dict(type='ASDNeck', in_channels=channels),
        dict(
            type='FPN',
            in_channels=channels,
            out_channels=32,
            add_extra_convs='on_input',
            num_outs=5,
        ),
    ],
    bbox_head=dict(in_channels=32, feat_channels=32, stacked_convs=1),
)

scale = (160, 160)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=8, num_workers=0, persistent_workers=False, dataset=dict(pipeline=train_pipeline)
)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=3)
param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=10)]
default_hooks = dict(logger=dict(interval=2))
