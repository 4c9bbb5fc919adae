# SEW ResNet-18 (Fang et al. 2021): spikes of branch and shortcut are added, behind the neurons.
_base_ = '../sg_resnet/sg-r18_asd_cifar10.py'
model = dict(
    backbone=dict(block='sew', gate_cfg=dict(type='SEWAddGate')),
    head=dict(decoder=dict(type='RateDecoder')),
)
