"""Spiking neural networks for MMDetection.

Importing this package registers everything it has in MMDetection's own registries, so a config
needs ``custom_imports=dict(imports=['mmsnn'])`` and ``default_scope='mmdet'`` and nothing else.
"""

from .version import __version__

try:
    import mmcv  # noqa: F401
    import mmdet  # noqa: F401
    import mmengine  # noqa: F401
except ModuleNotFoundError as error:
    if error.name not in ('mmcv', 'mmdet', 'mmengine'):
        raise
    raise ImportError(
        f'mmsnn needs the MMDetection stack and found no {error.name}; install it '
        "with: pip install 'mmsnn[onedl]' (or 'mmsnn[openmmlab]'); `mmsnn doctor` looks further"
    ) from None

from . import compat

compat.setup()

with compat.quiet_import():
    from . import (
        analysis,
        apis,
        conversion,
        datasets,
        deploy,
        engine,
        evaluation,
        models,
        ops,
        registry,
        structures,
        visualization,
    )

__all__ = [
    '__version__',
    'analysis',
    'apis',
    'compat',
    'conversion',
    'datasets',
    'deploy',
    'engine',
    'evaluation',
    'models',
    'ops',
    'registry',
    'structures',
    'visualization',
]
