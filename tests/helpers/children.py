"""Processes that import `mmsnn.ops` alone: the stack would be most of their time."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmsnn import ops

PACKAGE = Path(ops.__file__).parents[1]
HAS_COMPILER = bool(shutil.which('cc') or shutil.which('gcc') or shutil.which('clang'))
needs_compiler = pytest.mark.skipif(not HAS_COMPILER, reason='needs a C compiler')

PRELUDE = f"""
import os, sys, types
parent = types.ModuleType('mmsnn')
parent.__path__ = [{str(PACKAGE)!r}]
sys.modules['mmsnn'] = parent
import torch
from mmsnn import ops
from mmsnn.ops import dispatch
x = torch.randn(4, 2, 8, 40, 80, generator=torch.Generator().manual_seed(0))
torch.set_num_threads(2)
"""


def child(code, **env):
    """Exit status, output and errors of `code` behind the prelude."""
    done = subprocess.run(
        [sys.executable, '-c', PRELUDE + code],
        env={**os.environ, **env},
        text=True,
        capture_output=True,
        timeout=60,
    )
    return done.returncode, done.stdout.strip(), done.stderr.strip()
