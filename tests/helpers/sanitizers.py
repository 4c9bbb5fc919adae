"""The kernels under AddressSanitizer and UndefinedBehaviorSanitizer, for each set of CPU units.

    python tests/helpers/sanitizers.py [COUNT [PYTEST ARGUMENT ...]]

gives COUNT random inputs (default 2000; 0 for none) to each variant of the kernels, and then runs
pytest on the kernels with the units of this CPU, or those that ``MMSNN_CPU_ISA`` leaves of them.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: -O1: a build of seconds. Casts of floats that don't fit are not among `undefined`.
FLAGS = (
    '-fsanitize=address,undefined,float-cast-overflow -fno-omit-frame-pointer -g -O1 '
    '-fno-sanitize-recover=undefined,float-cast-overflow'
)
#: Units that each variant may use; `plain` has no vector units but those of every x86-64.
VARIANTS = {
    'all': {},
    'avx512': {'MMSNN_CPU_ISA': 'avx512'},  # without those for integers and bfloat16
    'avx2': {'MMSNN_CPU_ISA': 'avx2'},
    'plain': {'MMSNN_CPU_ISA': 'avx2', 'MMSNN_KERNEL_FLAGS': f'{FLAGS} -DMMSNN_NO_CLONES'},
}


def environment(cache, variant='all'):
    """Environment of a process whose kernels have sanitizers in them.

    Args:
        cache: Folder for the library.
        variant: A key of ``VARIANTS``.

    Raises:
        RuntimeError: There is no compiler that has them; the message says why.
    """
    # Python itself has no sanitizer: their libraries come first, and C++'s, whose exceptions they
    # watch.
    libraries = [_library(name) for name in ('libasan.so', 'libstdc++.so.6')]
    return {
        **os.environ,
        'LD_PRELOAD': ' '.join(libraries),
        'ASAN_OPTIONS': 'detect_leaks=0',  # Python's own are not looked for
        'UBSAN_OPTIONS': 'print_stacktrace=1',
        'MMSNN_CACHE_DIR': str(cache),
        'MMSNN_BACKEND': 'auto',
        'MMSNN_KERNEL_FLAGS': FLAGS,
        'CFLAGS': '',
        **VARIANTS[variant],
    }


def _library(name):
    if sys.platform != 'linux':
        raise RuntimeError('sanitizers are preloaded as on Linux')
    try:
        command = ['gcc', f'-print-file-name={name}']
        path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(f'no gcc: {error}') from error
    if not os.path.isabs(path):
        raise RuntimeError(f'gcc has no {name}')
    return path


def fuzz(count, cache, variant='all', seed=0, timeout=3600):
    """Run fuzz_kernels.py; gives back the finished process, its output joined."""
    return subprocess.run(
        [
            sys.executable,
            '-W',
            'ignore',
            ROOT / 'tests/helpers/fuzz_kernels.py',
            str(count),
            str(seed),
        ],
        env=environment(cache, variant),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )


def wrong_lines(done):
    """What a run of fuzz_kernels.py said, less the names of inputs that were fine."""
    lines = done.stdout.replace('\r', '\n').splitlines()
    fine = re.compile(r'fuzz_\w+ \d+$')
    told = [line for line in lines[:-1] if line and not fine.match(line)]
    return '\n'.join([*told[:60], lines[-1]])


def main(count=2000, *tests):
    failed = 0
    with tempfile.TemporaryDirectory() as cache:
        for variant in VARIANTS if count else ():
            print(f'== {count} random inputs, units: {variant}', flush=True)
            done = fuzz(count, cache, variant)
            failed |= done.returncode
            print(wrong_lines(done), flush=True)
        if tests:
            print(f'== {" ".join(tests)}, with sanitizers', flush=True)
            command = [sys.executable, '-m', 'pytest', '-q', '-n2', '--dist=loadfile', *tests]
            env = {**environment(cache), 'OMP_NUM_THREADS': '1'}
            failed |= subprocess.run(command, cwd=ROOT, env=env, check=False).returncode
    return failed


if __name__ == '__main__':
    sys.exit(main(*map(int, sys.argv[1:2]), *sys.argv[2:]) != 0)
