# SG ResNet-19 with ASD on DVS-CIFAR10: 4 frames of 48x48, ON and OFF events as two channels.
_base_ = [
    '../_base_/models/sg-r18_asd_cifar.py',
    '../_base_/datasets/dvs_cifar10.py',
    '../_base_/schedules/dvs_100e.py',
    '../_base_/cls_runtime.py',
]
model = dict(
    data_preprocessor=dict(mean=None, std=None, bgr_to_rgb=False),
    backbone=dict(
        depth=19,
        in_channels=2,
        base_channels=128,
        num_stages=3,
        strides=(1, 2, 2),
        out_indices=(2,),
    ),
)
