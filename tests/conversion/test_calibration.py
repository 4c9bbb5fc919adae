"""Calibration: the mathematics by themselves, then on networks whose ANN is known."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ann_layouts import ann
from hypothesis import given
from hypothesis import strategies as st
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import nn

from mmsnn.analysis import SpikeRecorder
from mmsnn.conversion import (
    Calibrator,
    InheritError,
    best_gain,
    calibration,
    channel_units,
    firing_rates,
    fitted_line,
    inherit,
    level_readers,
    likeness,
    set_statistics,
    target_of,
)
from mmsnn.models import ResNetCIFAR, SGResNet
from mmsnn.models.layers import TDBN, Gate
from mmsnn_cli.digits_to_coco import load_scans, split_digits
from mmsnn_cli.digits_to_folder import enlarge

seeds = st.integers(0, 2**31)


def random(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Mathematics


@given(seeds, st.floats(0.5, 1))
def test_units_are_percentiles(seed, percentile):
    a = random(seed, 40, 3).clamp(min=0)
    values = a.double().numpy()
    layer = np.quantile(values[values > 0], percentile)
    expected = np.maximum(np.quantile(values, percentile, axis=0), 0.2 * layer)
    np.testing.assert_allclose(channel_units(a, percentile), expected, rtol=1e-4)


def test_units_of_many_values(monkeypatch):
    """torch.quantile has a limit, below which the channels are taken together."""
    a = random(0, 64, 6).clamp(min=0)
    expected = channel_units(a, 0.9)
    monkeypatch.setattr(calibration, 'QUANTILE_SIZE', 130)
    torch.testing.assert_close(channel_units(a, 0.9), expected, rtol=0.1, atol=0)


def test_units_of_silence():
    """No weight becomes infinite, and a dead channel's is not a hundred times its neighbours'."""
    assert (channel_units(torch.zeros(8, 2)) > 0).all()
    units = channel_units(torch.tensor([[2.0, 0.0]] * 8))
    torch.testing.assert_close(units, torch.tensor([2.0, 0.4]))


@given(seeds, st.floats(0.1, 9))
def test_likeness_is_a_correlation(seed, slope):
    rates, a = random(seed, 30, 4), random(seed + 1, 30, 4)
    centred = [(x - x.mean(0)).double().flatten().numpy() for x in (rates, a)]
    assert likeness(rates, a) == pytest.approx(np.corrcoef(centred)[0, 1], abs=1e-6)
    assert likeness(rates, slope * rates + random(seed, 4)) == pytest.approx(1, abs=1e-5)
    assert likeness(torch.zeros(30, 4), a) == 0


@given(seeds, st.booleans())
def test_line_is_least_squares(seed, through_zero):
    rates, a = random(seed, 20, 3), random(seed + 1, 20, 3)
    columns = [rates.double().T.reshape(-1)]
    if not through_zero:
        columns += [torch.eye(3, dtype=torch.float64)[c].repeat_interleave(20) for c in range(3)]
    solved = np.linalg.lstsq(
        torch.stack(columns, 1).numpy(), a.double().T.reshape(-1).numpy(), rcond=None
    )[0]
    slope, offset = fitted_line(rates, a, through_zero)
    assert slope == pytest.approx(solved[0], abs=1e-6)
    np.testing.assert_allclose(offset, [0, 0, 0] if through_zero else solved[1:], atol=1e-5)


def test_best_gain():
    a = torch.linspace(0, 1, 33)[:, None]
    # With a gain of 2 half of the values saturate, with 0.5 half are lost to rounding.
    seen = []

    def rates(gain):
        seen.append(gain)
        return (4 * gain * a).round().clamp(max=4) / 4

    assert best_gain(rates, a, (0.25, 1.0, 4.0))[0] == 1.0
    assert seen == [0.25, 1.0, 4.0]
    assert best_gain(lambda gain: torch.zeros_like(a), a) == (1.0, 0.0)


def test_statistics():
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 5, 3), TDBN(5)
    batches = [torch.randn(2, 3, 8, 8), torch.randn(4, 3, 6, 6)]
    with torch.no_grad():
        values = torch.cat([conv(x).movedim(1, -1).flatten(0, 2) for x in batches]).double()
        set_statistics(conv, norm, batches)
    torch.testing.assert_close(norm.running_mean.double(), values.mean(0), rtol=1e-5, atol=1e-6)
    expected = values.var(0, unbiased=False)
    torch.testing.assert_close(norm.running_var.double(), expected, rtol=1e-5, atol=1e-6)


# Networks


def images(count=6, size=32):
    return [random(i, 2, 3, size, size) for i in range(count // 2)]


def settled(donor, batches):
    """An ANN whose norms have the statistics of the images, as after a training."""

    def settle(norm, args):
        values = args[0].movedim(1, -1).flatten(0, 2)
        norm.running_mean.copy_(values.mean(0))
        norm.running_var.copy_(values.var(0, unbiased=False))

    norms = [m for m in donor.modules() if isinstance(m, nn.BatchNorm2d)]
    handles = [norm.register_forward_pre_hook(settle) for norm in norms]
    with torch.no_grad():
        donor(torch.cat(batches))
    for handle in handles:
        handle.remove()
    return donor


def spiking(donor, **kwargs):
    net = SGResNet(18, base_channels=8, **kwargs).eval()
    net.load_state_dict(inherit(donor.state_dict(), target_of(net))[0], strict=False)
    return net


def test_without_neurons_nothing_changes(monkeypatch):
    """ReLUs have no rates to lose: in its new units the network still is the ANN."""
    monkeypatch.setattr(calibration, '_packed', lambda x: x)
    batches = images(size=64)
    donor = settled(ann(), batches)
    net = spiking(donor, block='plain', time_steps=1, act_cfg=dict(type='ReLUNeuron'))
    calibrator = Calibrator(net, batches)
    fits = calibrator.run()
    assert {fit.gain for fit in fits} == {1.0}
    assert all(fit.likeness > 0.999 for fit in fits)
    with torch.no_grad():
        found, expected = net(batches[0]), donor(batches[0])
    names = [f'layer{i}.1.neuron2' for i in (1, 2, 3, 4)]
    for name, level, goal in zip(names, found, expected):
        unit = calibrator.units[name][:, None, None]
        error = (level[0].as_subclass(torch.Tensor) * unit - goal).square().mean().sqrt()
        assert error < 0.01 * goal.std(), name


@pytest.mark.parametrize('decoder', ['RateDecoder', 'MembraneDecoder'])
def test_a_classifier_reads_rates_as_the_ann_its_activations(monkeypatch, decoder):
    monkeypatch.setattr(calibration, '_packed', lambda x: x)
    batches = images(size=64)
    donor = settled(ann(), batches)
    init_default_scope('mmdet')
    model = MODELS.build(
        dict(
            type='SpikingClassifier',
            backbone=dict(
                type='SGResNet', depth=18, base_channels=8, block='plain', time_steps=2,
                act_cfg=dict(type='ReLUNeuron'), out_indices=(3,),
            ),
            head=dict(
                type='SpikingClsHead', num_classes=5, in_channels=64, decoder=dict(type=decoder)
            ),
        )
    ).eval()  # fmt: skip
    fc = nn.Linear(64, 5)
    state = {**donor.state_dict(), 'fc.weight': fc.weight, 'fc.bias': fc.bias}
    model.load_state_dict(inherit(state, target_of(model))[0], strict=False)
    Calibrator(model, batches).run()
    with torch.no_grad():
        expected = fc(donor(batches[0])[-1].mean((2, 3)))
        torch.testing.assert_close(model(batches[0]), expected, rtol=0.02, atol=0.02)


KINDS = {
    'sg': dict(block='sg'),
    'plain': dict(block='plain'),
    'sew': dict(block='sew'),
    'tdbn': dict(block='tdbn', act_cfg=dict(type='LIFNeuron', v_threshold=0.5, decay=0.25)),
    'plif': dict(act_cfg=dict(type='PLIFNeuron', decay=0.5)),
    'ilif': dict(act_cfg=dict(type='ILIFNeuron', D=4), time_steps=1),
    'learned': dict(gate_cfg=dict(type='LearnedGate')),
    'batch norm': dict(norm_cfg=dict(type='BN')),
}


@pytest.mark.parametrize('kind', KINDS)
def test_levels_are_more_like_the_anns(kind):
    batches = images(size=64)
    donor = settled(ann(), batches)
    net = spiking(donor, **KINDS[kind])
    before = copy.deepcopy(net)
    state = torch.get_rng_state()
    fits = Calibrator(net, batches).run()
    assert torch.equal(torch.get_rng_state(), state)
    assert [fit.name for fit in fits if fit.name == 'stem.0.neuron'] == ['stem.0.neuron']
    assert all(torch.isfinite(value).all() for value in net.state_dict().values())
    unseen = random(99, 4, 3, 64, 64)
    with torch.no_grad():
        goal = donor(unseen)[1].movedim(1, -1).flatten(0, 2)
        alike = [
            likeness(n(unseen)[1].float().mean(0).movedim(1, -1).flatten(0, 2), goal)
            for n in (before, net)
        ]
    assert alike[1] > alike[0]
    assert all(0 <= fit.likeness <= 1 for fit in fits)


def test_a_gate_of_unknown_weights_is_left_alone():
    class Blurred(Gate):
        def __init__(self, channels, norm_cfg, act_cfg):
            super().__init__()
            self.conv = torch.nn.Conv2d(channels, channels, 3, padding=1)

        def forward(self, residual, shortcut, time_steps):
            return torch.where(self.conv(shortcut) > 0, residual, shortcut)

    MODELS.register_module(name='Blurred', module=Blurred, force=True)
    batches = images(size=64)
    net = spiking(settled(ann(), batches), gate_cfg=dict(type='Blurred'))
    fits = Calibrator(net, batches).run()
    assert [math.isnan(fit.likeness) for fit in fits if fit.name == 'layer1.0.neuron2'] == [True]
    assert not math.isnan(fits[0].likeness)


def test_deep_stem():
    batches = images(size=64)
    donor = settled(ann(deep=True), batches)
    net = spiking(donor, stem='deep')
    names = [fit.name for fit in Calibrator(net, batches).run()]
    assert names[:3] == [f'stem.{i}.neuron' for i in range(3)]
    assert {n for n, m in net.named_modules() if n.rpartition('.')[2].startswith('neuron')
            or n.endswith('downsample_neuron')} == set(names)  # fmt: skip


def test_bottlenecks():
    batches = images(2, size=64)
    donor = settled(ann(50), batches)
    net = SGResNet(50, base_channels=8).eval()
    net.load_state_dict(inherit(donor.state_dict(), target_of(net))[0])
    fits = Calibrator(net, batches).run()
    assert len(fits) == 1 + 16 * 3 + 4
    assert all(0 <= fit.likeness <= 1 for fit in fits)


@pytest.mark.parametrize('block', ['ms', 'gone'])
def test_refusals(block):
    if block == 'gone':
        with pytest.raises(InheritError, match='has no SGResNet to calibrate'):
            Calibrator(nn.Conv2d(3, 3, 1), images())
    else:
        with pytest.raises(InheritError, match=r"MSBlock has no known ANN: .*'sg', 'sew'"):
            Calibrator(SGResNet(10, base_channels=8, block='ms'), images())


def test_firing_rates():
    net = spiking(settled(ann(), images()))
    with SpikeRecorder(net) as recorder, torch.no_grad():
        net(images()[0])
    found = firing_rates(net.train(), images()[:1])
    assert net.training
    for name, spikes in recorder.spikes.items():
        assert found[name] == pytest.approx(spikes.double().mean().item())


@pytest.mark.parametrize(
    ('neck', 'readers'),
    [
        (dict(type='FPN', add_extra_convs='on_input', num_outs=3), [1, 2]),
        (dict(type='FPN', add_extra_convs='on_output', num_outs=3), [1, 1]),
        (dict(type='ChannelMapper', num_outs=3), [1, 2]),
        (dict(type='PAFPN', num_outs=2), [1, 1]),
        (dict(type='YOLOXPAFPN'), []),
    ],
)  # fmt: skip
def test_readers(neck, readers):
    init_default_scope('mmdet')
    model = nn.Module()
    channels = [16, 32]
    decoders = MODELS.build(dict(type='RateNeck', in_channels=channels))
    part = MODELS.build(dict(neck, in_channels=channels, out_channels=8))
    model.neck = nn.Sequential(decoders, part)
    found, by_level = level_readers(model)
    assert len(by_level) == len(readers)
    assert not readers or len(found) == 2
    for level, count in enumerate(readers):
        assert len(by_level[level]) == count
        for reader in by_level[level]:
            assert reader.in_channels == channels[level]


def test_a_detectors_neck_reads_rates(monkeypatch):
    """FPN's maps are the ANN's."""
    monkeypatch.setattr(calibration, '_packed', lambda x: x)
    batches = images(size=64)
    donor = settled(ann(), batches)
    init_default_scope('mmdet')
    channels = [16, 32, 64]
    fpn = dict(type='FPN', in_channels=channels, out_channels=8, num_outs=3)
    model = nn.Module()
    model.backbone = spiking(
        donor, block='plain', time_steps=1, act_cfg=dict(type='ReLUNeuron'), out_indices=(1, 2, 3)
    )
    rates = MODELS.build(dict(type='RateNeck', in_channels=channels))
    neck = MODELS.build(fpn)
    with torch.no_grad():
        expected = neck(donor(batches[0])[1:])
        model.neck = nn.Sequential(rates, neck)
        Calibrator(model, batches).run()
        found = model.neck(model.backbone(batches[0]))
    for level, goal in zip(found, expected):
        # Around the image rates are 0 and the line's offset is not.
        torch.testing.assert_close(
            level[..., 1:-1, 1:-1], goal[..., 1:-1, 1:-1], rtol=0.05, atol=0.05
        )


# The proof


@pytest.mark.slow
def test_a_network_of_integrators_agrees_with_its_ann():
    """Silent differences only: IF neurons at T = 64 give the ANN's classes of the digits."""
    scans, labels = load_scans()
    split = split_digits(labels, 0)
    pictures = torch.tensor(np.stack([enlarge(scan, 16) for scan in scans]))
    pictures = ((pictures.float() - 127.5) / 64)[:, None].repeat(1, 3, 1, 1)
    labels = torch.as_tensor(labels)
    width = dict(base_channels=16, num_stages=3, strides=(1, 2, 2), out_indices=(2,))
    torch.manual_seed(0)
    net = ResNetCIFAR(
        10,
        stem_channels=16,
        dilations=(1, 1, 1),
        norm_eval=False,
        zero_init_residual=False,
        **width,
    )
    net.init_weights()
    fc = nn.Linear(64, 10)
    train, test = torch.as_tensor(split['train']), torch.as_tensor(split['val'])
    params = [*net.parameters(), *fc.parameters()]
    epochs, size = 8, 32
    optimizer = torch.optim.AdamW(params, lr=4e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 4e-3, total_steps=epochs * (len(train) // size)
    )
    net.train()
    for _ in range(epochs):
        order = train[torch.randperm(len(train))]
        for i in range(len(train) // size):
            batch = order[i * size : (i + 1) * size]
            logits = fc(net(pictures[batch])[-1].mean((2, 3)))
            optimizer.zero_grad()
            F.cross_entropy(logits, labels[batch]).backward()
            optimizer.step()
            schedule.step()
    net.eval()
    init_default_scope('mmdet')
    model = MODELS.build(
        dict(
            type='SpikingClassifier',
            backbone=dict(
                type='SGResNet', depth=10, stem='cifar', block='plain', time_steps=64,
                act_cfg=dict(type='IFNeuron', reset='soft'), **width,
            ),
            head=dict(
                type='SpikingClsHead', num_classes=10, in_channels=64,
                decoder=dict(type='RateDecoder'),
            ),
        )
    ).eval()  # fmt: skip
    state = {**net.state_dict(), 'fc.weight': fc.weight, 'fc.bias': fc.bias}
    taken, account = inherit(state, target_of(model))
    assert account.left == {}
    assert account.missing == []
    model.load_state_dict(taken)
    Calibrator(model, list(pictures[train[:64]].split(32))).run()
    with torch.no_grad():
        expected = fc(net(pictures[test])[-1].mean((2, 3))).argmax(1)
        found = torch.cat([model(x) for x in pictures[test].split(60)]).argmax(1)
    assert (expected == labels[test]).float().mean() > 0.95, 'the ANN has learned something'
    agreement = (found == expected).float().mean().item()
    print(f'agreement with the ANN: {agreement:.4f} of {len(test)}')
    assert agreement >= 0.98
