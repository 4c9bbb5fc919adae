"""SyncTDBN; run as a script, this file is one of the two processes that the tests start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mmsnn.models import TDBN, SGResNet, SyncTDBN
from mmsnn.models.layers import build_norm

CASES = {
    'unequal batches': dict(shapes=[(2, 1, 3, 4, 5), (2, 3, 3, 4, 5)]),
    'unequal images': dict(shapes=[(4, 3, 4, 5), (2, 3, 7, 3)]),
    'momentum': dict(shapes=[(1, 2, 3, 4, 4)] * 2, momentum=0.7),
    'cumulative': dict(shapes=[(1, 2, 3, 4, 4)] * 2, momentum=None),
    'one value in one process': dict(shapes=[(1, 3, 1, 1), (1, 3, 2, 2)]),
    'far from zero': dict(shapes=[(8, 3, 6, 6), (4, 3, 6, 6)], offset=1e4, dtype=torch.float32),
    'bfloat16': dict(shapes=[(8, 3, 6, 6), (4, 3, 6, 6)], dtype=torch.bfloat16),
    'scale and shift': dict(shapes=[(2, 1, 3, 4, 5), (2, 3, 3, 4, 5)], call='scale_and_shift'),
}


def inputs(case, step):
    """What each process gets, and the gradient of each output."""
    rng = torch.Generator().manual_seed(step)
    xs, grads = [], []
    for rank, shape in enumerate(case['shapes']):
        channels = torch.arange(3, dtype=torch.float64).view(3, 1, 1)
        x = torch.randn(shape, generator=rng, dtype=torch.float64)
        x = x * (1 + rank + channels) + 2 * rank - channels + case.get('offset', 0)
        xs.append(x.to(case.get('dtype', torch.float64)))
        grads.append(torch.randn(shape, generator=rng, dtype=torch.float64).to(xs[-1].dtype))
    return xs, grads


def build(cls, case):
    norm = cls(3, momentum=case.get('momentum', 0.1), v_threshold=0.6, alpha=0.5)
    norm.to(torch.float64 if case.get('dtype') is None else torch.float32)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5]))
        norm.bias.copy_(torch.tensor([0.3, 0.0, -1.0]))
    return norm


class ByScaleAndShift(nn.Module):
    """The norm as a kernel uses it."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        scale, shift = (value.view(-1, 1, 1) for value in self.norm.scale_and_shift(x))
        return x * scale + shift


def train_backbone(norm, gate, images, distributed=False):
    """One step of an SGResNet in float64: its spikes, and the gradients summed over processes."""
    torch.manual_seed(0)
    layers = dict(norm_cfg=dict(type=norm), gate_cfg=GATES[gate])
    model = SGResNet(10, time_steps=3, base_channels=4, stem='cifar', **layers).double()
    wrapped = nn.parallel.DistributedDataParallel(model) if distributed else model
    outs = wrapped(images)
    sum((out * out.detach().cumsum(2).sin()).sum() for out in outs).backward()
    factor = torch.distributed.get_world_size() if distributed else 1
    return (
        [out.detach() for out in outs],
        {name: p.grad * factor for name, p in model.named_parameters()},
        dict(model.named_buffers()),
    )


# One is a part of the fused pass, the other is not.
GATES = {
    'residual': dict(type='ResidualGate'),
    'learned': dict(type='LearnedGate', act_cfg=dict(surrogate_width=4.0)),
}
IMAGES = torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SPLIT = (2, 1)


def process(rank, folder):
    """Train two steps of every case under DistributedDataParallel and save what came of it."""
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    results = {}
    for name, case in CASES.items():
        norm = build(SyncTDBN, case)
        inner = ByScaleAndShift(norm) if 'call' in case else norm
        model = nn.parallel.DistributedDataParallel(inner, broadcast_buffers=False)
        steps = []
        for step in range(2):
            xs, grads = inputs(case, step)
            x = xs[rank].requires_grad_()
            model.zero_grad()
            y = model(x)
            y.backward(grads[rank])
            # DistributedDataParallel averages over processes.
            steps.append((y.detach(), x.grad, norm.weight.grad * 2, norm.bias.grad * 2))
        results[name] = dict(steps=steps, buffers=dict(norm.named_buffers()))
    for gate in GATES:
        results[gate] = train_backbone('SyncTDBN', gate, IMAGES.split(SPLIT)[rank], True)
    # A process that is alone in eval mode waits for nobody.
    if rank == 0:
        results['eval'] = norm.eval()(inputs(CASES['scale and shift'], 2)[0][0]).detach()
        results['norm'] = norm.state_dict()
    torch.save(results, f'{folder}/{rank}.pt')
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope='module')
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('sync')
    path = f'{Path(__file__).resolve().parents[3]}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'
    env = dict(os.environ, PYTHONPATH=path, OMP_NUM_THREADS='1')
    command = [sys.executable, '-W', 'error::FutureWarning:torch', __file__]
    processes = [subprocess.Popen([*command, str(rank), str(folder)], env=env) for rank in range(2)]
    try:
        assert [p.wait(timeout=200) for p in processes] == [0, 0]
    finally:
        for p in processes:
            p.kill()
    return [torch.load(folder / f'{rank}.pt') for rank in range(2)]


def joined(case, step, norm):
    """One process with the whole batch in float64, each process's part of the results apart."""
    xs, grads = ([v.double() for v in values] for values in inputs(case, step))
    xs = [x.requires_grad_() for x in xs]
    # (1, C, 1, values): images of different sizes join too.
    flat = [x.transpose(0, -3).reshape(1, 3, 1, -1) for x in xs]
    y = norm(torch.cat(flat, -1))
    norm.zero_grad()
    folded = torch.cat([g.transpose(0, -3).reshape(1, 3, 1, -1) for g in grads], -1)
    y.backward(folded)
    parts = y.detach().split([f.shape[-1] for f in flat], -1)
    ys = [part.reshape(x.transpose(0, -3).shape).transpose(0, -3) for part, x in zip(parts, xs)]
    return ys, [x.grad for x in xs], norm.weight.grad.clone(), norm.bias.grad.clone()


@pytest.mark.parametrize('name', CASES)
def test_two_processes_are_one_with_the_joined_batch(two_processes, name):
    case = CASES[name]
    close = {
        None: dict(rtol=1e-9, atol=1e-10),
        torch.float32: dict(rtol=2e-3, atol=5e-3),  # float32 has three decimals left at 10 000
        torch.bfloat16: dict(rtol=2e-2, atol=2e-2),
    }[case.get('dtype')]
    norm = build(TDBN, case).double()
    for step in range(2):
        ys, x_grads, weight_grad, bias_grad = joined(case, step, norm)
        for rank, result in enumerate(two_processes):
            y, x_grad, w, b = result[name]['steps'][step]
            assert y.dtype == x_grad.dtype == case.get('dtype', torch.float64)
            torch.testing.assert_close(y.double(), ys[rank], **close)
            torch.testing.assert_close(x_grad.double(), x_grads[rank], **close)
            # Sums over some hundred values are off by more than one.
            loose = close if 'dtype' not in case else dict(rtol=2e-2, atol=0.3)
            torch.testing.assert_close(w.double(), weight_grad, **loose)
            torch.testing.assert_close(b.double(), bias_grad, **loose)
    for result in two_processes:
        buffers = result[name]['buffers']
        assert buffers['num_batches_tracked'].item() == 2
        exact = close if 'dtype' not in case else dict(rtol=1e-4, atol=1e-4)
        for key in ('running_mean', 'running_var'):
            torch.testing.assert_close(buffers[key].double(), getattr(norm, key), **exact)
            assert torch.equal(buffers[key], two_processes[0][name]['buffers'][key])


@pytest.mark.parametrize('gate', GATES)
def test_backbone(two_processes, gate):
    """Through the blocks' passes, with 2 images in one process and 1 in the other."""
    outs, grads, buffers = train_backbone('TDBN', gate, IMAGES)
    for rank, result in enumerate(two_processes):
        theirs, their_grads, their_buffers = result[gate]
        for a, b in zip(theirs, outs):
            assert 0 < b.mean() < 1
            assert torch.equal(a, b.split(SPLIT, dim=1)[rank])
        for name, grad in grads.items():
            torch.testing.assert_close(their_grads[name], grad, rtol=1e-7, atol=1e-8)
        for name, value in buffers.items():
            torch.testing.assert_close(their_buffers[name], value, rtol=1e-9, atol=1e-10)


def test_statistics_of_one_process_would_fail(two_processes):
    """The cases above tell the two norms apart."""
    case = CASES['unequal batches']
    alone = build(TDBN, case)(inputs(case, 0)[0][0])
    assert (alone - two_processes[0]['unequal batches']['steps'][0][0]).abs().max() > 0.1


def test_eval_mode_waits_for_nobody(two_processes):
    norm = build(TDBN, {}).eval()
    norm.load_state_dict(two_processes[0]['norm'])
    x = inputs(CASES['scale and shift'], 2)[0][0]
    assert torch.equal(norm(x), two_processes[0]['eval'])


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('training', [True, False])
def test_without_a_process_group_it_is_tdbn(training, dtype):
    outs = []
    for cls in (TDBN, SyncTDBN):
        norm = build(cls, dict(dtype=dtype))
        x = torch.randn(2, 3, 3, 4, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
        norm(x)
        y = norm.train(training)(x.requires_grad_())
        y.sum().backward()
        outs.append([y, x.grad, norm.weight.grad, norm.bias.grad, *norm.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*outs))


def test_alone_in_a_process_group_it_is_tdbn(tmp_path):
    x = torch.randn(2, 3, 3, 4, 4)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1
    )
    try:
        assert torch.equal(SyncTDBN(3)(x), TDBN(3)(x))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize('momentum', [0.1, None, 0.0])
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('cls', [TDBN, SyncTDBN])
def test_scale_and_shift_is_forward(cls, training, momentum):
    case = dict(CASES['unequal batches'], momentum=momentum)
    results = []
    for wrap in (lambda norm: norm, ByScaleAndShift):
        norm = build(cls, case)
        model = wrap(norm)
        for step in range(2):
            model(inputs(case, step)[0][1])
        xs, grads = inputs(case, 2)
        x = xs[1].requires_grad_()
        model.train(training)
        y = model(x)
        y.backward(grads[1])
        results.append([y, x.grad, norm.weight.grad, norm.bias.grad, *norm.buffers()])
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize(
    ('dtype', 'expected'),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_scale_and_shift_are_float32_for_half_precision(dtype, expected, training):
    norm = TDBN(3).to(dtype).train(training)
    for value in norm.scale_and_shift(torch.rand(2, 3, 4, 4, dtype=dtype)):
        assert value.dtype == expected
        assert value.shape == (3,)


@pytest.mark.parametrize('cls', [TDBN, SyncTDBN])
def test_one_value_has_no_statistics(cls):
    with pytest.raises(ValueError, match='more than one value'):
        cls(3).scale_and_shift(torch.zeros(1, 3, 1, 1))


def test_by_config_it_learns_its_place():
    name, norm = build_norm(dict(type='SyncTDBN'), 6, 3, v_threshold=0.5, alpha=0.7)
    assert name == 'bn3'
    assert type(norm) is SyncTDBN
    assert (norm.v_threshold, norm.alpha) == (0.5, 0.7)


if __name__ == '__main__':
    process(int(sys.argv[1]), sys.argv[2])
