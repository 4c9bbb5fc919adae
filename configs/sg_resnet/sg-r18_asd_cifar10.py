# SG ResNet-18 with ASD on CIFAR-10, T = 4. The paper reports 94.52 % at T = 4.
_base_ = [
    '../_base_/models/sg-r18_asd_cifar.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/cifar_200e.py',
    '../_base_/cls_runtime.py',
]
