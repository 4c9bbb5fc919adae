"""NIR: the same spikes at every layer and step, and nothing lost on the way through a file."""

import copy

import numpy as np
import pytest
import torch
from digits_classifier import digits, digits_backbone
from small_nets import backbone, images

from mmsnn.deploy import export_nir, fold, run_nir
from mmsnn.deploy.nir_graph import nir_name
from mmsnn.deploy.spiking_graph import record, spiking_graph
from mmsnn.models import SGResNet
from mmsnn.models.layers import TDBN

nir = pytest.importorskip('nir')


def differing(net, x, path):
    """The share of values of spikes that the file gives otherwise; all layers fire."""
    export_nir(net, path, x.shape[-2:])
    found, graph = run_nir(path, x), spiking_graph(net)
    expected = record(net, x, graph)
    names = [node.name for node in graph.nodes if node.spikes and nir_name(node.name) in found]
    assert names
    for name in names:
        assert found[nir_name(name)].shape == expected[name].shape
        assert expected[name].any(), name
    # A node that gives no number of its own is SEW's sum alone.
    left = {node.name for node in graph.nodes if node.spikes} - set(names)
    assert all(node.kind == 'add' for node in graph.nodes if node.name in left)
    wrong = sum(int((found[nir_name(name)] != expected[name]).sum()) for name in names)
    return wrong / sum(expected[name].numel() for name in names)


def settled_r18():
    torch.manual_seed(0)
    net = SGResNet(18, base_channels=8, act_cfg=dict(type='LIFNeuron', v_threshold=0.5)).train()
    for module in net.modules():
        if isinstance(module, TDBN):
            torch.nn.init.constant_(module.bias, 0.3)
    with torch.no_grad():
        for _ in range(10):
            net(torch.randn(2, 3, 64, 64))
    return net.eval()


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_the_sg_resnet18_backbone(dtype, tmp_path):
    net = settled_r18().to(dtype)
    x = torch.randn(1, 3, 64, 64, dtype=dtype)
    most = 0 if dtype == torch.float64 else 1e-4
    assert differing(net, x, str(tmp_path / 'net.nir')) <= most


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_the_digits_classifier(dtype, tmp_path):
    most = 0 if dtype == torch.float64 else 1e-4
    path = str(tmp_path / 'net.nir')
    assert differing(digits_backbone().to(dtype), digits(3).to(dtype), path) <= most


NETS = {
    'bottlenecks': dict(depth=50),
    'deep stem': dict(stem='deep'),
    'tau': dict(act_cfg=dict(type='LIFNeuron', tau=3.0)),
    'no leak': dict(act_cfg=dict(type='IFNeuron')),
    'no memory': dict(act_cfg=dict(type='LIFNeuron', decay=0.0)),
    'learned leak': dict(act_cfg=dict(type='PLIFNeuron', tau=1.7)),
    'plain': dict(block='plain'),
    'sew': dict(block='sew'),
    'sew and': dict(block='sew', gate_cfg=dict(type='SEWAndGate')),
    'sew iand': dict(block='sew', gate_cfg=dict(type='SEWIAndGate')),
    'ms': dict(block='ms', stem='cifar'),
}


@pytest.mark.parametrize('name', NETS)
def test_all_that_can_be_said(name, tmp_path):
    net = backbone(**NETS[name]).double()
    assert differing(net, images().double(), str(tmp_path / 'net.nir')) == 0


def test_frames(tmp_path):
    net = backbone(in_channels=2).double()
    path = str(tmp_path / 'net.nir')
    export_nir(net, path, (32, 32))
    frames = torch.randn(4, 1, 2, 32, 32, dtype=torch.float64)
    found = run_nir(path, frames)
    for i, level in enumerate(net(frames)):
        assert torch.equal(found[f'output_{i}'], level)


def test_the_file_keeps_every_weight(tmp_path):
    net = settled_r18()
    path = str(tmp_path / 'net.nir')
    written = export_nir(net, path, (32, 32), dict(classes=['a', 'ü']))
    back = nir.read(path)
    assert back.nodes.keys() == written.nodes.keys()
    assert sorted(back.edges) == sorted(written.edges)
    for name, node in written.nodes.items():
        for key, value in vars(node).items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(value, getattr(back.nodes[name], key))
                assert value.dtype == getattr(back.nodes[name], key).dtype
    folded = copy.deepcopy(net)
    fold(folded)
    for name, conv in folded.named_modules():
        if isinstance(conv, torch.nn.Conv2d):
            node = back.nodes[nir_name(name)]
            np.testing.assert_array_equal(node.weight, conv.weight.detach())
            np.testing.assert_array_equal(node.bias, conv.bias.detach())
    assert back.metadata['decoder_reads'].startswith('["layer1_1_gate", "layer2_1_gate"')
    assert back.metadata['classes'] == '["a", "\\u00fc"]'


def test_or_keeps_nothing(tmp_path):
    """By hand: the IF of an OR forgets 1 and 2 alike, and 0 leaves it at rest."""
    net, path = SGResNet(10, base_channels=8), str(tmp_path / 'net.nir')
    gate = export_nir(net, path, (32, 32)).nodes['layer1_0_gate']
    for total in (0, 1, 2):
        v = 0.0
        for x in (total, 0, total):
            v += 1e-4 * gate.r.flat[0] * x
            fires = v >= gate.v_threshold.flat[0]
            assert fires == (x > 0)
            v = gate.v_reset.flat[0] if fires else v
            assert v == 0


def test_lif_by_hand(tmp_path):
    """Constants of h = 0.75 v + 0.25 x, threshold 0.8: v in NIR is v itself, at tau = 4 steps."""
    net = SGResNet(10, base_channels=8, act_cfg=dict(type='LIFNeuron', tau=4.0, v_threshold=0.8))
    node = export_nir(net, str(tmp_path / 'net.nir'), (32, 32)).nodes['stem_0_neuron']
    assert type(node).__name__ == 'LIF'
    assert node.tau.shape == (8, 16, 16)
    for key, value in dict(tau=4e-4, r=1, v_leak=0, v_reset=0, v_threshold=0.8).items():
        np.testing.assert_allclose(getattr(node, key), value, rtol=1e-12)


@pytest.mark.parametrize(
    ('kwargs', 'words'),
    [
        (dict(act_cfg=dict(type='ILIFNeuron')), r'stem.0.neuron \(ILIFNeuron\) cannot be said'),
        (
            dict(act_cfg=dict(type='LIFNeuron', reset='soft')),
            r'stem.0.neuron \(LIFNeuron\) .* not told apart',
        ),
        (dict(block='ms'), r'maxpool \(MaxPool2d\) .* no max pool of currents'),
    ],
)
def test_what_nir_cannot_say(kwargs, words, tmp_path):
    path = tmp_path / 'net.nir'
    with pytest.raises(ValueError, match=words) as caught:
        export_nir(SGResNet(10, base_channels=8, **kwargs), str(path), (32, 32))
    assert '\n' not in str(caught.value)
    assert not path.exists()


def test_other_sizes(tmp_path):
    net, path = SGResNet(10, base_channels=8), str(tmp_path / 'net.nir')
    with pytest.raises(ValueError, match='height and width'):
        export_nir(net, path, (0, 3))
    export_nir(net, path, (32, 32))
    with pytest.raises(ValueError, match=r'takes images .* got \(1, 3, 16, 16\)'):
        run_nir(path, torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match=r'takes images .* got \(2, 1, 3, 32, 32\)'):
        run_nir(path, torch.zeros(2, 1, 3, 32, 32))


def foreign(tmp_path, nodes, metadata=None, edges=None):
    names = list(nodes)
    path = str(tmp_path / 'foreign.nir')
    nir.write(path, nir.NIRGraph(nodes, edges or list(zip(names, names[1:])), metadata or {}))
    return path


def chain(node):
    return dict(
        input=nir.Input({'input': np.array([3])}), node=node,
        output=nir.Output({'output': np.array([3])}),
    )  # fmt: skip


def test_another_dialect_is_refused(tmp_path):
    node = nir.IF(r=np.ones(3), v_threshold=np.ones(3))
    path = foreign(tmp_path, chain(node))
    with pytest.raises(ValueError, match="not of the dialect 'mmsnn 1'") as caught:
        run_nir(path, torch.zeros(1, 3, 1, 1))
    assert '\n' not in str(caught.value)
    path = foreign(tmp_path, chain(node), dict(dialect='mmsnn 2'))
    with pytest.raises(ValueError, match="say 'mmsnn 2'"):
        run_nir(path, torch.zeros(1, 3, 1, 1))


def test_nodes_that_mmsnn_never_writes_are_refused(tmp_path):
    ours = dict(dialect='mmsnn 1', dt=1e-4, time_steps=2)
    frames = torch.zeros(2, 1, 3, 1, 1)
    shape = np.array([3, 1, 1])
    nodes = dict(
        input=nir.Input({'input': shape}),
        node=nir.Threshold(np.ones((3, 1, 1))),
        output=nir.Output({'output': shape}),
    )
    with pytest.raises(ValueError, match=r'node node .* is a Threshold'):
        run_nir(foreign(tmp_path, nodes, ours), frames)
    nodes['node'] = nir.IF(r=np.ones((3, 1, 1)), v_threshold=np.ones((3, 1, 1)))
    edges = [('input', 'node'), ('node', 'node'), ('node', 'output')]
    with pytest.raises(ValueError, match='a loop through node'):
        run_nir(foreign(tmp_path, nodes, ours, edges), frames)


def test_files_that_are_no_graph(tmp_path):
    with pytest.raises(FileNotFoundError):
        run_nir(str(tmp_path / 'none.nir'), torch.zeros(1, 3, 8, 8))
    path = tmp_path / 'other.nir'
    path.write_bytes(b'not HDF5')
    with pytest.raises(ValueError, match=r'other.nir cannot be read as a NIR graph') as caught:
        run_nir(str(path), torch.zeros(1, 3, 8, 8))
    assert '\n' not in str(caught.value)
    export_nir(SGResNet(10, base_channels=8), str(path), (32, 32))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match='cannot be read as a NIR graph'):
        run_nir(str(path), torch.zeros(1, 3, 32, 32))
