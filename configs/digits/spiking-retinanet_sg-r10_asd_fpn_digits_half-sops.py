# The demo with half of its synaptic operations: docs/tutorials/spike-budget.md.
_base_ = './spiking-retinanet_sg-r10_asd_fpn_digits.py'

custom_hooks = [
    dict(type='NonFiniteLossHook'),
    dict(type='SpikeStatsHook', interval=50, num_images=2),
    # The demo's network takes 26 million operations an image.
    dict(type='SpikeBudgetHook', sops=12.5e6),
]
