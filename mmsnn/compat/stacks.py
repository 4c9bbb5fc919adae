"""Which stack is installed, and whether it is one.

It needs no other module, so that ``mmsnn doctor`` can run it where mmsnn cannot be imported.
"""

from collections import Counter
from importlib import metadata
from typing import NamedTuple

#: What brings which import name: stack, import name, distribution.
KNOWN = (
    ('onedl', 'mmdet', 'onedl-mmdetection'),
    ('onedl', 'mmcv', 'onedl-mmcv'),
    ('onedl', 'mmengine', 'onedl-mmengine'),
    ('openmmlab', 'mmdet', 'mmdet'),
    ('openmmlab', 'mmcv', 'mmcv'),
    ('openmmlab', 'mmcv', 'mmcv-lite'),
    ('openmmlab', 'mmcv', 'mmcv-full'),
    ('openmmlab', 'mmengine', 'mmengine'),
    ('openmmlab', 'mmengine', 'mmengine-lite'),
)
MODULES = ('mmdet', 'mmcv', 'mmengine')


class Part(NamedTuple):
    """An installed part of a stack."""

    stack: str
    module: str
    name: str
    version: str


def installed() -> list[Part]:
    """The parts of both stacks that are installed."""
    parts = []
    for stack, module, name in KNOWN:
        try:
            parts.append(Part(stack, module, name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return parts


def stack_problem() -> str:
    """What is wrong with what is installed, and how to mend it, in one line; '' if nothing is."""
    parts = installed()
    (module, count), *_ = Counter(part.module for part in parts).most_common(1) or [('', 0)]
    if count > 1:
        names = ' and '.join(f'{p.name} {p.version}' for p in parts if p.module == module)
        what = f'{names} are both installed, and have written over each other'
    elif len({part.stack for part in parts}) > 1:
        what = f'parts of two stacks are mixed: {", ".join(part.name for part in parts)}'
    else:
        return ''
    names = ' '.join(part.name for part in parts)
    return (
        f"{what}: pip uninstall -y {names}, then pip install 'mmsnn[onedl]' (or 'mmsnn[openmmlab]')"
    )
