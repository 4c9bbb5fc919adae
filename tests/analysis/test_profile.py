"""Firing rates, operations and energy against counts by hand."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from small_nets import backbone, classifier, images, is_clean
from torch import nn

from mmsnn.analysis import (
    AC_ENERGY,
    MAC_ENERGY,
    POTENTIAL_EDGES,
    SpikeProfiler,
    fan_out,
    profile,
)
from mmsnn.deploy import fuse
from mmsnn.models.layers import LIFNeuron, SpikingNeuron
from mmsnn.ops import LIF

ROOT = Path(__file__).resolve().parents[2]


def spikes(*shape, rate=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator) < rate).float()


class Relay(nn.Module):
    """Spikes through a neuron that repeats them, and a layer with weights."""

    def __init__(self, layer):
        super().__init__()
        self.neuron = LIFNeuron(decay=0.0)
        self.layer = layer

    def forward(self, x):
        return self.layer(self.neuron(x).flatten(0, 1))


# Counts by hand


def sops_by_hand(conv, x):
    """SOPs of (T, B, C, H, W) spikes at every step, one output and tap at a time."""
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = (
        conv.kernel_size, conv.stride, conv.padding, conv.dilation,
    )  # fmt: skip
    steps, batch, channels, height, width = x.shape
    out_height = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    out_width = (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    per_group = channels // conv.groups
    counts = [0] * steps
    for t, b, o in itertools.product(range(steps), range(batch), range(conv.out_channels)):
        group = o // (conv.out_channels // conv.groups)
        for i, j, p, q in itertools.product(
            range(out_height), range(out_width), range(kh), range(kw)
        ):
            row, column = i * sh - ph + p * dh, j * sw - pw + q * dw
            if not (0 <= row < height and 0 <= column < width):
                continue
            for c in range(group * per_group, (group + 1) * per_group):
                counts[t] += int(x[t, b, c, row, column])
    return counts


@pytest.mark.parametrize(
    'options',
    [
        dict(kernel_size=3, padding=1),
        dict(kernel_size=3, stride=2, padding=1),
        dict(kernel_size=3, stride=2),
        dict(kernel_size=1, stride=2),
        dict(kernel_size=3, padding=2, dilation=2),
        dict(kernel_size=(3, 2), stride=(2, 3), padding=(0, 1), dilation=(1, 2)),
        dict(kernel_size=3, padding=1, groups=2),
        dict(kernel_size=3, padding=1, stride=2, groups=4, bias=False),
    ],
    ids=str,
)
def test_rates_and_sops_are_those_counted_by_hand(options):
    conv = nn.Conv2d(4, 8, **options)
    x = spikes(2, 2, 4, 5, 6)
    result = profile(Relay(conv), [x])
    layer = result['layer']
    by_hand = sops_by_hand(conv, x)
    assert layer.kind == 'spikes'
    assert (2 * layer.sops_by_step).tolist() == by_hand
    assert 2 * layer.sops == sum(by_hand)
    assert layer.macs == 0

    neuron = result['neuron']
    count = sum(int(v) for v in x.flatten().tolist())
    assert neuron.firing_rate == count / x.numel()
    assert neuron.spikes == count / 2
    assert neuron.neurons == 4 * 5 * 6
    for t in range(2):
        assert neuron.rate_by_step[t] == x[t].sum().item() / x[t].numel()
    for c in range(4):
        assert neuron.rate_by_channel[c] == x[:, :, c].sum().item() / x[:, :, c].numel()


@settings(deadline=None, max_examples=60)
@given(
    size=st.integers(1, 9),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 4),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 3),
)
def test_fan_out_is_a_count_over_outputs(size, kernel, stride, padding, dilation):
    outputs = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    if outputs < 1:
        return
    conv = nn.Conv1d(1, 1, kernel, stride, padding, dilation)
    expected = [0] * size
    for o, k in itertools.product(range(outputs), range(kernel)):
        place = o * stride + k * dilation - padding
        if 0 <= place < size:
            expected[place] += 1
    assert fan_out(conv, (size,)).tolist() == expected


@pytest.mark.parametrize('padding_mode', ['zeros', 'circular', 'reflect', 'replicate'])
@pytest.mark.parametrize('padding', ['same', 1])
def test_fan_out_is_the_gradient_of_a_conv_of_ones(padding, padding_mode):
    conv = nn.Conv2d(1, 1, (3, 4), padding=padding, dilation=(2, 1), padding_mode=padding_mode)
    nn.init.ones_(conv.weight)
    x = torch.zeros(1, 1, 7, 6, requires_grad=True)
    (grad,) = torch.autograd.grad(conv(x).sum(), x)
    assert torch.equal(fan_out(conv, (7, 6)), grad[0, 0].long())


def test_a_linear_layer():
    x = spikes(3, 2, 7)
    layer = profile(Relay(nn.Linear(7, 5)), [x])['layer']
    assert layer.time_steps == 3
    assert 2 * layer.sops == x.sum().item() * 5
    real = profile(nn.Sequential(nn.Linear(7, 5)), [torch.rand(2, 7)])['0']
    assert (real.kind, real.macs, real.ann_macs) == ('real', 35, 35)


def test_no_entries_are_no_operations():
    net = nn.Sequential(nn.Linear(7, 5))
    assert profile(net, [torch.rand(2, 7), torch.rand(0, 7)])['0'].macs == 35
    result = profile(net, [spikes(2, 7), spikes(0, 7)])
    assert 2 * result['0'].sops == 5 * spikes(2, 7).sum()


# A network


def reference_counts(net, x):
    """Inputs of convs and spikes of neurons by ordinary hooks, which take every layer apart."""
    inputs, fired, handles = {}, {}, []
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            handles.append(
                module.register_forward_hook(lambda m, a, o, name=name: inputs.update({name: a[0]}))
            )
        elif isinstance(module, LIFNeuron):
            handles.append(
                module.register_forward_hook(lambda m, a, o, name=name: fired.update({name: o}))
            )
    with torch.no_grad():
        net(x)
    for handle in handles:
        handle.remove()
    return inputs, fired


@pytest.mark.parametrize('stem', ['imagenet', 'deep'])
@pytest.mark.parametrize('block', ['sg', 'plain', 'tdbn', 'sew', 'ms'])
def test_a_network_against_a_count_by_convs_of_ones(block, stem):
    # In float64 taking a layer apart moves no spike.
    net, x = backbone(block=block, stem=stem).double(), images().double()
    result = profile(net, [x])
    inputs, fired = reference_counts(net, x)
    assert {layer.name for layer in result.layers} == {*inputs, *fired}
    for name, value in inputs.items():
        conv = net.get_submodule(name)
        ones = torch.ones_like(conv.weight)
        options = conv.stride, conv.padding, conv.dilation, conv.groups
        binary = ((value == 0) | (value == 1)).all()
        layer = result[name]
        assert layer.kind == ('spikes' if binary else 'real')
        assert layer.time_steps == len(value) / 2
        sums = F.conv2d(value, ones, None, *options)
        macs = sums.numel() * ones[0].numel() / 2
        assert layer.ann_macs == macs / layer.time_steps
        if binary:
            by_step = sums.unflatten(0, (4, -1)).sum((1, 2, 3, 4)) / 2
            assert layer.sops_by_step.tolist() == by_step.tolist()
            assert layer.sops == by_step.sum().item()
            assert layer.macs == 0
        else:
            assert layer.macs == macs
            assert layer.sops == 0
    for name, value in fired.items():
        layer = result[name]
        by_channel = value.mean((0, 2, 3))
        assert 0 < layer.firing_rate < 1
        assert layer.firing_rate == pytest.approx(value.mean().item(), rel=1e-12)
        assert np.allclose(layer.rate_by_channel, by_channel, rtol=1e-12)
        by_step = value.unflatten(0, (4, -1)).mean((1, 2, 3, 4))
        assert np.allclose(layer.rate_by_step, by_step, rtol=1e-12)
        assert layer.dead == (by_channel == 0).double().mean().item()
    total = sum(value.sum().item() for value in fired.values())
    assert result.firing_rate == pytest.approx(total / sum(v.numel() for v in fired.values()))


def test_the_same_sops_as_spikingjelly():
    counter = pytest.importorskip(
        'spikingjelly.activation_based.op_counter', reason='SpikingJelly is not installed'
    )
    net, x = backbone(18).double(), images().double()
    result = profile(net, [x])
    for name, value in reference_counts(net, x)[0].items():
        if result[name].kind == 'spikes':
            count = counter.SynOpCounter()
            with torch.no_grad(), counter.DispatchCounterMode([count]):
                net.get_submodule(name)(value)
            assert 2 * result[name].sops == count.get_total() > 0


def test_the_stem_on_an_image_counts_once_and_real_frames_at_every_step():
    net = backbone(stem='cifar')
    once = 8 * 32 * 32 * 27
    stem = profile(net, [images()])['stem.0.conv']
    assert (stem.time_steps, stem.macs, stem.ann_macs) == (1, once, once)
    net.time_steps = 5
    stem = profile(net, [torch.stack([images()] * 5)])['stem.0.conv']
    assert (stem.time_steps, stem.macs, stem.ann_macs) == (5, 5 * once, once)


def test_binary_event_frames_are_spikes_to_the_stem():
    net = backbone(stem='cifar', time_steps=3)
    frames = spikes(3, 2, 3, 32, 32)
    stem = profile(net, [frames])['stem.0.conv']
    assert stem.kind == 'spikes'
    sums = F.conv2d(frames.flatten(0, 1), torch.ones(8, 3, 3, 3), padding=1)
    assert (2 * stem.sops_by_step).tolist() == sums.unflatten(0, (3, -1)).sum((1, 2, 3, 4)).tolist()
    # One value that is no spike in a later batch makes all of the layer real.
    stem = profile(net, [frames, 0.5 * frames])['stem.0.conv']
    assert (stem.kind, stem.sops) == ('real', 0)
    assert stem.macs == 3 * 8 * 32 * 32 * 27


def test_infinity_is_no_spike():
    x = spikes(2, 2, 4, 5, 5)
    x[0, 0, 0, 0, 0] = math.inf
    conv = nn.Conv2d(4, 1, 1)
    assert profile(conv, [x.flatten(0, 1)])[''].kind == 'real'


def test_several_batches_are_the_mean_of_their_images():
    net = backbone()
    a, b = images(1), images(3, seed=1)
    one, two, both = (profile(net, batches) for batches in ([a], [b], [a, b]))
    assert both.images == 4
    assert both.sops == pytest.approx((one.sops + 3 * two.sops) / 4)
    assert both.macs == one.macs
    for name in ('stem.0.neuron', 'layer4.0.neuron2'):
        rate = (one[name].firing_rate + 3 * two[name].firing_rate) / 4
        assert both[name].firing_rate == pytest.approx(rate)
    assert profile(net, [a, b], max_batches=1).sops == one.sops


def test_learned_gates_and_decoders_count_but_not_in_the_twin():
    model = classifier(dict(num_classes=10), gate_cfg=dict(type='LearnedGate'))
    # The gate sees the branch, which is silent before any training.
    torch.nn.init.constant_(model.backbone.layer1[0].last_norm.bias, 2.0)
    result = profile(model, [images()])
    twin = MODELS.build(
        dict(type='ResNetCIFAR', depth=10, base_channels=8, stem_channels=8, out_indices=(3,))
    )
    # A classifier of real values: the last linear layer is the head's.
    assert result.ann_macs == profile(twin, [images()]).macs + 640
    gate = result['backbone.layer1.0.gate.conv']
    assert gate.kind == 'spikes'
    assert gate.sops > 0
    assert gate.ann_macs == 0
    decoder = result['head.decoder.spatial']
    assert (decoder.kind, decoder.ann_macs) == ('real', 0)
    assert decoder.macs == 4 * 4 * 4 * 2 * 49
    assert result['head.decoder.temporal.0'].macs == 4 * 2 * 8
    assert result['head.fc'].macs == 640


def test_a_detector_on_a_batch_of_a_dataloader():
    config = ROOT / 'configs/digits/spiking-retinanet_sg-r10_asd_fpn_digits.py'
    init_default_scope('mmdet')
    model = MODELS.build(Config.fromfile(config).model)
    sample = DetDataSample(metainfo=dict(img_shape=(64, 64), scale_factor=(1.0, 1.0)))
    batch = dict(
        inputs=[torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(2)],
        data_samples=[sample, sample.clone()],
    )
    model.train()
    result = profile(model, [batch])
    assert is_clean(model)
    assert model.training
    assert result.images == 2
    assert result.not_counted == []
    kinds = {layer.name: layer.kind for layer in result.layers}
    for name, kind in kinds.items():
        part = name.split('.')[0]
        if part in ('neck', 'bbox_head') or name == 'backbone.stem.0.conv':
            assert kind == 'real', name
        elif 'neuron' not in name:
            assert kind == 'spikes', name
    head = model.bbox_head.retina_cls
    layer = result['bbox_head.retina_cls']
    # One head on every level: all levels count.
    assert layer.macs > math.prod(layer.output_shape) * 9 * head.in_channels
    assert layer.ann_macs == layer.macs
    assert result['neck.0.decoders.0.spatial'].ann_macs == 0
    assert 0 < result.energy < result.ann_energy


# What it leaves alone


@pytest.mark.parametrize('block', ['sg', 'sew', 'ms'])
def test_outputs_are_the_same_to_the_last_bit(block):
    net, x = backbone(18, block=block), images(8, 64)
    for module in net.modules():
        # Statistics that a norm apart from its neuron would round in another way.
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 2)
    with torch.no_grad():
        plain = net(x)
        with SpikeProfiler(net):
            measured = net(x)
    assert all(torch.equal(a, b) for a, b in zip(plain, measured))
    assert is_clean(net)


def test_training_sees_the_same_gradients():
    grads = []
    for measure in (False, True):
        net = backbone().train()
        profiler = SpikeProfiler(net)
        if measure:
            with profiler:
                out = net(images())
        else:
            out = net(images())
        out[-1].sum().backward()
        grads.append([p.grad for p in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads))


def test_a_neuron_with_a_forward_of_its_own():
    class Twice(LIFNeuron):
        def forward(self, x, time_steps=None):
            return super().forward(2 * x, time_steps)

    net = backbone()
    net.layer1[0].neuron2 = Twice(v_threshold=0.1)
    with torch.no_grad():
        plain = net(images())
    result = profile(net, [images()])
    assert 0 < result['layer1.0.neuron2'].firing_rate < 1
    assert is_clean(net)
    assert torch.equal(plain[0], net(images())[0])


def test_blocks_that_are_computed_again_in_backward_count_once():
    counts = []
    for with_cp in (False, True):
        net = backbone(with_cp=with_cp).train()
        with SpikeProfiler(net) as profiler:
            net(images().requires_grad_())[-1].sum().backward()
        counts.append(profiler.result())
    assert counts[0].to_dict() == counts[1].to_dict()


def test_folded_models_are_measured_as_they_are():
    net = backbone(act_cfg=dict(type='PLIFNeuron'))
    plain, folded = profile(net, [images()]), profile(fuse(net, 'fp32'), [images()])
    assert folded.sops == pytest.approx(plain.sops, rel=1e-3)
    assert folded.macs == plain.macs
    assert folded.parameters < plain.parameters


def test_everything_is_taken_out_after_an_error():
    net = backbone()
    with pytest.raises(ValueError, match='SGResNet takes'), SpikeProfiler(net) as profiler:
        net(torch.rand(1, 5, 8, 8))
    assert is_clean(net)
    with pytest.raises(ValueError, match='failed half way'):
        profiler.result()
    net.train()
    with pytest.raises(ValueError, match='SGResNet takes'):
        profile(net, [torch.rand(1, 5, 8, 8)])
    assert is_clean(net)
    assert net.training
    assert net.layer1[0].training


def test_what_is_refused():
    net = backbone()
    with pytest.raises(ValueError, match='no forward pass'):
        profile(net, [])
    with pytest.raises(ValueError, match='saturated_above'):
        SpikeProfiler(net, saturated_above=0)
    with pytest.raises(ValueError, match='ac_energy'):
        SpikeProfiler(net, ac_energy=-1)
    with SpikeProfiler(net):
        net(torch.rand(1, 3, 32, 32))
        net.time_steps += 1
        with pytest.raises(ValueError, match='different time steps apart'):
            net(torch.rand(1, 3, 32, 32))
    net.time_steps -= 1
    with SpikeProfiler(net), pytest.raises(RuntimeError, match='one SpikeProfiler'):
        SpikeProfiler(net).__enter__()
    with pytest.raises(ValueError, match='unfused'):
        SpikeProfiler(fuse(net, 'int8'))


def test_modules_with_weights_that_are_not_counted_are_named():
    class Bilinear(nn.Module):
        def __init__(self):
            super().__init__()
            self.bilinear = nn.Bilinear(4, 4, 2)

        def forward(self, x):
            return self.bilinear(x, x)

    result = profile(Bilinear(), [torch.rand(2, 4)])
    assert result.not_counted == ['bilinear']
    assert 'not counted: bilinear' in result.table()


# What it says


def test_dead_and_saturated_layers():
    net = backbone()
    net.layer2[0].neuron1.v_threshold = 1e6
    with torch.no_grad():
        net.stem[0].norm.bias[:2] = 1e6
    result = profile(net, [images()])
    dead = result['layer2.0.neuron1']
    assert (dead.dead, dead.firing_rate) == (1, 0)
    assert result['layer2.0.conv2'].sops == 0
    assert result['stem.0.neuron'].saturated == 2 / 8


def test_potentials():
    net = backbone()
    result = profile(net, [images()], potentials=True)
    assert is_clean(net)
    fires = POTENTIAL_EDGES[:-1] >= 1
    for layer in result.neuron_layers:
        assert layer.potentials.sum() == pytest.approx(1)
        assert layer.potentials[fires].sum() == pytest.approx(layer.firing_rate)


class RecordOnly(SpikingNeuron):
    """A neuron of one's own that says its constants and nothing else."""

    def record(self):
        return LIF(decay=0.25, v_threshold=self.v_threshold)


def test_potentials_of_a_neuron_that_is_but_a_record():
    # [T, B, C]: h is 0.5, 0.25 * 0.5 + 1 = 1.125, which fires, and 0.75 after the reset to 0.
    currents = torch.tensor([0.5, 1.0, 0.75]).view(3, 1, 1)
    layer = profile(nn.Sequential(RecordOnly()), [currents], potentials=True)['0']
    at = [np.searchsorted(POTENTIAL_EDGES, h, side='right') - 1 for h in (0.5, 1.125, 0.75)]
    expected = np.zeros(len(POTENTIAL_EDGES) - 1)
    expected[at] = 1 / 3
    np.testing.assert_allclose(layer.potentials, expected)


def test_energy_by_hand():
    conv = nn.Conv2d(2, 3, 3, padding=1)
    x = torch.zeros(1, 1, 2, 4, 4)
    x[0, 0, 0, 0, 0] = 1  # a corner reaches 2 x 2 places of 3 channels
    x[0, 0, 1, 1, 1] = 1  # the middle 3 x 3
    result = profile(Relay(conv), [x])
    assert result.sops == 12 + 27
    assert result.energy == pytest.approx(39 * 0.9e-12)
    assert result.ann_macs == 3 * 16 * 18
    assert result.ann_energy == pytest.approx(864 * 4.6e-12)
    assert (MAC_ENERGY, AC_ENERGY) == (4.6e-12, 0.9e-12)
    result = profile(Relay(conv), [x], mac_energy=2.0, ac_energy=1.0)
    assert (result.energy, result['layer'].energy, result.ann_energy) == (39, 39, 1728)
    assert profile(conv, [torch.rand(1, 2, 4, 4)], mac_energy=2.0).energy == 1728


def test_parameters_are_those_of_the_model():
    net = backbone()
    result = profile(net, [images()])
    assert result.parameters == sum(p.numel() for p in net.parameters())
    assert result['layer1.0.conv1'].parameters == 8 * 8 * 9


def test_json_round_trip():
    result = profile(backbone(), [images()], potentials=True)
    data = result.to_dict()
    text = json.dumps(data, allow_nan=False)
    assert json.loads(text) == data
    assert data['sops'] == result.sops
    assert data['layers'][0]['name'] == result.layers[0].name
    assert len(data['layers'][1]['rate_by_step']) == 4


def test_table():
    result = profile(backbone(), [images()])
    table = result.table()
    for text in ('layer4.0.neuron2', 'stem.0.conv', '2 images', 'ANN twin', 'memory traffic'):
        assert text in table
    assert '| neurons' not in profile(nn.Conv2d(3, 2, 1), [images()]).table()
