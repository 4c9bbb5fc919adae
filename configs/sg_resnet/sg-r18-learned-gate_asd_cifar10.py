# The other representation of the gate signal: a spiking neuron on the shortcut.
_base_ = './sg-r18_asd_cifar10.py'
model = dict(backbone=dict(gate_cfg=dict(_delete_=True, type='LearnedGate')))
