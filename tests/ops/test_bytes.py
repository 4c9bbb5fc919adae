"""Rounding to bytes."""

import pytest
import torch

from mmsnn import ops
from mmsnn.ops.operators import decode


@pytest.mark.parametrize('name', ['reference', 'c'])
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize('span', [(0, 1), (-3, 1), (2, 5), (-7, -2), (-1e-3, 1e3), (0, 0)])
def test_to_bytes_rounds_to_the_nearest_step(span, dtype, layout, name):
    low, high = span
    generator = torch.Generator().manual_seed(0)
    x = low + (high - low) * torch.rand(2, 6, 33, 17, generator=generator)
    x = x.to(dtype).contiguous(memory_format=layout)
    with ops.use_backend(name):
        q, scale, zero = ops.to_bytes(x)
    assert q.dtype == torch.uint8
    assert q.stride() == x.stride()
    assert 0 <= zero <= 255
    error = ((q.double() - zero) * scale - x.double()).abs().max()
    assert error <= (0.51 if dtype != torch.bfloat16 else 1.1) * max(scale, 1e-6)


def test_the_kernel_is_the_reference():
    x = torch.randn(3, 7, 50, generator=torch.Generator().manual_seed(0)) * 100
    with ops.use_backend('c'):
        ours = decode.to_bytes(x, 0.7, 120)
    with ops.use_backend('reference'):
        assert torch.equal(ours, decode.to_bytes(x, 0.7, 120))
    torch.library.opcheck(torch.ops.mmsnn.to_bytes.default, (x, 0.7, 120))
