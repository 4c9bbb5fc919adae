"""Trains a network with the weights that it will have in whole numbers."""

from functools import partial

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from torch import nn

from ...deploy.integer_conv import WEIGHT_BITS, round_straight_through
from ...deploy.integer_file import convs_in_integers
from ...ops import SettingError
from ..wrappers import spiking_model


def _begin(conv: nn.Conv2d, args: tuple, bits: int) -> None:
    # Found before the parameter of that name, which stays the conv's own.
    vars(conv)['weight'] = round_straight_through(conv.weight, bits)


def _end(conv: nn.Module, args: tuple, output: object) -> None:
    vars(conv).pop('weight', None)


@HOOKS.register_module()
class QuantizationAwareHook(Hook):
    r"""Train with the backbone's weights rounded as in the integer file, and their gradients as is.

    .. math::
        \hat w = \Delta_k\, round(w / \Delta_k), \qquad
        \frac{\partial L}{\partial w} = \frac{\partial L}{\partial \hat w}

    with the steps of :class:`mmsnn.deploy.IntegerConv2d`, in the convs on spikes, which are those
    that :func:`mmsnn.deploy.export_integers` rounds; forward passes of validation during training
    see the same weights. tdBN isn't folded: its factor is one of a channel, and the whole numbers
    of a channel don't depend on one. In eval mode the spikes are those of
    ``fuse(model, precision)``, but for currents that float32 adds up in another order, and weights
    in the middle between two whole numbers.

    The parameters stay those in float32. Checkpoints have them under their usual names, so that a
    training goes on from them; test them with ``--fuse``, or export them, which rounds them.

    Source: :func:`mmsnn.deploy.integer_conv.round_straight_through`; docs/deploy-integers.md has
    what it reaches.

    Args:
        precision: ``'int16'``, ``'int8'``, ``'int4'`` or ``'int2'``, as of
            :func:`mmsnn.deploy.fuse`.

    Raises:
        SettingError: Another precision; at the start of training, a model with a part that an
            integer file can't hold, such as a learned gate.

    Example:
        In a config: ``custom_hooks = [dict(type='QuantizationAwareHook')]``.
    """

    # The model is looked at before other hooks watch parts of it, which a file couldn't hold.
    priority = 'HIGH'

    def __init__(self, precision: str = 'int8'):
        if precision not in WEIGHT_BITS:
            raise SettingError(
                f'QuantizationAwareHook: unknown precision {precision!r}: choose one of '
                f'{list(WEIGHT_BITS)}'
            )
        self.precision = precision
        self._handles: list = []

    def before_train(self, runner) -> None:
        """Let the convs see rounded weights.

        Args:
            runner: The runner.
        """
        model = spiking_model(runner.model, 'QuantizationAwareHook is for spiking neurons')
        backbone = getattr(model, 'backbone', model)
        try:
            names = convs_in_integers(backbone)
        except ValueError as error:
            raise SettingError(
                f'QuantizationAwareHook is for models that have an integer file: {error}'
            ) from error
        begin = partial(_begin, bits=WEIGHT_BITS[self.precision])
        for name in names:
            conv = backbone.get_submodule(name)
            self._handles += [
                conv.register_forward_pre_hook(begin),
                conv.register_forward_hook(_end, always_call=True),
            ]
        runner.logger.info(
            f'mmsnn: {len(names)} convs of the backbone train with weights in {self.precision}'
        )

    def after_train(self, runner) -> None:
        """Let them see their own again.

        Args:
            runner: The runner.
        """
        for handle in self._handles:
            handle.remove()
        self._handles = []
