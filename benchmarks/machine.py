"""What a timing depends on: machine, versions, commit. No names, no paths."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import torch

from mmsnn.ops import dispatch

PACKAGES = (
    'torch', 'mmsnn', 'spikingjelly', 'numpy', 'triton',
    'onedl-mmdetection', 'onedl-mmcv', 'onedl-mmengine', 'mmdet', 'mmcv-lite', 'mmcv', 'mmengine',
)  # fmt: skip
#: Flags of /proc/cpuinfo that decide which low-precision convs are fast.
FLAGS = ('avx2', 'avx512f', 'avx512_vnni', 'avx512_bf16', 'amx_bf16', 'amx_int8')


def facts() -> dict:
    """The facts, ready for JSON."""
    model, flags = _cpu()
    return dict(
        cpu=model,
        cpu_flags=[flag for flag in FLAGS if flag in flags],
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        system=f'{platform.system()} {platform.machine()}',
        python=platform.python_version(),
        versions=_versions(),
        commit=_commit(),
        kernels={name: dispatch.why_not(name) or 'ready' for name in dispatch.names()},
    )


def _cpu() -> tuple[str, set]:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), set()
    fields = {
        key.strip(): value.strip() for key, _, value in (line.partition(':') for line in lines)
    }
    return fields.get('model name', platform.machine()), set(fields.get('flags', '').split())


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _commit() -> str:
    """Commit of the checkout; ``-dirty`` where files differ from it."""
    command = ['git', 'describe', '--always', '--dirty', '--abbrev=12', '--exclude=*']
    try:
        return subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'
