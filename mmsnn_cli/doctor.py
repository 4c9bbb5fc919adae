"""What is installed, what is fast on this machine, and what to mend."""

import argparse
import contextlib
import io
import os
import platform
import runpy
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Optional

import mmsnn_cli


@dataclass
class Finding:
    """One line of the report.

    Args:
        what: What was looked at.
        said: What was found.
        mend: What to do about it; '' for nothing.
        broken: Whether mmsnn cannot be relied on before that is done.
    """

    what: str
    said: str
    mend: str = ''
    broken: bool = False


def check_versions() -> Iterator[Finding]:
    """Python, mmsnn and torch."""
    spec = find_spec('mmsnn')
    place = Path(spec.origin).parent if spec and spec.origin else 'nowhere'
    yield Finding('python', f'{platform.python_version()}, {platform.system()} {_cpu_name()}')
    yield Finding('mmsnn', f'{_version("mmsnn") or "not installed, only imported"}, in {place}')
    try:
        import torch
    except Exception as error:
        mend = 'pip install torch, the build that fits your machine (pytorch.org)'
        yield Finding('torch', f'cannot be imported: {_words(error)}', mend, broken=True)
        return
    old = tuple(map(int, torch.__version__.split('.')[:2])) < (2, 6)
    mend = "pip install 'torch>=2.6': older ones can run code of a checkpoint" if old else ''
    yield Finding('torch', torch.__version__, mend, broken=old)


def check_stack() -> Iterator[Finding]:
    """The MMDetection stack: which, and whether it is one."""
    stacks = runpy.run_path(str(_package() / 'compat' / 'stacks.py'))
    parts = stacks['installed']()
    said = ', '.join(f'{part.name} {part.version}' for part in parts) or 'none'
    missing = [name for name in stacks['MODULES'] if find_spec(name) is None]
    problem = stacks['stack_problem']()
    if not problem and missing:
        problem = f"{', '.join(missing)} missing: pip install 'mmsnn[onedl]'"
    yield Finding('stack', said, problem, broken=bool(problem))
    old = any(part.name in ('mmengine', 'mmengine-lite') for part in parts)
    if old and find_spec('pkg_resources') is None:
        yield Finding(
            'setuptools',
            f'{_version("setuptools") or "not installed"}, without the pkg_resources that this '
            "mmengine needs for _base_ = 'mmdet::...'",
            "pip install 'setuptools<82'",
        )


def check_import() -> Iterator[Finding]:
    """Whether mmsnn can be imported; everything below needs that."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            import mmsnn  # noqa: F401
    except Exception as error:
        mend = 'mend what stands above, then run mmsnn doctor again'
        yield Finding('import mmsnn', f'fails: {_words(error)}', mend, broken=True)


def check_operators() -> Iterator[Finding]:
    """MMCV's operators."""
    from mmsnn.compat.ext import build_command, install_ext_standin

    if not install_ext_standin():
        yield Finding('operators', "MMCV's compiled ones")
        return
    yield Finding(
        'operators',
        'in PyTorch: NMS, soft-NMS, focal loss, RoIAlign; MMCV is installed without compiled ones',
        f'only for detectors that need others (TOOD, VFNet, RepPoints): {build_command()}',
    )


def check_kernels() -> Iterator[Finding]:
    """The kernels of mmsnn."""
    import torch

    from mmsnn import ops

    chosen = ops.get_backend()
    by_hand = '' if chosen == 'auto' else f'; MMSNN_BACKEND={chosen}'
    why = ops.why_not('c')
    mend = 'install a C compiler (gcc or clang): they are built at the first use' if why else ''
    if chosen == 'reference':
        mend = 'unset MMSNN_BACKEND: with kernels it is several times faster'
    said = f'not used, slower: {why}' if why else 'C: built, equal to the reference'
    yield Finding('kernels', said + by_hand, mend)
    if torch.cuda.is_available():
        why = ops.why_not('triton')
        said = f'not used, slower: {why}' if why else 'Triton: equal to the reference'
        yield Finding('', said, 'pip install triton' if why else '')


def check_cpu() -> Iterator[Finding]:
    """Units of the CPU, and the precisions that it computes."""
    from mmsnn.deploy import PRECISIONS, has_amx, resolve_precision
    from mmsnn.ops import units

    known = ('avx2', 'avx512_f', 'avx512_vnni', 'avx512_bf16', 'amx_bf16', 'amx_tile')
    has = units.capabilities()
    names = [name for name in known if has.get(name)]
    hidden = f' (MMSNN_CPU_ISA={units.NEWEST} hides newer ones)' if units.NEWEST else ''
    yield Finding('CPU units', f'{", ".join(names) or "not known to torch"}{hidden}')
    can = []
    for name in PRECISIONS[1:]:
        with contextlib.suppress(ValueError):
            resolve_precision(name)
            emulated = name == 'bf16' and not (has_amx() or has.get('avx512_bf16'))
            can.append(f'{name} (emulated here: slow)' if emulated else name)
    best = resolve_precision('auto')
    yield Finding('precisions', f'{", ".join(can)}; --fuse takes {best}')


def check_threads() -> Iterator[Finding]:
    """Threads, and who else computes."""
    import torch

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    threads = torch.get_num_threads()
    load = os.getloadavg()[0]
    mend = ''
    if threads > cpus:
        mend = f'export OMP_NUM_THREADS={cpus}: more threads than CPUs wait for each other'
    elif load > cpus:
        mend = 'for two runs at once: OMP_NUM_THREADS=1 each, or GOMP_SPINCOUNT=10000'
    yield Finding('threads', f'{threads} on {cpus} CPUs, load {load:.1f}', mend)


def check_gpu() -> Iterator[Finding]:
    """GPUs."""
    import torch

    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            major, minor = torch.cuda.get_device_capability(i)
            name = torch.cuda.get_device_name(i)
            yield Finding('GPU', f'{name}, compute capability {major}.{minor}')
        return
    mend = ''
    if shutil.which('nvidia-smi'):
        mend = 'nvidia-smi is there: install a PyTorch for CUDA (pytorch.org), or mend the driver'
    build = f'CUDA {torch.version.cuda}' if torch.version.cuda else 'CPUs alone'
    yield Finding('GPU', f'none that PyTorch sees (built for {build})', mend)


def check_files() -> Iterator[Finding]:
    """Configs, and what the demo needs."""
    from mmsnn.config_files import CONFIGS, config_names

    count = len(config_names())
    mend = '' if count else 'pip install --force-reinstall --no-deps mmsnn'
    yield Finding('configs', f'{count} in {CONFIGS}', mend, broken=not count)
    if find_spec('sklearn') is None:
        yield Finding('demo', 'scikit-learn is not installed', 'pip install scikit-learn')


BEFORE_IMPORT = (check_versions, check_stack, check_import)
AFTER_IMPORT = (
    check_operators,
    check_kernels,
    check_cpu,
    check_threads,
    check_gpu,
    check_files,
)


def examine() -> list[Finding]:
    """Look at everything; a look that fails is a finding."""
    findings: list[Finding] = []
    for check in (*BEFORE_IMPORT, *AFTER_IMPORT):
        if check in AFTER_IMPORT and 'mmsnn' not in sys.modules:
            continue
        try:
            findings += check()
        except Exception as error:
            name = check.__name__.partition('_')[2]
            findings.append(Finding(name, f'cannot be looked at: {_words(error)}', broken=True))
    return findings


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Print the report; the exit status is 1 where something is broken."""
    parser = argparse.ArgumentParser(
        prog='mmsnn doctor',
        description='Say what is installed, what is fast on this machine, and what to do about '
        'what is not. The exit status is 1 where something is broken.',
    )
    parser.parse_args(argv)
    findings = examine()
    for finding in findings:
        print(f'{finding.what:13}{finding.said}')
        if finding.mend:
            print(f'{"":13}{"MEND" if finding.broken else "->"} {finding.mend}')
    if any(finding.broken for finding in findings):
        sys.exit(1)


def _package() -> Path:
    """The folder of mmsnn, which is not imported for it."""
    spec = find_spec('mmsnn')
    return Path(spec.origin).parent if spec else Path(mmsnn_cli.__file__).parents[1] / 'mmsnn'


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    return platform.machine()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ''


def _words(error: Exception) -> str:
    return ' '.join(f'{type(error).__name__}: {error}'.split())
