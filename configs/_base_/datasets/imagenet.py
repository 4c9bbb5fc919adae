# MMSNN_IMAGENET_ROOT=/path points every ImageNet config here at your copy, with train/ and val/ in
# it. A val/ without class folders needs val_dataloader.dataset.ann_file=meta/val.txt.
dataset_type = 'ImageNet'
data_root = '{{$MMSNN_IMAGENET_ROOT:data/imagenet}}/'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', size=224),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackClsInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeShortestEdge', scale=256),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackClsInputs'),
]
# 8 GPUs x 32 images.
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='train',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='val',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='ClsMetric', topk=(1, 5))
test_evaluator = val_evaluator
