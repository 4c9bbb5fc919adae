"""What a network does on real data: firing rates, operations and an estimate of energy."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Optional, Union, cast

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..models.layers import Gate, LevelsDecoder, SpikeDecoder, SpikingNeuron
from .counts import Call, NeuronCount, WeightCount, fan_out, macs_of
from .measured import AC_ENERGY, MAC_ENERGY, LayerProfile, SpikeProfile
from .memory import MemoryModel, energy_of
from .observe import check_no_bytes, check_no_observer, check_values, eval_mode, unfold_time


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
    - **Energy of the arithmetic** is SOPs times an add plus MACs times a multiply and add. It
      leaves out the neurons' own updates, norms (they fold into weights), biases, pooling, and the
      weighted sums of decoders.
    - **Energy of memory** stands beside it and is not in it: words read and written, times what an
      access costs by the size of the memory (:func:`access_energy`). A layer on spikes works
      by events: each spike is read, and each SOP reads a weight and reads and writes a potential.
      Neurons read and write each potential at each time step, and write spikes. A layer on real
      values, as all of the ANN twin, reads a weight and an input for each MAC and writes each
      output. It leaves out reuse in registers and caches, the first loading of weights, biases,
      gates, pooling, addressing, and leakage.

    Sources: Horowitz, *Computing's energy problem (and what we can do about it)*, ISSCC 2014,
    45 nm; of memory, Lemaire et al., *An Analytical Estimation of Spiking Neural Networks Energy
    Efficiency*, ICONIP 2022.

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
        memory_model: Constants of the energy of memory; None for the defaults.

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
        memory_model: Optional[MemoryModel] = None,
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
        self.memory_model = memory_model or MemoryModel()
        self._names = {module: name for name, module in model.named_modules()}
        self._in_decoders = _parts_of(model, (SpikeDecoder, LevelsDecoder))
        self._in_gates = _parts_of(model, Gate)
        #: What values spikes have here: of :attr:`SpikingNeuron.values`.
        self._values = {m.values for m in self._names if isinstance(m, SpikingNeuron)}
        self._handles: list = []
        self._observed: list[SpikingNeuron] = []
        self._counts: dict[nn.Module, Union[NeuronCount, WeightCount]] = {}
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
                **count.measured(self._images, self.saturated_above, self.memory_model),
                parameters=sum(p.numel() for p in module.parameters(recurse=False)),
            )
            row.energy = row.sops * self.ac_energy + row.macs * self.mac_energy
            row.memory_energy = energy_of(row.memory)
            row.ann_memory_energy = energy_of(row.ann_memory)
            layers.append(row)
        return SpikeProfile(
            layers,
            self._images,
            sum(p.numel() for p in self.model.parameters()),
            self.mac_energy,
            self.ac_energy,
            self.saturated_above,
            list(self._not_counted),
            self.memory_model,
        )

    def _start_pass(self, images: Optional[int]) -> None:
        #: Images of the forward pass at work; None outside of one.
        self._batch = images
        #: T, once a neuron has said it.
        self._steps: Optional[int] = None
        #: Counts of layers that ran before it was known.
        self._waiting: list[tuple[WeightCount, Call]] = []
        #: The last tensors looked at, with what was found: a block's input is read by two convs,
        #: and a neuron's spikes are the next conv's input.
        self._seen: list[_Seen] = []

    def _begin(self, model, args, kwargs) -> None:
        self._start_pass(_count_images([*args, *kwargs.values()]))

    def _end(self, model, args, output) -> None:
        if self._batch is None:
            return
        for count, call in self._waiting:
            count.add(1, 1, call)
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
            for weights, call in self._waiting:
                weights.add(*self._folded(call.input_shape), call)
            self._waiting = []
        if neuron not in self._counts:
            self._counts[neuron] = NeuronCount(self._names[neuron], neuron.levels)
        count = self._counts[neuron]
        assert isinstance(count, NeuronCount)
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
            assert isinstance(count, NeuronCount)
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
            self._counts[module] = WeightCount(in_twin, real=module in self._in_decoders)
        count = self._counts[module]
        assert isinstance(count, WeightCount)
        count.shapes = tuple(x.shape[1:]), tuple(output.shape[1:])
        sums = None if count.real else self._spikes_in(module, x)
        count.real |= sums is None
        sops, spikes = (None, 0.0) if sums is None else self._sops(module, x, sums)
        call = Call(module, x.shape, output.shape, macs_of(module, x, output), sops, spikes)
        if self._steps is None:
            self._waiting.append((count, call))
        else:
            steps, axes = self._folded(x.shape)
            count.decoded |= steps < self._steps
            count.add(steps, axes, call)

    @torch.no_grad()
    def _see_other(self, module, args, output) -> None:
        name = self._names[module]
        if self._batch is not None and name not in self._not_counted:
            self._not_counted.append(name)

    def _folded(self, shape: tuple) -> tuple[int, int]:
        """How many time steps an input of this shape holds, T or 1, and axes of time and batch."""
        steps, batch = self._steps, self._batch
        # Asked inside a forward pass, once a neuron has said T.
        assert steps is not None
        assert batch is not None
        if shape[0] == steps * batch:
            return steps, 1
        with_time_axis = len(shape) > 2 and tuple(shape[:2]) == (steps, batch)
        return (steps, 2) if with_time_axis else (1, 1)

    def _spikes_in(self, module: Union[_ConvNd, nn.Linear], x: Tensor) -> Optional[Tensor]:
        """Spikes of each entry of the first axis (N, places); None where x isn't spikes."""
        if isinstance(module, _ConvTransposeNd):
            return None
        sums = self._spike_sums(x, x.dim() - 1 if isinstance(module, nn.Linear) else 1)
        # Not -1: there may be no entries, as without any region of interest.
        return None if sums is None else sums.reshape(len(x), math.prod(sums.shape[1:])).double()

    def _sops(
        self, module: Union[_ConvNd, nn.Linear], x: Tensor, sums: Tensor
    ) -> tuple[Tensor, float]:
        """SOPs of each entry of the first axis, (N,) in float64, and spikes of all together."""
        spikes = float(sums.sum())
        if isinstance(module, nn.Linear):
            return sums.sum(1) * module.out_features, spikes
        key = (module, x.shape[2:], x.device)
        if key not in self._fan_outs:
            self._fan_outs[key] = fan_out(module, x.shape[2:]).flatten().to(x.device).double()
        return (sums @ self._fan_outs[key]) * (module.out_channels // module.groups), spikes

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


def _parts_of(model: nn.Module, kind) -> set[nn.Module]:
    wholes = (module for module in model.modules() if isinstance(module, kind))
    return {part for whole in wholes for part in whole.modules()}


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
