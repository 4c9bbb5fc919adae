# MS ResNet-18 (Hu et al. 2021): the shortcut carries membrane currents.
_base_ = '../sg_resnet/sg-r18_asd_cifar10.py'
model = dict(backbone=dict(block='ms', gate_cfg=None), head=dict(decoder=dict(type='RateDecoder')))
