# SG ResNet-18 for ImageNet: 7x7/2 stem and pooling.
model = dict(
    type='SpikingClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type='SGResNet',
        depth=18,
        time_steps=4,
        out_indices=(3,),
        block='sg',
        gate_cfg=dict(type='ResidualGate'),
        norm_cfg=dict(type='TDBN'),
        act_cfg=dict(type='LIFNeuron', decay=0.5, v_threshold=1.0),
    ),
    head=dict(
        type='SpikingClsHead',
        num_classes=1000,
        in_channels=512,
        decoder=dict(type='AttentionSpikeDecoder'),
        loss=dict(type='ClsLoss', label_smoothing=0.1),
    ),
)
