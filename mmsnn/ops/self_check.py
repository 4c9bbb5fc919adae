"""What a kernel backend has to get right before it is used."""

import itertools

import torch

from . import backend, conv_lif, event_conv, library


def _sample(*shape, step):  # numbers without a generator, whose state belongs to the user
    n = torch.Size(shape).numel()
    return (torch.arange(n, dtype=torch.float32) * step).sin().view(shape)


def self_check(kernel: str) -> str:
    """Compare a kernel backend with the reference on small inputs; '' or what differs."""
    wrong = _check_neuron(kernel)
    if not wrong and kernel in backend.MAP_KERNELS:
        wrong = _check_maps(kernel)
    if not wrong and kernel in backend.BYTE_KERNELS:
        x = _sample(3, 100, step=0.7)
        if not torch.equal(*(library._to_bytes(x, 0.01, 90, kernel=k) for k in (kernel, None))):
            wrong = 'its self-check found wrong bytes'
    if not wrong and kernel == 'c':
        wrong = _check_event_conv(kernel)
    if not wrong and kernel == 'c' and library.engine(kernel).has_dot_products():
        wrong = _check_conv(kernel)
    return wrong


def _check_neuron(kernel: str) -> str:
    device, dtypes = backend.KERNELS[kernel]
    cases = [
        ('hard', False, 'arctan', 'or', 0),
        ('soft', False, 'sigmoid', 'iand', 0),
        ('hard', True, 'triangle', 'and', 3),
        ('soft', True, 'rectangle', 'add', 0),
        ('hard', False, 'arctan', None, 3),
    ]

    for dtype in dtypes:
        for reset, detach, surrogate, gate, time_steps in cases:
            shape = (2, 5, 9, 8) if time_steps else (3, 2, 5, 9, 8)
            x = (1.5 * _sample(*shape, step=1.7)).to(device, dtype)
            if gate == 'iand':
                x = x.transpose(-1, -3).contiguous().transpose(-1, -3)
            grad = _sample(3, 2, 5, 9, 8, step=0.3).to(device, dtype)
            shortcut = (_sample(3, 2, 5, 9, 8, step=2.3) > 0.3).to(device, dtype) if gate else None
            scale, shift = (
                (1 + _sample(5, step=0.9)).to(device),
                _sample(5, step=1.1).to(device) / 4,
            )
            mean, invstd = shift, scale.abs() + 0.5
            if gate is None or gate == 'add':
                mean = invstd = None
            leak = x.new_tensor(0.5, dtype=torch.float32)
            inputs = (x, scale, shift, shortcut, leak, leak + 0.25, mean, invstd)
            neuron = (0.5, 1.0, 0.6, reset, detach, surrogate, 0.8, gate, time_steps)
            needs = [True, True, True, gate is not None, True, True]
            ours, theirs = (
                (library._lif(*inputs, *neuron, kernel=k),
                 *library._lif_backward(grad, *inputs, *neuron, needs, kernel=k))
                for k in (kernel, None)
            )  # fmt: skip
            in_bytes = library._lif(*inputs, *neuron, dtype=torch.uint8, kernel=kernel)
            if not torch.equal(ours[0], theirs[0]) or not torch.equal(in_bytes.to(dtype), ours[0]):
                return f'its self-check found wrong spikes ({dtype}, {reset} reset, gate {gate})'
            for a, b in zip(ours[1:], theirs[1:]):
                tolerance = 1e-4 if a.dtype == torch.float32 else 2e-2
                if not torch.allclose(a, b, rtol=tolerance, atol=tolerance):
                    return f'its self-check found wrong gradients ({dtype}, {surrogate} surrogate)'
        stats = [library._channel_stats(x, time_steps, kernel=k) for k in (kernel, None)]
        bits = [library._pack((x > 0).to(dtype), 1, kernel=k) for k in (kernel, None)]
        back = library._unpack(bits[0], x.shape, x.stride(), dtype, kernel=kernel)
        if not (
            all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(*stats))
            and torch.equal(*bits)
            and torch.equal(back, (x > 0).to(dtype))
        ):
            return f'its self-check found wrong statistics or bits ({dtype})'
    return ''


def _check_maps(kernel: str) -> str:
    device, dtypes = backend.MAP_KERNELS[kernel]
    steps, batch, channels, height, width = shape = (3, 2, 19, 7, 9)
    temporal, channel, spatial = (
        _sample(*size, step=step).to(device)
        for size, step in (
            ((steps, batch), 0.3),
            ((steps, batch, channels), 0.7),
            ((steps, batch, height, width), 1.1),
        )
    )
    for dtype, layout in itertools.product(dtypes, (torch.contiguous_format, torch.channels_last)):
        spikes = (_sample(*shape, step=2.3) > 0.3).to(device, dtype).flatten(0, 1)
        spikes = spikes.contiguous(memory_format=layout)
        for windows in (([3, 3], [2, 2], [1, 1]), ([2, 4], [1, 3], [0, 2])):
            ours, theirs = (library._max_pool(spikes, *windows, kernel=k) for k in (kernel, None))
            if not torch.equal(ours, theirs):
                return f'its self-check found wrong maxima ({dtype}, {layout})'
            if dtype == torch.uint8:
                continue
            grad = _sample(*ours.shape, step=0.3).to(device, dtype)
            for kept in (library._pack(spikes, 1, kernel=kernel), spikes):
                last = layout == torch.channels_last
                args = grad, kept, spikes.shape, last, *windows
                ours, theirs = (library._max_pool_backward(*args, kernel=k) for k in (kernel, None))
                tolerance = 1e-5 if dtype == torch.float32 else 1e-2
                if not torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance):
                    return f'its self-check found wrong gradients of maxima ({dtype}, {layout})'
            neuron = (*[None] * 7, 0.5, 1.0, 0.6, 'hard', False, 'arctan', 0.8, None, 0)
            x = _sample(*shape, step=1.7).to(device, dtype).flatten(0, 1)
            x = x.contiguous(memory_format=layout).unflatten(0, shape[:2])
            args = (
                grad,
                x,
                *neuron,
                library._pack(spikes, 1, kernel=kernel),
                *windows,
                [True] + [False] * 5,
            )
            ours, theirs = (library._lif_pool_backward(*args, kernel=k)[0] for k in (kernel, None))
            tolerance = 1e-4 if dtype == torch.float32 else 2e-2
            if not torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance):
                return f'its self-check found wrong gradients behind a pool ({dtype}, {layout})'
        spikes = spikes.unflatten(0, shape[:2])
        ours, theirs = (
            (library._attention_decode(spikes, temporal, channel, spatial, kernel=k),
             library._rate_decode(spikes, kernel=k).float(),
             *library._attention_statistics(spikes, kernel=k))
            for k in (kernel, None)
        )  # fmt: skip
        for a, b in zip(ours, theirs):
            if not torch.allclose(a, b, rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-4):
                return f'its self-check found wrong decoding ({dtype}, {layout})'
    return ''


def _check_conv(kernel: str) -> str:
    neuron = (0.5, 0.8, 0.6, 'soft', False, 'arctan', 1.0)
    parts = [
        ((100 * _sample(70, 12, 3, 3, step=step)).round(), 0.01 * (1 + _sample(70, step=step)))
        for step in (0.7, 1.9)
    ]
    weights = conv_lif.pack_weights(parts, _sample(70, step=1.3))
    x = (_sample(3, 2, 12, 9, 5, step=2.3) > 0.3).to(torch.uint8)
    shortcut = (_sample(3, 2, 70, 5, 3, step=2.9) > 0.3).to(torch.uint8)
    args = x, weights, ((2, 2), (1, 1), (1, 1)), neuron, shortcut, 'iand'
    if torch.equal(*(conv_lif.conv_lif(*args, kernel=k) for k in (kernel, None))):
        return ''
    return 'its self-check found wrong spikes of a conv'


def _check_event_conv(kernel: str) -> str:
    neuron = (0.5, 0.8, 0.6, 'soft', False, 'arctan', 1.0)
    x = (_sample(3, 2, 22, 9, 5, step=2.3) > 0.3).to(torch.uint8)
    shortcut = (_sample(3, 2, 140, 5, 3, step=2.9) > 0.3).to(torch.uint8)
    geometry = (2, 2), (1, 1), (1, 1)
    for dtype, most in ((torch.int8, 127), (torch.int16, 32767), (torch.float32, 2**10)):
        # All sums are of whole numbers that float32 holds, in any order.
        q = (most * _sample(140, 11, 3, 3, step=0.7)).round().to(dtype)
        part = q, (1 + _sample(140, step=0.7)) / most
        weights = event_conv.pack_event_weights([part], _sample(140, step=1.3), groups=2)
        for spikes in (x, 3 * x):
            args = spikes, weights, geometry, neuron, shortcut, 'iand'
            if not torch.equal(
                *(event_conv.event_conv_lif(*args, kernel=k) for k in (kernel, None))
            ):
                return f'its self-check found wrong spikes of a conv by events ({dtype})'
            currents = (
                event_conv.event_conv2d(spikes, weights, geometry, k) for k in (kernel, None)
            )
            if not torch.equal(*currents):
                return f'its self-check found wrong currents of a conv by events ({dtype})'
    return ''
