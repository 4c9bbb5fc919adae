import logging

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.logging import MMLogger
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmsnn.models import TDBN, LearnedGate, ResidualGate, SEWAddGate, SGResNet
from mmsnn.ops import lif

BLOCKS = ('sg', 'plain', 'tdbn', 'sew', 'ms')
STEMS = ('imagenet', 'deep', 'cifar')
every_block = pytest.mark.parametrize('block', BLOCKS)
every_stem = pytest.mark.parametrize('stem', STEMS)


@pytest.fixture(autouse=True)
def quiet():
    """init_weights logs a paragraph a parameter."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    yield
    logger.setLevel(level)


def small(depth=10, seed=0, **kwargs):
    torch.manual_seed(seed)
    return SGResNet(**{'depth': depth, 'base_channels': 4, 'time_steps': 2, **kwargs})


def image(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def is_binary(x):
    return bool(((x == 0) | (x == 1)).all())


def norms(module):
    return [m for m in module.modules() if isinstance(m, _BatchNorm)]


def backward(outs, seed=0):
    rng = torch.Generator().manual_seed(seed)
    sum((o * torch.randn(o.shape, generator=rng).to(o)).sum() for o in outs).backward()


# Architecture


@pytest.mark.parametrize(
    ('depth', 'blocks', 'expansion'),
    [
        (10, (1, 1, 1, 1), 1),
        (18, (2, 2, 2, 2), 1),
        (34, (3, 4, 6, 3), 1),
        (50, (3, 4, 6, 3), 4),
        (101, (3, 4, 23, 3), 4),
        (152, (3, 8, 36, 3), 4),
    ],
)
def test_depths(depth, blocks, expansion):
    net = small(depth).eval()
    assert tuple(len(getattr(net, name)) for name in net.res_layers) == blocks
    # The depth counts convs: the stem's, 2 or 3 a block, and the classifier that is not here.
    convs = sum(b.num_convs for name in net.res_layers for b in getattr(net, name))
    assert 1 + convs + 1 == depth
    channels = [4 * 2**i * expansion for i in range(4)]
    assert net.out_channels == tuple(channels)
    outs = net(image(2, 3, 40, 64))
    # 1/4, 1/8, 1/16, 1/32 of 40 x 64, rounded up.
    sizes = [(10, 16), (5, 8), (3, 4), (2, 2)]
    assert [tuple(o.shape) for o in outs] == [(2, 2, c, *size) for c, size in zip(channels, sizes)]


@every_block
@every_stem
def test_every_block_on_every_stem(block, stem):
    net = small(stem=stem, block=block, time_steps=3)
    outs = net(image(2, 3, 32, 32))
    stride = 1 if stem == 'cifar' else 4
    assert [tuple(o.shape) for o in outs] == [
        (3, 2, 4 * 2**i, 32 // stride // 2**i, 32 // stride // 2**i) for i in range(4)
    ]
    assert all(o.any() for o in outs)
    # SEW's add alone leaves the spikes: with it, every conv behind sees counts.
    assert [is_binary(o) for o in outs] == [block != 'sew'] * 4
    backward(outs)
    for name, p in net.named_parameters():
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name


@every_block
@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('identity', [True, False])
def test_blocks_by_hand(block, depth, identity):
    time_steps = 3
    b = small(depth, block=block).layer2[1 if identity else 0]
    assert (b.downsample is None) == identity
    convs = 3 if depth == 50 else 2
    strides = [getattr(b, f'conv{i + 1}').stride[0] for i in range(convs)]
    assert strides.index(max(strides)) == (0 if identity else convs - 2)

    def neuron(x):
        return lif(x.unflatten(0, (time_steps, -1))).flatten(0, 1)

    def current(i, x):
        return getattr(b, f'bn{i}')(getattr(b, f'conv{i}')(x))

    x = image(2 * time_steps, b.conv1.in_channels, 8, 8)
    x = x if block == 'ms' else (x > 0.5).float()
    branch = x
    for i in range(1, convs + 1):
        branch = current(i, neuron(branch) if block == 'ms' or i > 1 else branch)
    shortcut = x if identity else b.downsample(x)
    if block == 'ms':
        expected = branch + shortcut
    elif block in ('plain', 'tdbn'):
        expected = neuron(branch + shortcut)
    else:
        r, s = neuron(branch), shortcut if identity else neuron(shortcut)
        expected = torch.maximum(r, s) if block == 'sg' else r + s
    assert torch.equal(b(x, time_steps), expected)


@pytest.mark.parametrize('gate', ['ResidualGate', 'LearnedGate'])
@pytest.mark.parametrize('depth', [18, 50])
def test_sg_outputs_are_binary(gate, depth):
    net = small(depth, gate_cfg=dict(type=gate), time_steps=4)
    net.init_weights()
    seen = []
    for module in net.modules():
        if isinstance(module, (ResidualGate, LearnedGate)):
            # Opens and closes here and there.
            if gate == 'LearnedGate':
                nn.init.constant_(module.norm.weight, 2.0)
            module.register_forward_hook(lambda m, inputs, out: seen.append(out))
    outs = net(image(2, 3, 64, 64))
    assert len(seen) == sum(len(getattr(net, name)) for name in net.res_layers)
    assert all(is_binary(o) and 0 < o.mean() < 1 for o in [*seen, *outs])


def test_default_gates():
    for block, gate in (('sg', ResidualGate), ('sew', SEWAddGate)):
        assert type(small(block=block).layer1[0].gate) is gate
    net = small(block='sew', gate_cfg=dict(type='SEWIAndGate'))
    assert is_binary(net(image(1, 3, 64, 64))[0])


@pytest.mark.parametrize('in_channels', [1, 2, 6])
def test_any_number_of_input_channels(in_channels):
    net = small(in_channels=in_channels, time_steps=5).eval()
    assert len(net(image(1, in_channels, 32, 32))) == 4
    assert net(image(5, 1, in_channels, 32, 32))[0].shape[:2] == (5, 1)


def test_levels_and_widths():
    net = small(18, out_indices=(1, 3), stem_channels=6, base_channels=4).eval()
    assert net.stem[0]['conv'].out_channels == 6
    assert net.out_channels == (8, 32)
    full = small(18, stem_channels=6, base_channels=4).eval()
    full.load_state_dict(net.state_dict())
    x = image(1, 3, 64, 64)
    for a, b in zip(net(x), full(x)[1::2]):
        assert torch.equal(a, b)
    short = small(18, num_stages=2, strides=(1, 1), out_indices=(1,)).eval()
    assert short(x)[0].shape == (2, 1, 8, 16, 16)


def test_deep_stem_convs():
    convs = [layer['conv'] for layer in small(stem='deep', stem_channels=8).stem]
    assert [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0]) for c in convs] == [
        (3, 4, 3, 2),
        (4, 4, 3, 1),
        (4, 8, 3, 1),
    ]


def test_state_dict_round_trip():
    net, other = small(18, seed=0), small(18, seed=1)
    x = image(2, 3, 64, 64)
    net(x)
    assert not all(map(torch.equal, net.eval()(x), other.eval()(x)))
    other.load_state_dict(net.state_dict())
    assert all(map(torch.equal, net(x), other(x)))


def test_built_from_the_registry():
    cfg = dict(type='SGResNet', depth=10, base_channels=4, time_steps=3)
    net = MODELS.build(cfg)
    assert type(net) is SGResNet
    assert net(image(1, 3, 64, 64))[3].shape == (3, 1, 32, 2, 2)


# tdBN: where alpha stands


@every_block
@pytest.mark.parametrize('depth', [18, 50])
def test_alpha_stands_where_branches_join(block, depth):
    net = small(depth, block=block, act_cfg=dict(type='LIFNeuron', v_threshold=0.5))
    joined = set()
    if block == 'tdbn':
        for name in net.res_layers:
            for b in getattr(net, name):
                joined.add(id(getattr(b, 'bn3' if depth == 50 else 'bn2')))
                if b.downsample is not None:
                    joined.add(id(b.downsample[1]))
    for norm in norms(net):
        assert type(norm) is TDBN
        assert norm.v_threshold == 0.5
        assert norm.alpha == (2**-0.5 if id(norm) in joined else 1.0)


def test_joined_branches_keep_the_threshold_s_variance():
    block = small(18, block='tdbn', act_cfg=dict(type='LIFNeuron', v_threshold=0.5)).layer2[0]
    a, b = image(2, 8, 8, 8, 8, dtype=torch.float64)
    # Uncorrelated over the sample itself, channel by channel: no statistical error is left.
    axes = dict(dim=(0, 2, 3), keepdim=True)
    a, b = ((v - v.mean(**axes)) / v.std(**axes, unbiased=False) for v in (a, b))
    b = b - a * (a * b).mean(**axes)
    block.double()
    joined = block.last_norm(a) + block.downsample[1](b)
    var = joined.var((0, 2, 3), unbiased=False)
    torch.testing.assert_close(var, torch.full_like(var, 0.25), rtol=1e-4, atol=0)
    alone = block.bn1(a).var((0, 2, 3), unbiased=False)
    torch.testing.assert_close(alone, torch.full_like(alone, 0.25), rtol=1e-4, atol=0)


@pytest.mark.parametrize('kind', ['TDBN', 'BN'])
def test_norm_cfg(kind):
    net = small(norm_cfg=dict(type=kind, requires_grad=False), gate_cfg=dict(type='ResidualGate'))
    assert {type(m) for m in norms(net)} == {MODELS.get(kind)}
    assert not any(p.requires_grad for m in norms(net) for p in m.parameters())
    assert net.layer1[0].conv1.weight.requires_grad
    assert len(net(image(1, 3, 64, 64))) == 4


# Time


def copies(net, **kwargs):
    other = small(**kwargs).double()
    other.load_state_dict(net.state_dict())
    return other


@every_stem
@every_block
@pytest.mark.parametrize('training', [True, False])
def test_shared_stem_is_the_repeated_stem(stem, block, training):
    # At momentum 1 one batch gives statistics that are good to evaluate with.
    kwargs = dict(stem=stem, block=block, time_steps=3, norm_cfg=dict(type='TDBN', momentum=1.0))
    shared = small(**kwargs).double()
    shared(image(2, 3, 64, 64, dtype=torch.float64))
    repeated = copies(shared, **kwargs)
    x = image(2, 3, 64, 64, dtype=torch.float64)
    results = []
    for net, inputs in ((shared, x), (repeated, x.repeat(3, 1, 1, 1, 1))):
        outs = net.train(training)(inputs)
        backward(outs)
        results.append((outs, net.stem[0]['conv'].weight.grad))
    assert all(o.any() for o in results[0][0])
    assert all(map(torch.equal, results[0][0], results[1][0]))
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-8, atol=1e-10)


def test_the_shared_stem_runs_once():
    sizes = []
    net = small(time_steps=4)
    net.stem[0]['conv'].register_forward_hook(lambda m, inputs, out: sizes.append(len(out)))
    net(image(2, 3, 32, 32))
    net(image(4, 2, 3, 32, 32))
    assert sizes == [2, 8]


def test_event_frames():
    net = small(time_steps=5).eval()
    frames = image(5, 2, 3, 32, 32)
    outs = net(frames)
    assert all(o.shape[:2] == (5, 2) for o in outs)
    # Causal, one image at a time: neither later frames nor other images are seen.
    net.time_steps = 3
    for a, b in zip(net(frames[:3, 1:]), outs):
        assert torch.equal(a, b[:3, 1:])


@every_block
def test_time_steps_of_the_neuron_do_not_overrule_the_network(block):
    net = small(block=block, time_steps=4).eval()
    told = small(block=block, time_steps=4, act_cfg=dict(type='LIFNeuron', time_steps=2)).eval()
    x = image(2, 3, 64, 64)
    assert all(map(torch.equal, net(x), told(x)))


# Gradients


def silent_third_stage(block, **kwargs):
    net = small(101, base_channels=8, block=block, **kwargs)
    stage = net.layer3[1:]
    assert len(stage) == 22
    for b in stage:
        nn.init.zeros_(b.last_norm.weight)
        nn.init.zeros_(b.last_norm.bias)
    return stage


def through(stage, time_steps=4):
    rng = torch.Generator().manual_seed(0)
    s = (torch.rand(time_steps * 2, 128, 4, 4, generator=rng) < 0.3).float().requires_grad_()
    g = torch.randn(s.shape, generator=rng)
    x = s
    for block in stage:
        x = block(x, time_steps)
    x.backward(g)
    return s, x, g


@pytest.mark.parametrize('training', [True, False])
def test_gradient_passes_silent_gates_bit_for_bit(training):
    s, out, g = through(silent_third_stage('sg').train(training))
    assert torch.equal(out, s)
    assert torch.equal(s.grad, g)


def test_learned_gates_at_rest_pass_what_residual_gates_pass():
    gates = 'ResidualGate', 'LearnedGate'
    nets = [small(101, base_channels=8, gate_cfg=dict(type=gate)) for gate in gates]
    nets[1].load_state_dict(nets[0].state_dict(), strict=False)
    for gate in nets[1].modules():
        if isinstance(gate, LearnedGate):
            nn.init.zeros_(gate.norm.weight)
    (s, out, _), (own_s, own_out, _) = (through(net.layer3[1:]) for net in nets)
    assert torch.equal(own_out, out)
    # One gate is a part of the neuron's pass, the other isn't: sums round in another order.
    torch.testing.assert_close(own_s.grad, s.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ('time_steps', 'neuron', 'where', 'shrinks', 'grows'),
    [
        # A silent neuron passes 1 / (1 + pi^2) = 0.092 a block; 22 blocks, measured: 1e-23.
        (1, dict(), 0, 1e-20, 0),
        # Over time the reset's gradient adds to it, block after block (measured: 13).
        (4, dict(), None, 0, 10),
        # STBP's neuron: 0 and 1 are both at the rectangle's edge and nothing at all gets through.
        (4, dict(v_threshold=0.5, surrogate='rectangle'), None, 0, 0),
    ],
)
def test_gradient_does_not_pass_adding_before_the_neuron(time_steps, neuron, where, shrinks, grows):
    stage = silent_third_stage('plain', act_cfg=dict(type='LIFNeuron', **neuron)).train()
    s, out, g = through(stage, time_steps)
    # The same silent branches and the same identity forward: it goes wrong in the backward alone.
    assert torch.equal(out, s)
    assert not torch.allclose(s.grad, g)
    place = torch.ones_like(s, dtype=torch.bool) if where is None else s.detach() == where
    ratio = (s.grad[place].norm() / g[place].norm()).item()
    assert ratio > grows if grows else ratio <= shrinks


# Training modes


@pytest.mark.parametrize('stages', [-1, 0, 1, 4])
def test_frozen_stages(stages):
    net = small(18, frozen_stages=stages, gate_cfg=dict(type='LearnedGate'))
    parts = {'stem': net.stem, **{name: getattr(net, name) for name in net.res_layers}}
    for mode in (True, False, True):
        assert net.train(mode) is net
        for i, (name, part) in enumerate(parts.items()):
            frozen = i <= stages
            assert all(p.requires_grad != frozen for p in part.parameters()), name
            assert all(m.training == (mode and not frozen) for m in part.modules()), name
    before = {k: v.clone() for k, v in net.state_dict().items()}
    outs = net(image(2, 3, 64, 64))
    for key, value in net.state_dict().items():
        if 'running_mean' in key:
            frozen = list(parts).index(key.split('.')[0]) <= stages
            assert torch.equal(value, before[key]) == frozen, key
    if stages < 4:
        backward(outs)
        grads = {
            name: [p.grad is not None for p in part.parameters()] for name, part in parts.items()
        }
        assert [any(g) for g in grads.values()] == [i > stages for i in range(5)]


def test_norm_eval():
    net = small(18, norm_eval=True, gate_cfg=dict(type='LearnedGate')).train()
    assert net.layer1[0].training
    assert norms(net)
    assert not any(m.training for m in norms(net))
    assert all(p.requires_grad for p in net.parameters())
    assert all(m.training for m in norms(small().train()))


@every_block
@pytest.mark.parametrize('frozen_stages', [-1, 1])
def test_recomputing_changes_nothing(block, frozen_stages):
    x = image(2, 3, 64, 64)
    results = []
    for with_cp in (False, True):
        net = small(18, block=block, with_cp=with_cp, frozen_stages=frozen_stages)
        outs = net(x)
        backward(outs)
        results.append((outs, {k: p.grad for k, p in net.named_parameters()}))
    assert all(map(torch.equal, results[0][0], results[1][0]))
    for name, grad in results[0][1].items():
        other = results[1][1][name]
        assert (
            (grad is None)
            == (other is None)
            == (frozen_stages == 1 and name.startswith(('stem', 'layer1')))
        ), name
        if grad is not None:
            torch.testing.assert_close(grad, other, msg=name)


def test_recomputing_really_happens():
    calls = []
    net = small(18, with_cp=True)
    net.layer2[1].conv1.register_forward_hook(lambda *_: calls.append(1))
    backward(net(image(2, 3, 64, 64)))
    assert len(calls) == 2


# Initialisation


@every_block
@pytest.mark.parametrize('zero', [True, False])
def test_zero_init_residual(block, zero):
    net = small(50, block=block, zero_init_residual=zero)
    net.init_weights()
    for name, norm in ((n, m) for n, m in net.named_modules() if isinstance(m, _BatchNorm)):
        last = name.endswith('bn3')
        assert (norm.weight == (0 if zero and last else 1)).all(), name
        assert not norm.bias.any()
    if zero and block == 'sg':
        x = image(1, 64, 3, 3).gt(0).float()
        assert torch.equal(net.layer3[1](x, 1), x)


def test_init_weights_leaves_learned_gates_near_rest():
    net = small(18, gate_cfg=dict(type='LearnedGate'))
    net.init_weights()
    gates = [m for m in net.modules() if isinstance(m, LearnedGate)]
    assert len(gates) == 8
    assert all((g.norm.weight == 0.5).all() for g in gates)
    assert not any(g.norm.bias.any() for g in gates)
    assert all((m.weight == 1).all() for m in norms(net) if m not in [g.norm for g in gates])


def test_init_weights_resets_norms():
    net = small()
    for norm in norms(net):
        nn.init.constant_(norm.weight, 7.0)
    net.init_weights()
    assert all((norm.weight == 1).all() for norm in norms(net))


@pytest.mark.parametrize('zero', [True, False])
def test_pretrained(tmp_path, zero):
    donor = small(18, seed=3)
    donor(image(2, 3, 64, 64))
    path = str(tmp_path / 'detector.pth')
    state = {f'backbone.{k}': v for k, v in donor.state_dict().items()}
    torch.save({'state_dict': {**state, 'bbox_head.weight': torch.zeros(1)}}, path)
    net = small(
        18,
        seed=4,
        zero_init_residual=zero,
        init_cfg=dict(type='Pretrained', checkpoint=path, prefix='backbone.'),
    )
    net.init_weights()
    for key, value in donor.state_dict().items():
        assert torch.equal(net.state_dict()[key], value), key


# Refusals


@pytest.mark.parametrize(
    ('kwargs', 'match'),
    [
        (dict(depth=20), r'unknown depth 20: choose one of \[10, 18, 19, 34, 50, 101, 152\]'),
        (dict(stem='c7'), "unknown stem 'c7': choose one of .'imagenet', 'deep', 'cifar'"),
        (
            dict(block='res'),
            "unknown block 'res': choose one of .'sg', 'sew', 'plain', 'tdbn', 'ms'",
        ),
        (dict(act_cfg=dict(type='Nope')), "unknown neuron 'Nope': choose one of .*'LIFNeuron'"),
        (
            dict(act_cfg=dict(type='LIFNeuron', surrogate='step')),
            "unknown surrogate 'step': choose",
        ),
        (dict(gate_cfg=dict(type='Nope')), "unknown gate 'Nope': choose one of .*'ResidualGate'"),
        (dict(norm_cfg=dict(type='Nope')), "unknown norm 'Nope': choose one of .*'TDBN'"),
        (dict(norm_cfg=None), "a norm config must be a dict with a 'type', got None"),
        *(
            (dict(time_steps=t), f'time_steps must be a whole number of at least 1, got {t}')
            for t in (0, -1, True, 2.5)
        ),
        *(
            (dict(out_indices=i), 'out_indices must name stages 0 to 3')
            # Levels come out in ascending order, once: any other list would belie out_channels.
            for i in ((), (4,), (-1,), (0, 4), (2, 0), (1, 1))
        ),
        (dict(num_stages=3, strides=(1, 2, 2)), 'out_indices must name stages 0 to 2'),
        (dict(num_stages=5), r'num_stages must be 1 to 4 at depth \d+, .* got num_stages=5'),
        (dict(depth=19), r'num_stages must be 1 to 3 at depth 19, .* got num_stages=4'),
        (dict(num_stages=0, strides=()), 'num_stages=0'),
        (dict(strides=(1, 2)), r'num_stages=4, strides=\(1, 2\)'),
        (dict(frozen_stages=5), 'frozen_stages must be -1 to 4, got 5'),
        (dict(frozen_stages=-2), 'got -2'),
        *(
            (dict(block=b, gate_cfg=dict(type='ResidualGate')), f"block '{b}' has no gate: leave")
            for b in ('plain', 'tdbn', 'ms')
        ),
    ],
)
def test_refusals(kwargs, match):
    with pytest.raises(ValueError, match=match):
        small(**kwargs)


@pytest.mark.parametrize(
    'shape', [(3, 32, 32), (1, 4, 32, 32), (2, 1, 1, 32, 32), (32, 32), (1, 2, 1, 3, 32, 32)]
)
def test_input_of_another_shape(shape):
    with pytest.raises(
        ValueError,
        match=r'takes images \(B, 3, H, W\) or event frames '
        r'\(T, B, 3, H, W\), got an input of shape',
    ):
        small()(torch.zeros(shape))


@pytest.mark.parametrize('gate', ['ResidualGate', 'LearnedGate'])
def test_compiles_in_one_graph(gate, monkeypatch):
    monkeypatch.setenv('MMSNN_EVENTS_BELOW', '0')  # a graph can't ask how many spikes there are
    net = SGResNet(10, base_channels=8, gate_cfg=dict(type=gate)).train()
    x = image(2, 3, 64, 64)
    results = []
    for run in (net, torch.compile(net, backend='aot_eager', fullgraph=True)):
        net.load_state_dict(results[0][2] if results else net.state_dict())
        state = {k: v.clone() for k, v in net.state_dict().items()}
        net.zero_grad()
        outs = run(x)
        backward(outs)
        grads = {k: p.grad.clone() for k, p in net.named_parameters() if p.grad is not None}
        results.append((outs, grads, state))
    assert all(map(torch.equal, results[0][0], results[1][0]))
    for name, grad in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], grad, msg=name)
