"""Mixed precision in bfloat16, on CPU and GPU alike."""

import logging
import timeit
from contextlib import contextmanager
from functools import cache, partial

import torch
from mmdet.registry import OPTIM_WRAPPERS
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import nn

from ...ops import SLOW_DTYPES


@OPTIM_WRAPPERS.register_module()
class BF16OptimWrapper(OptimWrapper):
    """Runs the forward pass under bfloat16 autocast; weights and optimiser stay float32.

    mmengine's ``AmpOptimWrapper`` refuses a machine without a GPU. bfloat16 has float32's range,
    so no loss scaling is needed, and spikes are exact in it. On a CPU that has no units for it,
    convs on spikes take the time of float32 (:func:`mmsnn.ops.spike_conv2d`), all others longer, by
    emulation many times as long; the log says so, with an estimate, before training begins.

    Args:
        **kwargs: As of mmengine's ``OptimWrapper``.

    Example:
        In a config, or by ``tools/train.py --amp``:
        ``optim_wrapper = dict(type='BF16OptimWrapper', optimizer=dict(type='SGD', lr=0.01))``.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        if get_device() == 'cpu' and torch.bfloat16 in SLOW_DTYPES:
            _warn()

    @contextmanager
    def optim_context(self, model: nn.Module):
        """Autocast around the forward pass.

        Args:
            model: The model.
        """
        device_type = get_device().split(':')[0]
        with super().optim_context(model), torch.autocast(device_type, torch.bfloat16):
            yield


@cache
def _warn() -> None:
    """Say what bfloat16 costs here, once a process."""
    print_log(
        'this CPU has no units for bfloat16: convs of neck and head take about '
        f'{_slowdown():.2g} times as long as in float32, by one that was timed just now, and convs '
        'on spikes as long. Mixed precision saves memory here; for speed, leave it out',
        'current',
        logging.WARNING,
    )


@torch.no_grad()
def _slowdown() -> float:
    """How many times as long as in float32 a conv takes in bfloat16 on this CPU."""
    times = []
    for dtype in (torch.float32, torch.bfloat16):
        # Ones: random numbers would move the generator of the run.
        conv = nn.utils.skip_init(nn.Conv2d, 64, 64, 3, padding=1, dtype=dtype)
        nn.init.ones_(conv.weight), nn.init.ones_(conv.bias)
        x = torch.ones(1, 64, 20, 20, dtype=dtype)
        conv(x)  # the first call prepares what later ones find done
        times.append(min(timeit.repeat(partial(conv, x), number=1, repeat=3)))
    return times[1] / times[0]
