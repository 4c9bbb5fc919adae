# SG ResNet-18 with ASD on ImageNet, T = 4.
_base_ = [
    '../_base_/models/sg-r18_asd_imagenet.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_100e.py',
    '../_base_/cls_runtime.py',
]
