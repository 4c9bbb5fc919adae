"""The demo's detector, narrow and short: what is tested is the chain, not what it learns."""

DIGITS = 'configs/digits/spiking-retinanet_sg-r10_asd_fpn_digits.py'
NARROW = [
    '--cfg-options',
    'model.backbone.base_channels=8',
    'model.neck.0.in_channels=[16,32]',
    'model.neck.1.in_channels=[16,32]',
    'train_cfg.max_epochs=2',
    'train_cfg.val_interval=1',
    'default_hooks.logger.interval=1',
    'model.test_cfg.score_thr=0.0',
]
