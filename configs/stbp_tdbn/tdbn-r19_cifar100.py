# STBP-tdBN's ResNet-19 on CIFAR-100, which that paper does not report.
_base_ = [
    '../_base_/models/tdbn-r19_cifar.py',
    '../_base_/datasets/cifar100.py',
    '../_base_/schedules/cifar_200e.py',
    '../_base_/cls_runtime.py',
]
model = dict(
    data_preprocessor=dict(mean=[129.304, 124.070, 112.434], std=[68.170, 65.392, 70.418]),
    head=dict(num_classes=100),
)
