"""Spike decoders: (T, B, C, H, W) spikes to a real-valued (B, C, H, W) map."""

from collections.abc import Callable, Sequence
from typing import Optional

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ... import ops
from ...config_types import arguments
from .builder import lookup


def _checked(decoder: nn.Module, spikes: Tensor, channels: int) -> Tensor:
    """Spikes (T, B, channels, H, W), as plain tensors and in a dtype that the decoder takes."""
    if spikes.dim() != 5:
        raise ValueError(
            f'{type(decoder).__name__} decodes spikes of shape (T, B, C, H, W), got a tensor of '
            f'shape {tuple(spikes.shape)}: put it right behind a spiking backbone'
        )
    if spikes.shape[2] != channels:
        raise ValueError(
            f'{type(decoder).__name__} was built for {channels} channels, got '
            f'{spikes.shape[2]} in an input of shape {tuple(spikes.shape)}'
        )
    # Kernels take a short way with plain tensors; those of a trace would leave it.
    if not torch.compiler.is_compiling():
        spikes = spikes.as_subclass(Tensor)
    return spikes.float() if spikes.dtype == torch.uint8 and not decoder.takes_bytes else spikes


class SpikeDecoder(nn.Module):
    """Base of the decoders of one level.

    Args:
        channels: Channels C of the spikes.
    """

    #: Whether its formula holds for spikes in bytes (mmsnn.deploy); others get float32.
    takes_bytes = False

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels

    def forward(self, spikes: Tensor) -> Tensor:
        """Decode.

        Args:
            spikes: (T, B, C, H, W), any T.

        Returns:
            Tensor (B, C, H, W).

        Raises:
            ValueError: Input of another rank or another number of channels.
        """
        return self.decode(_checked(self, spikes, self.channels))

    def decode(self, spikes: Tensor) -> Tensor:
        """The decoding itself, on checked input."""
        raise NotImplementedError

    def steps(self, spikes: Tensor) -> Tensor:
        """What each time step contributes: (T, B, C, H, W), whose mean over time is the decoding.

        A loss on every time step, as TET's, takes it.

        Args:
            spikes: (T, B, C, H, W), any T.

        Returns:
            Tensor (T, B, C, H, W).

        Raises:
            NotImplementedError: The decoder does not look at every step.
        """
        raise NotImplementedError(
            f'{type(self).__name__} has no contribution of every time step, which a loss on every '
            'step needs: choose RateDecoder, AttentionSpikeDecoder or MembraneDecoder'
        )


class LevelsDecoder(nn.Module):
    """Base of the decoders that look at all levels at once.

    Args:
        in_channels: Channels of each level.
    """

    #: As of :class:`SpikeDecoder`.
    takes_bytes = False

    def __init__(self, in_channels: Sequence[int]):
        super().__init__()
        self.in_channels = list(in_channels)
        #: Channels of each map, which a subclass may change.
        self.out_channels = list(in_channels)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Decode.

        Args:
            levels: Spikes (T, B, C, H, W) of each level, any T.

        Returns:
            A map (B, C', H', W') of each entry of ``out_channels``.

        Raises:
            ValueError: Spikes of another rank or another number of channels.
        """
        pairs = zip(levels, self.in_channels)
        return tuple(self.decode(tuple(_checked(self, x, channels) for x, channels in pairs)))

    def decode(self, levels: tuple[Tensor, ...]) -> Sequence[Tensor]:
        """The decoding itself, on checked input."""
        raise NotImplementedError


@MODELS.register_module()
class RateDecoder(SpikeDecoder):
    """Rate coding: the mean over time.

    Example:
        >>> import torch
        >>> from mmsnn.models import RateDecoder
        >>> spikes = torch.tensor([1.0, 0.0, 1.0, 1.0]).view(4, 1, 1, 1, 1)
        >>> RateDecoder(1)(spikes).item()
        0.75
    """

    takes_bytes = True

    def decode(self, spikes: Tensor) -> Tensor:
        """Return the firing rate of every neuron."""
        return ops.rate_decode(spikes)

    def steps(self, spikes: Tensor) -> Tensor:
        """Return the spikes themselves."""
        return spikes


@MODELS.register_module()
class LastDecoder(SpikeDecoder):
    """The last time step alone."""

    takes_bytes = True

    def decode(self, spikes: Tensor) -> Tensor:
        """Return the spikes of t = T - 1."""
        return ops.last_decode(spikes)


@MODELS.register_module()
class MembraneDecoder(SpikeDecoder):
    r"""The mean membrane potential of neurons that integrate and never fire.

    .. math::
        u[t] = decay\, u[t-1] + s[t] \qquad D = \frac{1}{T} \sum_t u[t]

    A linear layer behind it and an output layer of such neurons give the same, because both are
    linear. Early spikes count for more than late ones, as they stay in the potential for longer.
    Source: the output layer of STBP-trained networks; our reading, docs/method.md.

    Args:
        channels: Channels C of the spikes.
        decay: Leak factor in [0, 1]; 0 is rate coding.

    Raises:
        ValueError: A decay out of range.

    Example:
        >>> import torch
        >>> from mmsnn.models import MembraneDecoder
        >>> spikes = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1, 1)
        >>> MembraneDecoder(1, decay=0.5)(spikes).item()  # (1 + 0.5) / 2
        0.75
    """

    takes_bytes = True

    def __init__(self, channels: int, decay: float = 0.5):
        super().__init__(channels)
        if not 0 <= decay <= 1:
            raise ValueError(f'decay must lie in [0, 1], got {decay!r}')
        self.decay = decay

    def decode(self, spikes: Tensor) -> Tensor:
        """Return the mean membrane potential."""
        time_steps = spikes.shape[0]
        # A spike at t is in time_steps - t of the potentials: as 1, decay, decay^2, ...
        left = [self.decay**i for i in range(time_steps)]
        weights = torch.tensor(left).cumsum(0).flip(0) / time_steps
        dtype = spikes.dtype if spikes.is_floating_point() else torch.float32
        return torch.einsum('t,t...->...', weights.to(spikes.device, dtype), spikes.to(dtype))

    def steps(self, spikes: Tensor) -> Tensor:
        """Return the membrane potential at every step."""
        dtype = spikes.dtype if spikes.is_floating_point() else torch.float32
        potentials = [spikes[0].to(dtype)]
        for s in spikes[1:]:
            potentials.append(torch.add(s.to(dtype), potentials[-1], alpha=self.decay))
        return torch.stack(potentials)


@MODELS.register_module()
class AttentionSpikeDecoder(SpikeDecoder):
    r"""ASD: weights along time, channel and space, made from the spikes themselves.

    .. math::
        D = \sum_t a_T[t]\, a_C[t]\, a_S[t]\, s[t]

    - a_T (T, B): an MLP shared over time on two numbers of each step, its firing rate and the
      rate's distance from the mean over time; softmax over t.
    - a_C (T, B, C): squeeze and excitation of each step's channel rates, 2 sigmoid(.), in (0, 2).
    - a_S (T, B, H, W): a conv over each step's channel mean and maximum, 2 sigmoid(.), in (0, 2).

    The last layer of each starts at zero: a_T = 1/T and a_C = a_S = 1, which is exactly rate
    coding, and training can only depart from it. Nothing depends on T, so a model trained at one
    T runs at any. Source: Zhang et al. 2023, ASD; our reading, docs/method.md.

    Args:
        channels: Channels C of the spikes.
        reduction: Channel reduction of the squeeze and excitation.
        kernel_size: Odd kernel size of the spatial conv.

    Raises:
        ValueError: An even kernel size or a reduction below 1.

    Example:
        >>> import torch
        >>> from mmsnn.models import AttentionSpikeDecoder
        >>> decoder = AttentionSpikeDecoder(64)
        >>> spikes = (torch.rand(4, 2, 64, 8, 8) > 0.8).float()
        >>> decoder(spikes).shape
        torch.Size([2, 64, 8, 8])
        >>> torch.allclose(decoder(spikes), spikes.mean(0))
        True
    """

    takes_bytes = True

    def __init__(self, channels: int, reduction: int = 16, kernel_size: int = 7):
        super().__init__(channels)
        if kernel_size % 2 == 0 or kernel_size < 1:
            raise ValueError(f'kernel_size must be odd and positive, got {kernel_size!r}')
        if reduction < 1:
            raise ValueError(f'reduction must be at least 1, got {reduction!r}')
        hidden = max(channels // reduction, 4)
        self.temporal = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
        self.channel = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )
        self.spatial = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2)
        #: Called as ``observer(decoder, (a_T, a_C, a_S))`` with the maps of every decoding
        #: (mmsnn.analysis).
        self.observer: Optional[Callable[[nn.Module, tuple[Tensor, ...]], None]] = None
        self.init_weights()

    def init_weights(self) -> None:
        """Start as rate coding."""
        for last in (self.temporal[-1], self.channel[-1], self.spatial):
            assert isinstance(last, (nn.Linear, nn.Conv2d))
            nn.init.zeros_(last.weight)
            assert last.bias is not None
            nn.init.zeros_(last.bias)

    def attention(self, spikes: Tensor):
        """The three attention maps, to decode with and to look at.

        Args:
            spikes: (T, B, C, H, W).

        Returns:
            a_T (T, B), a_C (T, B, C) and a_S (T, B, H, W).
        """
        # Spikes may be bytes: what is learned has a dtype, and the maps take it.
        dtype = self.spatial.weight.dtype
        channel_rate, *seen = (v.to(dtype) for v in ops.attention_statistics(spikes))
        rate = channel_rate.mean(2)
        temporal = self.temporal(torch.stack([rate, rate - rate.mean(0)], -1))[..., 0].softmax(0)
        channel = 2 * self.channel(channel_rate).sigmoid()
        spatial = 2 * self.spatial(torch.stack(seen, 2).flatten(0, 1)).sigmoid()
        maps = temporal, channel, spatial[:, 0].unflatten(0, spikes.shape[:2])
        if self.observer is not None:
            self.observer(self, maps)
        return maps

    def decode(self, spikes: Tensor) -> Tensor:
        """Return the attention-weighted sum over time."""
        return ops.attention_decode(spikes, *self.attention(spikes))

    def steps(self, spikes: Tensor) -> Tensor:
        """Return T times the weighted spikes."""
        temporal, channel, spatial = self.attention(spikes)
        weights = (len(spikes) * temporal)[..., None] * channel
        return spikes * weights[..., None, None] * spatial[:, :, None]


def build_decoder(decoder_cfg: dict, channels: int) -> SpikeDecoder:
    """Build a spike decoder, for example from ``dict(type='AttentionSpikeDecoder')``.

    Args:
        decoder_cfg: Config with the ``type`` of a registered :class:`SpikeDecoder`, and its
            arguments.
        channels: Channels of the spikes.

    Returns:
        The decoder.

    Raises:
        ValueError: Unknown type; the message lists the known ones.
    """
    cls = lookup(decoder_cfg, 'decoder', SpikeDecoder)
    return cls(channels=channels, **arguments(decoder_cfg))
