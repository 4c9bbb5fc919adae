# Ours: the abstracts give no recipe; this is a usual one for recordings of events.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100, val_interval=5)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', T_max=100, by_epoch=True, convert_to_iter_based=True),
]

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True),
    # Decay pulls a norm's scale, and with it the currents, away from the threshold.
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)

# One process of 32 images. `--auto-scale-lr` scales the learning rate to another batch size.
auto_scale_lr = dict(enable=False, base_batch_size=32)
