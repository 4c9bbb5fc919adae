# SG ResNet-19, the widths of STBP-tdBN's ResNet-19 with selection gates, on CIFAR-10, T = 4.
_base_ = './sg-r18_asd_cifar10.py'
model = dict(
    backbone=dict(depth=19, base_channels=128, num_stages=3, strides=(1, 2, 2), out_indices=(2,)),
)
