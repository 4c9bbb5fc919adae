"""Calibration by images without labels: rates that stand for the ANN's activations."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Optional

import torch
import torch.nn.functional as F
from mmdet.models.necks import FPN, ChannelMapper
from torch import Tensor, nn

from ..analysis.observe import eval_mode
from ..analysis.profile import profile
from ..models import SGResNet, SpikingClsHead
from ..models.backbones.sg_resnet import AddBlock, GateBlock, SpikingBlock
from ..models.detectors.checks import list_necks
from ..models.layers import (
    LearnedGate,
    ResidualGate,
    SpikeMaxPool2d,
    SpikingNeuron,
    spiking_layer,
)
from ..models.necks import DecoderNeck
from .inherit import InheritError

#: The share of an ANN's activations of a channel that one spike a time step stands for or exceeds.
PERCENTILE = 0.999
#: The least unit of a channel, in units of its layer: one that is silent in all images has none.
LEAST_UNIT = 0.2
#: Gains that are tried for a layer's currents, from where each of them is alone.
GAINS = tuple(2 ** (i / 4) for i in range(-6, 14))
#: A gain that makes no more of a difference to the likeness isn't worth one.
NO_DIFFERENCE = 1e-3
#: Values of which percentiles are taken at once: torch.quantile refuses more than 16 million.
QUANTILE_SIZE = 2**22
#: Values of a channel that are looked at, over all images, places and time steps.
VALUES = 16384


class LayerFit(NamedTuple):
    """How a layer of neurons was calibrated.

    Args:
        name: The layer's name in the backbone.
        gain: Factor on its currents.
        likeness: Correlation of its rates, behind the gate where there is one, with the ANN's
            activations, within channels.
    """

    name: str
    gain: float
    likeness: float


class Site(NamedTuple):
    """A conv, a norm and neurons, with what goes in and what should come out.

    Args:
        name: Name of the neurons.
        conv: The conv.
        norm: The norm.
        neuron: The neurons, a :class:`~mmsnn.models.layers.SpikingNeuron`.
        inputs: Spikes (T*B, C, H, W) a batch; images (B, C, H, W) for the first conv.
        activations: What the ANN has behind its ReLU, (B, C_out, H', W') a batch.
        joined: Gives a batch's other spikes of a gate, or currents that are added,
            (T*B, C_out, H', W').
        gate: The gate; None where currents are joined, or nothing is.
        joined_norm: The norm that gives joined currents, which then get the gain too.
    """

    name: str
    conv: nn.Module
    norm: nn.Module
    neuron: Any
    inputs: Sequence[Tensor]
    activations: Sequence[Tensor]
    joined: Optional[Callable[[int], Tensor]] = None
    gate: Optional[nn.Module] = None
    joined_norm: Optional[nn.Module] = None


def channel_units(activations: Tensor, percentile: float = PERCENTILE) -> Tensor:
    """What a rate of 1 stands for in each channel: a percentile of the ANN's activations.

    Source: Rueckauer et al. 2017 for the percentile of a layer in the place of its maximum, Kim et
    al. 2020 (Spiking-YOLO) for one by channel. A channel that is hardly ever on keeps a fifth of
    its layer's unit, so that no weight grows beyond measure.

    Args:
        activations: (P, C), not negative.
        percentile: Share from 0 to 1.

    Returns:
        (C,), positive.

    Example:
        >>> import torch
        >>> from mmsnn.conversion import channel_units
        >>> channel_units(torch.tensor([[1.0, 0.0], [3.0, 0.0]]), percentile=1.0)
        tensor([3.0000, 0.6000])
    """
    on = activations[activations > 0]
    on = on[:: len(on) // QUANTILE_SIZE + 1]
    layer = torch.quantile(on, percentile) if len(on) else activations.new_tensor(1.0)
    parts = activations.split(max(1, QUANTILE_SIZE // len(activations)), dim=1)
    channels = torch.cat([torch.quantile(part, percentile, dim=0) for part in parts])
    return channels.clamp(min=LEAST_UNIT * layer)


def likeness(rates: Tensor, activations: Tensor) -> float:
    r"""Correlation of rates and activations within channels.

    .. math::
        \frac{\sum_{pc} (r_{pc} - \bar r_c)(a_{pc} - \bar a_c)}
             {\sqrt{\sum_{pc} (r_{pc} - \bar r_c)^2 \sum_{pc} (a_{pc} - \bar a_c)^2}}

    A mean of a channel, and a factor of the layer, are what the norm behind the next conv takes
    away. What is left is what that conv can't mend.

    Args:
        rates: (P, C).
        activations: (P, C).

    Returns:
        From -1 to 1; 0 where either doesn't change.

    Example:
        >>> import torch
        >>> from mmsnn.conversion import likeness
        >>> rates = torch.tensor([[0.0, 1.0], [1.0, 0.5]])
        >>> round(likeness(rates, 3 * rates + torch.tensor([0.0, 7.0])), 4)
        1.0
    """
    r, a = (x.double() - x.double().mean(0) for x in (rates, activations))
    size = (r.square().sum() * a.square().sum()).sqrt().item()
    return (r * a).sum().item() / size if size else 0.0


def fitted_line(rates: Tensor, activations: Tensor, through_zero: bool) -> tuple[float, Tensor]:
    """The line by which rates give back activations, in least squares.

    Args:
        rates: (P, C).
        activations: (P, C).
        through_zero: Whether a rate of 0 gives 0.

    Returns:
        One slope of the layer, and an offset by channel (C,).

    Example:
        >>> import torch
        >>> from mmsnn.conversion import fitted_line
        >>> rates = torch.tensor([[0.0, 1.0], [1.0, 0.5]])
        >>> slope, offset = fitted_line(rates, 2 * rates + torch.tensor([0.0, 1.0]), False)
        >>> round(slope, 4), offset
        (2.0, tensor([0., 1.]))
    """
    rates, activations = rates.double(), activations.double()
    zeros = rates.new_zeros(rates.shape[1])
    mean_r, mean_a = (zeros, zeros) if through_zero else (rates.mean(0), activations.mean(0))
    size = (rates - mean_r).square().sum().item()
    # Silent: nothing to go by.
    slope = ((rates - mean_r) * (activations - mean_a)).sum().item() / size if size else 1.0
    return slope, (mean_a - slope * mean_r).float()


def best_gain(
    rates_at: Callable[[float], Tensor], activations: Tensor, gains: Sequence[float] = GAINS
) -> tuple[float, float]:
    """The gain on a layer's currents with which its rates are most like the ANN's activations.

    Args:
        rates_at: Gives rates (P, C) by a gain.
        activations: (P, C).
        gains: What is tried.

    Returns:
        The gain, of several as good as the best the one that is nearest to 1, and 1 where none
        makes the layer fire; and the likeness.

    Example:
        >>> import torch
        >>> from mmsnn.conversion import best_gain
        >>> a = torch.linspace(0, 1, 9)[:, None]
        >>> best_gain(lambda gain: (gain * a).clamp(max=1), a, gains=(0.5, 4.0))[0]
        0.5
    """
    found = {gain: likeness(rates_at(gain), activations) for gain in gains}
    top = max(found.values())
    if top <= 0:
        return 1.0, 0.0
    near = [gain for gain in gains if found[gain] >= top - NO_DIFFERENCE]
    best = min(near, key=lambda gain: abs(math.log(gain)))
    return best, found[best]


class Calibrator:
    r"""Calibrates a model that has just inherited an ANN's weights, in place.

    Layer by layer, from the images on:

    1. Units: a rate of 1 stands for a percentile of the ANN's activations of the channel
       (:func:`channel_units`). With u of the channels in front and u' of those behind, the conv's
       weights become :math:`w_{oi}\, u_i`, and the norm's :math:`\gamma_o / u'_o` and
       :math:`\beta_o / u'_o`. An identity shortcut ties the units of its two ends together.
    2. Statistics: mean and variance of the norm are those of the currents that the spikes of the
       layers in front give, which are calibrated already. Training and inference then agree.
    3. Gain: one factor on gamma and beta, which is one on the threshold: the one of :data:`GAINS`
       with which rates are most like the ANN's activations (:func:`best_gain`).

    Behind the decoders, the convs of an FPN or ChannelMapper, or a classifier's linear layer, get
    the line that turns rates back into activations (:func:`fitted_line`).

    The ANN is made of the model's own weights: ReLU in the place of neurons, currents of branch and
    shortcut that add up. So a model that was trained after it had inherited isn't one to calibrate.

    Args:
        model: An ``SGResNet``, a detector or a classifier, with an ANN's weights.
        images: Batches (B, C, H, W) as the backbone takes them.

    Raises:
        InheritError: Its blocks are none whose ANN is known.

    Example:
        >>> import torch
        >>> from mmdet.models import ResNet
        >>> from mmsnn.conversion import Calibrator, inherit, target_of
        >>> from mmsnn.models import SGResNet
        >>> net = SGResNet(18, base_channels=8)
        >>> ann = ResNet(18, base_channels=8).state_dict()
        >>> _ = net.load_state_dict(inherit(ann, target_of(net))[0])
        >>> fits = Calibrator(net, [torch.randn(2, 3, 64, 64)]).run()
        >>> [fit.name for fit in fits][:2]
        ['stem.0.neuron', 'layer1.0.neuron1']
    """

    def __init__(self, model: nn.Module, images: Sequence[Tensor]):
        backbone = model if isinstance(model, SGResNet) else getattr(model, 'backbone', None)
        if not isinstance(backbone, SGResNet):
            raise InheritError(f'{type(model).__name__} has no SGResNet to calibrate')
        for module in backbone.modules():
            if isinstance(module, SpikingBlock) and not isinstance(module, (GateBlock, AddBlock)):
                raise InheritError(
                    f'{type(module).__name__} has no known ANN: calibration takes the blocks '
                    "'sg', 'sew', 'plain' and 'tdbn'"
                )
        self.model = model
        self.backbone = backbone
        self.images = images
        self.time_steps: int = backbone.time_steps
        self.v_threshold = next(
            m.v_threshold for m in backbone.modules() if isinstance(m, SpikingNeuron)
        )
        self.ann = copy.deepcopy(backbone).eval()
        count = sum(len(batch) for batch in images)
        #: Places at which an image is looked at.
        self.per_image = max(4, VALUES // (self.time_steps * count))
        #: Units (C,) of every layer of neurons.
        self.units: dict[str, Tensor] = {}
        self.fits: list[LayerFit] = []

    @torch.no_grad()
    def run(self) -> list[LayerFit]:
        """Calibrate.

        Returns:
            What became of each layer of neurons, in the order in which they run.
        """
        with eval_mode(self.model), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.units = self._find_units()
            self._set_units()
            levels = self._fit_layers()
            self._fit_readers(levels)
        return self.fits

    # The ANN

    def _relu(self, currents: Tensor) -> Tensor:
        return currents.clamp(min=0) / self.v_threshold

    def _ann_stem(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        for i, layer in enumerate(self.ann.stem):
            x = self._relu(layer['norm'](layer['conv'](x)))
            yield f'stem.{i}.neuron', x

    def _ann_pool(self, x: Tensor) -> Tensor:
        pool = self.backbone.maxpool
        if not isinstance(pool, SpikeMaxPool2d):
            return x
        return F.max_pool2d(x, pool.kernel_size, pool.stride, pool.padding)

    def _ann_block(self, name: str, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Activations by the neurons in whose place they stand, the block's own last."""
        block = self.ann.get_submodule(name)
        assert isinstance(block, SpikingBlock)
        shortcut = block.shortcut_current(x)
        if block.downsample is not None:
            shortcut = shortcut / self.v_threshold
            yield f'{name}.downsample_neuron', shortcut.clamp(min=0)
        for i in range(1, block.num_convs):
            x = self._relu(block.current(i, x))
            yield f'{name}.neuron{i}', x
        last = block.current(block.num_convs, x) / self.v_threshold
        yield f'{name}.neuron{block.num_convs}', (last + shortcut).clamp(min=0)

    def _blocks(self) -> list[tuple[str, SpikingBlock]]:
        return [
            (f'{stage}.{i}', block)
            for stage in self.backbone.res_layers
            for i, block in enumerate(getattr(self.backbone, stage))
        ]

    # Units

    def _find_units(self) -> dict[str, Tensor]:
        """Units (C,) of every layer of neurons, those that an identity ties together the same."""
        seen: dict[str, list[Tensor]] = {}
        for batch in self.images:
            out = batch
            for name, out in self._ann_stem(batch):
                seen.setdefault(name, []).append(self._sample(out))
            x = self._ann_pool(out)
            for block, _ in self._blocks():
                for name, out in self._ann_block(block, x):
                    seen.setdefault(name, []).append(self._sample(out))
                x = out
        units = {name: channel_units(torch.cat(parts)) for name, parts in seen.items()}
        tied = [[f'stem.{len(self.backbone.stem) - 1}.neuron']]
        for name, block in self._blocks():
            last = f'{name}.neuron{block.num_convs}'
            if block.downsample is None:
                tied[-1].append(last)
            else:
                tied.append([f'{name}.downsample_neuron', last])
        for names in tied:
            joint = torch.stack([units[name] for name in names]).amax(0)
            units.update(dict.fromkeys(names, joint))
        return units

    def _set_units(self) -> None:
        before, units = None, self.units
        for i, layer in enumerate(self.backbone.stem):
            _set_unit(layer['conv'], layer['norm'], before, units[f'stem.{i}.neuron'])
            before = units[f'stem.{i}.neuron']
        for name, block in self._blocks():
            if block.downsample is not None:
                conv, norm = block.downsample
                _set_unit(conv, norm, before, units[f'{name}.downsample_neuron'])
            for i in range(1, block.num_convs + 1):
                conv, norm, _ = block.layer(i)
                _set_unit(conv, norm, before, units[f'{name}.neuron{i}'])
                before = units[f'{name}.neuron{i}']

    # Statistics and gains

    def _fit_layers(self) -> list[tuple[str, list[Tensor], list[Tensor]]]:
        """Name of the neurons, spikes and activations, by batch, of each level."""
        time_steps, last = self.time_steps, len(self.backbone.stem) - 1
        spikes, ann = list(self.images), list(self.images)
        for i, layer in enumerate(self.backbone.stem):
            parts, twin = (layer['conv'], layer['norm'], layer['neuron']), self.ann.stem[i]
            ann = [self._relu(twin['norm'](twin['conv'](x))) for x in ann]
            self._fit(Site(f'stem.{i}.neuron', *parts, spikes, ann))
            pool = self.backbone.maxpool if i == last else None
            how: dict = dict(shared=i == 0, binary=False, pool=pool)
            spikes = [_packed(spiking_layer(*parts, x.float(), time_steps, **how)) for x in spikes]
        ann = [self._ann_pool(x) for x in ann]
        levels, ends = [], self._ends()
        for name, block in self._blocks():
            ann = self._fit_block(name, block, spikes, ann)
            spikes = [_packed(block(x.float(), time_steps)) for x in spikes]
            if name in ends:
                levels.append((f'{name}.neuron{block.num_convs}', spikes, ann))
        return levels

    def _ends(self) -> set[str]:
        """The last block of each level that is returned."""
        stages = [self.backbone.res_layers[i] for i in self.backbone.out_indices]
        return {f'{stage}.{len(getattr(self.backbone, stage)) - 1}' for stage in stages}

    def _fit_block(
        self, name: str, block: SpikingBlock, spikes: list[Tensor], ann: list[Tensor]
    ) -> list[Tensor]:
        """Fit the layers of a block; the ANN's activations behind it."""
        time_steps = self.time_steps
        goals: dict[str, list[Tensor]] = {}
        for a in ann:
            for at, out in self._ann_block(name, a):
                goals.setdefault(at, []).append(out)
        inner = spikes
        for i in range(1, block.num_convs):
            conv, norm, neuron = block.layer(i)
            here = f'{name}.neuron{i}'
            self._fit(Site(here, conv, norm, neuron, inner, goals[here]))
            inner = [
                _packed(spiking_layer(conv, norm, neuron, s.float(), time_steps, binary=False))
                for s in inner
            ]
        gate = block.gate if isinstance(block, GateBlock) else None
        joined_norm = None
        if block.downsample is not None:
            conv, norm = block.downsample
            side = f'{name}.downsample_neuron'
            if gate is None:
                set_statistics(conv, norm, spikes)
                joined_norm = norm
            else:
                neuron = block.downsample_neuron
                self._fit(Site(side, conv, norm, neuron, spikes, goals[side]))

        def joined(i: int) -> Tensor:
            current = block.shortcut_current(spikes[i].float())
            if gate is None or block.downsample is None:
                return current
            return block.downsample_neuron(current, time_steps)

        conv, norm, neuron = block.layer(block.num_convs)
        last = f'{name}.neuron{block.num_convs}'
        goal = goals[last]
        self._fit(Site(last, conv, norm, neuron, inner, goal, joined, gate, joined_norm))
        return goal

    def _fit(self, site: Site) -> None:
        """Set a norm's statistics, and the gain of its layer."""
        set_statistics(site.conv, site.norm, site.inputs)
        # A fresh learned gate is near the residual one.
        gate: Any = site.gate
        if isinstance(site.gate, LearnedGate):
            gate = ResidualGate()
            gate.values = site.gate.values
        if gate is not None and list(gate.parameters()):
            # One that weighs whole maps: what it gives at single places isn't known.
            self.fits.append(LayerFit(site.name, 1.0, math.nan))
            return
        currents, activations, joined = [], [], []
        for i, x in enumerate(site.inputs):
            current, goal = site.norm(site.conv(x.float())), site.activations[i]
            places = self._places(goal)
            currents.append(self._at(current, len(goal), places))
            activations.append(_by_place(goal)[places])
            if site.joined is not None:
                joined.append(self._at(site.joined(i), len(goal), places))
        current, goal = torch.cat(currents, 1), torch.cat(activations)
        other = torch.cat(joined, 1) if joined else None

        def rates(gain: float) -> Tensor:
            x = gain * current
            if other is not None and gate is None:
                joint = other if site.joined_norm is None else gain * other
                return site.neuron.fire(x + joint).mean(0)
            spikes = site.neuron.fire(x)
            if gate is not None and other is not None:
                spikes = gate(spikes, other, self.time_steps)
            return spikes.mean(0)

        gain, like = best_gain(rates, goal / self.units[site.name])
        for norm in (site.norm, site.joined_norm):
            for parameter in () if norm is None else (norm.weight, norm.bias):
                assert isinstance(parameter, Tensor)
                parameter.mul_(gain)
        if isinstance(site.gate, LearnedGate):
            parts = site.conv, site.norm, site.neuron
            spikes = [
                _packed(spiking_layer(*parts, x.float(), self.time_steps, binary=False))
                for x in site.inputs
            ]
            set_statistics(site.gate.conv, site.gate.norm, spikes)
        self.fits.append(LayerFit(site.name, gain, like))

    def _places(self, goal: Tensor) -> Tensor:
        count = goal.shape[0] * goal.shape[2] * goal.shape[3]
        return torch.randperm(count)[: self.per_image * len(goal)]

    def _sample(self, activations: Tensor) -> Tensor:
        """Some of (B, C, H, W), as (P, C)."""
        return _by_place(activations)[self._places(activations)]

    def _at(self, x: Tensor, batch: int, places: Tensor) -> Tensor:
        """(T*B, C, H, W), or (B, C, H, W) of a current that stays, to (T, P, C) at some places."""
        x = x.unflatten(0, (-1, batch))
        x = x.movedim(2, -1).flatten(1, 3)[:, places]
        return x.expand(self.time_steps, -1, -1)

    # What reads the levels

    def _fit_readers(self, levels: list[tuple[str, list[Tensor], list[Tensor]]]) -> None:
        decoders, readers = level_readers(self.model)
        for i, (name, spikes, ann) in enumerate(levels):
            if not readers.get(i):
                continue
            rates, goals = [], []
            for s, goal in zip(spikes, ann):
                decoded = decoders[i](s.float().unflatten(0, (self.time_steps, -1)))
                places = self._places(goal)
                rates.append(_by_place(decoded)[places])
                goals.append(_by_place(goal)[places])
            unit = self.units[name]
            rate, activation = torch.cat(rates), torch.cat(goals) / unit
            for reader in readers[i]:
                slope, offset = fitted_line(rate, activation, reader.bias is None)
                _set_line(reader, slope * unit, offset * unit)


def set_statistics(conv: nn.Module, norm: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Set a norm's mean and variance to those of what its conv gives, over all images and steps.

    Args:
        conv: The conv.
        norm: The norm; one without running statistics stays as it is.
        inputs: (N, C, H, W) a batch.
    """
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None:
        return
    assert norm.running_var is not None  # the variance is kept with the mean
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for x in inputs:
        y = conv(x.float()).double()
        count += y.numel() // y.shape[1]
        total = total + y.sum((0, 2, 3))
        squares = squares + y.square().sum((0, 2, 3))
    mean = total / count
    norm.running_mean.copy_(mean)
    norm.running_var.copy_((squares / count - mean.square()).clamp(min=0))


def firing_rates(model: nn.Module, images: Sequence[Tensor]) -> dict[str, float]:
    """Mean spikes of a neuron at a time step, by layer of neurons, in eval mode.

    Args:
        model: An ``SGResNet``, or a detector or classifier with one.
        images: Batches (B, C, H, W) as the backbone takes them.

    Returns:
        By name of the layer in the backbone.
    """
    backbone: Any = model if isinstance(model, SGResNet) else model.backbone
    layers = profile(backbone, images).layers
    return {layer.name: layer.firing_rate for layer in layers if layer.firing_rate is not None}


def level_readers(model: Any) -> tuple[list[nn.Module], dict[int, list[nn.Module]]]:
    """The decoders of a model, and the layers that read each level behind them.

    Args:
        model: A backbone, a classifier or a detector.

    Returns:
        A decoder a level; and by level convs and linear layers. Empty for a backbone, and where
        what stands behind the decoders is no FPN, ChannelMapper or ``SpikingClsHead``.
    """
    head = getattr(model, 'head', None)
    if isinstance(head, SpikingClsHead) and head.decoder is not None and head.hidden is None:
        last = len(model.backbone.out_indices) - 1
        return [head.decoder] * (last + 1), {last: [head.fc]}
    necks = list_necks(getattr(model, 'neck', None))
    if len(necks) < 2 or not isinstance(necks[0], DecoderNeck) or necks[0].decoders is None:
        return [], {}
    neck = necks[1]
    readers: dict[int, list[nn.Module]] = {}
    if isinstance(neck, FPN):
        for i, lateral in enumerate(neck.lateral_convs):
            readers[neck.start_level + i] = [lateral.conv]
        if neck.add_extra_convs == 'on_input' and len(neck.fpn_convs) > len(neck.lateral_convs):
            first_extra = neck.fpn_convs[len(neck.lateral_convs)].conv
            readers[neck.backbone_end_level - 1].append(first_extra)
    elif isinstance(neck, ChannelMapper):
        readers = {i: [conv.conv] for i, conv in enumerate(neck.convs)}
        if neck.extra_convs:
            readers[len(neck.convs) - 1].append(neck.extra_convs[0].conv)
    return list(necks[0].decoders), readers


def _packed(spikes: Tensor) -> Tensor:
    """Spikes at a byte each: those of all images are kept at once."""
    return spikes.to(torch.int8 if spikes.numel() and spikes.min() < 0 else torch.uint8)


def _by_place(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B*H*W, C)."""
    return x.movedim(1, -1).flatten(0, 2)


def _set_unit(conv: nn.Module, norm: nn.Module, before: Optional[Tensor], behind: Tensor) -> None:
    """Step 1 of :class:`Calibrator` for one layer."""
    weight = conv.weight
    assert isinstance(weight, Tensor)
    if before is not None:
        weight.mul_(before[:, None, None])
    for parameter in (norm.weight, norm.bias):
        assert isinstance(parameter, Tensor)
        parameter.div_(behind)


def _set_line(reader: nn.Module, slope: Tensor, offset: Tensor) -> None:
    """Let a layer that read activations read rates: a = slope * rate + offset, by channel."""
    weight, bias = reader.weight, reader.bias
    assert isinstance(weight, Tensor)
    if isinstance(bias, Tensor):
        bias.add_(weight.flatten(2).sum(2) @ offset if weight.dim() == 4 else weight @ offset)
    weight.mul_(slope[:, None, None] if weight.dim() == 4 else slope)
