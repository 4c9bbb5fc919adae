import pytest
from mmengine.config import ConfigDict
from torch import nn

from mmsnn.models.layers import (
    TDBN,
    IFNeuron,
    LearnedGate,
    LIFNeuron,
    PLIFNeuron,
    ResidualGate,
    build_decoder,
    build_gate,
    build_neuron,
    build_norm,
)

NORM = dict(type='TDBN')
LIF = dict(type='LIFNeuron')


@pytest.mark.parametrize('wrap', [dict, ConfigDict])
@pytest.mark.parametrize(
    ('cfg', 'cls'),
    [
        (dict(type='LIFNeuron', decay=0.25), LIFNeuron),
        (dict(type='IFNeuron', reset='soft'), IFNeuron),
        (dict(type=PLIFNeuron, tau=3.0), PLIFNeuron),
    ],
)
def test_neuron(wrap, cfg, cls):
    cfg = wrap(cfg)
    before = dict(cfg)
    assert type(build_neuron(cfg)) is cls
    assert dict(cfg) == before


@pytest.mark.parametrize(
    ('cfg', 'v_threshold', 'alpha'),
    [
        (dict(type='TDBN'), 0.5, 0.7),
        (dict(type=TDBN), 0.5, 0.7),
        # What the config says goes before what the place says.
        (dict(type='TDBN', v_threshold=2.0), 2.0, 0.7),
        (dict(type='TDBN', alpha=0.1), 0.5, 0.1),
    ],
)
def test_tdbn_learns_its_place(cfg, v_threshold, alpha):
    name, norm = build_norm(cfg, 6, 3, v_threshold=0.5, alpha=0.7)
    assert name == 'bn3'
    assert (norm.num_features, norm.v_threshold, norm.alpha) == (6, v_threshold, alpha)


@pytest.mark.parametrize(
    ('cfg', 'cls'),
    [
        (dict(type='BN', eps=1e-3), nn.BatchNorm2d),
        (dict(type='GN', num_groups=2), nn.GroupNorm),
    ],
)
def test_any_norm_of_mmcv(cfg, cls):
    _, norm = build_norm(cfg, 6, v_threshold=0.5, alpha=0.7)
    assert type(norm) is cls


@pytest.mark.parametrize('kind', ['TDBN', 'BN'])
@pytest.mark.parametrize('requires_grad', [True, False])
def test_requires_grad_is_honoured(kind, requires_grad):
    _, norm = build_norm(dict(type=kind, requires_grad=requires_grad), 4)
    assert [p.requires_grad for p in norm.parameters()] == [requires_grad] * 2


def test_gate_without_weights():
    assert type(build_gate(dict(type='ResidualGate'), 4, NORM, LIF)) is ResidualGate


def test_gate_takes_the_network_s_layers_and_its_own_keys_win():
    act_cfg = dict(LIF, v_threshold=0.5, decay=0.25, surrogate='rectangle')
    gate = build_gate(
        dict(type='LearnedGate', act_cfg=dict(surrogate='sigmoid', decay=0.75)), 4, NORM, act_cfg
    )
    assert type(gate) is LearnedGate
    assert (gate.neuron.v_threshold, gate.neuron.decay) == (0.5, 0.75)
    assert gate.neuron.surrogate == 'sigmoid'
    assert gate.norm.v_threshold == 0.5
    assert act_cfg == dict(LIF, v_threshold=0.5, decay=0.25, surrogate='rectangle')
    own_norm = build_gate(dict(type='LearnedGate', norm_cfg=dict(type='BN')), 4, NORM, LIF)
    assert type(own_norm.norm) is nn.BatchNorm2d


@pytest.mark.parametrize(
    ('role', 'build', 'known'),
    [
        ('neuron', build_neuron, "['IFNeuron', 'ILIFNeuron', 'LIFNeuron', 'PLIFNeuron'"),
        ('norm', lambda cfg: build_norm(cfg, 4), "'TDBN'"),
        ('gate', lambda cfg: build_gate(cfg, 4, NORM, LIF), "'ResidualGate', 'SEWAddGate'"),
    ],
)
def test_unknown_type(role, build, known):
    with pytest.raises(ValueError, match=f"unknown {role} 'Nope': choose one of") as error:
        build(dict(type='Nope'))
    assert known in str(error.value)
    assert 'custom_imports' in str(error.value)
    assert len(str(error.value)) < 500
    for cfg in (None, {}, 'LIFNeuron'):
        with pytest.raises(ValueError, match=f"a {role} config must be a dict with a 'type'"):
            build(cfg)


@pytest.mark.parametrize(
    ('role', 'build', 'other'),
    [
        ('neuron', build_neuron, 'ReLU'),
        ('gate', lambda cfg: build_gate(cfg, 4, NORM, LIF), 'LIFNeuron'),
    ],
)
def test_a_type_of_another_role_is_refused(role, build, other):
    with pytest.raises(ValueError, match=f"'?{other}'? .*{role}|{role}.* '?{other}'?"):
        build(dict(type=other))


def test_what_a_config_of_another_package_leaves_behind():
    """MMEngine marks what a config takes over from ``mmsnn::``; the mark is no argument."""
    mark = dict(_scope_='mmsnn')
    neuron = dict(type='LIFNeuron', **mark)
    norm = dict(type='TDBN', **mark)
    assert build_neuron(neuron).decay == 0.5
    assert build_norm(norm, 8)[1].num_features == 8
    assert build_decoder(dict(type='RateDecoder', **mark), 8).channels == 8
    build_gate(dict(type='LearnedGate', act_cfg=dict(mark), **mark), 8, norm, neuron)
