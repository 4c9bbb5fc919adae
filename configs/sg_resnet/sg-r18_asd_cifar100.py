# SG ResNet-18 with ASD on CIFAR-100, T = 4. The paper reports 75.64 % at T = 4.
_base_ = [
    '../_base_/models/sg-r18_asd_cifar.py',
    '../_base_/datasets/cifar100.py',
    '../_base_/schedules/cifar_200e.py',
    '../_base_/cls_runtime.py',
]
model = dict(
    data_preprocessor=dict(mean=[129.304, 124.070, 112.434], std=[68.170, 65.392, 70.418]),
    head=dict(num_classes=100),
)
