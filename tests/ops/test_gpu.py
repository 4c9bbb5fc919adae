"""Neurons on the GPU against the reference on the CPU; `make gpu` runs this with the rest.

test_triton.py runs it in Triton's interpreter where there is no GPU.
"""

import pytest
import torch

from mmsnn import ops
from mmsnn.ops import dispatch

TRITON = dispatch.named('triton')
DEVICE, DTYPES = TRITON.device, TRITON.dtypes['lif']
if dispatch.why_not('triton'):
    pytest.skip(f'needs a GPU: {dispatch.why_not("triton")}', allow_module_level=True)


def values(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def run(x, shortcut, affine, grad, options, device):
    """Spikes and gradients, on the CPU."""
    tensors = [
        None if v is None else v.to(device, copy=True).requires_grad_()
        for v in (x, shortcut, *affine, *options['leak'])
    ]
    x, shortcut, scale, shift, decay, input_scale = tensors
    options = {key: value for key, value in options.items() if key != 'leak'}
    out = ops.lif(x, decay, input_scale, shortcut=shortcut, scale=scale, shift=shift, **options)
    out.backward(grad.to(device))
    return out.detach().cpu(), [None if v is None else v.grad.cpu() for v in tensors]


@pytest.mark.parametrize('gate', [None, 'or', 'add', 'and', 'iand'])
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last', 'shared'])
@pytest.mark.parametrize('dtype', DTYPES, ids=lambda dtype: str(dtype).partition('.')[2])
def test_as_the_reference(dtype, layout, gate, monkeypatch):
    """Spikes bit for bit, gradients to rounding; by the kernels, and not by another way round."""
    launched = []

    def watch(function):
        def launch(*args):
            launched.append(function.__name__)
            function(*args)

        return launch

    for function in (TRITON.lif, TRITON.lif_backward):
        monkeypatch.setattr(TRITON, function.__name__, watch(function))
    shape = (3, 2, 20, 9, 7)
    x = (1.5 * values(*shape, seed=0)).to(dtype)
    if layout == 'shared':
        x = x[0]
    elif layout == 'channels_last':
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, shape[:2])
    grad = values(*shape, seed=1).to(dtype)
    shortcut = None if gate is None else (values(*shape, seed=2) > 0).to(dtype)
    affine = [1 + values(20, seed=3) / 4, values(20, seed=4) / 4]
    # A reset, a way to differentiate it and a surrogate for each of the gates.
    which = [None, 'or', 'add', 'and', 'iand'].index(gate)
    options = dict(
        leak=[torch.tensor(0.6), torch.tensor(0.8)],
        v_threshold=0.7,
        reset=['hard', 'soft'][which % 2],
        detach_reset=which == 4,
        surrogate=['arctan', 'rectangle', 'triangle', 'sigmoid', 'arctan'][which],
        surrogate_width=0.9,
        gate=gate,
        time_steps=3 if layout == 'shared' else None,
    )
    with ops.use_backend('triton'):
        spikes, grads = run(x, shortcut, affine, grad, options, DEVICE)
    assert launched == ['lif', 'lif_backward']
    with ops.use_backend('reference'):
        expected, expected_grads = run(x, shortcut, affine, grad, options, 'cpu')
    torch.testing.assert_close(spikes, expected, rtol=0, atol=0)
    assert 0.05 < spikes.mean() < 2
    rtol = 1e-4 if dtype == torch.float32 else 2e-2
    for ours, theirs in zip(grads, expected_grads):
        if theirs is not None:
            atol = rtol * max(1.0, theirs.abs().max().item())
            torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol)


@pytest.mark.skipif(DEVICE == 'cpu', reason='needs a GPU: 8 GB of spikes are too many to interpret')
def test_more_elements_than_32_bits_count():
    n = 2**31 + 600
    if torch.cuda.mem_get_info()[0] < 4 * n:
        pytest.skip(f'needs {4 * n / 1e9:.0f} GB of GPU memory')
    x = torch.zeros(1, 1, n, dtype=torch.float16, device=DEVICE)
    x[0, 0, -1] = x[0, 0, 5] = 1
    scale = torch.ones(n, device=DEVICE) if torch.cuda.mem_get_info()[0] > 8 * n else None
    with torch.no_grad(), ops.use_backend('triton'):
        spikes = ops.lif(x, v_threshold=0.5, scale=scale, dtype=torch.uint8)
    assert spikes.sum().item() == 2
    assert spikes[0, 0, -1] == spikes[0, 0, 5] == 1
