"""Docstrings: examples run as they stand, from the root, and pages read as they are written."""

import ast
import doctest
import importlib
import importlib.util
import re
from pathlib import Path

import pytest
from own_parts import forgotten

ROOT = Path(__file__).resolve().parent.parent
MODULES = [
    '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    for path in sorted((ROOT / 'mmsnn').rglob('*.py'))
    if '>>> ' in path.read_text()
]


@pytest.mark.parametrize('name', MODULES)
def test_examples(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    if name == 'mmsnn.ops.backends.triton_kernels' and importlib.util.find_spec('triton') is None:
        pytest.skip('needs Triton')
    module = importlib.import_module(name)
    # Without the module's own names: an example imports what it uses, as its reader must.
    examples = [test for test in doctest.DocTestFinder().find(module, globs={}) if test.examples]
    assert examples, 'examples that doctest does not find'
    runner = doctest.DocTestRunner()
    with forgotten():
        for example in examples:
            runner.run(example)
    assert runner.summarize().failed == 0


@pytest.mark.parametrize('path', sorted((ROOT / 'mmsnn').rglob('*.py')), ids=lambda path: path.name)
def test_pages_read_as_written(path):
    """Sphinx would read half of a property's line as its type, and 'T.' as the head of a list."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
            continue
        lines = (ast.get_docstring(node) or '').splitlines() or ['']
        decorators = [ast.unparse(each) for each in getattr(node, 'decorator_list', ())]
        if any('property' in each for each in decorators):
            assert not re.search(r':(\s|$)', lines[0]), f'{path}: {node.name}: {lines[0]}'
        lists = [line for line in lines if re.match(r'\s*(\w+: )?[A-Z][.)](\s|$)', line)]
        assert lists == [], f'{path}: {lists}'
    told = re.findall(r'(?m)^    #: (.*)', path.read_text())
    assert [line for line in told if re.match(r'[^`]*(`[^`]*`[^`]*)*[a-z]: ', line)] == []
