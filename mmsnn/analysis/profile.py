"""What a network does on real data: firing rates, operations and an estimate of energy."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Optional, TypeVar, Union, cast

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from terminaltables import AsciiTable
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..models.layers import Gate, LevelsDecoder, SpikeDecoder, SpikingNeuron
from ..ops import membrane_potentials
from .observe import check_no_bytes, check_no_observer, check_values, eval_mode, unfold_time

#: Energy of a 32-bit floating-point multiply and add at 45 nm, in joules: 3.7 pJ + 0.9 pJ.
MAC_ENERGY = 4.6e-12
#: Energy of a 32-bit floating-point add at 45 nm, in joules.
AC_ENERGY = 0.9e-12
#: Edges of the bins of membrane potentials, in units of the threshold; the last bin of each end
#: also holds what lies beyond. A neuron fires from 1 on, which is an edge.
POTENTIAL_EDGES = np.linspace(-2, 2, 33)

Number = TypeVar('Number')


@dataclass
class LayerProfile:
    """What was measured on one layer.

    Attributes:
        name: Path of the module in the model.
        type: Its class.
        kind: ``'neuron'``; ``'spikes'`` for weights whose input was spikes in every forward pass:
            0 and 1, or whole numbers behind neurons that give these; ``'real'`` for weights with
            any other input.
        input_shape: Of one image at one time step, without batch; of the last forward pass.
        output_shape: Likewise.
        time_steps: How many times the layer computes an image: T, or 1 where it runs once.
        parameters: Number of its own parameters.
        firing_rate: Spikes a neuron and time step, in [0, 1], or up to the neuron's ``levels``,
            whatever their sign; None for weights, as are the next eight.
        active: Share of neurons and time steps with a spike: the firing rate, unless a neuron gives
            several at once.
        rate_by_step: The same at each time step, (T,).
        rate_by_channel: The same of each channel, (C,).
        dead: Share of channels that never fired.
        saturated: Share of channels whose rate reaches ``saturated_above`` times ``levels``.
        spikes: Spikes an image.
        neurons: Neurons; a mean over images where their sizes differ.
        potentials: Share of membrane potentials in each bin of :data:`POTENTIAL_EDGES`, where they
            were asked for, of a neuron that computes what its record says.
        sops: Synaptic operations an image, over all time steps.
        sops_by_step: The same at each time step, (T,).
        macs: Multiply-accumulates an image.
        ann_macs: Multiply-accumulates an image of the same layer in the ANN twin.
        energy: Joules an image.
        levels: The most spikes of a neuron at one time step.
    """

    name: str
    type: str
    kind: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    time_steps: int = 1
    parameters: int = 0
    firing_rate: Optional[float] = None
    active: Optional[float] = None
    rate_by_step: Optional[np.ndarray] = None
    rate_by_channel: Optional[np.ndarray] = None
    dead: Optional[float] = None
    saturated: Optional[float] = None
    spikes: Optional[float] = None
    neurons: Optional[float] = None
    potentials: Optional[np.ndarray] = None
    sops: float = 0.0
    sops_by_step: Optional[np.ndarray] = None
    macs: float = 0.0
    ann_macs: float = 0.0
    energy: float = 0.0
    levels: int = 1


@dataclass
class SpikeProfile:
    """What was measured on a network; operations and energy are those of one image.

    Attributes:
        layers: Neurons and layers with weights, in the order in which they ran first.
        images: Images measured.
        parameters: Parameters of the whole model.
        mac_energy: Joules a multiply-accumulate.
        ac_energy: Joules an accumulate.
        saturated_above: Rate from which on a channel counts as saturated.
        not_counted: Names of modules with weights of their own that ran and are neither
            convs, linear layers nor norms: their operations are missing.
    """

    layers: list[LayerProfile]
    images: int
    parameters: int
    mac_energy: float = MAC_ENERGY
    ac_energy: float = AC_ENERGY
    saturated_above: float = 0.95
    not_counted: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> LayerProfile:
        """The layer of that name.

        Raises:
            KeyError: There is none.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f'no layer {name!r} was measured; there are {[x.name for x in self.layers]}')

    @property
    def neuron_layers(self) -> list[LayerProfile]:
        """The layers of neurons."""
        return [layer for layer in self.layers if layer.kind == 'neuron']

    @property
    def firing_rate(self) -> Optional[float]:
        """Spikes a neuron and time step over all neurons; None without any."""
        return self._by_neurons(lambda layer: layer.firing_rate)

    @property
    def active(self) -> Optional[float]:
        """Share of neurons and time steps with a spike, over all neurons; None without any."""
        return self._by_neurons(lambda layer: layer.active)

    def _by_neurons(self, rate: Callable[[LayerProfile], Optional[float]]) -> Optional[float]:
        """Mean over all neurons and time steps."""
        layers = self.neuron_layers
        places = [of_neurons(layer.neurons) * layer.time_steps for layer in layers]
        total = sum(of_neurons(rate(layer)) * n for layer, n in zip(layers, places))
        return total / sum(places) if sum(places) else None

    @property
    def on_spikes(self) -> tuple[float, float]:
        """Joules an image of the layers that spikes enter, and of these in the ANN twin."""
        layers = [layer for layer in self.layers if layer.kind == 'spikes']
        twin = sum(layer.ann_macs for layer in layers) * self.mac_energy
        return sum(layer.energy for layer in layers), twin

    @property
    def sops(self) -> float:
        """Synaptic operations an image."""
        return sum(layer.sops for layer in self.layers)

    @property
    def macs(self) -> float:
        """Multiply-accumulates an image."""
        return sum(layer.macs for layer in self.layers)

    @property
    def ann_macs(self) -> float:
        """Multiply-accumulates an image of the ANN twin."""
        return sum(layer.ann_macs for layer in self.layers)

    @property
    def energy(self) -> float:
        """Joules an image, for SOPs as accumulates and for MACs."""
        return sum(layer.energy for layer in self.layers)

    @property
    def ann_energy(self) -> float:
        """Joules an image of the ANN twin."""
        return self.ann_macs * self.mac_energy

    def to_dict(self) -> dict:
        """Lists, strings and finite numbers, for JSON.

        Returns:
            The attributes, and the sums over layers.
        """
        sums = ('firing_rate', 'active', 'sops', 'macs', 'ann_macs', 'energy', 'ann_energy')
        return plain_numbers({**{name: getattr(self, name) for name in sums}, **asdict(self)})

    def table(self) -> str:
        """A text table: neurons first, then layers with weights, then the sums.

        Returns:
            Several lines.
        """
        neurons: list[list[object]] = [
            ['neurons', 'shape', 'T', 'rate', 'by step', 'dead', 'saturated']
        ]
        for x in self.neuron_layers:
            by_step = ' '.join(f'{rate:.3f}' for rate in of_neurons(x.rate_by_step))
            shape = 'x'.join(map(str, x.output_shape))
            shares = (f'{100 * of_neurons(share):.1f} %' for share in (x.dead, x.saturated))
            neurons.append([x.name, shape, x.time_steps, f'{x.firing_rate:.4f}', by_step, *shares])
        weights: list[list[object]] = [
            ['weights', 'input', 'T', 'parameters', 'MSOPs', 'MMACs', 'ANN MMACs', 'uJ']
        ]
        for x in self.layers:
            if x.kind == 'neuron':
                continue
            counts = (f'{count / 1e6:.3f}' for count in (x.sops, x.macs, x.ann_macs))
            row = [x.name, x.kind, x.time_steps, x.parameters, *counts, f'{x.energy * 1e6:.3f}']
            weights.append(row)
        ratio = f', {self.energy / self.ann_energy:.2f} of it' if self.ann_energy else ''
        rate = '' if self.firing_rate is None else f'mean firing rate {self.firing_rate:.4f}; '
        lines = [
            AsciiTable(rows).table for rows in (neurons, weights) if len(rows) > 1
        ] + [
            f'{self.images} images; {self.parameters / 1e6:.2f} M parameters; {rate}'
            f'{self.sops / 1e6:.2f} M SOPs and {self.macs / 1e6:.2f} M MACs an image',
            f'energy {self.energy * 1e6:.2f} uJ an image; the ANN twin '
            f'{self.ann_macs / 1e6:.2f} M MACs, {self.ann_energy * 1e6:.2f} uJ{ratio}'
            f' ({self.mac_energy * 1e12:g} pJ a MAC, {self.ac_energy * 1e12:g} pJ an accumulate; '
            "without memory traffic and the neurons' own updates)",
        ]  # fmt: skip
        if self.not_counted:
            lines.append(f'not counted: {", ".join(self.not_counted)}')
        return '\n'.join(lines)


class SpikeProfiler:
    r"""Measures every forward pass of a model inside its ``with`` block.

    Hooks look on; the model and its outputs stay as they are, to the last bit, and at the end,
    error or not, everything that was put into the model is taken out again. What counts:

    - **Firing rates** are of the neurons themselves, before any gate.
    - **Synaptic operations**: every spike at a layer's input counts once for each output it
      reaches,

      .. math::
          SOPs[t] = \frac{C_{out}}{groups} \sum_{b, c, p} s[t, b, c, p] \, f(p)

      with f(p) the number of output positions whose window covers input position p
      (:func:`fan_out`): exact at borders, for any stride, padding, dilation and kernel. A count
      of n is n spikes, and a spike of -1 is one.
    - **Multiply-accumulates** are those of layers whose input is not spikes: N H' W' C_out kH kW
      C_in/groups, padding included. Data decide: a layer sees spikes if all its inputs, in all
      forward passes, were 0 or 1; one other value, and all its operations are MACs. So the input of
      a conv behind SEW's add, which has a 2 somewhere, is real. Where a model has neurons that give
      counts or signs, whole numbers behind its first neurons are spikes. A decoder's own layers
      read means and maxima and are always real, and so is what runs without a time axis behind the
      neurons and saw nothing but zeros: the head of a silent network. What runs once for all time
      steps, as the stem on an image, counts once.
    - **The ANN twin** has the same convs and linear layers, with ReLU in place of neurons and
      T = 1; it has no decoders and no learned gates, so theirs don't count.
    - **Energy** is SOPs times an add plus MACs times a multiply and add. It leaves out memory
      traffic, which dominates on many machines, the neurons' own updates, norms (they fold into
      weights), biases, pooling, and the weighted sums of decoders.

    Source of the energies: Horowitz, *Computing's energy problem (and what we can do about it)*,
    ISSCC 2014, 45 nm.

    Args:
        model: A backbone, a classifier or a detector. Its forward passes are calls of itself, as
            by ``model(x)`` or ``model.test_step(batch)``.
        operations: Whether to count operations; without, only neurons are looked at.
        potentials: Whether to collect histograms of the membrane potential h before firing. They
            need the neurons' input currents, which a fused layer never writes: layers run
            unfused then, slower, and rounding may move a spike.
        saturated_above: Rate from which on a channel counts as saturated, in (0, 1].
        mac_energy: Joules a multiply-accumulate.
        ac_energy: Joules an accumulate.

    Raises:
        ValueError: A model of :func:`mmsnn.deploy.fuse` with integer convs, or a rate or an energy
            out of range.

    Example:
        >>> import torch
        >>> from mmsnn.analysis import SpikeProfiler
        >>> from mmsnn.models import SGResNet
        >>> net = SGResNet(18, base_channels=8).eval()
        >>> with SpikeProfiler(net) as profiler, torch.no_grad():
        ...     _ = net(torch.rand(2, 3, 32, 32))
        >>> profiler.result().images
        2
    """

    def __init__(
        self,
        model: nn.Module,
        operations: bool = True,
        potentials: bool = False,
        saturated_above: float = 0.95,
        mac_energy: float = MAC_ENERGY,
        ac_energy: float = AC_ENERGY,
    ):
        if not 0 < saturated_above <= 1:
            raise ValueError(f'saturated_above must lie in (0, 1], got {saturated_above!r}')
        for name, value in (('mac_energy', mac_energy), ('ac_energy', ac_energy)):
            if not 0 <= value < math.inf:
                raise ValueError(f'{name} must be a number of joules, got {value!r}')
        check_no_bytes(model)
        self.model = model
        self.operations = operations
        self.potentials = potentials
        self.saturated_above = saturated_above
        self.mac_energy = mac_energy
        self.ac_energy = ac_energy
        self._names = {module: name for name, module in model.named_modules()}
        self._in_decoders = _parts_of(model, (SpikeDecoder, LevelsDecoder))
        self._in_gates = _parts_of(model, Gate)
        #: What values spikes have here: of :attr:`SpikingNeuron.values`.
        self._values = {m.values for m in self._names if isinstance(m, SpikingNeuron)}
        self._handles: list = []
        self._observed: list[SpikingNeuron] = []
        self._counts: dict[nn.Module, Union[_NeuronCount, _WeightCount]] = {}
        self._not_counted: list[str] = []
        self._fan_outs: dict[tuple, Tensor] = {}
        self._images = 0
        self._failed = False
        self._start_pass(None)

    def __enter__(self):
        if self._handles:
            raise RuntimeError('this profiler is at work already')
        check_no_observer(self._names)
        begin = self.model.register_forward_pre_hook(self._begin, with_kwargs=True)
        self._handles.append(begin)
        for module in self._names:
            hook, options = None, {}
            if isinstance(module, SpikingNeuron):
                if module.shows_all and not (self.potentials and module.runs_by_record):
                    module.observer = self._see_spikes
                    self._observed.append(module)
                else:
                    hook, options = self._see_neuron, dict(with_kwargs=True)
            elif self.operations and isinstance(module, (_ConvNd, nn.Linear)):
                hook = self._see_weights
            elif self.operations and any(p.dim() > 1 for p in module.parameters(recurse=False)):
                hook = self._see_other
            if hook is not None:
                self._handles.append(module.register_forward_hook(hook, **options))
        # The last, behind what looks at a model that is itself a layer.
        self._handles.append(self.model.register_forward_hook(self._end, always_call=True))
        return self

    def __exit__(self, *error) -> None:
        for handle in self._handles:
            handle.remove()
        for neuron in self._observed:
            neuron.observer = None
        self._handles, self._observed = [], []
        self._start_pass(None)

    def result(self) -> SpikeProfile:
        """What was measured so far.

        Returns:
            The profile.

        Raises:
            ValueError: No forward pass of the model was seen, or one failed half way.
        """
        if self._failed:
            raise ValueError('a forward pass failed half way: its counts are not those of images')
        if not self._images:
            raise ValueError(
                'no forward pass was measured: call the model itself inside the with block, as '
                'model(x) or model.test_step(batch)'
            )
        layers = []
        for module, count in self._counts.items():
            row = LayerProfile(
                self._names[module],
                type(module).__name__,
                **count.measured(self._images, self.saturated_above),
                parameters=sum(p.numel() for p in module.parameters(recurse=False)),
            )
            row.energy = row.sops * self.ac_energy + row.macs * self.mac_energy
            layers.append(row)
        return SpikeProfile(
            layers,
            self._images,
            sum(p.numel() for p in self.model.parameters()),
            self.mac_energy,
            self.ac_energy,
            self.saturated_above,
            list(self._not_counted),
        )

    def _start_pass(self, images: Optional[int]) -> None:
        #: Images of the forward pass at work; None outside of one.
        self._batch = images
        #: T, once a neuron has said it.
        self._steps: Optional[int] = None
        #: Counts of layers that ran before it was known.
        self._waiting: list[tuple[_WeightCount, torch.Size, Optional[Tensor], int]] = []
        #: The last tensors looked at, with what was found: a block's input is read by two convs,
        #: and a neuron's spikes are the next conv's input.
        self._seen: list[_Seen] = []

    def _begin(self, model, args, kwargs) -> None:
        self._start_pass(_count_images([*args, *kwargs.values()]))

    def _end(self, model, args, output) -> None:
        if self._batch is None:
            return
        for count, _, sops, macs in self._waiting:
            count.add(1, sops, macs)
        self._failed |= output is None  # the hook is also called where forward raised
        self._images += self._batch
        self._start_pass(None)

    @torch.no_grad()
    def _see_spikes(self, neuron: SpikingNeuron, spikes: Tensor) -> None:
        if self._batch is None:
            return
        spikes = spikes.detach()
        check_values(neuron, self._names[neuron], spikes)
        if self._steps is None:
            self._steps = len(spikes)
            if spikes.dim() > 2:
                # It knows better than the model's arguments, of which one may be (T, B, ...).
                self._batch = spikes.shape[1]
            for weights, shape, sops, macs in self._waiting:
                weights.add(self._folded(shape), sops, macs)
            self._waiting = []
        if neuron not in self._counts:
            self._counts[neuron] = _NeuronCount(self._names[neuron], neuron.levels)
        count = self._counts[neuron]
        assert isinstance(count, _NeuronCount)
        count.add(spikes.abs() if neuron.values == 'signed' else spikes)
        if self.operations and spikes.dim() > 2:
            self._remember(spikes.flatten(0, 1), spikes=True)

    @torch.no_grad()
    def _see_neuron(self, neuron, args, kwargs, output) -> None:
        if self._batch is None:
            return
        x, output = unfold_time(neuron, args, kwargs, output)
        self._see_spikes(neuron, output)
        if self.potentials and neuron.runs_by_record:
            count = self._counts[neuron]
            assert isinstance(count, _NeuronCount)
            count.add_potentials(neuron, x.detach())

    @torch.no_grad()
    def _see_weights(self, module, args, output) -> None:
        if self._batch is None:
            return
        x = args[0].detach()
        batched = x.dim() > (1 if isinstance(module, nn.Linear) else len(module.kernel_size) + 1)
        if not batched:
            x, output = x[None], output[None]
        if module not in self._counts:
            in_twin = module not in self._in_decoders | self._in_gates
            self._counts[module] = _WeightCount(in_twin, real=module in self._in_decoders)
        count = self._counts[module]
        assert isinstance(count, _WeightCount)
        count.shapes = tuple(x.shape[1:]), tuple(output.shape[1:])
        sops = None if count.real else self._sops(module, x)
        count.real |= sops is None
        macs = _macs(module, x, output)
        if self._steps is None:
            self._waiting.append((count, x.shape, sops, macs))
        else:
            steps = self._folded(x.shape)
            count.decoded |= steps < self._steps
            count.add(steps, sops, macs)

    @torch.no_grad()
    def _see_other(self, module, args, output) -> None:
        name = self._names[module]
        if self._batch is not None and name not in self._not_counted:
            self._not_counted.append(name)

    def _folded(self, shape: tuple) -> int:
        """How many time steps an input of this shape holds: T or 1."""
        steps, batch = self._steps, self._batch
        # Asked inside a forward pass, once a neuron has said T.
        assert steps is not None
        assert batch is not None
        with_time_axis = len(shape) > 2 and tuple(shape[:2]) == (steps, batch)
        return steps if shape[0] == steps * batch or with_time_axis else 1

    def _sops(self, module: Union[_ConvNd, nn.Linear], x: Tensor) -> Optional[Tensor]:
        """SOPs of each entry of the first axis, (N,) in float64; None where x isn't spikes."""
        if isinstance(module, _ConvTransposeNd):
            return None
        sums = self._spike_sums(x, x.dim() - 1 if isinstance(module, nn.Linear) else 1)
        if sums is None:
            return None
        # Not -1: there may be no entries, as without any region of interest.
        sums = sums.reshape(len(x), math.prod(sums.shape[1:])).double()
        if isinstance(module, nn.Linear):
            return sums.sum(1) * module.out_features
        key = (module, x.shape[2:], x.device)
        if key not in self._fan_outs:
            self._fan_outs[key] = fan_out(module, x.shape[2:]).flatten().to(x.device).double()
        return (sums @ self._fan_outs[key]) * (module.out_channels // module.groups)

    def _spike_sums(self, x: Tensor, axis: int) -> Optional[Tensor]:
        """Spikes, summed over the channels; None where not all values are spikes."""
        found = next((seen for seen in self._seen if axis == 1 and seen.is_of(x)), None)
        if found is None:
            found = self._remember(x, spikes=self._are_spikes(x))
        if found.spikes and found.sums is None:
            # float32 counts exactly up to 2**24 channels; half precision would stop at 256.
            exact = torch.float64 if x.dtype == torch.float64 else torch.float32
            counts = x.abs() if 'signed' in self._values else x
            found.sums = counts.sum(axis, dtype=exact)
            found.spikes = bool(found.sums.isfinite().all())
        return found.sums if found.spikes else None

    def _are_spikes(self, x: Tensor) -> bool:
        """Whether the values are those of spikes; infinity betrays itself in the sums."""
        if self._values <= {'binary'} or self._steps is None:
            return torch.equal(x * x, x)  # only 0 and 1 are their own squares
        # An image may have whole numbers too, but it comes before the first neuron.
        return torch.equal(x.round(), x) and ('signed' in self._values or not (x < 0).any())

    def _remember(self, x: Tensor, spikes: bool) -> '_Seen':
        self._seen = [*self._seen[-2:], _Seen(x, _version(x), spikes)]
        return self._seen[-1]


def profile(
    model: nn.Module,
    batches: Iterable[Union[Tensor, Any]],
    max_batches: Optional[int] = None,
    **kwargs,
) -> SpikeProfile:
    """Measure a model on data, in eval mode and without gradients.

    Args:
        model: A backbone, a classifier or a detector; mode, weights and statistics stay.
        batches: Plain tensors, preprocessed, which go through ``model(x)``; or batches of
            a dataloader, which go through ``model.test_step(batch)``.
        max_batches: Take no more than these; None for all.
        **kwargs: Arguments of :class:`SpikeProfiler`.

    Returns:
        The profile.

    Raises:
        ValueError: No batch, or as of :class:`SpikeProfiler`.

    Example:
        >>> import torch
        >>> from mmsnn.analysis import profile
        >>> from mmsnn.models import SGResNet
        >>> result = profile(SGResNet(10, base_channels=8), [torch.rand(2, 3, 32, 32)])
        >>> 0 <= result.firing_rate <= 1 and result.energy < result.ann_energy
        True
    """
    profiler = SpikeProfiler(model, **kwargs)
    device = next((p.device for p in model.parameters()), None)
    with eval_mode(model), profiler, torch.no_grad():
        for batch in itertools.islice(batches, max_batches):
            if isinstance(batch, Tensor):
                model(batch.to(device))
            else:
                cast(BaseModel, model).test_step(batch)
    return profiler.result()


def fan_out(conv: _ConvNd, size: Sequence[int]) -> Tensor:
    """How many output positions of a conv each input position reaches.

    Along one axis, output o reads the padded input at o * stride + k * dilation for each tap k of
    the kernel; counting is a sum over outputs and taps, and the axes multiply. Taps that fall on
    zero padding count nowhere. With another ``padding_mode`` a padded place is the copy of an input
    position, which reaches what the copy reaches.

    Args:
        conv: Conv1d, Conv2d or Conv3d.
        size: Height and width of the input, or as many axes as the conv has.

    Returns:
        Whole numbers of shape ``size``.

    Example:
        >>> from torch import nn
        >>> from mmsnn.analysis import fan_out
        >>> fan_out(nn.Conv2d(1, 1, 3, stride=2, padding=1), (1, 4))
        tensor([[1, 2, 1, 1]])
    """
    # torch lists the last axis first.
    ends = list(conv._reversed_padding_repeated_twice)
    pads = [ends[i : i + 2] for i in range(0, len(ends), 2)][::-1]
    reached = torch.ones((), dtype=torch.int64)
    for n, kernel, stride, dilation, (before, after) in zip(
        size, conv.kernel_size, conv.stride, conv.dilation, pads
    ):
        outputs = (n + before + after - dilation * (kernel - 1) - 1) // stride + 1
        taps = torch.arange(outputs)[:, None] * stride + torch.arange(kernel) * dilation
        # The input position, counted from 1, that stands at each padded place; 0 is zero padding.
        source = torch.arange(1.0, n + 1)[None, None]
        mode = 'constant' if conv.padding_mode == 'zeros' else conv.padding_mode
        source = F.pad(source, (before, after), mode=mode)[0, 0].long()
        along = torch.bincount(source[taps].flatten(), minlength=n + 1)[1:]
        reached = reached[..., None] * along
    return reached


@dataclass
class _Seen:
    """A tensor that was looked at; held, so that its memory can't become another's."""

    tensor: Tensor
    version: int
    spikes: bool
    sums: Optional[Tensor] = None

    def is_of(self, x: Tensor) -> bool:
        """Whether ``x`` is that tensor still, or a view of all of it in the same shape."""
        return (
            self.tensor.data_ptr() == x.data_ptr()
            and self.tensor.shape == x.shape
            and self.tensor.stride() == x.stride()
            and self.version == _version(x)
        )


class _NeuronCount:
    """Running counts of one layer of neurons."""

    def __init__(self, name: str, levels: int):
        self.name = name
        self.levels = levels
        self.shape: tuple = ()
        #: Spikes by time step and channel (T, C), and places that a channel had at each step.
        self.spikes: Optional[Tensor] = None
        #: Places and steps with a spike, where one may have several.
        self.active = 0
        self.places = 0
        self.potentials: Optional[Tensor] = None

    def add(self, spikes: Tensor) -> None:
        """Count spikes (T, B, C, ...) or (T, C)."""
        if spikes.dim() < 3:
            spikes = spikes.reshape(len(spikes), 1, -1)
        self.shape = tuple(spikes.shape[2:])
        batch, _, *size = spikes.shape[1:]
        sums = spikes
        if size:
            sums = spikes.sum(list(range(3, spikes.dim())), dtype=torch.float32)
        # float32 counts exactly up to 2**24 places of a map.
        sums = sums.double().sum(1)
        if self.spikes is not None and self.spikes.shape != sums.shape:
            raise ValueError(
                f'neuron {self.name!r} ran at (T, C) = {tuple(self.spikes.shape)} and then at '
                f'{tuple(sums.shape)}: profile data of different time steps apart'
            )
        self.spikes = sums if self.spikes is None else self.spikes + sums
        if self.levels > 1:
            self.active += int(spikes.count_nonzero())
        self.places += batch * math.prod(size)

    def add_potentials(self, neuron: SpikingNeuron, currents: Tensor) -> None:
        """Count membrane potentials h, from currents (T, ...)."""
        # The record is what runs: a neuron of another class may have no attributes of these names.
        record = neuron.known_record()
        v_threshold = record.v_threshold
        bins = len(POTENTIAL_EDGES) - 1
        scale = 1 / float(POTENTIAL_EDGES[1] - POTENTIAL_EDGES[0]) / v_threshold
        last = round(float(POTENTIAL_EDGES[-1] - 1) * scale * v_threshold) - 1
        first = last + 1 - bins
        counts = torch.zeros(bins, dtype=torch.float64)
        for h in membrane_potentials(currents, record):
            # Bins are numbered from the threshold: below it h - V_th is negative, however small.
            bin_ = ((h - v_threshold) * scale).floor_().clamp_(first, last)
            counts += torch.histc(bin_, bins, first - 0.5, last + 0.5).double().cpu()
        self.potentials = counts if self.potentials is None else self.potentials + counts

    def measured(self, images: int, saturated_above: float) -> dict:
        """Arguments of :class:`LayerProfile`."""
        assert self.spikes is not None  # a count is made for spikes that are there
        spikes = self.spikes.cpu().numpy()
        steps, channels = spikes.shape
        places = max(self.places, 1)
        by_channel = spikes.sum(0) / (steps * places)
        rate = float(spikes.sum() / (steps * channels * places))
        measured = dict(
            kind='neuron',
            input_shape=self.shape,
            output_shape=self.shape,
            time_steps=steps,
            firing_rate=rate,
            active=self.active / (steps * channels * places) if self.levels > 1 else rate,
            rate_by_step=spikes.sum(1) / (channels * places),
            rate_by_channel=by_channel,
            dead=float((by_channel == 0).mean()),
            saturated=float((by_channel >= saturated_above * self.levels).mean()),
            spikes=float(spikes.sum() / images),
            neurons=channels * self.places / images,
            levels=self.levels,
        )
        if self.potentials is not None:
            measured['potentials'] = (self.potentials / self.potentials.sum()).numpy()
        return measured


class _WeightCount:
    """Running counts of one conv or linear layer."""

    def __init__(self, in_twin: bool, real: bool):
        self.in_twin = in_twin
        self.real = real
        #: Whether it ran without a time axis although the network has one.
        self.decoded = False
        self.shapes: tuple = ((), ())
        self.steps = 1
        self.sops: Optional[Tensor] = None
        self.macs = 0
        self.ann_macs = 0

    def add(self, steps: int, sops: Optional[Tensor], macs: int) -> None:
        """Count a call: SOPs (N,) of the entries of its first axis, and all its MACs."""
        self.steps = max(self.steps, steps)
        self.macs += macs
        self.ann_macs += macs // steps if self.in_twin else 0
        if sops is None:
            return
        by_step = torch.zeros(self.steps, dtype=torch.float64)
        by_step[:steps] = sops.view(steps, -1).sum(1).cpu()
        if self.sops is not None:
            by_step[: len(self.sops)] += self.sops
        self.sops = by_step

    def measured(self, images: int, saturated_above: float) -> dict:
        """Arguments of :class:`LayerProfile`."""
        by_step = np.zeros(self.steps)
        real, sops = self.real, 0.0
        if not real:
            assert self.sops is not None  # every call saw spikes, and counted them
            # Zeros alone, behind the decoder of a silent network, are no spikes.
            real = self.decoded and not self.sops.any()
            if not real:
                by_step[: len(self.sops)] = self.sops.numpy() / images
                sops = float(self.sops.sum()) / images
        return dict(
            kind='real' if real else 'spikes',
            input_shape=self.shapes[0],
            output_shape=self.shapes[1],
            time_steps=self.steps,
            sops=sops,
            sops_by_step=by_step,
            macs=self.macs / images if real else 0.0,
            ann_macs=self.ann_macs / images,
        )


def _parts_of(model: nn.Module, kind) -> set[nn.Module]:
    wholes = (module for module in model.modules() if isinstance(module, kind))
    return {part for whole in wholes for part in whole.modules()}


def _macs(module: Union[_ConvNd, nn.Linear], x: Tensor, output: Tensor) -> int:
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    taps = math.prod(module.kernel_size)
    if isinstance(module, _ConvTransposeNd):
        return x.numel() * taps * module.out_channels // module.groups
    return output.numel() * taps * module.in_channels // module.groups


def _count_images(values: Iterable) -> int:
    """Images of a forward pass: of the first tensor among its arguments."""
    for value in values:
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, Tensor) and value.dim() > 0:
            return value.shape[1] if value.dim() == 5 else value.shape[0]
        if isinstance(value, (list, tuple)) and value:
            single = isinstance(value[0], Tensor) and value[0].dim() == 3
            return len(value) if single else _count_images(value)
    return 1


def _version(x: Tensor) -> int:
    """Counts writes in place; tensors of inference mode have no such counter."""
    return -1 if x.is_inference() else x._version


def of_neurons(value: Optional[Number]) -> Number:
    """What a layer of neurons, or a network with some, always has.

    Args:
        value: An attribute of a profile that is None for weights alone.

    Returns:
        The same.
    """
    assert value is not None
    return value


def plain_numbers(value: Any) -> Any:
    """Numpy to lists, and None for what JSON cannot say.

    Args:
        value: Numbers, strings and arrays, in lists and dicts.

    Returns:
        The same without arrays, infinities and NaN.
    """
    if isinstance(value, dict):
        return {key: plain_numbers(v) for key, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain_numbers(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
