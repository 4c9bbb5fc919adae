"""Training with the weights that the network has in whole numbers."""

import logging
from types import SimpleNamespace

import pytest
import small_nets
import torch
from mmdet.registry import HOOKS
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmsnn.deploy import export_integers, fuse
from mmsnn.deploy.fuse import event_convs, folded_copy
from mmsnn.deploy.integer_conv import integer_convs, round_straight_through, round_weights
from mmsnn.deploy.integer_file import convs_in_integers
from mmsnn.deploy.read_integers import read
from mmsnn.engine import QuantizationAwareHook
from mmsnn.models.layers import TDBN, ILIFNeuron
from mmsnn.structures import ClsDataSample

WHY_NOT = event_convs() and integer_convs()
needs_integers = pytest.mark.skipif(bool(WHY_NOT), reason=f'nothing to compare with: {WHY_NOT}')
LIF = dict(type='LIFNeuron', v_threshold=0.3)
NETS = {
    'sg': dict(act_cfg=LIF),
    'no leak': dict(act_cfg=dict(type='IFNeuron', v_threshold=0.3)),
    'counts': dict(act_cfg=dict(type='ILIFNeuron', D=3)),
    'sew': dict(act_cfg=LIF, block='sew'),
    'ms': dict(act_cfg=LIF, block='ms'),
    'deep stem': dict(act_cfg=LIF, stem='deep'),
}


def classifier(**backbone):
    torch.manual_seed(0)
    model = small_nets.classifier(
        data_preprocessor=dict(type='ClsDataPreprocessor', mean=[127.5] * 3, std=[50.0] * 3),
        **{'act_cfg': LIF, **backbone},
    )
    for module in model.modules():
        if isinstance(module, ILIFNeuron):
            module.v_threshold = 0.2
        if isinstance(module, TDBN):
            module.momentum = 0.9  # settles in a few steps
    return model.train()


def runner_of(model):
    return SimpleNamespace(model=model, logger=logging.getLogger('test'))


def with_rounded_weights(model, precision='int8'):
    hook = QuantizationAwareHook(precision)
    hook.before_train(runner_of(model))
    return hook


class Pictures(Dataset):
    """Eight images of two classes."""

    metainfo = dict(classes=('a', 'b'))

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, (8, 3, 32, 32), generator=generator, dtype=torch.uint8)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return dict(inputs=self.images[index], data_samples=ClsDataSample().set_gt_label(index % 2))


def batch(model):
    items = [Pictures()[i] for i in range(8)]
    data = {key: [item[key] for item in items] for key in items[0]}
    return model.data_preprocessor(data, True)


def train(model, steps):
    optim_wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), 2e-3))
    data = batch(model)
    for _ in range(steps):
        loss, _ = model.parse_losses(model(**data, mode='loss'))
        optim_wrapper.update_params(loss)


@pytest.mark.parametrize(('bits', 'largest'), [(16, 127 * 256), (8, 127), (4, 7), (2, 1)])
def test_rounding(bits, largest):
    weight = torch.randn(5, 3, 3, 3)
    weight[4] = 0
    q, scale = round_weights(weight, bits)
    assert torch.equal(q, q.round())
    assert (q.abs().amax((1, 2, 3)) == torch.tensor([largest] * 4 + [0])).all()
    error = (q * scale.view(-1, 1, 1, 1) - weight).abs()
    assert (error <= 0.5001 * scale.view(-1, 1, 1, 1)).all()


def test_gradients_go_straight_through():
    weight = torch.randn(5, 3, 3, 3, requires_grad=True)
    q, scale = round_weights(weight.detach(), 4)
    seen = (q * scale.view(-1, 1, 1, 1)).requires_grad_()
    (round_straight_through(weight, 4) ** 3).sum().backward()
    (seen**3).sum().backward()
    assert torch.equal(weight.grad, seen.grad)


@pytest.mark.parametrize('with_cp', [False, True])
def test_a_step_is_one_of_the_rounded_network(with_cp):
    """Its losses and gradients, which the weights in float32 get; also in recomputed blocks."""
    model, other = classifier(with_cp=with_cp), classifier()
    for name in convs_in_integers(other.backbone):
        conv = other.backbone.get_submodule(name)
        conv.weight.data = round_straight_through(conv.weight.data, 4)
    hook = with_rounded_weights(model, 'int4')
    before = {name: value.clone() for name, value in model.named_parameters()}
    for net in (model, other):
        loss, _ = net.parse_losses(net(**batch(net), mode='loss'))
        loss.backward()
    for (name, ours), theirs in zip(model.named_parameters(), other.parameters()):
        assert torch.equal(ours, before[name])
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)
    hook.after_train(runner_of(model))
    assert small_nets.is_clean(model)
    assert not any('weight' in vars(module) for module in model.modules())


def unusual_norms(net):
    for module in net.modules():
        if isinstance(module, TDBN):
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)


@pytest.mark.parametrize('name', NETS)
def test_weights_are_those_of_the_file(name, tmp_path):
    pytest.importorskip('safetensors')
    net = classifier(**NETS[name]).backbone.eval()
    unusual_norms(net)
    path = str(tmp_path / 'net.safetensors')
    export_integers(net, path, bits=4)
    network, tensors = read(path)
    assert network['weight_bits'] == 4
    whole = {f'{name}.q' for name in convs_in_integers(net)}
    assert whole == {key for key in tensors if key.endswith('.q')}
    folded = folded_copy(net)
    seen = {}
    hook = with_rounded_weights(net, 'int4')
    for path, module in net.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_pre_hook(
                lambda conv, args, path=path: seen.update({path: conv.weight.detach().clone()})
            )
    net(small_nets.images())
    hook.after_train(runner_of(net))
    for path, weight in seen.items():
        conv = net.get_submodule(path)
        if f'{path}.q' not in tensors:
            assert torch.equal(weight, conv.weight)
            continue
        q = torch.tensor(tensors[f'{path}.q'])
        factor = folded.get_submodule(path).weight.flatten(1).sum(1)
        factor = (factor / conv.weight.flatten(1).sum(1)).view(-1, 1, 1, 1)
        step = conv.weight.abs().amax((1, 2, 3), True) / 7
        torch.testing.assert_close(weight, q * step * factor.sign(), rtol=1e-6, atol=0)


@needs_integers
@pytest.mark.parametrize('precision', ['int16', 'int8', 'int4', 'int2'])
@pytest.mark.parametrize('name', NETS)
def test_spikes_are_those_of_the_fused_network(name, precision):
    model = classifier(**NETS[name])
    hook = with_rounded_weights(model, precision)
    train(model, 4)
    net, x = model.backbone.eval(), small_nets.images()
    with torch.no_grad():
        trained = [level.clone() for level in net(x)]
        hook.after_train(runner_of(model))
        fused, as_they_are = fuse(net, precision)(x), net(x)
    for ours, theirs in zip(trained, fused):
        assert ours.any()
        assert torch.equal(ours, theirs.float())
    if precision in ('int4', 'int2'):
        assert not torch.equal(trained[-1], as_they_are[-1])


def run(work_dir, epochs, resume=False, hooks=()):
    model = classifier()
    loader = dict(
        dataset=Pictures(), sampler=dict(type='DefaultSampler', shuffle=False), batch_size=4
    )
    runner = Runner(
        model,
        str(work_dir),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=2e-3)),
        custom_hooks=[*hooks, dict(type='QuantizationAwareHook', precision='int2')],
        randomness=dict(seed=0),
        default_scope='mmdet',
        resume=resume,
        experiment_name=f'{work_dir}-{epochs}',
        log_level='ERROR',
    )
    runner.train()
    return model, torch.load(work_dir / f'epoch_{epochs}.pth', weights_only=False)


def test_a_run_saves_what_loads_anywhere_and_goes_on(tmp_path):
    model, saved = run(tmp_path / 'whole', 2)
    assert small_nets.is_clean(model)
    plain = classifier()
    plain.load_state_dict(saved['state_dict'], strict=True)
    assert list(saved['state_dict']) == list(plain.state_dict())
    weight = plain.backbone.layer1[0].conv1.weight
    assert not torch.equal(weight, round_straight_through(weight, 2)), 'float32 goes on'
    run(tmp_path / 'halves', 1)
    _, resumed = run(tmp_path / 'halves', 2, resume=True)
    for name, value in saved['state_dict'].items():
        torch.testing.assert_close(resumed['state_dict'][name], value, msg=name)


def test_beside_other_hooks(tmp_path):
    """Those that watch convs, or keep a copy of the model."""
    hooks = [
        dict(type='SpikeBudgetHook', sops=1e5),
        dict(type='SpikeStatsHook', interval=1),
        dict(type='EMAHook'),
    ]
    model, saved = run(tmp_path, 1, hooks=hooks)
    assert small_nets.is_clean(model)
    assert list(saved['state_dict']) == list(classifier().state_dict())


def test_bad_precision():
    with pytest.raises(ValueError, match=r"unknown precision 'int7': choose one of \['int16'"):
        HOOKS.build(dict(type='QuantizationAwareHook', precision='int7'))


@pytest.mark.parametrize(
    ('backbone', 'message'),
    [
        (dict(gate_cfg=dict(type='LearnedGate')), r'gate \(LearnedGate\) cannot be exported'),
        (dict(conv_cfg=dict(type='ConvWS')), r'stem.0.conv \(ConvWS2d\) cannot be exported'),
        (dict(norm_cfg=dict(type='GN', num_groups=4)), r'\(GroupNorm\) cannot be exported'),
        (dict(act_cfg=dict(type='ILIFNeuron', D=255)), 'more than the 255 of a byte'),
    ],
)
def test_models_without_an_integer_file_are_refused_by_name(backbone, message):
    backbone = backbone | (dict(block='sew') if 'act_cfg' in backbone else {})
    with pytest.raises(ValueError, match=f'QuantizationAwareHook.*{message}') as caught:
        with_rounded_weights(classifier(**backbone))
    assert '\n' not in str(caught.value)


def test_a_model_without_neurons_is_refused():
    with pytest.raises(ValueError, match='Conv2d has none: take the hook out'):
        with_rounded_weights(torch.nn.Conv2d(3, 4, 3))
