# The demo's detector, trained further with weights of 2 bits, -1, 0 and 1: docs/deploy-integers.md.
_base_ = './spiking-retinanet_sg-r10_asd_fpn_digits.py'

load_from = 'mmsnn://spiking-retinanet_sg-r10_asd_fpn_digits'
max_epochs = 3
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        end=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
optim_wrapper = dict(optimizer=dict(lr=5e-4))
custom_hooks = [
    dict(type='NonFiniteLossHook'),
    dict(type='SpikeStatsHook', interval=50, num_images=2),
    dict(type='QuantizationAwareHook', precision='int2'),
]
