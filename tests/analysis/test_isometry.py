"""phi(J J^T) against exact Jacobians, and which deep networks keep it near 1."""

import json
import re
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.logging import MMLogger
from torch import nn

from mmsnn.analysis import jacobian_moment, measure_isometry, residual_blocks
from mmsnn.analysis.isometry import _as_in_training, _record
from mmsnn.models import SGResNet
from mmsnn.models.backbones.sg_resnet import BLOCKS

ROOT = Path(__file__).resolve().parents[2]
DIGITS = 'configs/digits/spiking-retinanet_sg-r10_asd_fpn_digits.py'
TOOL = 'analysis_tools/gradient_isometry.py'


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(size=64, batch=2):
    noise = torch.randn(batch, 3, size + 8, size + 8, generator=generator())
    noise = nn.functional.avg_pool2d(noise, 9, stride=1)
    return noise / noise.std()


def backbone(depth=10, **kwargs):
    MMLogger.get_current_instance().setLevel('WARNING')  # a line for each of hundreds of weights
    torch.manual_seed(0)
    net = SGResNet(depth=depth, **{'base_channels': 16, **kwargs})
    net.init_weights()
    return net


def phis(result, identity=True):
    return [row.phi for row in result.blocks if row.identity == identity]


# The estimator


def test_identity_is_exactly_one():
    x = torch.rand(3, 4, requires_grad=True)
    assert jacobian_moment(x + 0, x, 3, generator()) == (1, 0)


def test_scaled_identity_is_exactly_its_square():
    x = torch.rand(3, 4, requires_grad=True)
    assert jacobian_moment(-1.5 * x, x, 3, generator()) == (2.25, 0)


def test_matrix_with_another_number_of_outputs_within_sampling_error():
    weight = torch.randn(6, 4, dtype=torch.float64, generator=generator())
    x = torch.rand(4, dtype=torch.float64, requires_grad=True)
    phi, error = jacobian_moment(weight @ x, x, 400, generator(1))
    exact = weight.square().sum().item() / 6
    assert 0 < error < 0.1 * exact
    assert abs(phi - exact) < 4 * error


def test_probes_below_two_are_refused():
    x = torch.rand(3, requires_grad=True)
    with pytest.raises(ValueError, match='at least 2'):
        jacobian_moment(2 * x, x, 1, generator())
    with pytest.raises(ValueError, match='at least 2'):
        measure_isometry(backbone(), images(), probes=1)


@pytest.mark.parametrize('block', [*BLOCKS, 'sg:LearnedGate'])
def test_block_agrees_with_its_exact_jacobian(block):
    """All time steps and images, through surrogates, norms and gate, in float64."""
    name, _, gate = block.partition(':')
    extra = dict(gate_cfg=dict(type=gate)) if gate else {}
    net = backbone(block=name, base_channels=2, num_stages=1, out_indices=(0,), strides=(1,),
                   time_steps=2, **extra).double()  # fmt: skip
    if gate:  # let it open and close, or its Jacobian is the residual gate's
        nn.init.constant_(net.layer1[0].gate.norm.weight, 2.0)
    x = images(size=16).double()
    result = measure_isometry(net, x, probes=100)
    with _as_in_training(net):
        ((source, time_steps),) = _record(net, residual_blocks(net), x)
        jacobian = torch.autograd.functional.jacobian(
            lambda s: net.layer1[0](s, time_steps), source
        )
    exact = jacobian.square().sum().item() / source.numel()  # as many outputs as inputs
    (row,) = result.blocks
    assert row.outputs == source.numel()
    assert 0 < row.phi_error < 0.1 * exact
    assert abs(row.phi - exact) < 4 * row.phi_error
    # One block: the chain is the block.
    assert row.product == pytest.approx(row.phi**0.5)
    assert row.gradient == pytest.approx(exact**0.5, rel=0.1)


def test_gradient_by_depth_is_that_of_one_backward_pass():
    net = backbone(depth=18)
    result = measure_isometry(net, images(), probes=6)
    assert [row.name for row in result.blocks][:3] == ['layer1.0', 'layer1.1', 'layer2.0']
    net.train()
    x = net._stem(images(), net.time_steps).detach().requires_grad_()
    out = x
    for name in residual_blocks(net):
        out = net.get_submodule(name)(out, net.time_steps)
    # Other cotangents: of so many values a norm hardly depends on which.
    signs = torch.randint(0, 2, out.shape, generator=generator(7)) * 2.0 - 1
    out.backward(signs)
    assert result.gradient == pytest.approx((x.grad.norm() / signs.norm()).item(), rel=0.1)


def test_backbone_is_left_as_it_was():
    net = backbone(depth=10, norm_eval=True).eval()
    net.layer1.train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    first = measure_isometry(net, images(), probes=2)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert [module.training for module in net.modules()] == modes
    assert all(p.grad is None for p in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())
    assert measure_isometry(net, images(), probes=2) == first
    # Held norms are held: their Jacobian is another one than that of batch statistics.
    moving = measure_isometry(backbone(depth=10), images(), probes=2)
    assert abs(first.blocks[0].phi - moving.blocks[0].phi) > 0.05


def test_backbone_without_residual_blocks_is_refused():
    with pytest.raises(
        ValueError, match=r'ResNet has no spiking residual blocks: it needs .*SGRes'
    ):
        measure_isometry(MODELS.build(dict(type='ResNet', depth=18)), images())


def test_blocks_that_do_not_follow_one_another_are_refused():
    class Halved(SGResNet):
        def forward(self, x):
            x = self._stem(x, self.time_steps)
            for name in residual_blocks(self):
                x = self.get_submodule(name)(x, self.time_steps) * 0.5
            return (x,)

    with pytest.raises(ValueError, match='Halved do not'):
        measure_isometry(Halved(10, base_channels=8), images())


# What holds at initialisation: depth 152, 16 base channels, 2 noise images of 64x64, T = 4.


@pytest.fixture(scope='module')
def deep():
    def measure(**kwargs):
        return measure_isometry(backbone(depth=152, **kwargs), images(), probes=2)

    return measure


def test_sg_resnet_152_keeps_isometry(deep):
    result = deep()
    assert len(phis(result)) == 46
    assert len(phis(result, identity=False)) == 4
    assert result.blocks_hold
    assert min(phis(result)) > 0.8
    assert max(phis(result)) < 2
    assert result.gradient_holds
    assert 1e-3 < result.product < 1e3
    # The price of OR: in the third stage spikes only ever come to those there are.
    assert result.blocks[46].mean_output > 0.98


def test_sg_resnet_152_that_starts_silent_is_exactly_isometric(deep):
    result = deep(zero_init_residual=True)
    assert phis(result) == [1] * 46
    assert all(row.phi_error == 0 for row in result.blocks if row.identity)
    assert result.gradient_holds
    assert 0.1 < result.product < 10
    assert max(row.mean_output for row in result.blocks) < 0.5


def test_plain_blocks_fail_where_sg_holds(deep):
    # The same silent branches, the same output as its input: the backward fails in each block.
    plain = deep(block='plain', zero_init_residual=True)
    assert max(phis(plain)) < 0.5
    assert plain.product < 1e-3
    # A surrogate twice as wide: the gradient vanishes.
    wide = dict(act_cfg=dict(type='LIFNeuron', surrogate_width=2.0))
    plain = deep(block='plain', **wide)
    assert max(phis(plain)) < 0.5
    assert plain.gradient < 1e-10
    sg = deep(**wide)
    assert sg.blocks_hold
    assert sg.gradient_holds


def test_what_the_default_surrogate_does_for_plain_blocks_and_a_steep_one_to_sg(deep):
    """Isometry doesn't tell SG from plain blocks at every setting; docs/isometry.md says so."""
    assert deep(block='plain').blocks_hold
    steep = dict(act_cfg=dict(type='LIFNeuron', surrogate_width=0.5))
    sg = deep(**steep)
    assert not sg.blocks_hold
    assert sg.gradient > 1e3
    assert phis(deep(zero_init_residual=True, **steep)) == [1] * 46


# The tool


@pytest.fixture
def here(monkeypatch, capsys):
    """Run the tool in this process: a new one takes longer to import than to measure."""

    def run(*args):
        script = ROOT / 'tools' / TOOL
        monkeypatch.setattr(sys, 'argv', [str(script), *map(str, args)])
        for name, value in dict(TORCH_FORCE_WEIGHTS_ONLY_LOAD='1', LOCAL_RANK='0').items():
            monkeypatch.setenv(name, value)  # it sets them itself, and would leave them behind
        runpy.run_path(str(script), run_name='__main__')
        return capsys.readouterr().out

    return run


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for i in range(2):
        image = np.random.default_rng(i).integers(0, 255, (40, 50, 3), np.uint8)
        cv2.imwrite(str(folder / f'{i}.png'), image)
    return folder


def test_tool_compares_blocks_and_depths(tool, tmp_path):
    out = tmp_path / 'result.json'
    done = tool(TOOL, DIGITS, '--blocks', 'sg:LearnedGate', 'tdbn', '--depths', 10, 18,
                '--image-size', 32, '--probes', 2, '--out', out,
                '--cfg-options', 'model.backbone.base_channels=8',
                MMSNN_DIGITS_ROOT=tmp_path)  # fmt: skip
    assert "smoothed noise (the config's test data is not there)" in done.stdout
    networks = json.loads(out.read_text())['networks']
    assert [(n['network'], n['depth'], len(n['blocks'])) for n in networks] == [
        ('sg:LearnedGate', 10, 3),
        ('sg:LearnedGate', 18, 6),
        ('tdbn', 10, 3),
        ('tdbn', 18, 6),
    ]
    low, high = networks[1]['summary']['identity_phi']
    assert 0.5 < low < high < 2
    assert re.search(r'^sg:LearnedGate +18 .* yes$', done.stdout, re.MULTILINE)
    assert cv2.imread(str(out.with_suffix('.png'))) is not None


def test_tool_measures_a_checkpoint_on_images(here, tmp_path, pictures):
    net = backbone(num_stages=3, strides=(1, 2, 2), out_indices=(1, 2), stem_channels=16,
                   block='plain')  # fmt: skip
    state = {f'backbone.{key}': value for key, value in net.state_dict().items()}
    torch.save(dict(state_dict={**state, 'neck.weight': torch.ones(1)}), tmp_path / 'w.pth')
    options = ['--images', pictures, '--batch-size', 2, '--image-size', 32, '--probes', 2]
    # The config's own gate goes with its block.
    override = ['--cfg-options', 'model.backbone.base_channels=16', 'model.backbone.block=plain']
    results = []
    for i, checkpoint in enumerate([[tmp_path / 'w.pth'], []]):
        out = tmp_path / f'{i}.json'
        shown = here(DIGITS, *checkpoint, *options, '--seed', 5, '--out', out, *override)
        assert f'2 images, 32x32, the first of {pictures}' in shown
        assert 'layer3.0' in shown
        (network,) = json.loads(out.read_text())['networks']
        assert (network['network'], network['depth']) == ('plain', 10)
        assert [row['identity'] for row in network['blocks']] == [True, False, False]
        assert network['summary']['blocks_hold'] is True
        results.append([row['phi'] for row in network['blocks']])
    assert results[0] != results[1]  # these weights are of another seed


def test_tool_takes_the_test_data_where_it_is_there(here, tmp_path, pictures):
    annotations = dict(
        images=[dict(id=i, file_name=f'{i}.png', height=40, width=50) for i in range(2)],
        annotations=[],
        categories=[dict(id=1, name='cat')],
    )
    (tmp_path / 'a.json').write_text(json.dumps(annotations))
    config = tmp_path / 'config.py'
    config.write_text(f"""
model = dict(backbone=dict(type='SGResNet', depth=10, base_channels=8))
test_dataloader = dict(dataset=dict(
    type='CocoDataset', ann_file={str(tmp_path / 'a.json')!r}, test_mode=True,
    data_prefix=dict(img={str(pictures) + '/'!r}),
    pipeline=[dict(type='LoadImageFromFile'), dict(type='PackDetInputs', meta_keys=())]))
""")
    options = ['--batch-size', 2, '--image-size', 32, '--probes', 2]
    shown = here(config, *options, '--out', tmp_path / 'r.json')
    assert "2 images, 32x32, the config's test data; 2 probes" in shown


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--cfg-options', 'model.backbone.depth=18', 'model.backbone.type=ResNet'],
         'ResNet has no spiking residual blocks: it needs a backbone such as'),
        (['--images', 'no/such/folder'], '--images no/such/folder is not there'),
        (['--blocks', 'plain:ResidualGate'], "block 'plain' has no gate"),
        (['--out', 'result.txt'], '--out must name a .json file'),
    ],
)  # fmt: skip
def test_tool_explains_bad_input(here, tmp_path, options, message):
    config = tmp_path / 'config.py'
    config.write_text("model = dict(backbone=dict(type='SGResNet', depth=10))\n")
    out = tmp_path / 'result.json'
    with pytest.raises(SystemExit) as error:
        here(config, '--out', out, *options)
    assert message in str(error.value)
    assert not out.exists()
