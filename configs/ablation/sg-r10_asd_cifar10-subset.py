# A narrow SG ResNet-10 with ASD, which a CPU core trains on a few thousand CIFAR-10 images in about
# two minutes: what benchmarks/ablation.py varies. A data root with fewer images a batch than the
# official files is taken as it is.
_base_ = ['../_base_/models/sg-r18_asd_cifar.py', '../_base_/cls_runtime.py']
dataset_type = 'CIFAR10'
data_root = '{{$MMSNN_CIFAR10_ROOT:data/cifar-10-batches-py}}/'

model = dict(
    backbone=dict(depth=10, base_channels=16, num_stages=3, strides=(2, 2, 2), out_indices=(2,)),
    head=dict(in_channels=64, loss=dict(label_smoothing=0.0)),
)

train_dataloader = dict(
    batch_size=50,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='train',
        pipeline=[
            dict(type='RandomPadCrop', size=32, padding=4),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackClsInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='test',
        test_mode=True,
        pipeline=[
            dict(type='Resize', scale=(32, 32), keep_ratio=False),
            dict(type='PackClsInputs'),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='ClsMetric', topk=(1, 5))
test_evaluator = val_evaluator

max_epochs = 12
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        end=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=5),
)
randomness = dict(seed=0)
