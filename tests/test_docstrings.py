"""Every example in a docstring runs as it stands, from the root of the repository."""

import doctest
import importlib
import importlib.util
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
