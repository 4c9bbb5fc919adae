# The demo's detector, trained further with weights of 2 bits, -1, 0 and 1: docs/deploy-integers.md.
_base_ = './spiking-retinanet_sg-r10_asd_fpn_digits.py'

load_from = 'mmsnn://spiking-retinanet_sg-r10_asd_fpn_digits'
max_epochs = 3
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(T_max=max_epochs, end=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
custom_hooks = [
    dict(type='NonFiniteLossHook'),
    dict(type='SpikeStatsHook', interval=50, num_images=2),
    dict(type='QuantizationAwareHook', precision='int2'),
]
