# The same detector as a stream: it goes on from window to window, and is trained through four of
# them at a time. Ours: no paper gives a recipe for it.
_base_ = './spiking-retinanet_sg-r18_asd_fpn_gen1.py'
windows = 100_000
stream = dict(type='StreamBatchSampler')
train_pipeline = [
    dict(
        type='LoadEventWindow',
        length=windows,
        time_steps=5,
        representation=dict(type='stacked_histogram', bins=2),
    ),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackEventDetInputs'),
]
train_dataloader = dict(
    batch_size=4,
    batch_sampler=dict(type='StreamBatchSampler', windows=4),
    dataset=dict(windows=windows, pipeline=train_pipeline),
)
val_dataloader = dict(batch_sampler=stream, dataset=dict(windows=windows))
test_dataloader = dict(batch_sampler=stream, dataset=dict(windows=windows))
custom_hooks = [
    dict(type='NonFiniteLossHook'),
    dict(type='SpikeStatsHook'),
    dict(type='StreamHook'),
]
