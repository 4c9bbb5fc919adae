"""The loss that holds synaptic operations near a target."""

from types import SimpleNamespace

import pytest
import small_nets
import torch
from mmdet.registry import HOOKS
from mmengine.optim import OptimWrapper

from mmsnn.analysis import SpikeProfiler
from mmsnn.engine import SpikeBudgetHook
from mmsnn.models.layers import TDBN
from mmsnn.structures import ClsDataSample


def classifier(**backbone):
    torch.manual_seed(0)
    model = small_nets.classifier(
        data_preprocessor=dict(type='ClsDataPreprocessor', mean=[127.5] * 3, std=[50.0] * 3),
        act_cfg=dict(type='LIFNeuron', v_threshold=0.3),
        **backbone,
    )
    return model.train()


def batch(model, count=4):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    data = dict(
        inputs=list(images),
        data_samples=[ClsDataSample().set_gt_label(i % 2) for i in range(count)],
    )
    return model.data_preprocessor(data, True)


def with_budget(model, **arguments):
    hook = SpikeBudgetHook(**arguments)
    hook.before_train(SimpleNamespace(model=model))
    return hook


@pytest.mark.parametrize('block', ['sg', 'sew', 'ms'])
def test_it_counts_as_the_profiler(block):
    model = classifier(block=block)
    with_budget(model, sops=1.0)
    with SpikeProfiler(model) as profiler:
        losses = model(**batch(model), mode='loss')
    layers = profiler.result().layers
    # What SEW's add makes is no spikes to the profiler; it is to the hook, each 2 two of them.
    sops = sum(layer.sops for layer in layers if 'head' not in layer.name)
    if block == 'sew':
        assert losses['sops'] * 1e6 > sops
    else:
        assert losses['sops'].item() * 1e6 == pytest.approx(sops, rel=1e-5)
    assert losses['loss_spike_budget'].item() == pytest.approx(1e6 * losses['sops'].item() - 1)


def test_operations_come_to_the_target():
    model = classifier()
    hook = with_budget(model, share=0.5, weight=3.0)
    optim_wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), 2e-3))
    data, seen = batch(model), []
    for _ in range(60):
        losses = model(**data, mode='loss')
        seen.append(losses['sops'].item() * 1e6)
        loss, _ = model.parse_losses(losses)
        optim_wrapper.update_params(loss)
    assert hook.sops == pytest.approx(0.5 * seen[0])
    assert 0.4 * seen[0] < seen[-1] < 0.55 * seen[0]


def test_below_the_target_nothing_changes():
    grads = []
    for budget in (False, True):
        model = classifier()
        if budget:
            with_budget(model, sops=1e12)
        losses = model(**batch(model), mode='loss')
        assert losses.get('loss_spike_budget', 0) == 0
        model.parse_losses(losses)[0].backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)


def test_it_is_taken_out_again():
    model = classifier()
    hook = with_budget(model, sops=1.0)
    hook.after_train(SimpleNamespace(model=model))
    assert set(model(**batch(model), mode='loss')) == {'loss'}
    modules = list(model.modules())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in modules)


def test_prediction_is_not_counted():
    model = classifier()
    hook = with_budget(model, sops=1.0)
    with torch.no_grad():
        model(**batch(model), mode='predict')
    assert hook._counted is None


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(), 'sops or share'),
        (dict(sops=1e6, share=0.5), 'sops or share'),
        (dict(sops=0), 'sops must be a positive number'),
        (dict(share=-1), 'share must be a positive number'),
        (dict(sops=1, weight=float('nan')), 'weight must be a positive number'),
    ],
)
def test_what_is_no_target(arguments, message):
    with pytest.raises(ValueError, match=message):
        HOOKS.build(dict(type='SpikeBudgetHook', **arguments))


def test_models_that_it_is_not_for():
    with pytest.raises(ValueError, match='Conv2d has none: take the hook out'):
        with_budget(torch.nn.Conv2d(3, 4, 3), sops=1.0)
    with pytest.raises(ValueError, match='set with_cp=False'):
        with_budget(classifier(with_cp=True), sops=1.0)
    silent = classifier()
    for module in silent.modules():
        if isinstance(module, TDBN):
            torch.nn.init.zeros_(module.weight)
    with_budget(silent, share=0.5)
    with pytest.raises(ValueError, match='no neuron fired there: give sops'):
        silent(**batch(silent), mode='loss')
