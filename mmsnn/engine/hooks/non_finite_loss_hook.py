"""Stops a training run whose loss is no longer a number."""

from typing import Optional

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite."""


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Stop at the first NaN or infinite loss, before a checkpoint can be overwritten by it.

    MMDetection's ``CheckInvalidLossHook`` looks every 50 iterations and says only that the loss is
    invalid; this one looks at each, and says which loss, where, and what to try.

    Example:
        In a config: ``custom_hooks = [dict(type='NonFiniteLossHook')]``; ``_base_/`` has it.
    """

    # Ahead of the checkpoint hook, which would save what the bad step made of the weights.
    priority = 'VERY_HIGH'

    def after_train_iter(
        self, runner, batch_idx: int, data_batch=None, outputs: Optional[dict] = None
    ) -> None:
        """Check this iteration's losses.

        Raises:
            NonFiniteLossError: A loss is NaN or infinite.
        """
        bad = [
            name
            for name, value in (outputs or {}).items()
            if isinstance(value, torch.Tensor) and not torch.isfinite(value).all()
        ]
        if not bad:
            return
        last = (
            runner.message_hub.get_info('last_ckpt')
            if 'last_ckpt' in runner.message_hub.runtime_info
            else None
        )
        kept = (
            f'The last good checkpoint is kept: {last}'
            if last
            else 'No checkpoint had been saved yet'
        )
        raise NonFiniteLossError(
            f'{", ".join(bad)} became NaN or infinite at epoch {runner.epoch + 1}, iteration '
            f'{runner.iter + 1}. {kept}. Try a lower learning rate, a longer warm-up or '
            '`optim_wrapper.clip_grad=dict(max_norm=35)`, and look at the images of this batch: '
            f'{_image_names(data_batch)}'
        )


def _image_names(data_batch) -> str:
    samples = data_batch.get('data_samples', []) if isinstance(data_batch, dict) else []
    return ', '.join(str(getattr(s, 'img_path', '?')) for s in samples) or 'unknown'
