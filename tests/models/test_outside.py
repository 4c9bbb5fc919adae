"""A package outside mmsnn brings parts of its own by `custom_imports` alone."""

import inspect
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from digits_detector import DIGITS, NARROW
from in_process import run_in_process
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from own_parts import forgotten
from small_nets import detection_data, detections, detector, images, is_clean
from torch import nn

from mmsnn import ops
from mmsnn.analysis import SpikeProfiler, SpikeRecorder
from mmsnn.datasets.events import check_event_header, io, read_events
from mmsnn.deploy import fuse, resolve_precision
from mmsnn.deploy.fuse import event_convs
from mmsnn.deploy.integer_conv import integer_convs
from mmsnn.models import SGResNet
from mmsnn.models.layers import SpikingNeuron, build_neuron

ROOT = Path(__file__).resolve().parents[2]
#: Why there are no convs in whole numbers, or ''.
NO_INTEGERS = integer_convs() and event_convs()


@pytest.fixture(autouse=True)
def outside(tmp_path):
    """The package, loaded by a config, and gone behind the test."""
    config = tmp_path / 'config.py'
    config.write_text("custom_imports = dict(imports=['my_spikes'])\n")
    with forgotten('my_spikes'):
        Config.fromfile(config)
        yield sys.modules['my_spikes']


ADAPTIVE = dict(act_cfg=dict(type='AdaptiveNeuron', v_threshold=0.3, growth=0.1))
TERNARY = dict(act_cfg=dict(type='TernaryNeuron', v_threshold=0.4))
LIF = dict(act_cfg=dict(type='LIFNeuron', v_threshold=0.3))
#: What the detector has of the package's, and why integers refuse it.
PARTS = {
    'an adaptive threshold': (ADAPTIVE, ''),
    'an adaptive threshold, add': (dict(ADAPTIVE, block='plain'), ''),
    'spikes with signs': (dict(TERNARY, block='plain'), r'neuron \(TernaryNeuron\) have signs'),
    'a block of signs': (dict(TERNARY, block=dict(type='MaxBlock')), 'have signs'),
    'sums of signs': (dict(TERNARY, block='sew'), 'have signs'),
    'a surrogate': (dict(act_cfg=dict(LIF['act_cfg'], surrogate='gaussian')), ''),
    'a surrogate, add': (
        dict(act_cfg=dict(LIF['act_cfg'], surrogate='gaussian'), block='plain'),
        '',
    ),
    'a gate': (dict(LIF, gate_cfg=dict(type='XorGate')), ''),
    'a block': (dict(LIF, block=dict(type='MaxBlock')), ''),
    'a block by its name': (dict(LIF, block='MaxBlock'), ''),
    'a decoder of all levels': (
        dict(
            LIF,
            decoder=dict(
                type='DecoderNeck', in_channels=[16, 32], decoder=dict(type='TopDownDecoder')
            ),
        ),
        '',
    ),
}
every_part = pytest.mark.parametrize(('options', 'refusal'), PARTS.values(), ids=PARTS)


@every_part
def test_a_step_of_training(options, refusal):
    model = detector(3, **options)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optim = torch.optim.SGD(model.parameters(), lr=0.1)
    data = model.data_preprocessor(detection_data(), True)
    losses = model(**data, mode='loss')
    sum(sum(values) for values in losses.values()).backward()
    optim.step()
    for name, p in model.named_parameters():
        assert p.isfinite().all()
        if name.startswith('backbone.') and 'conv' in name:
            assert not torch.equal(p, before[name]), name


def seen(model):
    """What goes into convs and comes out of neurons, by ordinary hooks."""
    inputs, fired, handles = {}, {}, []
    for name, module in model.backbone.named_modules():
        if isinstance(module, nn.Conv2d):
            handles.append(
                module.register_forward_hook(lambda m, a, o, name=name: inputs.update({name: a[0]}))
            )
        elif isinstance(module, SpikingNeuron):
            handles.append(
                module.register_forward_hook(lambda m, a, o, name=name: fired.update({name: o}))
            )
    detections(model)
    for handle in handles:
        handle.remove()
    return inputs, fired


@every_part
def test_recorded_and_profiled_as_counted_by_hand(options, refusal):
    model = detector(3, **options).double().eval()
    inputs, fired = seen(model)
    with SpikeRecorder(model) as recorder:
        detections(model)
    with SpikeProfiler(model) as profiler:
        detections(model)
    assert is_clean(model)
    result = profiler.result()
    for name, spikes in fired.items():
        values = set(spikes.flatten().tolist())
        assert values <= {-1.0, 0.0, 1.0}
        assert torch.equal(recorder.spikes[f'backbone.{name}'].flatten(0, 1).double(), spikes)
        layer = result[f'backbone.{name}']
        count = sum(value != 0 for value in spikes.flatten().tolist())
        assert layer.spikes == count
        assert layer.firing_rate == layer.active == count / spikes.numel()
    if 'TernaryNeuron' in str(options):
        assert any(-1.0 in spikes for spikes in fired.values())
    for name, x in inputs.items():
        module, layer = model.backbone.get_submodule(name), result[f'backbone.{name}']
        options = module.stride, module.padding
        sums = nn.functional.conv2d(x.abs(), torch.ones_like(module.weight), None, *options)
        if name.startswith('stem.0'):
            assert layer.kind == 'real'
        else:
            assert layer.kind == 'spikes', name
            assert layer.sops == sums.sum().item()


@every_part
def test_fused_in_fp32_and_bf16(options, refusal):
    model = detector(3, **options).eval()
    expected = detections(model)
    assert len(expected[1]) > 0
    for a, b in zip(expected[:2], detections(fuse(model, 'fp32'))):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    assert len(detections(fuse(model, 'bf16'))[1]) > 0


@pytest.mark.skipif(bool(NO_INTEGERS), reason=f'no integer convs: {NO_INTEGERS}')
@pytest.mark.parametrize('precision', ['int8', 'int16'])
@every_part
def test_fused_in_integers_or_refused_by_name(options, refusal, precision):
    model = detector(3, **options).eval()
    if refusal:
        with pytest.raises(ValueError, match=f'{precision}.* needs spikes in bytes: .*{refusal}'):
            fuse(model, precision)
        assert resolve_precision('auto', model=model) in ('fp32', 'bf16')
        assert len(detections(fuse(model))[1]) > 0
        return
    fast = fuse(model, precision)
    levels = fast.backbone(images(1, 64))
    assert all(level.dtype == torch.uint8 for level in levels)
    assert all(0 < level.float().mean() < 1 and level.max() == 1 for level in levels)
    found = detections(fast)
    assert len(found[1]) > 0
    if precision == 'int16':
        torch.testing.assert_close(found[1][:3], detections(model)[1][:3], rtol=0.02, atol=0.01)


def test_a_block_that_says_nothing_of_bytes_is_refused_by_name(outside, monkeypatch):
    monkeypatch.delattr(outside.blocks.MaxBlock, 'takes_bytes')
    model = detector(1, block='MaxBlock')
    assert resolve_precision('auto', model=model) in ('fp32', 'bf16')
    if not NO_INTEGERS:
        with pytest.raises(ValueError, match=r'layer1\.0 \(MaxBlock\) does not say that it takes'):
            fuse(model, 'int8')


@pytest.mark.parametrize('watch', [SpikeRecorder, SpikeProfiler])
def test_spikes_other_than_said_are_no_silent_numbers(outside, watch, monkeypatch):
    # Such a neuron fired 77 % of the time, was reported at 16 %, and -1 was recorded as 255.
    monkeypatch.setattr(outside.neurons.TernaryNeuron, 'values', 'binary')
    model = detector(2, block='plain', **TERNARY).eval()
    match = "neuron' gave spikes from -1 to 1, but TernaryNeuron"
    with pytest.raises(ValueError, match=match), watch(model):
        detections(model)
    assert is_clean(model)
    for neuron in model.modules():
        if isinstance(neuron, SpikingNeuron):
            neuron.spike_dtype = torch.uint8
    with pytest.raises(ValueError, match=r'TernaryNeuron says .*uint8 does not hold'):
        model.backbone.stem[0]['neuron'](-torch.ones(2, 3))


@pytest.mark.parametrize('backend', ['auto', 'reference'])
@pytest.mark.parametrize('stem', ['imagenet', 'cifar'])
@pytest.mark.parametrize('block', ['sg', 'plain', 'sew'])
def test_a_surrogate_trains_in_every_backend(outside, block, stem, backend):
    # It ended in a KeyError on the C path.
    options = dict(base_channels=8, num_stages=2, strides=(1, 2), out_indices=(0, 1), stem=stem)

    def gradients(**neuron):
        torch.manual_seed(0)
        act_cfg = dict(type='LIFNeuron', v_threshold=0.3, **neuron)
        net = SGResNet(10, 3, block=block, act_cfg=act_cfg, **options)
        with ops.use_backend(backend):
            net(images(2, 16))[-1].sum().backward()
            net.zero_grad()
            for module in net.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.reset_running_stats()
            net.eval()  # statistics of a batch are rounded differently by backends
            levels = net(images(2, 16))
            sum(level.square().mean() for level in levels).backward()
            with torch.no_grad():
                inference = net(images(2, 16))
        return [*levels, *inference], [p.grad for p in net.parameters()]

    spikes, grads = gradients(surrogate='gaussian')
    expected, other = gradients()
    assert all(map(torch.equal, spikes, expected))
    assert not torch.equal(grads[0], other[0])
    ops.register_surrogate('as_arctan', ops.SURROGATES['arctan'].derivative)
    for a, b in zip(gradients(surrogate='as_arctan')[1], other):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('gate_cfg', [dict(type='ResidualGate'), dict(type='SEWIAndGate')])
@pytest.mark.parametrize('reset', ['hard', 'soft'])
def test_a_backend_computes_what_it_has(reset, gate_cfg, monkeypatch):
    numpy, calls = ops.named('numpy'), []
    run = numpy.lif
    monkeypatch.setattr(numpy, 'lif', lambda call, out: (calls.append(call.gate), run(call, out)))
    act_cfg = dict(type='LIFNeuron', v_threshold=0.3, reset=reset)
    torch.manual_seed(0)
    net = SGResNet(10, 3, act_cfg=act_cfg, gate_cfg=gate_cfg, base_channels=16)
    assert ops.choose('lif', torch.zeros(1)) is numpy
    assert ops.choose('lif', torch.zeros(1, dtype=torch.bfloat16)) is not numpy
    assert ops.choose('max_pool', torch.zeros(1)) is not numpy
    calls.clear()

    def step():
        net.zero_grad()
        net.train()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
        net(images(2, 16))[-1].sum().backward()
        net.eval()
        with torch.no_grad(), SpikeRecorder(net) as recorder:
            levels = net(images(2, 16))
        rates = {name: spikes.float().mean().item() for name, spikes in recorder.spikes.items()}
        return levels, [p.grad.clone() for p in net.parameters()], rates

    spikes, grads, rates = step()
    assert set(calls) == {None, {'ResidualGate': 'or', 'SEWIAndGate': 'iand'}[gate_cfg['type']]}
    with ops.use_backend('reference'):
        expected, other, expected_rates = step()
    assert all(map(torch.equal, spikes, expected))
    assert rates == expected_rates
    for a, b in zip(grads, other):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


class Wrong(ops.Backend):
    """Half of the mean over time."""

    name, device = 'wrong', 'cpu'
    dtypes = {'rate_decode': (torch.float64,)}

    def rate_decode(self, spikes, out):
        torch.mean(spikes / 2, 0, out=out)


def test_a_backend_of_wrong_numbers_is_not_used(caplog):
    ops.register_backend(Wrong())
    spikes = torch.ones(2, 3, dtype=torch.float64)
    for _ in range(2):
        assert ops.rate_decode(spikes).tolist() == [1, 1, 1]
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith('mmsnn runs without its wrong kernels, slower: its self-check found')
    with pytest.raises(ops.BackendError, match='self-check found wrong decoding'):
        ops.set_backend('wrong')


@pytest.mark.parametrize('name', ['', 'c', 'auto', 'reference'])
def test_backends_that_are_refused(name):
    backend = Wrong()
    backend.name = name
    with pytest.raises(ValueError, match=f'needs a name other than .* got {name!r}'):
        ops.register_backend(backend)


@pytest.mark.parametrize(
    ('arguments', 'match'),
    [(('arctan', abs), "'arctan' is there already"), (('mine', abs, 0), 'reach .* got 0')],
)
def test_surrogates_that_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        ops.register_surrogate(*arguments)


def test_the_commands_train_and_test_with_all_of_them(digits_root, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv('MMSNN_DIGITS_ROOT', str(digits_root))
    config = tmp_path / 'all.py'
    config.write_text(f"""
_base_ = {str(ROOT / DIGITS)!r}
custom_imports = dict(imports=['mmsnn', 'my_spikes'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        act_cfg=dict(_delete_=True, type='AdaptiveNeuron', v_threshold=0.5),
        block='MaxBlock',
        gate_cfg=None,
    ),
    neck=[
        dict(type='DecoderNeck', in_channels=[16, 32], decoder=dict(type='TopDownDecoder')),
        dict(type='FPN', in_channels=[16, 32], out_channels=64, num_outs=2),
    ],
)
""")
    options = [option for option in NARROW if '.neck.' not in option]
    options.append('train_cfg.max_epochs=1')
    run_in_process(monkeypatch, 'train.py', config, '--work-dir', tmp_path / 'run', *options)
    weights = tmp_path / 'run' / 'epoch_1.pth'
    arguments = [weights, '--fuse', '--work-dir', tmp_path / 'test', *options]
    run_in_process(monkeypatch, 'test.py', config, *arguments)
    assert 'coco/bbox_mAP' in capfd.readouterr().out


def test_a_gate_is_not_given_what_it_cannot_join():
    with pytest.raises(ValueError, match=r"XorGate joins .* binary, and TernaryNeuron .*'SEWAdd"):
        detector(1, gate_cfg=dict(type='XorGate'), **TERNARY)


def test_a_neuron_is_known_by_its_base():
    @MODELS.register_module()
    class NoNeuron(nn.Module):
        pass

    with pytest.raises(ValueError, match="'NoNeuron' is no neuron: it does not derive from Spiki"):
        build_neuron(dict(type='NoNeuron'))
    assert build_neuron(dict(type='TernaryNeuron')).values == 'signed'


def test_an_event_format_in_a_data_set(tmp_path):
    for name in ('left', 'right'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'a.txyp').write_text('100 3 5 1\n120 4 5 0\n120 33 33 1\n')
    events = read_events(tmp_path / 'left' / 'a.txyp')
    assert (events.t.tolist(), events.x.tolist()) == ([100, 120, 120], [3, 4, 33])
    assert events.sensor_size == (34, 34)
    cfg = dict(
        type='EventFolder',
        data_root=str(tmp_path),
        pipeline=[dict(type='LoadEventFrames', time_steps=2)],
    )
    dataset = DATASETS.build(cfg)
    dataset.check_files()
    frames = np.asarray(dataset[1]['frames'])
    assert frames.sum() == 3
    (tmp_path / 'left' / 'a.txyp').write_text('60120 3 5 1\n100 4 5 0\n')
    with pytest.raises(ValueError, match='times run backwards at event 1'):
        read_events(tmp_path / 'left' / 'a.txyp')
    (tmp_path / 'left' / 'a.txyp').write_text('what?')
    with pytest.raises(ValueError, match=r'left/a\.txyp is truncated or broken'):
        check_event_header(tmp_path / 'left' / 'a.txyp')


@pytest.mark.parametrize(
    ('suffix', 'match'),
    [
        ('.npy', "'.npy' has a reader already"),
        ('raw', "such as '.ev', got 'raw'"),
        ('.RAW', "got '.RAW'"),
        ('.tar.gz', "got '.tar.gz'"),
        (None, 'got None'),
    ],
)
def test_suffixes_that_no_reader_takes(suffix, match):
    with pytest.raises(ValueError, match=match):
        io.register_event_reader(suffix, None)


def test_the_page_shows_the_package(outside):
    page = (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8')
    modules = outside.neurons, outside.gates, outside.blocks, outside.decoders, outside.backends
    for module in modules:
        for _, cls in inspect.getmembers(module, inspect.isclass):
            if cls.__module__ == module.__name__:
                assert inspect.getsource(cls) in page, cls
    for function in (outside.events.read_txyp, outside.surrogates.gaussian):
        assert inspect.getsource(function) in page
    assert "register_surrogate('gaussian', gaussian)" in page
    assert "register_event_reader('.txyp', read_txyp)" in page
