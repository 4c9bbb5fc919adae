"""What the tests share: the tools as subprocesses, a small digits set, real COCO if it is given."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from prepared import Prepared

# The same examples at every run; `--hypothesis-profile=default` searches for others.
settings.register_profile('same', derandomize=True)
settings.load_profile('same')

ROOT = Path(__file__).resolve().parent.parent
# Not among the user's own: kernels that tests build, and what they measure.
os.environ.setdefault('MMSNN_CACHE_DIR', str(ROOT / '.pytest_cache' / 'mmsnn'))

# Before any test is read: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: E402, F401  isort: skip


#: Files whose tests take longest. They begin first: begun last, one of them would run alone.
LONG = [
    'tools/test_pipeline.py',
    'tools/test_bad_input.py',
    'tools/test_recognition.py',
    'test_notebooks.py',
    'tools/test_spike_report.py',
    'tools/test_measuring.py',
    'benchmarks/test_bench.py',
]


def pytest_collection_modifyitems(items):
    """Order files by how long they take; tests in a file stay as they are."""
    paths = [str(ROOT / 'tests' / path) for path in LONG]
    items.sort(key=lambda item: paths.index(str(item.path)) if str(item.path) in paths else 99)


def run_tool(*command, timeout=600, **env):
    """Run a command of the repository and give back the finished process, its output joined."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env={**os.environ, **{key: str(value) for key, value in env.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )


@pytest.fixture(autouse=True)
def same_numbers():
    """Random tensors are the same, whatever ran before."""
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def tool(tmp_path_factory):
    """`tool('train.py', CONFIG, ...)` runs a Python tool in a process of its own.

    `check=True` wants it to succeed. `fresh=True` begins with an empty process, as a user does;
    else it may have imported the stack before (helpers/prepared.py).
    """
    prepared, folder = Prepared(), tmp_path_factory.mktemp('output')

    def run(script, *args, check=True, fresh=False, timeout=600, **env):
        command = f'tools/{script}', *args
        if fresh or not prepared.takes(env):
            done = run_tool(sys.executable, *command, timeout=timeout, **env)
        else:
            everything = {**os.environ, **{key: str(value) for key, value in env.items()}}
            output = folder / 'output.txt'
            status = prepared.run(command, everything, ROOT, output, timeout)
            text = output.read_text(errors='replace')
            done = subprocess.CompletedProcess(command, status, text)
        if check:
            assert done.returncode == 0, done.stdout[-1500:]
        return done

    yield run
    prepared.stop()


@pytest.fixture(scope='session')
def shell():
    """`shell('bash', 'tools/dist_train.sh', ...)` runs any command, with our python first."""

    def run(*command, **env):
        path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
        return run_tool(*command, PATH=path, **env)

    return run


@pytest.fixture(scope='session')
def digits_root(tmp_path_factory, tool):
    """A small digits set in COCO format: 32 images to train on, 8 to validate, 64x64."""
    root = tmp_path_factory.mktemp('digits') / 'set'
    tool(
        'dataset_converters/digits_to_coco.py',
        root,
        '--train-images',
        32,
        '--val-images',
        8,
        '--image-size',
        64,
        '--max-size',
        40,
        '--max-digits',
        2,
    )
    return root


@pytest.fixture(scope='session')
def coco_tiny():
    """Real COCO images in the official layout, through a path that the user gives."""
    root = os.environ.get('MMSNN_COCO_TINY')
    if not root:
        pytest.skip('needs real COCO images: set MMSNN_COCO_TINY=/path/to/a/small/coco')
    return Path(root).resolve()
