# STBP-tdBN's ResNet-19 on CIFAR-10. The paper reports 93.15 %.
_base_ = [
    '../_base_/models/tdbn-r19_cifar.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/cifar_200e.py',
    '../_base_/cls_runtime.py',
]
