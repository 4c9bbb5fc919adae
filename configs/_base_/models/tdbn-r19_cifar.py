# STBP-tdBN's ResNet-19 for CIFAR (Zheng et al. 2021): three stages of 128, 256 and 512 channels,
# alpha = 1/sqrt(2) where two branches add up, FC 256 of spiking neurons, the output
# averaged over time.
act_cfg = dict(
    type='LIFNeuron', decay=0.25, v_threshold=0.5, surrogate='rectangle', surrogate_width=1.0
)
model = dict(
    type='SpikingClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor',
        mean=[125.307, 122.961, 113.8575],
        std=[51.5865, 50.847, 51.255],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type='SGResNet',
        depth=19,
        time_steps=4,
        base_channels=128,
        num_stages=3,
        strides=(1, 2, 2),
        stem='cifar',
        out_indices=(2,),
        block='tdbn',
        norm_cfg=dict(type='TDBN'),
        act_cfg=act_cfg,
    ),
    head=dict(
        type='SpikingClsHead',
        num_classes=10,
        in_channels=512,
        hidden_channels=256,
        act_cfg=act_cfg,
        decoder=dict(type='RateDecoder'),
        loss=dict(type='ClsLoss'),
    ),
)
