"""Which backend computes, and what happens where none can: builds, processes, forks, compilers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from children import child, needs_compiler

from mmsnn import ops
from mmsnn.ops import dispatch, units
from mmsnn.ops.backends.c import build, calls

PACKAGE = Path(ops.__file__).parents[1]
HAS_DOT_PRODUCTS = not dispatch.why_not('c') and calls.has_dot_products()
needs_fork = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
SLOWER = 'mmsnn runs without its c kernels, slower: '

X = torch.randn(4, 2, 8, 40, 80, generator=torch.Generator().manual_seed(0))
with ops.use_backend('reference'):
    EXPECTED = ops.lif(X)


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A checkout at its first use: a copy of the source, no library, an empty cache."""
    monkeypatch.setattr(build, 'SOURCE', tmp_path / 'src' / 'kernels.c')
    monkeypatch.setattr(build, 'INSTALLED', tmp_path / '_kernels.so')
    shutil.copytree(PACKAGE / 'ops' / 'backends' / 'c' / 'src', build.SOURCE.parent)
    monkeypatch.setattr(dispatch, '_tried', {})
    monkeypatch.setattr(dispatch, '_chosen', 'auto')
    monkeypatch.setenv('MMSNN_CACHE_DIR', str(tmp_path / 'cache'))
    monkeypatch.setenv('CFLAGS', '-O0')  # a second less each time
    # Else neither the installed library nor a plain one of the cache would be meant.
    monkeypatch.setattr(units, 'NEWEST', None)
    monkeypatch.delenv('MMSNN_KERNEL_FLAGS', raising=False)
    calls.load.cache_clear()
    yield tmp_path
    calls.load.cache_clear()


def no_compiler(fresh, monkeypatch):
    monkeypatch.delenv('CC', raising=False)
    monkeypatch.setenv('PATH', str(fresh / 'nothing'))


def next_process(monkeypatch):
    """What another process would start with, as far as backends go."""
    monkeypatch.setattr(dispatch, '_tried', {})
    calls.load.cache_clear()


@needs_compiler
@pytest.mark.parametrize('codes', ['DTYPES', 'RESETS', 'SURROGATES', 'GATES'])
def test_a_number_that_means_something_else_in_the_kernels_is_refused(fresh, monkeypatch, codes):
    # As where one of them was given a new case and the other was not.
    first, second, *_ = table = getattr(calls, codes)
    swapped = {**table}
    swapped[first], swapped[second] = table[second], table[first]
    if codes in ('SURROGATES', 'GATES'):  # records that say their name
        swapped[first] = table[first]._replace(code=table[second].code)
        swapped[second] = table[second]._replace(code=table[first].code)
    monkeypatch.setattr(calls, codes, swapped)
    with pytest.raises(build.BuildError, match=r'is \d in mmsnn and \d in its C kernels'):
        calls.load()


@needs_compiler
def test_a_name_that_the_kernels_lack_is_refused(fresh, monkeypatch):
    laplace = calls.SURROGATES['arctan']._replace(name='laplace', code=4)
    monkeypatch.setattr(calls, 'SURROGATES', {**calls.SURROGATES, 'laplace': laplace})
    with pytest.raises(build.BuildError, match="'laplace' is 4 in mmsnn and -1 in its C kernels"):
        calls.load()


@needs_compiler
@pytest.mark.parametrize(
    ('size', 'name'),
    [('ROW', 'numbers in a row'), ('OUTPUTS', 'outputs of a block'), ('TILE', 'outputs of a tile')],
)
def test_weights_in_another_layout_than_the_kernels_read_are_refused(
    fresh, monkeypatch, size, name
):
    monkeypatch.setattr(calls, size, 16)
    with pytest.raises(build.BuildError, match=rf'{name}.* is 16 in mmsnn and \d+ in its C'):
        calls.load()


def check_everything_runs():
    """All operators, forward and backward, give the reference's numbers."""
    shortcut, scale, shift = (X > 0.5).float(), torch.rand(8) + 0.5, torch.rand(8)
    results = []
    for name in ('auto', 'reference'):
        with ops.use_backend(name):
            x = X.clone().requires_grad_()
            weight = torch.ones(2, 8, 3, 3, requires_grad=True)
            out = ops.lif(x, scale=scale, shift=shift, shortcut=shortcut, gate='or')
            normed = ops.norm_lif(x, scale, shift, None, None, training=True)
            conv = ops.spike_conv2d(out.flatten(0, 1), weight)
            (conv.mean() + (normed * X).sum()).backward()
            results.append((out.detach(), x.grad, weight.grad))
    assert torch.equal(results[0][0], results[1][0])
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@needs_compiler
def test_a_checkout_builds_once_and_keeps_it(fresh, monkeypatch):
    check_everything_runs()
    assert dispatch.expected('lif', X).name == 'c'
    assert dispatch.why_not('c') == ''
    (built,) = (fresh / 'cache').iterdir()
    before = built.stat().st_mtime_ns
    next_process(monkeypatch)
    assert torch.equal(ops.lif(X), EXPECTED)
    assert [path.stat().st_mtime_ns for path in (fresh / 'cache').iterdir()] == [before]


@needs_compiler
def test_a_broken_library_in_the_cache_is_built_again(fresh):
    path = build.cached_path()
    path.parent.mkdir()
    path.write_bytes(b'not a library')
    assert torch.equal(ops.lif(X), EXPECTED)
    assert dispatch.why_not('c') == ''
    assert path.stat().st_size > 1000


@needs_compiler
def test_the_installed_library_is_taken_unless_the_source_is_another(fresh, monkeypatch):
    build.build_any(build.INSTALLED)
    assert calls.load()._name == str(build.INSTALLED)
    with (build.SOURCE.parent / 'pool.c').open('a') as source:  # any of them
        source.write('\n/* changed */\n')
    next_process(monkeypatch)
    assert Path(calls.load()._name).parent == fresh / 'cache'


@needs_compiler
def test_many_processes_build_at_once(tmp_path):
    target = tmp_path / 'cache' / 'kernels.so'
    code = f"""
import runpy
from pathlib import Path
build = runpy.run_path({str(PACKAGE / 'ops' / 'backends' / 'c' / 'build.py')!r})
build['build_any'](Path({str(target)!r}))
import ctypes
ctypes.CDLL({str(target)!r}, mode=1)  # lazy binding: no torch here to give OpenMP's symbols
"""
    env = {**os.environ, 'CFLAGS': '-O0'}
    crowd = [subprocess.Popen([sys.executable, '-c', code], env=env) for _ in range(4)]
    assert [process.wait(120) for process in crowd] == [0] * 4
    # Nothing half-built is left behind.
    assert list(target.parent.iterdir()) == [target]


def test_without_a_compiler_the_reference_runs_and_the_log_says_so_once(fresh, monkeypatch, caplog):
    no_compiler(fresh, monkeypatch)
    check_everything_runs()
    check_everything_runs()
    assert [record.getMessage() for record in caplog.records] == [
        SLOWER + 'no C compiler (cc, gcc or clang) on the PATH'
    ]


def test_asking_for_what_is_not_there_is_an_error(fresh, monkeypatch):
    no_compiler(fresh, monkeypatch)
    message = r'cannot be used: no C compiler \(cc, gcc or clang\) on the PATH'
    with pytest.raises(ops.BackendError, match="^backend 'c' " + message):
        ops.set_backend('c')
    assert ops.get_backend() == 'auto'
    # MMSNN_BACKEND=c is seen at import and tried at first use.
    monkeypatch.setattr(dispatch, '_chosen', 'c')
    for _ in range(2):
        with pytest.raises(ops.BackendError, match=message):
            ops.lif(X)


@needs_compiler
@pytest.mark.parametrize(
    ('compiler', 'reason'),
    [
        ('false', 'false failed: no message'),
        ('no-such-compiler -O2', 'no C compiler (no-such-compiler) on the PATH'),
    ],
)
def test_a_compiler_that_fails_is_no_compiler(fresh, monkeypatch, caplog, compiler, reason):
    monkeypatch.setenv('CC', compiler)
    assert torch.equal(ops.lif(X), EXPECTED)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(SLOWER)
    assert line.endswith(reason)


@needs_compiler
def test_a_cache_that_cannot_be_written_is_no_crash(fresh, monkeypatch, caplog):
    (fresh / 'file').write_text('')
    monkeypatch.setenv('MMSNN_CACHE_DIR', str(fresh / 'file' / 'cache'))
    assert torch.equal(ops.lif(X), EXPECTED)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(SLOWER + 'NotADirectoryError')


@needs_compiler
@pytest.mark.parametrize(
    ('right', 'wrong', 'what'),
    [
        ('return h - v_threshold >= 0.0f', 'return h - v_threshold >= 0.1f', 'wrong spikes'),
        ('/ (width * (1.0f + z * z))', '/ (width * (1.1f + z * z))', 'wrong gradients'),
        ('twice[i] += d * d', 'twice[i] += d', 'wrong statistics or bits'),
        ('inside > 0, inside', '0, inside', 'wrong maxima'),
        ('(place == k));', '(place != k));', 'wrong gradients of maxima'),
        (
            't * planes + plane, top, bottom',
            't * planes + plane, top, top',
            'wrong gradients behind a pool',
        ),
        ('by_column[i] * (by_row * x[i])', 'by_row * x[i]', 'wrong decoding'),
        pytest.param(
            'offsets[tap][i] = -1',
            'offsets[tap][i] = at < 0 ? 0 : at',
            'wrong spikes of a conv',
            marks=pytest.mark.skipif(not HAS_DOT_PRODUCTS, reason='needs VNNI'),
        ),
    ],
)
def test_a_kernel_that_fails_its_self_check_is_not_used(fresh, caplog, right, wrong, what):
    sources = {path: path.read_text() for path in build.SOURCE.parent.rglob('*.[ch]')}
    (path,) = [path for path, text in sources.items() if right in text]
    assert sources[path].count(right) == 1
    path.write_text(sources[path].replace(right, wrong))
    check_everything_runs()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f'{SLOWER}its self-check found {what}')


@needs_compiler
def test_where_it_is_first_used_does_not_matter(fresh):
    x = X[0].contiguous(memory_format=torch.channels_last)
    try:
        torch.set_default_dtype(torch.bfloat16)
        with torch.autocast('cpu', torch.bfloat16), torch.device('meta'):
            assert dispatch.choose('event_conv', x.to(torch.uint8)).name == 'c'
    finally:
        torch.set_default_dtype(torch.float32)


@needs_compiler
@pytest.mark.parametrize('variant', range(len(build.VARIANTS)))
def test_every_way_to_build_gives_the_same(fresh, variant):
    build.build(build.INSTALLED, variant)
    assert calls.load()._name == str(build.INSTALLED)
    check_everything_runs()
    assert dispatch.why_not('c') == ''


@needs_compiler
def test_results_do_not_depend_on_threads():
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            x = X.clone().requires_grad_()
            out = ops.lif(x)
            out.backward(X)
            results.append((out, x.grad))
    finally:
        torch.set_num_threads(before)
    for result in results:
        assert torch.equal(result[0], EXPECTED)
        assert torch.equal(result[1], results[0][1])


@needs_compiler
@needs_fork
def test_forked_children_compute():
    # libgomp's threads stay behind: a child that asked for them would wait for ever. torch's own
    # parallel operations do, so the child keeps to ours where it has not set one thread, which is
    # what loader workers do.
    status, out, err = child("""
from mmsnn.ops import conv_lif
neuron = 0.5, 1.0, 1.0, 'hard', False, 'arctan', 1.0
args = (None,) * 7 + neuron + (None, 0)
spikes = (x > 1).to(torch.uint8).flatten(0, 1).contiguous(memory_format=torch.channels_last)
spikes, q = spikes.unflatten(0, (4, 2)), torch.arange(64 * 8 * 9).view(64, 8, 3, 3) % 19 - 9
weights = conv_lif.pack_weights([(q, torch.full((64,), 0.05))], torch.zeros(64))
def step():
    out = ops.lif(x)
    needs = [True] + [False] * 5
    grad = ops.operators.lif.lif_backward(x, x, *args, needs)[0]
    if not conv_lif.is_fast(spikes):  # what comes instead is torch's
        return out, grad
    return out, grad, conv_lif.conv_lif(spikes, weights, ((1, 1),) * 3, ops.LIF(*neuron))
before = step()
pid = os.fork()
if pid == 0:
    after = step()
    same = all(a.numpy().tobytes() == b.numpy().tobytes() for a, b in zip(before, after))
    os._exit(0 if same else 1)
print(os.waitpid(pid, 0)[1])
step()

class Set(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, i):
        return ops.lif(x + i)
loader = torch.utils.data.DataLoader(Set(), batch_size=None, num_workers=2,
                                     multiprocessing_context='fork')
for i, spikes in enumerate(loader):
    assert torch.equal(spikes, ops.lif(x + i))

maps = '/proc/self/maps'
if os.path.exists(maps):  # one OpenMP runtime serves torch and the kernels
    names = {line.split()[-1] for line in open(maps) if 'libgomp' in line or 'iomp' in line}
    assert len(names) <= 1, names
""")
    assert (status, out) == (0, '0'), err


def test_names():
    assert ops.get_backend() in ops.BACKENDS
    with pytest.raises(ValueError, match="unknown backend 'cuda': choose one of"):
        ops.set_backend('cuda')
    before = ops.get_backend()
    with pytest.raises(RuntimeError, match='stop'), ops.use_backend('reference'):  # noqa: PT012
        assert ops.get_backend() == 'reference'
        assert dispatch.expected('lif', X).name == 'reference'
        raise RuntimeError('stop')
    assert ops.get_backend() == before


def test_the_environment_chooses():
    code = "print(ops.get_backend(), dispatch.expected('lif', x).name)"
    assert child(code, MMSNN_BACKEND='reference') == (0, 'reference reference', '')
    status, _, err = child('ops.lif(x)', MMSNN_BACKEND='fast')
    assert status == 1
    assert "unknown backend 'fast' in MMSNN_BACKEND: choose one of" in err.splitlines()[-1]


@pytest.mark.parametrize('dtype', [torch.float64, torch.float16])
def test_other_dtypes_take_the_reference(dtype):
    x = torch.randn(3, 4).to(dtype)
    assert dispatch.expected('lif', x).name == 'reference'
    assert ops.lif(x).dtype == dtype
