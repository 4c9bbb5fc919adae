"""Holds the synaptic operations of a network near a target while it trains."""

from collections.abc import Sequence
from typing import Any, Optional

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from torch import Tensor, nn

from ...analysis import fan_out
from ...ops import SettingError
from ..wrappers import spiking_model


def _samples(inputs: Any, data_samples: Any = None, mode: str = 'tensor') -> Optional[Sequence]:
    """The batch whose loss is taken, by the arguments of a model's forward as MMEngine has them."""
    return data_samples if mode == 'loss' else None


@HOOKS.register_module()
class SpikeBudgetHook(Hook):
    r"""Add a loss that grows with the synaptic operations beyond a target.

    .. math::
        L = w \max(0, S / target - 1), \qquad
        S = \sum_l \frac{C_{out}}{groups} \sum_{t, c, p} |s_l[t, c, p]| \, f_l(p)

    S are the operations of an image, a mean over the batch: each spike counts once for each output
    of a conv that it reaches, as in :class:`mmsnn.analysis.SpikeProfiler`, over the convs that read
    spikes. Their gradient goes through the neurons' surrogates as that of any loss. Below the
    target the loss is 0, and training is as it would be without.

    Under distributed training each process holds its own images to the target.

    Losses have it as ``loss_spike_budget``; ``sops`` are the operations in millions. Our reading of
    what penalties on firing rates do in the literature; docs/tutorials/spike-budget.md has what it
    reaches.

    Args:
        sops: The target, in operations an image, as ``mmsnn flops`` and the report count them.
        share: In place of it, what part of the operations of the first batch that is trained:
            for a network that has learned already.
        weight: The factor w of the loss.

    Raises:
        SettingError: Not one of ``sops`` and ``share``, or one that isn't positive; at the start of
            training, a model without convs behind spiking neurons, or whose blocks are recomputed
            (``with_cp``), or with ``share`` one that doesn't fire.

    Example:
        In a config: ``custom_hooks = [dict(type='SpikeBudgetHook', sops=5e6)]``.
    """

    def __init__(
        self, sops: Optional[float] = None, share: Optional[float] = None, weight: float = 1.0
    ):
        if (sops is None) == (share is None):
            raise SettingError('SpikeBudgetHook takes sops or share, one of the two')
        for name, value in (('sops', sops), ('share', share), ('weight', weight)):
            if value is not None and not 0 < value < float('inf'):
                raise SettingError(
                    f'SpikeBudgetHook: {name} must be a positive number, got {value!r}'
                )
        self.sops = sops
        self.share = share
        self.weight = weight
        #: Operations of the forward pass at work, or None outside of one.
        self._counted: Optional[list[Tensor]] = None
        self._fan_outs: dict[tuple, Tensor] = {}
        #: Whether a conv reads whole numbers, by what it got first.
        self._on_spikes: dict[nn.Module, bool] = {}
        self._handles: list = []

    def before_train(self, runner) -> None:
        """Put the loss in.

        Args:
            runner: The runner.
        """
        model = spiking_model(runner.model, 'SpikeBudgetHook is for spiking neurons')
        if any(getattr(module, 'with_cp', False) for module in model.modules()):
            raise SettingError(
                'SpikeBudgetHook needs the spikes of the forward pass, and blocks with '
                'with_cp=True drop them: set with_cp=False'
            )
        backbone = getattr(model, 'backbone', model)
        for module in backbone.modules():
            if isinstance(module, nn.Conv2d):
                self._handles.append(module.register_forward_pre_hook(self._count))
        self._handles += [
            model.register_forward_pre_hook(self._begin, with_kwargs=True),
            model.register_forward_hook(self._end, with_kwargs=True),
        ]

    def after_train(self, runner) -> None:
        """Take it out again.

        Args:
            runner: The runner.
        """
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _begin(self, model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        self._counted = None if _samples(*args, **kwargs) is None else []

    def _end(self, model: nn.Module, args: tuple, kwargs: dict[str, Any], losses):
        if self._counted is None:
            return losses
        images = _samples(*args, **kwargs)
        assert images is not None  # the count has begun
        losses = {**losses, **self._losses(len(images))}
        self._counted = None
        return losses

    def _count(self, conv: nn.Conv2d, args: tuple) -> None:
        x = args[0]
        if self._counted is None or not x.requires_grad:  # an image has no gradient
            return
        if conv not in self._on_spikes:  # not so a projection of membrane potentials
            self._on_spikes[conv] = torch.equal(x.detach().round(), x.detach())
        if not self._on_spikes[conv]:
            return
        sums = x.abs().sum((0, 1), dtype=torch.float32)
        reached = (sums * self._reached(conv, x)).sum()
        self._counted.append(reached * (conv.out_channels // conv.groups))

    def _reached(self, conv: nn.Conv2d, x: Tensor) -> Tensor:
        """Output positions that each position of ``x`` reaches."""
        key = conv, tuple(x.shape[2:]), x.device
        if key not in self._fan_outs:
            self._fan_outs[key] = fan_out(conv, x.shape[2:]).to(x.device, torch.float32)
        return self._fan_outs[key]

    def _losses(self, images: int) -> dict[str, Tensor]:
        if not self._counted:
            raise SettingError(
                'SpikeBudgetHook saw no conv behind spiking neurons in this forward pass'
            )
        sops = torch.stack(self._counted).sum() / images
        if self.sops is None:
            assert self.share is not None  # one of the two is given
            self.sops = self.share * sops.item()
            if not self.sops:
                raise SettingError(
                    'SpikeBudgetHook(share=...) takes a part of the operations of the first batch, '
                    'and no neuron fired there: give sops, or begin with trained weights'
                )
        excess = (sops / self.sops - 1).clamp_min(0)
        return dict(loss_spike_budget=self.weight * excess, sops=sops.detach() / 1e6)
