"""Builds src/kernels.c into a plain shared library; needs no torch, for setup.py runs it too.

The library is not a Python extension and knows no torch: one file serves every version of both.
OpenMP's symbols are left open on purpose. torch has loaded its OpenMP runtime globally by the time
the kernels come, whatever that file is called in the wheel at hand, so they find that one and share
its thread pool; linking libgomp by name could load a second.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

#: The one file that is compiled; it includes the others of its folder.
SOURCE = Path(__file__).with_name('src') / 'kernels.c'
#: Where `pip install` puts the library.
INSTALLED = Path(__file__).with_name('_kernels.so')
#: (compile flags, link flags), best first; the next is tried where one doesn't build or load.
VARIANTS = (
    (('-fopenmp',), ()),
    (('-fopenmp',), ('-fopenmp',)),
    ((), ()),
    (('-DMMSNN_NO_CLONES',), ()),
)
FLAGS = ('-O3', '-fPIC', '-ffp-contract=off', '-fno-trapping-math', '-fvisibility=hidden')


class BuildError(RuntimeError):
    """No library could be built; the message says why in one line."""


def source_key() -> str:
    """Hash of the sources, built into the library so that a stale one is told from a fresh one."""
    digest = hashlib.sha256()
    for path in sorted(SOURCE.parent.rglob('*.[ch]')):
        digest.update(path.relative_to(SOURCE.parent).as_posix().encode() + b'\0')
        digest.update(path.read_bytes() + b'\0')
    return digest.hexdigest()[:16]


def find_compiler() -> list:
    """The C compiler's command: $CC, else cc, gcc or clang of the PATH.

    Raises:
        BuildError: There is none.
    """
    named = os.environ.get('CC', '').split()
    for name in [named[0]] if named else ['cc', 'gcc', 'clang']:
        path = shutil.which(name)
        if path:
            return [path, *named[1:]]
    raise BuildError(f'no C compiler ({named[0] if named else "cc, gcc or clang"}) on the PATH')


def _user_flags() -> tuple:
    return tuple(os.environ.get('CFLAGS', '').split())


def kernel_flags() -> tuple:
    """Flags of $MMSNN_KERNEL_FLAGS to compile and link with, such as those of a sanitizer."""
    return tuple(os.environ.get('MMSNN_KERNEL_FLAGS', '').split())


def build(target: Path, variant: int = 0, flags: tuple = ()) -> None:
    """Compile and link into `target`, which appears whole or not at all.

    Args:
        target: Path of the library; its folder is made.
        variant: Index into ``VARIANTS``.
        flags: More of them, to compile and to link with.

    Raises:
        BuildError: No compiler, it failed, or the folder can't be written.
    """
    compiler = find_compiler()
    compile_flags, link_flags = VARIANTS[variant]
    if sys.platform == 'darwin':
        link_flags += ('-undefined', 'dynamic_lookup')
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Built beside the target and renamed: two processes may build at once, and the one that
        # comes second replaces a library by its equal.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix='.build-') as folder:
            obj, lib = Path(folder, 'kernels.o'), Path(folder, 'kernels.so')
            key = f'-DMMSNN_SOURCE="{source_key()}"'
            every = [*FLAGS, *compile_flags, *flags, *_user_flags(), key]
            _run([*compiler, *every, '-c', str(SOURCE), '-o', str(obj)])
            _run([*compiler, '-shared', str(obj), *link_flags, *flags, '-o', str(lib)])
            os.replace(lib, target)
    except OSError as error:
        raise BuildError(f'{type(error).__name__}: {error}') from error


def build_any(target: Path) -> None:
    """:func:`build` by the first variant that compiles and links.

    Args:
        target: Path of the library.

    Raises:
        BuildError: None does; the message is that of the first.
    """
    errors = []
    for variant in range(len(VARIANTS)):
        try:
            return build(target, variant)
        except BuildError as error:
            errors.append(error)
    raise errors[0]


def _run(command: list) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if 'error' in line] or ['no message']
        raise BuildError(f'{command[0]} failed: {lines[0]}')


def cache_folder() -> Path:
    """Per-user folder of libraries built at first use: $MMSNN_CACHE_DIR, or in the user's cache."""
    named = os.environ.get('MMSNN_CACHE_DIR')
    if named:
        return Path(named)
    base = os.environ.get('XDG_CACHE_HOME')
    return (Path(base) if base else Path.home() / '.cache') / 'mmsnn'


def cached_path(variant: int = 0, flags: tuple = ()) -> Path:
    """Where the library built by this compiler from this source for this platform is kept.

    Args:
        variant: As of :func:`build`.
        flags: Likewise.

    Returns:
        Path of a library that need not be there yet.

    Raises:
        BuildError: No compiler.
    """
    compiler = find_compiler()
    stat = os.stat(compiler[0])
    parts = (
        source_key(),
        compiler,
        stat.st_size,
        int(stat.st_mtime),
        FLAGS,
        VARIANTS[variant],
        flags,
        _user_flags(),
        sys.platform,
        platform.machine(),
        platform.libc_ver(),
    )
    key = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    return cache_folder() / f'kernels-{key}.so'
