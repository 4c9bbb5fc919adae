"""Parts that a test registers, and that are gone behind it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mmdet.registry import MODELS

from mmsnn import ops
from mmsnn.datasets.events import io

STACK = ('mmcv', 'mmdet', 'mmengine', 'mmsnn', 'torch')


@contextmanager
def forgotten(package: str = '') -> Iterator[None]:
    """Take back what is registered inside the ``with`` block; what the stack registers late stays.

    Args:
        package: Package to unload too.
    """
    models = dict(MODELS.module_dict)
    tables = [(table, set(table)) for table in (io.FORMATS, ops.SURROGATES, ops.BACKENDS)]
    try:
        yield
    finally:
        for name in set(MODELS.module_dict) - set(models):
            if MODELS.module_dict[name].__module__.partition('.')[0] not in STACK:
                del MODELS.module_dict[name]
        for table, known in tables:
            for name in set(table) - known:
                del table[name]
        for name in [name for name in sys.modules if package and name.split('.')[0] == package]:
            del sys.modules[name]
