"""The C source itself, as compilers see it."""

import shutil
import subprocess

import pytest

from mmsnn.ops.backends.c import build

#: As the kernels are built: with threads, without, without AVX-512, without variants by CPU. One of
#: them to the end, as some warnings come from the optimiser.
WAYS = {
    'threads': ['-fopenmp', '-fsyntax-only'],
    'plain': ['-Wno-unknown-pragmas'],
    'avx2': ['-DMMSNN_NO_AVX512', '-fsyntax-only'],
    'one variant': ['-DMMSNN_NO_CLONES', '-fsyntax-only'],
}


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('compiler', ['gcc', 'clang'])
def test_compilers_have_nothing_to_say(compiler, way, tmp_path):
    if not shutil.which(compiler):
        pytest.skip(f'no {compiler} on the PATH')
    flags = [*build.FLAGS, '-O1', *WAYS[way]]
    done = _compile(compiler, flags, build.SOURCE, tmp_path)
    if way == 'threads' and "'omp.h' file not found" in done.stderr:
        pytest.skip(f'{compiler} comes without the headers of OpenMP')
    assert (done.returncode, done.stderr) == (0, '')


@pytest.mark.parametrize('compiler', ['gcc', 'clang'])
def test_a_warning_is_an_error(compiler, tmp_path):
    if not shutil.which(compiler):
        pytest.skip(f'no {compiler} on the PATH')
    source = tmp_path / 'unused.c'
    source.write_text('int f(void) { int unused; return 0; }\n')
    assert 'unused' in _compile(compiler, [], source, tmp_path).stderr


def _compile(compiler, flags, source, folder):
    command = [compiler, *flags, '-Wall', '-Wextra', '-Werror', '-c', source, '-o', folder / 'a.o']
    return subprocess.run(command, capture_output=True, text=True, check=False)
