"""Mixed precision in bfloat16, on CPU and GPU alike."""

from contextlib import contextmanager

import torch
from mmdet.registry import OPTIM_WRAPPERS
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import nn


@OPTIM_WRAPPERS.register_module()
class BF16OptimWrapper(OptimWrapper):
    """Runs the forward pass under bfloat16 autocast; weights and optimiser stay float32.

    mmengine's ``AmpOptimWrapper`` refuses a machine without a GPU. bfloat16 has float32's range,
    so no loss scaling is needed, and spikes are exact in it.

    Args:
        **kwargs: As of mmengine's ``OptimWrapper``.

    Example:
        In a config, or by ``tools/train.py --amp``:
        ``optim_wrapper = dict(type='BF16OptimWrapper', optimizer=dict(type='SGD', lr=0.01))``.
    """

    @contextmanager
    def optim_context(self, model: nn.Module):
        """Autocast around the forward pass.

        Args:
            model: The model.
        """
        device_type = get_device().split(':')[0]
        with super().optim_context(model), torch.autocast(device_type, torch.bfloat16):
            yield
