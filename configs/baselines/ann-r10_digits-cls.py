# The ANN twin of the digits classifier: the same widths and depth, ReLU instead of spikes, no time.
_base_ = '../digits/sg-r10_asd_digits-cls.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNetCIFAR',
        depth=10,
        stem_channels=16,
        base_channels=16,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2,),
        norm_eval=False,
        zero_init_residual=False,
    ),
    head=dict(decoder=None),
)
