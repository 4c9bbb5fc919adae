"""The name ``mmsnn`` in MMEngine: configs by ``_base_ = 'mmsnn::...'``, and a scope of registries.

What a config inherits by ``mmsnn::`` MMEngine marks with ``_scope_='mmsnn'``, and builds from the
registries of that scope. They are empty: everything of mmsnn is registered in MMDetection's own,
which stand above them and are looked through next.
"""

import mmdet.registry
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import Registry

# MMEngine knows packages by their distributions. This names a module instead, so that the package
# is found where it is imported from: as a wheel, an editable install or a folder in PYTHONPATH.
MODULE2PACKAGE['mmsnn'] = 'mmsnn.version'

REGISTRIES = [
    Registry(above.name, scope='mmsnn', parent=above, locations=['mmsnn'])
    for above in vars(mmdet.registry).values()
    if isinstance(above, Registry) and above.scope == 'mmdet'
]
