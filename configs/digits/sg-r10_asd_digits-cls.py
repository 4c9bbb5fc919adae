# Handwritten digits of 16x16 pixels, learnt by a small SG ResNet in less than two minutes of a CPU.
_base_ = [
    '../_base_/models/sg-r18_asd_cifar.py',
    '../_base_/datasets/digits_cls.py',
    '../_base_/cls_runtime.py',
]
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[64.0] * 3),
    backbone=dict(depth=10, base_channels=16, num_stages=3, strides=(1, 2, 2), out_indices=(2,)),
    head=dict(in_channels=64),
)

train_dataloader = dict(batch_size=32)

max_epochs = 15
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=3)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
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
    optimizer=dict(type='AdamW', lr=4e-3, weight_decay=0.05, fused=True),
)
default_hooks = dict(logger=dict(interval=10))
randomness = dict(seed=0)
