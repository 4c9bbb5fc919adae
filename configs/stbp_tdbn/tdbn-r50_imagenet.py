# STBP-tdBN's ResNet-50 on ImageNet.
_base_ = './tdbn-r34_imagenet.py'
model = dict(backbone=dict(depth=50), head=dict(in_channels=2048))
