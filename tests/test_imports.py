"""No module of mmsnn imports, anywhere in its text, one that imports it."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def modules():
    """Path of every module by its name."""
    found = {}
    for path in (ROOT / 'mmsnn').rglob('*.py'):
        parts = path.relative_to(ROOT).with_suffix('').parts
        found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return found


def imports_of(name, path, known):
    """Modules of mmsnn that one names; of a package, the part that is a module."""
    package = name if path.name == '__init__.py' else name.rpartition('.')[0]
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit('.', node.level - 1)[0] if node.level > 1 else package
            base = node.module or ''
            if node.level:
                base = '.'.join(part for part in (above, base) if part)
            for alias in node.names:
                part = f'{base}.{alias.name}'
                if part in known:
                    yield part
                elif base in known and base != package:
                    yield base


def circles(graph):
    """One path through every circle that a depth-first search meets."""
    found, done, path = [], set(), []

    def visit(name):
        if name in path:
            found.append([*path[path.index(name) :], name])
        elif name not in done:
            path.append(name)
            for other in sorted(graph.get(name, ())):
                visit(other)
            done.add(path.pop())

    for name in sorted(graph):
        visit(name)
    return found


def test_circles_are_found():
    assert circles({'a': ['b'], 'b': ['c'], 'c': ['a'], 'd': ['a']}) == [['a', 'b', 'c', 'a']]
    assert circles({'a': ['b', 'c'], 'b': ['c'], 'c': []}) == []


def test_no_circle():
    known = modules()
    graph = {name: set(imports_of(name, path, known)) - {name} for name, path in known.items()}
    assert {'mmsnn.models.layers.neurons', 'mmsnn.models.layers.builder'} <= graph[
        'mmsnn.models.layers.gates'
    ]
    assert circles(graph) == []
