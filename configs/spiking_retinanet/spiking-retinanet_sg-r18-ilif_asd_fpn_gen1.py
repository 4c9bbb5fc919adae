# One pass instead of five: neurons give whole numbers of up to four spikes, and the five steps of
# the frames become channels.
_base_ = './spiking-retinanet_sg-r18_asd_fpn_gen1.py'
load = dict(
    type='LoadEventWindow',
    length=100_000,
    time_steps=1,
    representation=dict(type='stacked_histogram', bins=10),
)
train_pipeline = [load, *_base_.train_pipeline[1:]]
test_pipeline = [load, *_base_.test_pipeline[1:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
model = dict(
    backbone=dict(in_channels=20, time_steps=1, act_cfg=dict(type='ILIFNeuron', D=4)),
)
