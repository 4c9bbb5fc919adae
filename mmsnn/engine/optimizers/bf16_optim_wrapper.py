"""Mixed precision in bfloat16, on CPU and GPU alike."""

import logging
from contextlib import contextmanager

import torch
from mmdet.registry import OPTIM_WRAPPERS
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import nn

from ...ops.spike_conv import SLOW_DTYPES


@OPTIM_WRAPPERS.register_module()
class BF16OptimWrapper(OptimWrapper):
    """Runs the forward pass under bfloat16 autocast; weights and optimiser stay float32.

    mmengine's ``AmpOptimWrapper`` refuses a machine without a GPU. bfloat16 has float32's range,
    so no loss scaling is needed, and spikes are exact in it. On a CPU that has no units for it,
    convs on spikes take the time of float32 (:func:`mmsnn.ops.spike_conv2d`), all others longer;
    the log says so.

    Args:
        **kwargs: As of mmengine's ``OptimWrapper``.

    Example:
        In a config, or by ``tools/train.py --amp``:
        ``optim_wrapper = dict(type='BF16OptimWrapper', optimizer=dict(type='SGD', lr=0.01))``.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        if get_device() == 'cpu' and torch.bfloat16 in SLOW_DTYPES:
            print_log(
                'this CPU has no units for bfloat16: mixed precision saves memory here, but the '
                'convs of neck and head take longer than in float32',
                'current',
                logging.WARNING,
            )

    @contextmanager
    def optim_context(self, model: nn.Module):
        """Autocast around the forward pass.

        Args:
            model: The model.
        """
        device_type = get_device().split(':')[0]
        with super().optim_context(model), torch.autocast(device_type, torch.bfloat16):
            yield
