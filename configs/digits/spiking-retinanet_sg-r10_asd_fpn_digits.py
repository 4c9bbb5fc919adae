# The demo: a small Spiking RetinaNet that finds handwritten digits, trained on a CPU in minutes.
_base_ = [
    '../_base_/models/spiking_retinanet_sg-r18_asd_fpn.py',
    '../_base_/datasets/digits_detection.py',
    '../_base_/default_runtime.py',
]
norm_cfg = dict(type='GN', num_groups=8, requires_grad=True)
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[64.0] * 3, pad_size_divisor=16),
    backbone=dict(
        depth=10,
        stem_channels=16,
        base_channels=32,
        num_stages=3,
        strides=(1, 2, 2),
        out_indices=(1, 2),
    ),
    neck=[
        dict(type='ASDNeck', in_channels=[64, 128]),
        dict(type='FPN', in_channels=[64, 128], out_channels=64, num_outs=2, norm_cfg=norm_cfg),
    ],
    bbox_head=dict(
        num_classes=10,
        in_channels=64,
        stacked_convs=2,
        feat_channels=64,
        norm_cfg=norm_cfg,
        anchor_generator=dict(
            octave_base_scale=2, scales_per_octave=3, ratios=[1.5], strides=[8, 16]
        ),
    ),
    test_cfg=dict(nms_pre=300, max_per_img=30),
)

max_epochs = 10
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        end=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=10),
)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=1, max_keep_ckpts=2))
custom_hooks = [
    dict(type='NonFiniteLossHook'),
    dict(type='SpikeStatsHook', interval=50, num_images=2),
]
randomness = dict(seed=0)
