# The demo of event cameras: a small Spiking RetinaNet that finds moving digits, trained on a CPU in
# minutes.
_base_ = [
    '../_base_/models/spiking_retinanet_sg-r10_asd_fpn_digits.py',
    '../_base_/datasets/digits_events.py',
    '../_base_/schedules/digits_10e.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(_delete_=True, type='EventDetDataPreprocessor', pad_size_divisor=16),
    backbone=dict(in_channels=4, time_steps=2),
)
max_epochs = 4
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(T_max=max_epochs, end=max_epochs)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=1, max_keep_ckpts=2))
custom_hooks = [
    dict(type='NonFiniteLossHook'),
    dict(type='SpikeStatsHook', interval=50, num_images=2),
]
