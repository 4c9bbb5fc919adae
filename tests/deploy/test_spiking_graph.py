"""A backbone as nodes: all of it, in an order that runs."""

import pytest
import torch
from small_nets import backbone, images
from torch import nn

from mmsnn.deploy.spiking_graph import INPUT, record, spiking_graph
from mmsnn.models import SGResNet
from mmsnn.models.layers import SpikingNeuron

NETS = {
    'sg': {},
    'bottlenecks': dict(depth=50),
    'deep stem': dict(stem='deep'),
    'plain': dict(block='plain'),
    'sew': dict(block='sew'),
    'ms': dict(block='ms'),
}


@pytest.mark.parametrize('name', NETS)
def test_all_parts_are_there(name):
    net = backbone(**NETS[name]).eval()
    graph = spiking_graph(net)
    seen = {INPUT}
    for node in graph.nodes:
        assert set(node.inputs) <= seen
        seen.add(node.name)
    for kind in (nn.Conv2d, SpikingNeuron):
        parts = {path for path, module in net.named_modules() if isinstance(module, kind)}
        assert {node.name for node in graph.nodes if isinstance(node.module, kind)} == parts
    spikes = record(net, images(), graph)
    levels = net(images())
    for output, level in zip(graph.outputs, levels):
        assert torch.equal(spikes[output], level)
        assert level.any()


def test_the_model_stays():
    net = backbone().train()
    spiking_graph(net)
    assert net.training
    assert not isinstance(net.stem[0]['norm'], nn.Identity)


def test_what_is_not_known_is_refused_by_name():
    class Own(SGResNet):
        pass

    with pytest.raises(ValueError, match='not a Own'):
        spiking_graph(Own(10, base_channels=8))
    with pytest.raises(ValueError, match=r'stem.0.conv \(ConvWS2d\) cannot be exported'):
        spiking_graph(backbone(conv_cfg=dict(type='ConvWS')))
    with pytest.raises(ValueError, match=r'stem.0.norm \(GroupNorm\) cannot be exported'):
        spiking_graph(backbone(norm_cfg=dict(type='GN', num_groups=4)))
    with pytest.raises(ValueError, match=r'gate \(LearnedGate\) cannot be exported'):
        spiking_graph(backbone(gate_cfg=dict(type='LearnedGate')))
    net = backbone()
    net.layer2[0].gate.register_forward_hook(lambda *args: None)
    with pytest.raises(ValueError, match=r'layer2.0.gate \(ResidualGate\) has a hook'):
        spiking_graph(net)
