# The ANN twin: the same widths and depth, ReLU instead of spikes, no time.
_base_ = '../sg_resnet/sg-r18_asd_cifar10.py'
model = dict(
    backbone=dict(_delete_=True, type='ResNetCIFAR', depth=18, out_indices=(3,)),
    head=dict(decoder=None),
)
