# The same for 148 photos of raccoons, on images of at most 160x160: MMSNN_RACCOON_ROOT points at
# the set (datitran/raccoon_dataset as COCO json: annotations/train.json, annotations/val.json,
# images/).
_base_ = './spiking-retinanet_sg-r18_asd_fpn_digits-96.py'
norm_cfg = dict(type='GN', num_groups=8, requires_grad=True)
channels = [32, 64, 128]
model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(num_stages=4, strides=(1, 2, 2, 2), out_indices=(1, 2, 3)),
    neck=[
        dict(type='ASDNeck', in_channels=channels),
        dict(type='FPN', in_channels=channels, out_channels=32, num_outs=3, norm_cfg=norm_cfg),
    ],
    bbox_head=dict(
        num_classes=1,
        anchor_generator=dict(octave_base_scale=3, ratios=[0.5, 1.0, 2.0], strides=[8, 16, 32]),
    ),
)

dataset = dict(
    data_root='{{$MMSNN_RACCOON_ROOT:data/raccoon}}/',
    metainfo=dict(classes=('raccoon',)),
    data_prefix=dict(img='images/'),
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
    dataset=dict(ann_file='annotations/train.json', pipeline=train_pipeline, **dataset)
)
val_dataloader = dict(
    dataset=dict(ann_file='annotations/val.json', pipeline=test_pipeline, **dataset)
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='{{$MMSNN_RACCOON_ROOT:data/raccoon}}/annotations/val.json')
test_evaluator = val_evaluator
