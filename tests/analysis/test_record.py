"""Recorded spikes and attention against what the layers themselves say."""

from pathlib import Path

import pytest
import small_nets
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from small_nets import backbone, images, is_clean, lower_thresholds
from torch import nn

from mmsnn.analysis import SpikeProfiler, SpikeRecorder, profile
from mmsnn.deploy import fuse
from mmsnn.models.layers import AttentionSpikeDecoder, LIFNeuron

ROOT = Path(__file__).resolve().parents[2]


def classifier(gate='ResidualGate', loss='ClsLoss', **head):
    torch.manual_seed(0)
    head = dict(loss=dict(type=loss), **head)
    model = small_nets.classifier(head, gate_cfg=dict(type=gate))
    for module in model.modules():
        if isinstance(module, AttentionSpikeDecoder):
            for parameter in module.parameters():
                nn.init.normal_(parameter, std=0.3)
    return lower_thresholds(model)


def test_spikes_are_those_of_the_neurons():
    net = backbone(block='plain')  # without a gate, what a stage gives is its last neuron's
    with torch.no_grad(), SpikeRecorder(net) as recorder:
        outs = net(images())
    assert list(recorder.spikes) == [
        name for name, module in net.named_modules() if isinstance(module, LIFNeuron)
    ]
    assert recorder.attention == {}
    for level, out in zip((1, 2, 3, 4), outs):
        spikes = recorder.spikes[f'layer{level}.0.neuron2']
        assert spikes.dtype == torch.uint8
        assert out.any()
        assert torch.equal(spikes.float(), out)


def test_rates_are_the_profilers():
    net = backbone()
    with torch.no_grad(), SpikeRecorder(net) as recorder:
        net(images())
    measured = profile(net, [images()])
    for layer in measured.neuron_layers:
        rate = recorder.spikes[layer.name].float().mean().item()
        assert rate == pytest.approx(layer.firing_rate)


@pytest.mark.parametrize('block', ['sg', 'sew', 'ms'])
def test_outputs_are_the_same_to_the_last_bit(block):
    net = backbone(block=block)
    with torch.no_grad():
        plain = net(images())
        with SpikeRecorder(net):
            recorded = net(images())
    assert all(torch.equal(a, b) for a, b in zip(plain, recorded))
    assert is_clean(net)


def test_the_attention_of_a_classifier_gives_its_logits():
    model = classifier()
    with torch.no_grad(), SpikeRecorder(model) as recorder:
        logits = model(images())
    (maps,) = recorder.attention.values()
    assert list(recorder.attention) == ['head.decoder']
    assert maps.temporal.shape == (4, 2)
    assert maps.channel.shape == (4, 2, 64)
    assert maps.spatial.shape == (4, 2, 4, 4)
    assert maps.spatial.std() > 0
    with torch.no_grad():
        spikes = model.backbone(images())[-1]
        weights = maps.temporal[..., None, None, None] * maps.channel[..., None, None]
        decoded = (weights * maps.spatial[:, :, None] * spikes).sum(0)
        expected = model.head.fc(decoded.mean((-2, -1)))
    torch.testing.assert_close(logits, expected)


def test_the_attention_of_a_loss_on_every_step():
    model = classifier(loss='TETLoss').train()
    with SpikeRecorder(model) as recorder:
        model.head.step_logits(model.backbone(images()))
    assert not recorder.attention['head.decoder'].spatial.requires_grad
    assert recorder.attention['head.decoder'].spatial.shape == (4, 2, 4, 4)


def test_hidden_neurons_of_a_head():
    model = classifier(hidden_channels=16)
    with torch.no_grad(), SpikeRecorder(model) as recorder:
        model(images())
    assert recorder.spikes['head.hidden.neuron'].shape == (4, 2, 16, 1, 1)


def test_a_detector_and_the_last_of_its_forward_passes():
    init_default_scope('mmdet')
    config = ROOT / 'configs/digits/spiking-retinanet_sg-r10_asd_fpn_digits.py'
    model = lower_thresholds(MODELS.build(Config.fromfile(config).model))

    def batch(*sizes):
        sample = DetDataSample(metainfo=dict(img_shape=sizes[0], scale_factor=(1.0, 1.0)))
        inputs = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in sizes]
        return dict(inputs=inputs, data_samples=[sample.clone() for _ in sizes])

    with torch.no_grad(), SpikeRecorder(model) as recorder:
        model.test_step(batch((64, 64)))
        model.test_step(batch((64, 96), (64, 96)))
    assert recorder.spikes['backbone.stem.0.neuron'].shape == (4, 2, 16, 32, 48)
    assert list(recorder.attention) == ['neck.0.decoders.0', 'neck.0.decoders.1']
    assert recorder.attention['neck.0.decoders.1'].spatial.shape == (4, 2, 4, 6)
    assert is_clean(model)


def test_learned_gates_only_where_they_are_named():
    model = classifier(gate='LearnedGate')
    name = 'backbone.layer1.0.gate.neuron'
    with torch.no_grad(), SpikeRecorder(model) as recorder:
        model(images())
    assert len(recorder.spikes) == 1 + 4 * 2 + 3  # stem, blocks, projections
    assert not any('.gate.' in layer for layer in recorder.spikes)
    with torch.no_grad(), SpikeRecorder(model, [name]) as recorder:
        model(images())
    assert list(recorder.spikes) == [name]
    assert 'head.decoder' in recorder.attention


def test_a_neuron_with_a_forward_of_its_own():
    class Twice(LIFNeuron):
        def forward(self, x, time_steps=None):
            return super().forward(2 * x, time_steps)

    net = backbone()
    net.layer1[0].neuron2 = Twice(v_threshold=0.1)
    name = 'layer1.0.neuron2'
    with torch.no_grad(), SpikeRecorder(net, [name]) as recorder:
        net(images())
    assert recorder.spikes[name].shape == (4, 2, 8, 8, 8)
    rate = profile(net, [images()])[name].firing_rate
    assert recorder.spikes[name].float().mean().item() == pytest.approx(rate)
    assert is_clean(net)


def test_everything_is_taken_out_after_an_error():
    net = backbone()
    with pytest.raises(ValueError, match='SGResNet takes'), SpikeRecorder(net):
        net(torch.rand(1, 5, 8, 8))
    assert is_clean(net)


def test_what_is_refused():
    net = backbone()
    with pytest.raises(ValueError, match=r"named 'layer1.0.neuron'; .* layer1.0.neuron[12]"):
        SpikeRecorder(net, ['layer1.0.neuron'])
    with pytest.raises(ValueError, match='no layer of spiking neurons'):
        SpikeRecorder(net, ['layer1.0.conv1'])
    with pytest.raises(ValueError, match='must be a list'):
        SpikeRecorder(net, 'layer1.0.neuron1')
    with pytest.raises(ValueError, match='Conv2d has no spiking neurons'):
        SpikeRecorder(nn.Conv2d(1, 1, 1))
    for first, second in [(SpikeProfiler, SpikeRecorder), (SpikeRecorder, SpikeProfiler)]:
        with first(net), pytest.raises(RuntimeError, match='one SpikeProfiler or SpikeRecorder'):
            second(net).__enter__()
        assert is_clean(net)
    with pytest.raises(ValueError, match='unfused'):
        SpikeRecorder(fuse(net, 'int8'))
