"""Tests a model in its fast form."""

import torch
from mmdet.registry import HOOKS
from mmengine.device import get_device
from mmengine.hooks import Hook

from ...deploy import fuse, resolve_precision
from ..wrappers import wrapper_chain


@HOOKS.register_module()
class FuseHook(Hook):
    """Replace the model by :func:`mmsnn.deploy.fuse` of it before a test run.

    ``tools/test.py --fuse`` adds it. Validation during training keeps the model as it is.

    Args:
        precision: As of :func:`mmsnn.deploy.fuse`.

    Raises:
        ValueError: An unknown precision, or one that the device cannot compute.

    Example:
        In a config: ``custom_hooks = [dict(type='FuseHook', precision='fp32')]``.
    """

    def __init__(self, precision: str = 'auto'):
        resolve_precision(precision, torch.device(get_device()))  # before the work starts
        self.precision = precision

    def before_test(self, runner) -> None:
        """Fuse; by now the checkpoint has been loaded.

        Args:
            runner: The runner.
        """
        *wrappers, model = wrapper_chain(runner.model)
        precision = resolve_precision(self.precision, torch.device(get_device()), model)
        fused = fuse(model, precision)
        if wrappers:
            wrappers[-1].module = fused
        else:
            runner.model = fused
        runner.logger.info(f'mmsnn: testing the fused model in {precision}')
