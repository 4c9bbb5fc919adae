# What benchmarks/ablation_detection.py varies: the digits' SG ResNet-18 at half its widths, on
# images of 96x96, so that a run takes minutes of a CPU core.
_base_ = '../digits/spiking-retinanet_sg-r18_asd_fpn_digits.py'
norm_cfg = dict(type='GN', num_groups=8, requires_grad=True)
model = dict(
    backbone=dict(base_channels=16),
    neck=[
        dict(type='ASDNeck', in_channels=[32, 64]),
        dict(type='FPN', in_channels=[32, 64], out_channels=32, num_outs=2, norm_cfg=norm_cfg),
    ],
    bbox_head=dict(in_channels=32, feat_channels=32, stacked_convs=1),
)

scale = (96, 96)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
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
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

max_iters = 720
train_cfg = dict(
    _delete_=True, type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=max_iters // 12),
    dict(type='CosineAnnealingLR', T_max=max_iters, begin=0, end=max_iters, by_epoch=False),
]
optim_wrapper = dict(optimizer=dict(lr=4e-3))
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=max_iters))
log_processor = dict(by_epoch=False)
custom_hooks = [dict(type='NonFiniteLossHook')]
