"""From the last stage's spikes to classes."""

from collections.abc import Sequence
from typing import Optional

import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...structures import ClsDataSample
from ..layers import build_decoder, build_neuron, build_norm, spiking_layer


@MODELS.register_module()
class SpikingClsHead(BaseModule):
    r"""Decode, average over space, one linear layer.

    .. math::
        z = W\, \mathrm{mean}_{hw}(D(s)) + b

    with D the decoder. Averaging and the linear layer commute with weights over time, so with
    ``RateDecoder`` z is the mean over time of a linear layer on every step's spikes, and with
    ``MembraneDecoder`` the mean potential of output neurons that never fire. A hidden layer of
    neurons, as in STBP-tdBN's ResNet-19, stands between average and decoder where
    ``hidden_channels`` is given.

    Args:
        num_classes: Number of classes K.
        in_channels: Channels of the features.
        decoder: ``AttentionSpikeDecoder`` (ASD), ``RateDecoder``, ``LastDecoder`` or
            ``MembraneDecoder``; None where the features have no time axis, as those of an ANN or
            behind an ``ASDNeck``.
        hidden_channels: Neurons of the hidden layer; None for none.
        norm_cfg: Norm of the hidden layer.
        act_cfg: Neuron of the hidden layer.
        loss: ``ClsLoss`` or ``TETLoss``.
        init_cfg: As in MMDetection.

    Raises:
        ValueError: Fewer than two classes; a hidden layer, or a loss on every time step, without a
            decoder; an unknown decoder.

    Example:
        >>> import torch
        >>> from mmsnn.models import SpikingClsHead
        >>> head = SpikingClsHead(10, in_channels=64)
        >>> head([torch.ones(4, 2, 64, 8, 8)]).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        decoder: Optional[dict] = dict(type='AttentionSpikeDecoder'),
        hidden_channels: Optional[int] = None,
        norm_cfg: dict = dict(type='TDBN'),
        act_cfg: dict = dict(type='LIFNeuron'),
        loss: dict = dict(type='ClsLoss'),
        init_cfg=dict(type='Normal', std=0.01, override=dict(name='fc')),
    ):
        super().__init__(init_cfg)
        if num_classes < 2:
            raise ValueError(f'num_classes must be at least 2, got {num_classes!r}')
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.loss_module = MODELS.build(loss)
        for what, needed in (
            (f'hidden_channels={hidden_channels!r}', hidden_channels is not None),
            (f'loss {type(self.loss_module).__name__}', self.loss_module.per_step),
        ):
            if decoder is None and needed:
                raise ValueError(
                    f'{what} needs features with a time axis: give the head a decoder, such as '
                    "dict(type='AttentionSpikeDecoder')"
                )
        self.hidden = None
        if hidden_channels is not None:
            neuron = build_neuron(act_cfg)
            self.hidden = nn.ModuleDict(
                dict(
                    conv=nn.Conv2d(in_channels, hidden_channels, 1, bias=False),
                    norm=build_norm(norm_cfg, hidden_channels, v_threshold=neuron.v_threshold)[1],
                    neuron=neuron,
                )
            )
        channels = hidden_channels or in_channels
        self.decoder = None if decoder is None else build_decoder(decoder, channels)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        """Logits of the last level.

        Args:
            feats: Levels, the last of (T, B, C, H, W), or (B, C, H, W) without a decoder.

        Returns:
            Logits (B, K).

        Raises:
            ValueError: Features of another rank or another number of channels.
        """
        x = self._features(feats)
        return self._classify(x if self.decoder is None else self.decoder(x))

    def step_logits(self, feats: Sequence[Tensor]) -> Tensor:
        """Logits of every time step, whose mean over time is what :meth:`forward` gives.

        Args:
            feats: As of :meth:`forward`.

        Returns:
            Logits (T, B, K).

        Raises:
            NotImplementedError: The decoder does not look at every step.
        """
        assert self.decoder is not None  # __init__ asks for one where the loss needs this
        steps = self.decoder.steps(self._features(feats))
        return self._classify(steps.flatten(0, 1)).unflatten(0, steps.shape[:2])

    def _features(self, feats: Sequence[Tensor]) -> Tensor:
        x = feats[-1]
        axes = '(B, C, H, W)' if self.decoder is None else '(T, B, C, H, W)'
        if x.dim() != axes.count(',') + 1 or x.shape[-3] != self.in_channels:
            raise ValueError(
                f'{type(self).__name__} was built for features {axes} with C = {self.in_channels} '
                f'(decoder {type(self.decoder).__name__}), got {tuple(x.shape)}: let in_channels '
                "match the backbone's last level, and decoder=None stand behind features without "
                'time'
            )
        if self.hidden is None:
            return x
        time_steps = len(x)
        x = self._pool(x.flatten(0, 1))[..., None, None]
        layer = self.hidden['conv'], self.hidden['norm'], self.hidden['neuron']
        spikes = spiking_layer(*layer, x, time_steps, binary=False)
        return spikes.unflatten(0, (time_steps, -1))

    def _pool(self, x: Tensor) -> Tensor:
        """Mean over space, in the dtype of the weights: spikes may be bytes."""
        return x.to(self.fc.weight.dtype).mean((-2, -1))

    def _classify(self, x: Tensor) -> Tensor:
        return self.fc(self._pool(x))

    def loss(self, feats: Sequence[Tensor], data_samples: list[ClsDataSample]) -> dict:
        """Loss of a batch.

        Args:
            feats: As of :meth:`forward`.
            data_samples: With ``gt_label``, or ``gt_score`` for mixed samples.

        Returns:
            ``loss``, a scalar.
        """
        logits = self.step_logits(feats) if self.loss_module.per_step else self(feats)
        if all('gt_score' in sample for sample in data_samples):
            target = torch.stack([sample.gt_score for sample in data_samples])
        else:
            target = torch.cat([sample.gt_label for sample in data_samples])
        # Half precision has too few digits for a loss.
        return dict(loss=self.loss_module(logits.float(), target))

    def predict(
        self, feats: Sequence[Tensor], data_samples: Optional[list[ClsDataSample]] = None
    ) -> list[ClsDataSample]:
        """Probabilities and classes.

        Args:
            feats: As of :meth:`forward`.
            data_samples: What is known of the samples; the predictions are put into them.

        Returns:
            One sample each, with ``pred_score`` and ``pred_label``.
        """
        scores = self(feats).float().softmax(-1)
        if data_samples is None:
            data_samples = [ClsDataSample() for _ in scores]
        for sample, score in zip(data_samples, scores):
            sample.set_pred_score(score)
        return data_samples
