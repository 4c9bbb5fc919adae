"""Random inputs to kernels with sanitizers in them: no report, and the reference's numbers."""

import re

import pytest
import sanitizers
from children import needs_compiler

try:
    sanitizers.environment('')
    WHY_NOT = ''
except RuntimeError as error:
    WHY_NOT = str(error)
needs_sanitizers = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or 'runs')


def check(count, cache, variant):
    done = sanitizers.fuzz(count, cache, variant)
    assert done.returncode == 0, sanitizers.wrong_lines(done)
    found = re.search(
        rf'{count} inputs, (\d+) refused and (\d+) compared, 0 wrong', done.stdout
    ).groups()
    refused, compared = map(int, found)
    assert refused < compared, 'most inputs should come to a kernel'
    (library,) = cache.iterdir()
    code = library.read_bytes()
    assert b'__asan_report_load' in code
    assert b'__ubsan_handle_float_cast_overflow' in code


@needs_compiler
@needs_sanitizers
def test_some_inputs(tmp_path):
    check(300, tmp_path, 'all')


@pytest.mark.slow
@needs_compiler
@needs_sanitizers
@pytest.mark.parametrize('variant', list(sanitizers.VARIANTS))
def test_many_inputs(tmp_path, variant):
    check(10_000, tmp_path, variant)
