import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / 'mmsnn'
OPS = PACKAGE / 'ops'

BLOCK = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {missing!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)

sys.meta_path.insert(0, Missing())
sys.path.insert(0, {root!r})
"""
STACK = ('mmdet', 'mmcv', 'mmengine')


def run(code, missing=STACK):
    block = BLOCK.format(missing=missing, root=str(PACKAGE.parent))
    return subprocess.run(
        [sys.executable, '-c', block + code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def imported_roots(path):
    """Top-level names that a file imports; a relative import stays inside ops or is its dots."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split('.')[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level > len(path.relative_to(OPS).parts):
                yield '.' * node.level
            elif node.level == 0:
                yield node.module.split('.')[0]


@pytest.mark.skipif(sys.version_info < (3, 10), reason='sys.stdlib_module_names is of Python 3.10')
@pytest.mark.parametrize('path', sorted(OPS.rglob('*.py')), ids=lambda path: path.name)
def test_ops_imports_torch_and_itself_alone(path):
    # The kernels are imported where a GPU is asked for, and Triton comes with torch there.
    more = {'triton'} if path.name == 'triton_kernels.py' else set()
    assert set(imported_roots(path)) <= {'torch', *sys.stdlib_module_names} | more


def test_ops_loads_and_runs_without_the_stack():
    done = run(f"""
import types
parent = types.ModuleType('mmsnn')
parent.__path__ = [{str(PACKAGE)!r}]
sys.modules['mmsnn'] = parent
import torch
from mmsnn import ops
print(ops.lif(torch.tensor([0.6, 0.8, 0.2])).tolist())
assert not {{'mmdet', 'mmcv', 'mmengine'}} & {{name.split('.')[0] for name in sys.modules}}
""")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == '[0.0, 1.0, 0.0]'


@pytest.mark.parametrize('missing', [STACK, ('mmcv',), ('mmdet',)], ids='+'.join)
def test_mmsnn_without_the_stack_says_how_to_install_it(missing):
    done = run('import mmsnn', missing)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith('ImportError: mmsnn needs the MMDetection stack')
    assert "pip install 'mmsnn[onedl]'" in last
    assert any(f'found no {name};' in last for name in missing)
    # One error, not a chain of them.
    assert done.stderr.count('Traceback') == 1
