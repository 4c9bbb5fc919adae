"""Random inputs to the C kernels and to the reference: what comes out, or is refused, must agree.

    python tests/helpers/fuzz_kernels.py COUNT [SEED]

Shapes are odd, layouts are sliced, expanded, permuted or have the negative bit, values are spikes,
real, NaN and infinite, tensors are empty, of other dtypes and shapes than they should be, and share
memory. It is meant for a library with sanitizers in it (`make sanitize`), which see what no
comparison does.
"""

import random
import sys
import types
from pathlib import Path

import torch

if __name__ == '__main__':  # `mmsnn.ops` alone, for the stack takes longer to import than to test
    ROOT = Path(__file__).resolve().parents[2]
    parent = types.ModuleType('mmsnn')
    parent.__path__ = [str(ROOT / 'mmsnn')]
    sys.modules['mmsnn'] = parent

from mmsnn import ops
from mmsnn.ops import checks, conv_lif, event_conv, operators

F32, BF16, U8 = torch.float32, torch.bfloat16, torch.uint8
OTHERS = (torch.float64, torch.float16, torch.int64, F32, BF16, U8)
GATES = (None, 'or', 'add', 'and', 'iand')
#: How an input that can't be taken is refused; anything else was not foreseen.
REFUSALS = (ValueError, RuntimeError, TypeError)


#: Comparisons of what was refused, and of what was taken.
TAKEN = [0, 0]


class Mismatch(AssertionError):
    """Kernel and reference differ."""


class Maker:
    """Random tensors; the same for the same seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)

    def chance(self, p):
        return self.random.random() < p

    def size(self, most=7, zero=0.02):
        return 0 if self.chance(zero) else self.random.randint(1, most)

    def maps(self, steps=True):
        """(T, B, C, H, W) or (B, C, H, W); now and then so large that threads share it."""
        if self.chance(0.03):
            size = [3, 2, self.random.choice((3, 64, 70)), 24, 19]
        else:
            size = [self.size(4), self.size(3), self.random.choice((1, 3, 4, 5, 17, 33, 66))]
            size += [self.size(9), self.size(40 if self.chance(0.1) else 9)]
        return size if steps else size[1:]

    def values(self, shape, kind):
        x = torch.randn(shape, generator=self.generator)
        if kind == 'spikes':
            return (x > 0.3).float()
        if kind == 'special' and x.numel():
            flat = x.view(-1)
            for value in (float('nan'), float('inf'), -float('inf')):
                if self.chance(0.7):
                    flat[self.random.randrange(len(flat))] = value
        return x

    def tensor(self, shape, dtype=F32, kind='real', plain=False):
        """Values of a kind, in some layout and at some address."""
        x = self.values(shape, kind).to(dtype)
        how = 'plain' if plain else self.random.choice(
            ('plain', 'plain', 'last', 'last', 'permuted', 'sliced', 'steps', 'expanded',
             'negative')
        )  # fmt: skip
        return self.laid_out(x, how)

    def laid_out(self, x, how):
        if how == 'last' and x.dim() >= 4:  # channels last, behind whatever axes
            return x.movedim(-3, -1).contiguous().movedim(-1, -3)
        if how == 'permuted' and x.dim() > 1:
            order = self.random.sample(range(x.dim()), x.dim())
            back = [order.index(i) for i in range(x.dim())]
            return x.permute(order).contiguous().permute(back)
        if how in ('sliced', 'steps') and x.dim():
            axis = 0 if how == 'steps' else self.random.randrange(x.dim())
            last = how == 'steps' and self.chance(0.5) and x.dim() == 5
            x = self.laid_out(x, 'last') if last else x
            wide = torch.stack([x, x + 1], axis + 1).flatten(axis, axis + 1)
            if last:
                wide = self.laid_out(wide, 'last')
            return wide[(slice(None),) * axis + (slice(0, None, 2),)]
        if how == 'expanded' and x.dim() and all(x.shape):
            axis = self.random.randrange(x.dim())
            return x.narrow(axis, 0, 1).expand(x.shape)
        if how == 'negative' and x.is_floating_point():
            return torch._neg_view(-x)
        return x

    def wrong(self, x):
        """Another tensor than should be there."""
        what = self.random.choice(('less', 'more', 'one', 'axis', 'dtype', 'flat'))
        if what == 'dtype' or not x.dim():
            return x.detach().nan_to_num(0, 0, 0).to(self.random.choice(OTHERS))
        axis = self.random.randrange(x.dim())
        if what == 'less':
            return x.narrow(axis, 0, max(x.shape[axis] - 1, 0)).clone()
        if what == 'more':
            return torch.cat([x, x], axis)
        if what == 'one':
            return x.narrow(axis, 0, min(1, x.shape[axis])).clone()
        return x.unsqueeze(axis) if what == 'axis' else x.flatten()

    def maybe_wrong(self, *tensors, p=0.08):
        return [self.wrong(x) if x is not None and self.chance(p) else x for x in tensors]

    def kind(self):
        return self.random.choice(('real', 'real', 'real', 'spikes', 'special'))


def neuron_of(make):
    surrogate = make.random.choice(('rectangle', 'triangle', 'arctan', 'sigmoid'))
    return ops.LIF(
        make.random.choice((0.0, 0.5, 0.9, 1.0)),
        make.random.choice((1.0, 0.5, 1.5)),
        make.random.choice((0.5, 1.0)),
        make.random.choice(('hard', 'soft')),
        make.chance(0.3),
        surrogate,
        make.random.choice((0.5, 1.0, 2.0)),
    )


def lif_inputs(make):
    steps = make.size(4, zero=0) if make.chance(0.3) else None
    shape = make.maps(steps is None)
    shape = shape[: make.random.choice((1, 2, 3, 4, 5, 5, 5, 5))]
    dtype = make.random.choice((F32, F32, BF16, BF16, torch.float64, torch.float16))
    x = make.tensor(shape, dtype, make.kind())
    channels = shape[1 if steps else 2] if len(shape) > (1 if steps else 2) else 3
    affine = len(shape) > (1 if steps else 2) or make.chance(0.1)
    kinds = make.kind(), make.kind()
    scale, shift = (
        make.tensor((channels,), F32, kind) if affine and make.chance(0.6) else None
        for kind in kinds
    )  # fmt: skip
    gate = make.random.choice(GATES)
    whole = [steps, *shape] if steps else shape
    shortcut = None
    if gate is not None:
        binary = make.chance(0.6)
        shortcut = make.tensor(whole, dtype, 'spikes' if binary else make.kind())
    x, scale, shift, shortcut = make.maybe_wrong(x, scale, shift, shortcut)
    return x, scale, shift, shortcut, gate, steps, whole


def fuzz_lif(make):
    x, scale, shift, shortcut, gate, steps, whole = lif_inputs(make)
    neuron = neuron_of(make)
    options = dict(scale=scale, shift=shift, shortcut=shortcut, gate=gate, time_steps=steps)
    options['dtype'] = dtype = make.random.choice((None, None, None, U8, F32, BF16, torch.int32))
    if dtype in (U8, torch.int32) and gate is not None:
        # Whole numbers alone, for what a float out of range becomes is up to the compiler.
        options['shortcut'] = shortcut.nan_to_num(1, 1, 1).clamp(-3, 3).abs()
    how = make.random.choice(('new', 'new', 'steps', 'same', 'near', 'expanded', 'negative', 'odd'))
    pool = None
    if len(whole) == 5 and make.chance(0.15):
        options['pool'] = pool = windows_of(make)
    run_out = how != 'new' and pool is None

    def run():
        if not run_out:
            return (ops.lif(x, *neuron, **options),)
        # What shares memory is laid out anew for each run.
        out_dtype = dtype or x.dtype
        out, inputs, given = place_out(make.laid_out, how, x, options, whole, out_dtype)
        result = ops.lif(inputs, *neuron, **{**given, 'dtype': None}, out=out)
        return result, out.clone()

    compare(run, exact=True)


def place_out(laid_out, how, x, options, whole, dtype):
    given = dict(options)
    n = max(torch.Size(whole).numel(), 1)
    out = torch.full((2 * n + 3,), 7).to(dtype)[1 : n + 1]
    if how == 'near' and x.dtype == dtype and x.dim() and x.numel():
        # Input and output in one memory, one a little behind the other.
        memory = torch.zeros(x.numel() + n + 5, dtype=dtype)
        shared = memory[: x.numel()].view(x.shape).copy_(x)
        return (
            memory[3 : 3 + n].view(whole) if n == torch.Size(whole).numel() else out,
            shared,
            given,
        )
    if how == 'same' and options['shortcut'] is not None and options['shortcut'].dtype == dtype:
        given['shortcut'] = options['shortcut'].clone()
        return given['shortcut'], x, given
    out = torch.zeros(whole, dtype=dtype)
    if how == 'steps' and out.dim():
        out = torch.zeros(2 * whole[0], *whole[1:], dtype=dtype)[::2]
    elif how == 'expanded' and out.dim() and out.numel():
        out = out[:1].expand(whole)
    elif how == 'negative' and out.is_floating_point():
        out = torch._neg_view(out)
    elif how == 'odd' and out.dim() > 1:
        out = torch.zeros([*whole[:-2], whole[-1], whole[-2]], dtype=dtype).transpose(-1, -2)
    return out, x, given


def windows_of(make):
    kernel = [make.random.randint(1, 4) for _ in range(2)]
    stride = [make.random.randint(1, 3) for _ in range(2)]
    padding = [make.random.randint(0, k // 2) for k in kernel]
    if make.chance(0.05):
        make.random.choice((kernel, stride, padding))[0] = make.random.randint(-1, 9)
    return kernel, stride, padding


def leaves(*tensors):
    return [
        None if v is None else v.detach().requires_grad_(v.is_floating_point()) for v in tensors
    ]


def gradients(make, outputs, inputs, seed):
    """`outputs` and the gradients of `inputs` from a random one of the first output."""
    out = outputs[0]
    grad = Maker(seed).tensor(out.shape, out.dtype if out.is_floating_point() else F32)
    wanted = [v for v in inputs if isinstance(v, torch.Tensor) and v.requires_grad]
    if not (out.requires_grad and wanted):
        return [*outputs]
    grads = torch.autograd.grad(out, wanted, grad, allow_unused=True)
    # What has no part in it has a gradient of 0, whether somebody computes that or not.
    return [
        *(v.detach() for v in outputs),
        *(torch.zeros_like(v) if g is None else g for g, v in zip(grads, wanted)),
    ]


def fuzz_lif_backward(make):
    x, scale, shift, shortcut, gate, steps, whole = lif_inputs(make)
    decay, gain, *rest = neuron_of(make)
    learned = make.chance(0.3)
    leak = [torch.tensor(v) for v in (decay, gain)] if learned else [None, None]
    pool = windows_of(make) if len(whole) == 5 and make.chance(0.3) else None
    seed = make.random.randrange(1 << 30)
    infinite = x.is_floating_point() and x.numel() and not x.isfinite().all()

    def run():
        inputs = leaves(x, scale, shift, shortcut, *leak)
        neuron = [v if learned else f for v, f in zip(inputs[4:], (decay, gain))]
        options = dict(scale=inputs[1], shift=inputs[2], shortcut=inputs[3], gate=gate)
        out = ops.lif(inputs[0], *neuron, *rest, **options, time_steps=steps, pool=pool)
        return gradients(make, [out], inputs, seed)

    # Infinite values differ in which of inf - inf and inf * 0 comes first. A shortcut of another
    # dtype, if it isn't spikes, is kept in that of x: rounded to half precision where that is it.
    nan_is_any = bool(infinite) or special(scale, shift, shortcut)
    rounded = shortcut is not None and shortcut.dtype != x.dtype
    compare(run, exact_first=True, nan_is_any=nan_is_any, rounds=(x.dtype,) if rounded else ())


def fuzz_ilif(make):
    x = make.tensor(make.maps(), make.random.choice(OTHERS[-3:-1]), make.kind())
    grad = make.tensor(x.shape, x.dtype)
    (x,) = make.maybe_wrong(x)
    neuron = (
        make.random.choice((1, 2, 4, 255, 0)),
        make.random.choice((0.0, 0.3, 0.5, 1.0)),
        make.random.choice((1.0, 0.3, 2.0)),
        make.chance(0.5),
    )
    dtype = make.random.choice((None, U8, BF16, F32))
    with torch.no_grad():
        compare(lambda: (ops.ilif(x, *neuron, dtype=dtype),), exact=True)
    compare(lambda: (operators.ilif.ilif_backward(grad, x, *neuron),), nan_is_any=special(x, grad))


def special(*tensors):
    return any(v is not None and v.is_floating_point() and not v.isfinite().all() for v in tensors)


def fuzz_norm_lif(make):
    x, scale, shift, shortcut, gate, steps, whole = lif_inputs(make)
    channels = whole[2] if len(whole) > 2 else 3
    scale, shift = (make.tensor((channels,), F32) if v is None else v for v in (scale, shift))
    running = [torch.rand(channels, generator=make.generator) + 0.5 for _ in range(2)]
    running = make.maybe_wrong(*running, p=0.03)
    neuron = list(neuron_of(make))
    neuron[5] = 'arctan'  # the others have edges, where a rounding is a step
    training, seed = make.chance(0.8), make.random.randrange(1 << 30)
    with_grad = make.chance(0.6)

    def run():
        inputs = leaves(x, scale, shift, shortcut) if with_grad else [x, scale, shift, shortcut]
        stats = [v.clone() for v in running]
        options = dict(shortcut=inputs[3], gate=gate, time_steps=steps)
        out = ops.norm_lif(*inputs[:3], *stats, training, 0.1, 1e-2, *neuron, **options)
        return gradients(make, [out, *stats], inputs, seed)

    compare(run, spikes=True, nan_is_any=special(x, scale, shift, shortcut), tolerance=3e-3)


def fuzz_channel_stats(make):
    steps = make.chance(0.3)
    shape = make.maps(not steps)[: make.random.choice((1, 2, 3, 4, 5))]
    x = make.tensor(shape, make.random.choice((F32, BF16)), make.kind())
    # PyTorch's own mean of infinite values is infinite or NaN, by layout.
    compare(lambda: operators.lif.channel_stats(x, int(steps)), nan_is_any=special(x))


def fuzz_pool(make):
    dtype = make.random.choice((F32, BF16, F32, BF16, U8, torch.float64))
    kind = 'spikes' if dtype == U8 else make.kind()
    (x,) = make.maybe_wrong(make.tensor(make.maps(False), dtype, kind))
    kernel, stride, padding = windows_of(make)
    seed, with_grad = make.random.randrange(1 << 30), make.chance(0.6)

    def run():
        inputs = leaves(x) if with_grad else [x]
        return gradients(
            make, [ops.spike_max_pool2d(inputs[0], kernel, stride, padding)], inputs, seed
        )

    compare(run, exact_first=True)


def fuzz_conv(make):
    # In bfloat16 the gradient of PyTorch's own conv is foreign memory for some sizes, such as
    # (1, 33, 1, 1) with stride 2: its sums are not what is tested here.
    x = make.tensor(make.maps(False), F32, 'spikes')
    weight = make.tensor((3, x.shape[1], 3, 3), x.dtype)
    seed = make.random.randrange(1 << 30)

    def run():
        inputs = leaves(x, weight)
        out = ops.spike_conv2d(*inputs, padding=1, stride=2)
        return gradients(make, [out], inputs, seed)

    compare(run)


def fuzz_decode(make):
    dtype = make.random.choice((F32, BF16, U8, torch.float64))
    kind = 'spikes' if dtype == U8 else make.kind()
    spikes = make.tensor(make.maps(), dtype, kind)
    steps, batch, channels, height, width = spikes.shape
    real = make.random.choice((F32, F32, BF16))
    weights = [
        make.tensor(shape, real)
        for shape in ((steps, batch), (steps, batch, channels), (steps, batch, height, width))
    ]
    spikes, *weights = make.maybe_wrong(spikes, *weights)
    compare(lambda: (ops.attention_decode(spikes, *weights),), rounds=(dtype, real))
    if spikes.dtype in (F32, BF16, U8, torch.float64):
        compare(lambda: ops.attention_statistics(spikes))
        shape = spikes.shape[: make.random.choice((0, 1, 2, 3, 5))]
        part = spikes if len(shape) == 5 else make.tensor(shape, dtype, kind)
        compare(lambda: (ops.rate_decode(part),))


def fuzz_bits(make):
    dtype = make.random.choice((F32, BF16, torch.float64))
    x = make.tensor(
        make.maps(), dtype, make.random.choice(('spikes', 'spikes', 'spikes', 'special'))
    )
    rows = make.random.choice((1, 1, len(x), 2, 0, -1))
    compare(lambda: (operators.pack_spikes(x, rows),), exact=True)
    n = x.numel()
    bits = torch.randint(0, 256, (1, (n + 7) // 8), generator=make.generator, dtype=U8)
    (bits,) = make.maybe_wrong(bits, p=0.3)
    stride = list(x.stride())
    compare(lambda: (operators.unpack_spikes(bits, list(x.shape), stride, dtype),), exact=True)


def fuzz_to_bytes(make):
    shape = make.maps(False)[: make.random.randint(1, 4)]
    x = make.tensor(shape, make.random.choice((F32, BF16)), make.random.choice(('real', 'special')))

    def run():
        out, scale, zero = ops.to_bytes(x)
        return out, torch.tensor(scale), torch.tensor(zero)

    # A product that lies between two bytes may be rounded either way: compared to one byte.
    compare(run, exact=x.dtype == F32, bytes_off=1)


def fuzz_conv_lif(make):
    channels = make.random.choice((4, 8, 12, 64))
    steps, batch, _, height, width = make.maps()
    kernel = [make.random.randint(1, 3) for _ in range(2)]
    outputs = make.random.choice((1, 3, 64, 65, 70))
    parts = [
        (
            (make.values((outputs, channels, *kernel), 'real') * 40).round().clamp(-128, 127),
            make.values((outputs,), 'real') * 0.02,
        )
        for _ in range(make.random.randint(1, 2))
    ]
    weights = conv_lif.pack_weights(parts, make.values((outputs,), 'real'))
    if make.chance(0.2):  # weights that begin anywhere
        memory = torch.zeros(weights.q.numel() + 1, dtype=torch.int8)[1:]
        weights = weights._replace(q=memory.view(weights.q.shape).copy_(weights.q))
    if make.chance(0.1):
        (shift,) = make.maybe_wrong(weights.shift, p=1)
        weights = weights._replace(shift=shift)
    geometry = (
        [make.random.randint(1, 2) for _ in range(2)],
        [make.random.randint(0, 2) for _ in range(2)],
        [make.random.randint(1, 2) for _ in range(2)],
    )
    geometry = tuple(map(tuple, geometry))
    size = conv_lif.output_size((height, width), kernel, geometry)
    gate = make.random.choice(GATES)
    x = make.tensor((steps, batch, channels, height, width), U8, 'spikes')
    shortcut = None
    if gate is not None and min(size) > 0:
        shortcut = make.tensor((steps, batch, outputs, *size), U8, 'spikes')
    x, shortcut = make.maybe_wrong(x, shortcut)
    if make.chance(0.05):
        shortcut = None
    neuron = neuron_of(make)
    compare(lambda: (conv_lif.conv_lif(x, weights, geometry, neuron, shortcut, gate),), exact=True)


def fuzz_event_conv(make):
    groups = make.random.choice((1, 1, 2, 3))
    channels, outputs = (make.random.choice((1, 3, 8, 11, 64)), make.random.choice((1, 3, 64, 70)))
    steps, batch, _, height, width = make.maps()
    kernel = [make.random.randint(1, 3) for _ in range(2)]
    dtype = make.random.choice((F32, torch.int8, torch.int16))
    most = {F32: 100, torch.int8: 127, torch.int16: 32767}[dtype]
    parts = [
        (
            (make.values((outputs * groups, channels, *kernel), 'real') * most / 2)
            .round()
            .clamp(-most - 1, most)
            .to(dtype),
            make.values((outputs * groups,), 'real') / most,
        )
        for _ in range(make.random.randint(1, 2))
    ]
    shift = make.values((outputs * groups,), 'real')
    weights = ops.pack_event_weights(parts, shift, groups)
    if make.chance(0.2):  # weights that begin anywhere
        memory = torch.zeros(weights.q.numel() + 1, dtype=weights.q.dtype)[1:]
        weights = weights._replace(q=memory.view(weights.q.shape).copy_(weights.q))
    if make.chance(0.1):
        name = make.random.choice(('q', 'scale', 'shift'))
        (wrong,) = make.maybe_wrong(getattr(weights, name), p=1)
        weights = weights._replace(**{name: wrong})
    geometry = tuple(tuple(make.random.randint(low, 2) for _ in range(2)) for low in (1, 0, 1))
    size = conv_lif.output_size((height, width), kernel, geometry)
    gate = make.random.choice(GATES)
    x = make.tensor((steps, batch, channels * groups, height, width), U8, 'spikes')
    x = x * make.random.choice((1, 1, 3, 255))
    shortcut = None
    if gate is not None and min(size) > 0:
        shortcut = make.tensor((steps, batch, outputs * groups, *size), U8, 'spikes')
    x, shortcut = make.maybe_wrong(x, shortcut)
    if make.chance(0.05):
        shortcut = None
    neuron = neuron_of(make)
    compare(lambda: (event_conv.event_conv_lif(x, weights, geometry, neuron, shortcut, gate),),
            exact=True)  # fmt: skip
    compare(lambda: (event_conv.event_conv2d(x, weights, geometry),), exact=True)


def fuzz_bits_conv(make):
    groups = make.random.choice((1, 1, 2, 3))
    channels, outputs = make.random.choice((1, 3, 8, 11, 64)), make.random.choice((1, 3, 32, 70))
    images, _, height, width = make.maps(steps=False)
    size = images, channels * groups, height, width
    kernel = [make.random.randint(1, 3) for _ in range(2)]
    geometry = [[make.random.randint(low, 2) for _ in range(2)] for low in (1, 0, 1)]
    # Whole numbers, of which every sum is exact.
    weight = (9 * make.values((outputs * groups, channels, *kernel), 'real')).round()
    bias = make.random.choice((None, (9 * make.values((outputs * groups,), 'real')).round()))
    if make.chance(0.3):
        weight = weight.contiguous(memory_format=torch.channels_last)
    n = (size[0] * size[1] * size[2] * size[3] + 7) // 8
    bits = torch.randint(0, 256, (1, n), generator=make.generator, dtype=U8)
    out = conv_lif.output_size((height, width), kernel, geometry)
    grad = (9 * make.values((images, outputs * groups, *(max(v, 0) for v in out)), 'real')).round()
    bits, weight, bias, grad = make.maybe_wrong(bits, weight, bias, grad)
    operator = operators.bits_conv
    # Beyond the window's reach, PyTorch's own conv may read what isn't there (docs/faults.md).
    if all(p <= d * (k - 1) for k, p, d in zip(kernel, geometry[1], geometry[2])):
        rest = *geometry, groups
        compare(lambda: (operator.bits_conv(bits, size, weight, bias, *rest),), exact=True)
        compare(lambda: (operator.bits_conv_weight_grad(grad, bits, size, weight, *rest),),
                exact=True)  # fmt: skip


def fuzz_winograd(make):
    size = make.maps(False)
    x = make.tensor(size, make.random.choice((F32, F32, F32, BF16)), make.kind())
    weight = make.tensor((make.random.choice((1, 5, 33, 70)), size[1], 3, 3))
    bias = make.tensor((len(weight),)) if make.chance(0.5) else None
    x, bias = make.maybe_wrong(x, bias)
    padding = make.size(3), make.size(3)

    def run():
        return (ops.winograd_conv2d(x, ops.pack_winograd_weights(weight, bias), padding),)

    compare(run, nan_is_any=special(x))


def fuzz_operators(make):
    """The operators as a program of another author calls them, past the checks of the functions."""
    x, scale, shift, shortcut, gate, steps, whole = lif_inputs(make)
    decay, gain, *rest = neuron_of(make)
    channels = whole[2] if len(whole) > 2 else 3
    mean, invstd = (
        (make.tensor((channels,), F32), make.tensor((channels,), F32))
        if scale is not None and shift is not None and make.chance(0.4)
        else (None, None)
    )
    if make.chance(0.05):
        shortcut = None
    grad = make.tensor(whole, x.dtype if x.is_floating_point() else F32)
    mean, invstd, grad = make.maybe_wrong(mean, invstd, grad)
    tensors = x, scale, shift, shortcut, None, None, mean, invstd
    neuron = decay, gain, *rest, gate, steps or 0
    nan_is_any = special(x, scale, shift, shortcut)
    if x.is_floating_point():
        compare(lambda: (operators.lif.lif(*tensors, *neuron),), exact=True, nan_is_any=nan_is_any)
        kept = shortcut
        if shortcut is not None and make.chance(0.7):
            n = shortcut.numel() // max(whole[0], 1)
            kept = torch.randint(
                0, 256, (whole[0], (n + 7) // 8), generator=make.generator, dtype=U8
            )
            (kept,) = make.maybe_wrong(kept)
        needs = [True, scale is not None, shift is not None, gate is not None, False, False]
        args = (grad, *tensors[:3], kept, *tensors[4:], *neuron, needs)
        compare(lambda: operators.lif.lif_backward(*args), nan_is_any=nan_is_any, tolerance=3e-3)
    dtype = make.random.choice((F32, BF16))
    maps = make.tensor(make.maps(False), dtype, 'spikes')
    windows = windows_of(make)
    last = make.chance(0.5)
    try:
        checks.check_windows(maps, *windows)
        grad = make.tensor(operators.pool.pooled_size(maps.shape, windows), dtype)
    except ValueError:
        grad = maps
    n = maps.numel()
    kept = torch.randint(0, 256, (1, (n + 7) // 8), generator=make.generator, dtype=U8)
    kept, grad = make.maybe_wrong(make.random.choice((kept, maps)), grad)
    compare(
        lambda: (operators.pool.max_pool_backward(grad, kept, list(maps.shape), last, *windows),)
    )
    if len(whole) == 5 and x.dim() > 3 and x.is_floating_point():
        size = [whole[0] * whole[1], *whole[2:]]
        bits = torch.randint(
            0, 256, (1, (torch.Size(size).numel() + 7) // 8), generator=make.generator, dtype=U8
        )  # fmt: skip
        try:
            checks.check_windows(x.new_empty(size), *windows)
            grad = make.tensor(operators.pool.pooled_size(size, windows), x.dtype)
        except ValueError:
            grad = x
        grad, bits = make.maybe_wrong(grad, bits)
        tensors = x, scale, shift, None, None, None, mean, invstd
        neuron = decay, gain, *rest, None, steps or 0
        needs = [True, scale is not None, shift is not None, False, False, False]
        args = (grad, *tensors, *neuron, bits, *windows, needs)
        compare(
            lambda: operators.lif_pool.lif_pool_backward(*args),
            nan_is_any=nan_is_any,
            tolerance=3e-3,
        )


def largest(x):
    """Of the finite values, in magnitude."""
    finite = x[x.isfinite()].abs()
    return finite.max().item() if finite.numel() else 0.0


def outcome(run, backend):
    with ops.use_backend(backend):
        try:
            return [v.detach() for v in run()], None
        except REFUSALS as error:
            return None, error


def compare(
    run, exact=False, exact_first=False, spikes=False, tolerance=1e-4, nan_is_any=False, rounds=(),
    bytes_off=0,
):  # fmt: skip
    """Run on both and compare; refusals must agree too."""
    expected, why = outcome(run, 'reference')
    TAKEN[expected is not None] += 1
    got, why_not = outcome(run, 'c')
    if (expected is None) != (got is None):
        raise Mismatch(f'reference: {why or "taken"}; kernels: {why_not or "taken"}')
    if expected is None:
        return
    for i, (a, b) in enumerate(zip(got, expected)):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            raise Mismatch(
                f'output {i}: {a.dtype} {tuple(a.shape)}, not {b.dtype} {tuple(b.shape)}'
            )
        half = torch.bfloat16 in (a.dtype, *rounds) or torch.float16 in (a.dtype, *rounds)
        a, b = a.double(), b.double()
        if exact or (exact_first and i == 0):
            wrong = (a != b) & ~(a.isnan() & b.isnan())
            if bytes_off:
                wrong &= (a - b).abs() > bytes_off
        elif spikes and i == 0:
            # Statistics that are rounded otherwise move a potential across the threshold.
            wrong = (a != b) & ~(a.isnan() & b.isnan())
            if wrong.sum() <= 2 + 0.01 * wrong.numel():
                if wrong.any():
                    return
                continue
        else:
            # Through statistics, what is left of terms as large as the other gradients.
            most = max(map(largest, expected)) if spikes else largest(b)
            relative = 4e-2 if half else tolerance
            wrong = ~torch.isclose(a, b, rtol=relative, atol=relative * most + 1e-6, equal_nan=True)
        if nan_is_any:
            wrong &= a.isfinite() & b.isfinite()
        if wrong.any():
            raise Mismatch(f'output {i}: {a[wrong][:4].tolist()}, not {b[wrong][:4].tolist()}')


CASES = [
    fuzz_lif,
    fuzz_lif_backward,
    fuzz_norm_lif,
    fuzz_ilif,
    fuzz_channel_stats,
    fuzz_pool,
    fuzz_conv,
    fuzz_decode,
    fuzz_bits,
    fuzz_to_bytes,
    fuzz_event_conv,
    fuzz_bits_conv,
    fuzz_winograd,
    fuzz_operators,
]


def main(count, seed=0, only='', threads=2):
    cases = [case for case in CASES if only in case.__name__]
    no_conv_lif = ops.named('c').supports('conv_lif', torch.zeros(1, dtype=U8))
    if not no_conv_lif and only in 'fuzz_conv_lif':
        cases.append(fuzz_conv_lif)
    torch.set_num_threads(threads)
    wrong = 0
    for i in range(seed, seed + count):
        case = cases[i % len(cases)]
        # Sanitizers end the process: the last line then names the input.
        print(f'\r{case.__name__} {i}', end='', flush=True)
        try:
            case(Maker(i))
        except Mismatch as mismatch:
            wrong += 1
            print(f': {mismatch}')
        except Exception as error:
            wrong += 1
            print(f': {type(error).__name__}: {error}')
            if only:
                raise
    print(f'\n{count} inputs, {TAKEN[0]} refused and {TAKEN[1]} compared, {wrong} wrong')
    return wrong


if __name__ == '__main__':
    sys.exit(main(int(sys.argv[1]), *map(int, sys.argv[2:3]), *sys.argv[3:4]) > 0)
