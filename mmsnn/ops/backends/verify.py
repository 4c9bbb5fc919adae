"""What a backend has to get right before it is used: each of its operations on small inputs."""

import itertools

import torch
from torch import Tensor

from .. import conv_lif, event_conv, winograd
from ..defaults import torch_defaults
from ..event_weights import pack_event_weights
from ..operators import bits, bits_conv, decode, ilif, lif, lif_pool, pool
from ..spec import LIF, LIFCall, NeuronState
from .base import Backend
from .reference import Reference

_REFERENCE = Reference()


def _sample(*shape, step):  # numbers without a generator, whose state belongs to the user
    n = torch.Size(shape).numel()
    return (torch.arange(n, dtype=torch.float32) * step).sin().view(shape)


def compare_with_reference(backend: Backend) -> str:
    """Compare a backend with the reference on small inputs; '' or what differs."""
    neurons = (_check_neurons, _check_whole_numbers, _check_stats_and_bits)
    others = (_check_pools, _check_decoding, _check_bytes, _check_conv, _check_event_conv)
    with torch_defaults(backend.device):
        for check in (*neurons, *others, _check_bits_conv, _check_winograd):
            wrong = check(backend)
            if wrong:
                return f'its self-check found wrong {wrong}'
    return ''


def _has(backend: Backend, operation: str, x: Tensor) -> bool:
    return not backend.supports(operation, x)


def _dtypes(backend: Backend, *operations: str) -> list:
    found = dict.fromkeys(d for name in operations for d in backend.dtypes.get(name, ()))
    return list(found)


def _close(ours: tuple, theirs: tuple, tolerance: float) -> bool:
    return all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in zip(ours, theirs))


def _check_neurons(backend: Backend) -> str:
    cases = [
        ('hard', False, 'arctan', 'or', 0),
        ('soft', False, 'sigmoid', 'iand', 0),
        ('hard', True, 'triangle', 'and', 3),
        ('soft', True, 'rectangle', 'add', 0),
        ('hard', False, 'arctan', None, 3),
    ]
    device = backend.device
    for dtype in _dtypes(backend, 'lif', 'lif_backward'):
        for reset, detach, surrogate, gate, time_steps in cases:
            shape = (2, 5, 9, 8) if time_steps else (3, 2, 5, 9, 8)
            x = (1.5 * _sample(*shape, step=1.7)).to(device, dtype)
            if gate == 'iand':
                x = x.transpose(-1, -3).contiguous().transpose(-1, -3)
            scale, shift = (
                (1 + _sample(5, step=0.9)).to(device),
                _sample(5, step=1.1).to(device) / 4,
            )
            shortcut = (_sample(3, 2, 5, 9, 8, step=2.3) > 0.3).to(device, dtype) if gate else None
            leak = x.new_tensor(0.5, dtype=torch.float32)
            neuron = LIF(leak, leak + 0.25, 0.6, reset, detach, surrogate, 0.8)
            call = LIFCall(x, neuron, scale, shift, shortcut, gate, time_steps)
            stats = (None, None) if gate in (None, 'add') else (shift, scale.abs() + 0.5)
            arguments = lif.Arguments.of(call, *stats)
            if _has(backend, 'lif', x):
                ours, theirs = (lif._lif(*arguments, backend=b) for b in (backend, _REFERENCE))
                in_bytes = lif._lif(*arguments, dtype=torch.uint8, backend=backend)
                if not torch.equal(ours, theirs) or not torch.equal(in_bytes.to(dtype), ours):
                    return f'spikes ({dtype}, {reset} reset, gate {gate})'
                if backend.hands_on and not _same_from_potentials(backend, arguments):
                    return f'spikes from potentials on ({dtype}, {reset} reset, gate {gate})'
            if _has(backend, 'lif_backward', x):
                grad = _sample(3, 2, 5, 9, 8, step=0.3).to(device, dtype)
                needs = [True, True, True, gate is not None, True, True]
                ours, theirs = (
                    lif._lif_backward(grad, *arguments, needs, backend=b)
                    for b in (backend, _REFERENCE)
                )
                for a, b in zip(ours, theirs):
                    tolerance = 1e-4 if a.dtype == torch.float32 else 2e-2
                    if not torch.allclose(a, b, rtol=tolerance, atol=tolerance):
                        return f'gradients ({dtype}, {surrogate} surrogate)'
    return ''


def _check_whole_numbers(backend: Backend) -> str:
    for dtype, layout in itertools.product(_dtypes(backend, 'ilif', 'ilif_backward'), _LAYOUTS):
        x = 3 * _sample(*_SHAPE, step=1.7).flatten(0, 1).contiguous(memory_format=layout)
        x = x.unflatten(0, _SHAPE[:2]).to(backend.device, dtype)
        for neuron in ((4, 0.5, 1.0, False), (2, 0.7, 0.3, True)):
            if _has(backend, 'ilif', x):
                for out in (dtype, torch.uint8):
                    ours, theirs = (
                        ilif._ilif(x, *neuron, dtype=out, backend=b) for b in (backend, _REFERENCE)
                    )
                    states = _states(backend, *_SHAPE[1:])
                    if backend.hands_on:
                        from_u = [
                            ilif._ilif(x, *neuron, dtype=out, backend=b, u=_laid_out(state, x))
                            for b, state in zip((backend, _REFERENCE), states)
                        ]
                    else:
                        from_u = [ours, theirs]
                    if not torch.equal(ours, theirs) or not _equal(from_u[0], from_u[1], states):
                        return f'whole numbers of spikes ({dtype}, {layout})'
            if _has(backend, 'ilif_backward', x):
                grad = _sample(*_SHAPE, step=0.9).to(backend.device, dtype)
                ours, theirs = (
                    ilif._ilif_backward(grad, x, *neuron, backend=b) for b in (backend, _REFERENCE)
                )
                if not _close((ours,), (theirs,), 1e-5 if dtype == torch.float32 else 1e-2):
                    return f'gradients of whole numbers of spikes ({dtype}, {layout})'
    return ''


def _same_from_potentials(backend: Backend, arguments: lif.Arguments) -> bool:
    x = arguments.x
    inner = x if arguments.time_steps else x[0]
    first = torch.empty_like(inner, dtype=torch.float32)
    first.copy_(_sample(*inner.shape, step=0.6))
    for dtype in (None, torch.uint8):
        v = first.clone(), first.clone()
        ours, theirs = (
            lif._lif(*arguments, dtype=dtype, backend=b, v=potentials)
            for b, potentials in zip((backend, _REFERENCE), v)
        )
        if not torch.equal(ours, theirs) or not torch.equal(*v):
            return False
    return True


def _states(backend: Backend, *shape: int) -> tuple:
    """Potentials for both, where the backend takes some."""
    if not backend.hands_on:
        return None, None
    v = _sample(*shape, step=0.6).to(backend.device)
    return NeuronState((v,)), NeuronState((v.clone(),))


def _laid_out(state: NeuronState, x: Tensor) -> Tensor:
    return state.begin(x, x.shape[1:], x.stride()[1:])


def _equal(ours: Tensor, theirs: Tensor, states: tuple) -> bool:
    """Whether the spikes are the same, and what is handed on."""
    same = [torch.equal(*pair) for pair in zip(*(s.tensors if s else () for s in states))]
    return torch.equal(ours, theirs) and all(same)


def _check_stats_and_bits(backend: Backend) -> str:
    for dtype in _dtypes(backend, 'channel_stats', 'pack', 'unpack'):
        x = (1.5 * _sample(3, 2, 5, 9, 8, step=1.7)).to(backend.device, dtype)
        spikes = (_sample(3, 2, 5, 9, 8, step=1.7).to(backend.device) > 0).to(dtype)
        if _has(backend, 'channel_stats', x):
            for given, time_steps in ((x, 0), (x[0], 3)):
                ours, theirs = (
                    lif._channel_stats(given, time_steps, backend=b) for b in (backend, _REFERENCE)
                )
                if not _close(ours, theirs, 1e-4):
                    return f'statistics or bits ({dtype})'
        packed = bits._pack(spikes, 1, backend=_REFERENCE)
        if _has(backend, 'pack', x) and not torch.equal(bits._pack(spikes, 1, backend), packed):
            return f'statistics or bits ({dtype})'
        if _has(backend, 'unpack', x):
            back = bits._unpack(packed, x.shape, x.stride(), dtype, backend=backend)
            if not torch.equal(back, spikes):
                return f'statistics or bits ({dtype})'
    return ''


_SHAPE = (3, 2, 19, 7, 9)
_LAYOUTS = torch.contiguous_format, torch.channels_last


def _spikes(backend: Backend, dtype: torch.dtype, layout: torch.memory_format) -> Tensor:
    """(T * B, C, H, W)."""
    spikes = (_sample(*_SHAPE, step=2.3) > 0.3).to(backend.device, dtype)
    return spikes.flatten(0, 1).contiguous(memory_format=layout)


def _check_pools(backend: Backend) -> str:
    both = backend, _REFERENCE
    operations = 'max_pool', 'max_pool_backward', 'pooled_lif_backward'
    for dtype, layout in itertools.product(_dtypes(backend, *operations), _LAYOUTS):
        spikes = _spikes(backend, dtype, layout)
        packed = bits._pack(spikes, 1, backend=_REFERENCE)
        last = layout == torch.channels_last
        for windows in (([3, 3], [2, 2], [1, 1]), ([2, 4], [1, 3], [0, 2])):
            theirs = pool._max_pool(spikes, *windows, backend=_REFERENCE)
            if _has(backend, 'max_pool', spikes) and not torch.equal(
                pool._max_pool(spikes, *windows, backend=backend), theirs
            ):
                return f'maxima ({dtype}, {layout})'
            if dtype == torch.uint8:
                continue
            grad = _sample(*theirs.shape, step=0.3).to(backend.device, dtype)
            if _has(backend, 'max_pool_backward', grad):
                for kept in (packed, spikes):
                    args = grad, kept, spikes.shape, last, *windows
                    ours, theirs = (pool._max_pool_backward(*args, backend=b) for b in both)
                    if not _close((ours,), (theirs,), 1e-5 if dtype == torch.float32 else 1e-2):
                        return f'gradients of maxima ({dtype}, {layout})'
            if _has(backend, 'pooled_lif_backward', grad):
                x = _sample(*_SHAPE, step=1.7).to(backend.device, dtype).flatten(0, 1)
                x = x.contiguous(memory_format=layout).unflatten(0, _SHAPE[:2])
                arguments = lif.Arguments.of(LIFCall(x, LIF(v_threshold=0.6, surrogate_width=0.8)))
                rest = *arguments, packed, *windows, [True] + [False] * 5
                ours, theirs = (
                    lif_pool._lif_pool_backward(grad, *rest, backend=b)[0] for b in both
                )
                if not _close((ours,), (theirs,), 1e-4 if dtype == torch.float32 else 2e-2):
                    return f'gradients behind a pool ({dtype}, {layout})'
    return ''


def _check_decoding(backend: Backend) -> str:
    steps, batch, channels, height, width = _SHAPE
    weights = [
        _sample(*size, step=step).to(backend.device)
        for size, step in (
            ((steps, batch), 0.3),
            ((steps, batch, channels), 0.7),
            ((steps, batch, height, width), 1.1),
        )
    ]
    operations = {
        'attention_decode': lambda spikes, b: (decode._attention_decode(spikes, weights, b),),
        'rate_decode': lambda spikes, b: (decode._rate_decode(spikes, b).float(),),
        'attention_statistics': decode._attention_statistics,
    }
    for name, run in operations.items():
        for dtype, layout in itertools.product(_dtypes(backend, name), _LAYOUTS):
            spikes = _spikes(backend, dtype, layout).unflatten(0, _SHAPE[:2])
            ours, theirs = run(spikes, backend), run(spikes, _REFERENCE)
            rtol = 1e-2 if dtype == torch.bfloat16 else 1e-4
            if not all(torch.allclose(a, b, rtol=rtol, atol=1e-4) for a, b in zip(ours, theirs)):
                return f'decoding ({dtype}, {layout})'
    return ''


def _check_bytes(backend: Backend) -> str:
    for dtype in _dtypes(backend, 'to_bytes'):
        x = _sample(3, 100, step=0.7).to(backend.device, dtype)
        ours, theirs = (decode._to_bytes(x, 0.01, 90, b) for b in (backend, _REFERENCE))
        if not torch.equal(ours, theirs):
            return 'bytes'
    return ''


def _check_conv(backend: Backend) -> str:
    x = (_sample(3, 2, 12, 9, 5, step=2.3) > 0.3).to(torch.uint8)
    if not _has(backend, 'conv_lif', x):
        return ''
    neuron = LIF(0.5, 0.8, 0.6, 'soft')
    parts = [
        ((100 * _sample(70, 12, 3, 3, step=step)).round(), 0.01 * (1 + _sample(70, step=step)))
        for step in (0.7, 1.9)
    ]
    weights = conv_lif.pack_weights(parts, _sample(70, step=1.3))
    shortcut = (_sample(3, 2, 70, 5, 3, step=2.9) > 0.3).to(torch.uint8)
    args = x, weights, ((2, 2), (1, 1), (1, 1)), neuron, shortcut, 'iand'
    states = _states(backend, 2, 70, 5, 3)
    ours, theirs = (
        conv_lif.conv_lif(*args, backend=b, state=state)
        for b, state in zip((backend, _REFERENCE), states)
    )
    return '' if _equal(ours, theirs, states) else 'spikes of a conv'


def _check_event_conv(backend: Backend) -> str:
    neuron = LIF(0.5, 0.8, 0.6, 'soft')
    x = (_sample(3, 2, 22, 9, 5, step=2.3) > 0.3).to(torch.uint8)
    both = backend, _REFERENCE
    shortcut = (_sample(3, 2, 140, 5, 3, step=2.9) > 0.3).to(torch.uint8)
    geometry = (2, 2), (1, 1), (1, 1)
    for dtype, most in ((torch.int8, 127), (torch.int16, 32767), (torch.float32, 2**10)):
        # All sums are of whole numbers that float32 holds, in any order.
        q = (most * _sample(140, 11, 3, 3, step=0.7)).round().to(dtype)
        part = q, (1 + _sample(140, step=0.7)) / most
        weights = pack_event_weights([part], _sample(140, step=1.3), groups=2)
        for spikes in (x, 3 * x):
            args = spikes, weights, geometry, neuron, shortcut, 'iand'
            if _has(backend, 'event_conv_lif', x):
                states = _states(backend, 2, 140, 5, 3)
                ours, theirs = (
                    event_conv.event_conv_lif(*args, backend=b, state=state)
                    for b, state in zip(both, states)
                )
                if not _equal(ours, theirs, states):
                    return f'spikes of a conv by events ({dtype})'
            if _has(backend, 'event_conv', x):
                ours, theirs = (event_conv.event_conv2d(*args[:3], backend=b) for b in both)
                if not torch.equal(ours, theirs):
                    return f'currents of a conv by events ({dtype})'
    return ''


def _check_bits_conv(backend: Backend) -> str:
    # All sums are of whole numbers that float32 holds, in any order.
    spikes = _spikes(backend, torch.float32, torch.channels_last)[:, :18]
    packed = bits._pack(spikes.contiguous(memory_format=torch.channels_last), 1, _REFERENCE)
    weight = (99 * _sample(70, 9, 3, 2, step=0.7)).round().to(backend.device)
    bias = (99 * _sample(70, step=1.3)).round().to(backend.device)
    options = [2, 1], [1, 1], [1, 2], 2
    args = packed, spikes.shape, weight
    theirs = bits_conv._bits_conv(*args, bias, *options, backend=_REFERENCE)
    if _has(backend, 'bits_conv', weight):
        ours = bits_conv._bits_conv(*args, bias, *options, backend=backend)
        if not torch.equal(ours, theirs):
            return 'currents of a conv on bits'
    grad = (99 * _sample(*theirs.shape, step=0.3)).round().to(backend.device)
    if _has(backend, 'bits_conv_weight_grad', grad):
        ours, theirs = (
            bits_conv._weight_grad(grad, *args, *options, backend=b) for b in (backend, _REFERENCE)
        )
        if not torch.equal(ours, theirs):
            return 'gradients of the weights of a conv on bits'
    return ''


def _check_winograd(backend: Backend) -> str:
    x = _sample(2, 37, 9, 14, step=0.7).to(backend.device)
    if not (_has(backend, 'winograd_in', x) and _has(backend, 'winograd_out', x)):
        return ''
    weight, bias = _sample(70, 37, 3, 3, step=1.3), _sample(70, step=1.1)
    weights = winograd.pack_winograd_weights(*(v.to(backend.device) for v in (weight, bias)))
    ours, theirs = (
        winograd.winograd_conv2d(x, weights, (1, 0), backend=b) for b in (backend, _REFERENCE)
    )
    return '' if _close((ours,), (theirs,), 1e-4) else 'sums of a conv by tiles'
