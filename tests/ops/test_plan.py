"""Inference past the dispatcher: who takes the short way, and who must not."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmsnn import ops
from mmsnn.ops import dispatch
from mmsnn.ops.backends.c import plan

pytestmark = pytest.mark.skipif(
    bool(dispatch.why_not('c')), reason='needs the C kernels: a C compiler'
)


def planned(function):
    """What a call gives, and whether it ran a plan."""
    before = plan._plan.cache_info()
    out = function()
    after = plan._plan.cache_info()
    return out, after.hits + after.misses > before.hits + before.misses


@pytest.fixture
def x():
    return torch.randn(4, 2, 8, 6, 6) + 0.5


@torch.no_grad()
def test_inference_is_planned(x):
    _, is_planned = planned(lambda: ops.lif(x))
    assert is_planned


def test_a_gradient_takes_the_operator(x):
    x.requires_grad_()
    out, is_planned = planned(lambda: ops.lif(x))
    assert out.grad_fn is not None
    assert not is_planned


@torch.no_grad()
@pytest.mark.parametrize('name', ['decay', 'input_scale'])
def test_a_leak_that_learns_is_read_at_every_call(x, name):
    leak = torch.tensor(0.9)
    first = ops.lif(x, **{name: leak})
    leak.fill_(0.1)
    assert torch.equal(ops.lif(x, **{name: leak}), ops.lif(x, **{name: leak.item()}))
    assert not torch.equal(ops.lif(x, **{name: leak}), first)


@torch.no_grad()
def test_another_backend_and_other_layouts_are_not_planned(x):
    expected = ops.lif(x)
    with ops.use_backend('reference'):
        out, is_planned = planned(lambda: ops.lif(x))
    assert not is_planned
    assert torch.equal(out, expected)
    holes = torch.stack([x, x], -1)[..., 0]
    assert torch.equal(ops.lif(holes), expected)
    last = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (4, 2))
    shortcut = (torch.rand(x.shape) > 0.5).float()
    assert torch.equal(
        ops.lif(last, shortcut=shortcut, gate='or'), ops.lif(x, shortcut=shortcut, gate='or')
    )
    assert ops.lif(x[:, :0]).shape == (4, 0, 8, 6, 6)


@torch.no_grad()
def test_rows_of_an_image_of_a_larger_tensor():
    def maps(batch, rows):
        x = torch.randn(4 * batch, 8, rows, 6) + 0.5
        return x.contiguous(memory_format=torch.channels_last).unflatten(0, (4, batch))

    x, shortcut = maps(1, 3), (maps(3, 6) > 0.5).to(torch.uint8)
    larger = torch.zeros_like(shortcut)
    here = (slice(None), slice(1, 2), slice(None), slice(3, None))
    call = ops.LIFCall(x, ops.LIF(), shortcut=shortcut[here], gate='or')
    out = ops.named('c').planned_lif(call, torch.uint8, larger[here])
    assert out is not None, 'it was not planned'
    assert torch.equal(out, ops.lif(x, shortcut=shortcut[here], gate='or', dtype=torch.uint8))
    assert torch.equal(larger[here], out)
    assert larger.sum() == out.sum() > 0


@pytest.mark.filterwarnings('ignore:Converting a tensor to a Python boolean')
def test_who_watches_sees_the_operator(x):
    expected = ops.lif(x)

    def profiled():
        with torch.autograd.profiler.profile() as profiler:
            ops.lif(x)
        return {event.name for event in profiler.function_events}

    names, is_planned = planned(profiled)
    assert 'mmsnn::lif' in names
    assert not is_planned

    def traced():
        return torch.jit.trace(lambda x: ops.lif(x), x, check_trace=False)

    graph, is_planned = planned(traced)
    assert 'mmsnn::lif' in str(graph.graph)
    assert not is_planned
    assert torch.equal(graph(x), expected)

    def in_a_mode():
        with FlopCounterMode(display=False):
            return ops.lif(x)

    out, is_planned = planned(in_a_mode)
    assert torch.equal(out, expected)
    assert not is_planned

    out, is_planned = planned(lambda: torch.func.vmap(ops.lif, 1, 1)(x))
    assert torch.equal(out, expected)
    assert not is_planned


@torch.no_grad()
def test_a_compiled_function_keeps_the_operator(x):
    torch._dynamo.reset()
    graphs = []

    def look(graph, inputs):
        graphs.append(graph)
        return graph

    compiled = torch.compile(lambda x: ops.lif(x), fullgraph=True, backend=look)
    assert torch.equal(compiled(x), ops.lif(x))
    assert 'mmsnn.lif' in graphs[0].code


def test_threads_share_a_plan(x):
    inputs = [torch.randn(x.shape) + 0.5 for _ in range(16)]

    def run(x):
        with torch.no_grad():
            return [ops.lif(x) for _ in range(50)]

    expected = [run(x)[0] for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for outs, one in zip(pool.map(run, inputs), expected):
            assert all(torch.equal(out, one) for out in outs)
