"""Mixed precision in bfloat16."""

import re

import pytest
import torch
from mmdet.registry import OPTIM_WRAPPERS
from torch import nn

from mmsnn.engine.optimizers import bf16_optim_wrapper


def build(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return OPTIM_WRAPPERS.build(dict(type='BF16OptimWrapper', optimizer=optimizer))


def test_forward_is_bfloat16_and_weights_are_not():
    model = nn.Conv2d(2, 3, 3)
    wrapper = build(model)
    before = model.weight.detach().clone()
    with wrapper.optim_context(model):
        out = model(torch.rand(1, 2, 5, 5))
    assert out.dtype == torch.bfloat16
    wrapper.update_params(out.float().sum())
    assert model.weight.dtype == torch.float32
    assert not torch.equal(model.weight, before)


@pytest.mark.parametrize(('slow', 'warns'), [((torch.bfloat16,), True), ((), False)])
def test_the_log_says_where_it_costs_time(slow, warns, monkeypatch):
    monkeypatch.setattr(bf16_optim_wrapper, 'SLOW_DTYPES', slow)
    monkeypatch.setattr(bf16_optim_wrapper, 'get_device', lambda: 'cpu')
    said = []
    monkeypatch.setattr(bf16_optim_wrapper, 'print_log', lambda *args: said.append(args[0]))
    bf16_optim_wrapper._warn.cache_clear()
    model, before = nn.Linear(2, 2), torch.random.get_rng_state()
    build(model)
    build(model)
    assert torch.equal(torch.random.get_rng_state(), before), 'the run would draw other numbers'
    assert len(said) == warns
    for line in said:
        times = re.search(r'no units for bfloat16: .* take about (\S+) times as long', line)[1]
        assert 0.05 < float(times) < 1e4
