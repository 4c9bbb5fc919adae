# Plain spiking ResNet-18: currents are added in front of the last neuron.
_base_ = '../sg_resnet/sg-r18_asd_cifar10.py'
model = dict(
    backbone=dict(block='plain', gate_cfg=None), head=dict(decoder=dict(type='RateDecoder'))
)
