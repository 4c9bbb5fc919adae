"""Potentials that go on from window to window."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Optional

from torch import nn

from ...ops import NeuronState, SettingError
from .neurons import SpikingNeuron


class Streaming:
    """What the neurons of a model hand on from one window of time to the next.

    A model is stateless: each forward starts from rest. Inside :meth:`carried` it goes on where the
    forward before ended, so that windows that follow one another give the spikes of one long
    forward, bit for bit, each in the time of one. The states belong to this object and not to the
    model: outside, and in other streams, the model knows nothing of them, and a copy of the stream
    takes them along. Only neurons have states; a decoder looks at one window.

    With ``windows`` of each recording in a batch, all first ones first, neurons go on from each to
    the next inside of one forward, and gradients run through all of them: truncated
    back-propagation, over that many windows.

    Where convs choose their way by how many spikes there are (:func:`mmsnn.ops.crossover`), and one
    window and many don't choose alike, their sums have another order, and differ by rounding.

    Args:
        model: With spiking neurons, all of which can hand on their states.

    Raises:
        ValueError: It has no spiking neuron, or one that can't; the message names it.

    Example:
        >>> import torch
        >>> from mmsnn.models import SGResNet
        >>> from mmsnn.models.layers import Streaming
        >>> net = SGResNet(10, time_steps=2, in_channels=2, base_channels=8).eval()
        >>> frames = 4 * torch.rand(3, 2, 1, 2, 32, 32)  # windows, T, B, C, H, W
        >>> streaming = Streaming(net)
        >>> with torch.no_grad(), streaming.carried():
        ...     spikes = torch.cat([net(window)[0] for window in frames])
        >>> net.time_steps = 6
        >>> with torch.no_grad():
        ...     whole = net(frames.flatten(0, 1))[0]
        >>> torch.equal(spikes, whole)
        True
    """

    def __init__(self, model: nn.Module):
        self.model = model
        neurons = _neurons(model)
        #: By the name of the neuron.
        self.states = {name: NeuronState() for name in neurons}
        #: Number of recordings that go on side by side; None at rest.
        self.recordings: Optional[int] = None

    @contextlib.contextmanager
    def carried(self, windows: int = 1) -> Iterator[None]:
        """Let forwards inside of the ``with`` block go on from the states.

        Args:
            windows: How many of each recording a batch holds.

        Raises:
            ValueError: As of :meth:`attach`.
        """
        self.attach(windows)
        try:
            yield
        finally:
            self.detach()

    def attach(self, windows: int = 1) -> None:
        """Begin what :meth:`carried` does.

        Args:
            windows: How many of each recording a batch holds.

        Raises:
            ValueError: The model hasn't the neurons that it had, another stream is being carried,
                blocks are computed twice, or the backbone can't take several windows.
        """
        neurons = _neurons(self.model)
        if list(neurons) != list(self.states):
            raise SettingError(
                'the neurons of the model have changed since the stream began: begin another one'
            )
        if any(neuron.state is not None for neuron in neurons.values()):
            raise SettingError('another stream is being carried by this model: end it first')
        takers = []
        for name, module in self.model.named_modules():
            if self.model.training and getattr(module, 'with_cp', False):
                raise SettingError(
                    f'with_cp=True of {name or type(module).__name__} computes blocks twice, from '
                    'another state the second time: set it to False to train on streams'
                )
            if isinstance(getattr(module, 'windows', None), int):
                takers.append(module)
        if windows != 1 and not takers:
            raise SettingError(
                f'{type(self.model).__name__} has no backbone that takes several windows of a '
                f'recording in a batch, as SGResNet does: got windows={windows}'
            )
        for module in takers:
            module.windows = windows
        for name, neuron in neurons.items():
            neuron.state = self.states[name]

    def detach(self) -> None:
        """End what :meth:`carried` does; the states stay here."""
        for module in self.model.modules():
            if isinstance(module, SpikingNeuron):
                module.state = None
            elif isinstance(getattr(module, 'windows', None), int):
                module.windows = 1  # type: ignore[assignment]

    def expect(self, recordings: int) -> None:
        """Refuse another number of recordings than go on.

        Args:
            recordings: In the batch that comes.

        Raises:
            ValueError: Names both.
        """
        if self.recordings not in (None, recordings):
            raise ValueError(
                f'{self.recordings} recordings go on side by side, and windows of {recordings} '
                'came: hand over one of each, or reset the stream before others begin'
            )
        self.recordings = recordings

    def select(self, recordings: Sequence[Optional[int]]) -> None:
        """Say which recordings of the last batch go on in the next one.

        Args:
            recordings: For each of the next batch, its place in the last one, or None where it
                begins, from rest.
        """
        for state in self.states.values():
            state.select(recordings)
        self.recordings = len(recordings)

    def reset(self, recordings: Optional[Sequence[int]] = None) -> None:
        """Back to rest.

        Args:
            recordings: Places of recordings in the batch; default all, after which any number may
                come.

        Raises:
            ValueError: A place that there isn't.
        """
        if recordings is None:
            for state in self.states.values():
                state.tensors = ()
            self.recordings = None
            return
        number = self.recordings or 0
        wrong = [i for i in recordings if not 0 <= i < number]
        if wrong:
            raise ValueError(f'recording {wrong[0]} is none of the {number} that go on')
        self.select([None if i in recordings else i for i in range(number)])


def _neurons(model: nn.Module) -> dict[str, SpikingNeuron]:
    """The neurons by name, all of which have a state of their own."""
    found: dict[str, SpikingNeuron] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if not isinstance(module, SpikingNeuron):
            continue
        kind = type(module).__name__
        twice = [other for other, neuron in found.items() if neuron is module]
        if twice:
            raise SettingError(
                f'{name} ({kind}) cannot stream: it is {twice[0]} as well, and one state is not '
                'enough for both'
            )
        if not module.hands_on:
            raise SettingError(
                f'{name} ({kind}) cannot stream: it does not say how it goes on from a state. Give '
                'it a fire_from(x, state), docs/CONTRIBUTING.md'
            )
        found[name] = module
    if not found:
        raise SettingError(f'{type(model).__name__} has no spiking neuron, so that nothing goes on')
    return found
