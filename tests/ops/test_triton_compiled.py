"""The Triton kernels become machine code of four generations of GPUs, on a machine without any.

The launches are those of the operators' own code on tensors without memory, recorded where Triton
would compile: types, constants and alignments are what a GPU would be given.
"""

import itertools
import random
import re
import subprocess

import pytest
import torch

from mmsnn.ops import dispatch
from mmsnn.ops.operators import ilif, lif

TRITON = dispatch.named('triton')

triton = pytest.importorskip('triton', reason='needs triton')
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

pytestmark = pytest.mark.skipif(triton.knobs.runtime.interpret, reason='TRITON_INTERPRET is set')

#: Shared memory that a block can have, by compute capability, in bytes: CUDA C++ Programming Guide,
#: technical specifications.
SHARED_MEMORY = {80: 163 << 10, 86: 99 << 10, 90: 227 << 10, 100: 227 << 10}
#: The reference's operations on float32: each rounded by itself, and no flush to zero. A product
#: without `.rn` could still be fused with a sum.
EXACT = r'(add|sub|mul|div)\.rn\.f32(x2|\.b?f16)?|(abs|neg|min|max|mov|selp)\.f32|setp\.[a-z]+\.f32'
#: The slopes of surrogates besides; no spike depends on them.
SLOPE = r'div\.(full|approx)\.f32|ex2\.approx\.f32'

#: In bfloat16, once and twice, as PTX writes them.
ONE_OR_MINUS_ZERO = {'0x3F80', '0x8000', str(0x3F803F80), str(0x80008000 - 2**32)}

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# (T, B, C, H, W) and the layout of a step: sizes that 16 divides and others, an axis of channels
# that is outside, inside or missing, one step, and more elements than 32 bits count.
DATA = {
    'even': ((4, 2, 16, 8, 8), torch.contiguous_format),
    'channels last': ((4, 2, 16, 8, 8), torch.channels_last),
    'odd': ((3, 1, 5, 7, 3), torch.contiguous_format),
    'odd, channels last': ((3, 1, 5, 7, 3), torch.channels_last),
    'one step, one channel': ((1, 1, 1, 3, 3), torch.contiguous_format),
    'large': ((2, 2, 64, 4096, 8192), torch.contiguous_format),
    'vector': ((4, 1), None),
}
COMMON = dict(
    capability=tuple(SHARED_MEMORY),
    dtype=DTYPES,
    data=tuple(DATA),
    shared=(False, True),
    affine=('no', 'scale', 'shift', 'both'),
    reset=('hard', 'soft'),
    gate=(None, 'or', 'add', 'and', 'iand'),
)
FORWARD = dict(**COMMON, out=(*DTYPES, torch.uint8))
BACKWARD = dict(
    **{**COMMON, 'affine': (*COMMON['affine'], 'statistics')},
    detach=(False, True),
    surrogate=('rectangle', 'triangle', 'arctan', 'sigmoid'),
    bits=(False, True),
    need_x=(False, True),
    need_affine=(False, True),
    need_shortcut=(False, True),
    need_leak=(False, True),
)
WHOLE = dict(
    capability=tuple(SHARED_MEMORY),
    dtype=DTYPES,
    data=tuple(DATA),
    v_threshold=(1.0, 0.3),
    out=(*DTYPES, torch.uint8),
)
WHOLE_BACKWARD = dict(
    capability=tuple(SHARED_MEMORY),
    dtype=DTYPES,
    data=tuple(DATA),
    v_threshold=(1.0, 0.3),
    detach=(False, True),
)
BITS = dict(capability=tuple(SHARED_MEMORY), dtype=DTYPES, data=tuple(DATA))


def cover(options, strength):
    """Choices in which any `strength` options take all their combinations of values."""
    names = list(options)
    groups = list(itertools.combinations(range(len(names)), strength))
    missing = {
        (group, values)
        for group in groups
        for values in itertools.product(*(options[names[i]] for i in group))
    }
    draw = random.Random(0)
    while missing:
        # One that is missing, and the best of some ways to choose the other options.
        group, values = min(missing, key=repr)
        ways = []
        for _ in range(20):
            way = [draw.choice(options[name]) for name in names]
            for i, value in zip(group, values):
                way[i] = value
            ways.append(way)
        found = [{(g, tuple(way[i] for i in g)) for g in groups} & missing for way in ways]
        best = max(range(len(ways)), key=lambda i: len(found[i]))
        missing -= found[best]
        yield dict(zip(names, ways[best]))


def tensors(dtype, data, shared=False):
    """Input, and a function for others of (T, ...)."""
    shape, layout = DATA[data]

    def steps(dtype):
        x = torch.empty(shape, dtype=dtype, device='meta')
        if layout is not None:
            x = x.flatten(0, 1).contiguous(memory_format=layout).unflatten(0, shape[:2])
        return x

    return steps(dtype)[0] if shared else steps(dtype), steps


def affine_tensors(affine, x, shared):
    """scale, shift, mean and invstd."""
    axis = 1 if shared else 2
    given = dict(no=0b00, scale=0b01, shift=0b10, both=0b11, statistics=0b1111)[affine]
    if x.dim() <= axis:
        given = 0
    n = x.shape[axis] if given else 0
    return [torch.empty(n, device='meta') if given >> i & 1 else None for i in range(4)]


def fire(dtype, data, shared, affine, reset, gate, out):
    """Launch the forward kernel."""
    x, steps = tensors(dtype, data, shared)
    scale, shift, *_ = affine_tensors(affine, x, shared)
    shortcut = None if gate is None else steps(out if out.is_floating_point else x.dtype)
    lif._lif(
        x, scale, shift, shortcut, None, None, None, None, 0.5, 0.5, 1.0, reset, False, 'arctan',
        1.0, gate, len(steps(dtype)) if shared else 0, dtype=out, backend=TRITON,
    )  # fmt: skip


def differentiate(
    dtype, data, shared, affine, reset, gate, detach, surrogate, bits, need_x, need_affine,
    need_shortcut, need_leak,
):  # fmt: skip
    """Launch the backward kernel."""
    x, steps = tensors(dtype, data, shared)
    scale, shift, mean, invstd = affine_tensors(affine, x, shared)
    grad = steps(dtype)
    shortcut = None
    if gate is not None:
        row = (grad[0].numel() + 7) // 8
        packed = torch.empty(len(grad), row, dtype=torch.uint8, device='meta')
        shortcut = packed if bits else steps(dtype)
    leak = torch.tensor(0.5) if need_leak else None
    needs = [
        need_x,
        need_affine and scale is not None,
        need_affine and shift is not None,
        need_shortcut and gate is not None,
        need_leak,
        need_leak,
    ]
    lif._lif_backward(
        grad, x, scale, shift, shortcut, leak, leak, mean, invstd, 0.5, 0.5, 1.0, reset, detach,
        surrogate, 1.0, gate, len(grad) if shared else 0, needs, backend=TRITON,
    )  # fmt: skip


def fire_whole(dtype, data, v_threshold, out):
    """Launch the forward kernel of whole numbers."""
    x, _ = tensors(dtype, data)
    ilif._ilif(x, 4, 0.5, v_threshold, False, dtype=out, backend=TRITON)


def differentiate_whole(dtype, data, v_threshold, detach):
    """Launch the backward kernel of whole numbers."""
    x, steps = tensors(dtype, data)
    ilif._ilif_backward(steps(dtype), x, 4, 0.5, v_threshold, detach, backend=TRITON)


def unpack(dtype, data):
    """Launch the kernel from bits."""
    x, _ = tensors(dtype, data)
    bits = torch.empty(1, (x.numel() + 7) // 8, dtype=torch.uint8, device='meta')
    TRITON.unpack(bits, x)


def pack(dtype, data):
    """Launch the kernel to bits; it reads a flag back, which needs memory."""
    n = tensors(dtype, data)[0].numel()
    TRITON.pack(torch.empty((), dtype=dtype).expand(n), 1, torch.empty(0))


class Target:
    """As much of a driver as a launch asks of one, before it launches."""

    def get_current_target(self):
        return GPUTarget('cuda', min(SHARED_MEMORY), 32)

    def get_current_device(self):
        return 'none'  # a cache of its own, should there be a GPU

    def get_current_stream(self, device):
        return None


@pytest.fixture
def launches(monkeypatch):
    """A list to which every launch is added instead of being compiled and made."""
    recorded = []

    def record(*, fn, compile, **_):
        recorded.append((fn.jit_function, compile))
        return True  # and that's all

    monkeypatch.setattr(triton.runtime.driver, '_active', Target())
    monkeypatch.setattr(triton.knobs.runtime, 'jit_cache_hook', record)
    return recorded


def build(launch, capability, **options):
    kernel, how = launch
    source = ASTSource(kernel, how['signature'], how['constants'], how['configs'][0])
    names = ('num_warps', 'num_ctas', 'num_stages', 'enable_fp_fusion')
    options = {**{name: how[name] for name in names}, **options}
    return triton.compile(source, target=GPUTarget('cuda', capability, 32), options=options)


def resources(built, folder):
    """Registers, stack and local memory of a thread, as the machine code says."""
    path = folder / 'kernel.cubin'
    path.write_bytes(built.asm['cubin'])
    tool = triton.knobs.nvidia.cuobjdump.path
    said = subprocess.run([tool, '-res-usage', path], capture_output=True, text=True, check=True)
    return {name: int(n) for name, n in re.findall(r'(REG|STACK|LOCAL):(\d+)', said.stdout)}


def float_operations(built):
    """Opcodes that compute in float32, and fused multiply-adds of whatever type.

    Without those in bfloat16 that stand for a sum or a product alone, which 8.0 and 8.6 lack: one
    operand of theirs is 1 or -0. They are exact on spikes.
    """
    lines = re.findall(r'^\s*(?:@!?%\w+\s+)?([a-z]\w*(?:\.\w+)+)\s+(.*);', built.asm['ptx'], re.M)
    constants = {
        args.split(', ')[0] for op, args in lines
        if op in ('mov.b16', 'mov.b32') and args.split(', ')[1] in ONE_OR_MINUS_ZERO
    }  # fmt: skip
    return {
        op
        for op, args in lines
        if re.search(r'^(?!cvt|ld|st).*\.f32', op)
        or (op.startswith('fma') and not constants.intersection(args.split(', ')))
    }


def check(launch, capability, folder):
    built = build(launch, capability)
    kernel, how = launch
    what = f'{kernel.__name__} for {capability}, {how["key"]}'
    allowed = f'{EXACT}|{SLOPE}' if kernel.__name__ == '_backward' else EXACT
    others = {op for op in float_operations(built) if not re.fullmatch(allowed, op)}
    assert not others, (what, others)
    assert built.metadata.shared <= SHARED_MEMORY[capability], what
    used = resources(built, folder)
    assert used['STACK'] == used['LOCAL'] == 0, (what, used)


@pytest.mark.parametrize('strength', [2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ('launch', 'options'),
    [
        (fire, FORWARD),
        (differentiate, BACKWARD),
        (fire_whole, WHOLE),
        (differentiate_whole, WHOLE_BACKWARD),
        (pack, BITS),
        (unpack, BITS),
    ],
    ids=lambda value: getattr(value, '__name__', ''),
)
def test_every_option_compiles(launch, options, strength, launches, tmp_path):
    """All values, all pairs of values, and all triples in the slow test."""
    done = set()
    for choice in cover(options, strength):
        capability = choice.pop('capability')
        launches.clear()
        launch(**choice)
        (launched,) = launches
        key = capability, launched[1]['key']
        if key not in done:
            done.add(key)
            check(launched, capability, tmp_path)
    # Those of different options are different kernels, or nothing was varied.
    assert len(done) > 10


@pytest.mark.parametrize('capability', SHARED_MEMORY)
def test_what_is_looked_for_is_found(capability, launches, tmp_path):
    """Fused multiply-adds where they are allowed, and saved registers where there are few."""
    fire(torch.float32, 'odd', False, 'both', 'soft', None, torch.float32)
    (launched,) = launches
    fused = float_operations(build(launched, capability, enable_fp_fusion=True))
    assert any(op.startswith('fma.rn.f32') for op in fused)
    launches.clear()
    args = ('both', 'soft', 'or', False, 'arctan', False, *[True] * 4)
    differentiate(torch.float32, 'odd', False, *args)
    used = resources(build(launches[0], capability, maxnreg=24), tmp_path)
    assert used['STACK'] > 0
