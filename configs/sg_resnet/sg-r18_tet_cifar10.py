# Cross entropy of every time step (TET) instead of the decoded output alone.
_base_ = './sg-r18_asd_cifar10.py'
model = dict(head=dict(loss=dict(type='TETLoss', label_smoothing=0.1)))
