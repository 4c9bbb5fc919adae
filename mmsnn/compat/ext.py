"""A stand-in for ``mmcv._ext``, the compiled half of MMCV.

The pure-Python wheels of MMCV, the only ones there are for current PyTorch, come without it, and
MMDetection's models cannot even be imported then: every file of ``mmcv.ops`` looks its operators
up at import. The stand-in answers these look-ups, runs the operators that mainstream detectors
call (:mod:`mmsnn.compat.ops`), and explains itself when any other is called.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import logging
import sys
from types import ModuleType
from typing import Callable, Optional

from mmengine.logging import print_log

from . import ops

EXT_NAME = 'mmcv._ext'

_OPERATORS = (
    'nms',
    'softnms',
    'sigmoid_focal_loss_forward',
    'sigmoid_focal_loss_backward',
    'roi_align_forward',
    'roi_align_backward',
)

# Which of the two is in use is said once per process, however often the set-up runs.
_reported = False


def build_command() -> str:
    """Command that brings MMCV's compiled operators into this environment."""
    package, version, prefix = 'onedl-mmcv', '2.3.6', ''
    for name in ('onedl-mmcv', 'mmcv', 'mmcv-lite'):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        package = name
        break
    if package == 'mmcv-lite':
        # Never compiled; its full counterpart has the same versions and the same files.
        package, prefix = 'mmcv', 'pip uninstall -y mmcv-lite && '
    return (
        f'{prefix}pip install --force-reinstall --no-deps --no-build-isolation '
        f'--no-binary {package} {package}=={version}'
    )


def _compiler_version() -> str:
    return 'n/a (MMCV without compiled operators)'


def _unsupported(name: str) -> Callable:
    def operator(*args, **kwargs):
        raise NotImplementedError(
            f"the operator '{name}' needs MMCV's compiled operators, which this environment "
            f'lacks. With torch, setuptools 80, wheel, ninja and a C++ compiler installed, '
            f'`{build_command()}` builds them in about 15 minutes (prefix FORCE_CUDA=1 to build '
            'CUDA operators on a machine that has no GPU).'
        )

    operator.__name__ = operator.__qualname__ = name
    return operator


class _StandInLoader(importlib.abc.Loader):
    """Loader of the stand-in, so that its ``__spec__`` is a complete one.

    ``importlib.util.find_spec`` refuses a loaded module without a spec, and MMCV takes one
    without a loader for a missing extension.
    """

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Optional[ModuleType]:
        """Return None: an ordinary module does."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module with the operators."""
        for name in _OPERATORS:
            setattr(module, name, getattr(ops, name))
        # Printed in the environment report at the start of a run.
        for name in ('get_compiler_version', 'get_compiling_cuda_version'):
            setattr(module, name, _compiler_version)

        def missing(name: str) -> Callable:
            # Underscored names are looked up by introspection, never as operators.
            if name.startswith('_'):
                raise AttributeError(f"module '{EXT_NAME}' has no attribute '{name}'")
            return _unsupported(name)

        module.__dict__['__getattr__'] = missing


def install_ext_standin() -> bool:
    """Put the stand-in in the place of ``mmcv._ext`` where that is missing or broken.

    To be called before ``mmcv.ops`` or MMDetection's models are imported. A compiled extension
    that imports always wins. Calling it again does nothing.

    Returns:
        Whether the stand-in is in use.

    Raises:
        ModuleNotFoundError: MMCV itself is not installed.
    """
    mmcv = importlib.import_module('mmcv')
    problem = None
    try:
        loaded = importlib.import_module(EXT_NAME)
    except Exception as error:
        loaded = None
        missing = isinstance(error, ModuleNotFoundError) and error.name == EXT_NAME
        problem = 'MMCV is installed without them' if missing else f'they do not load: {error}'
    if loaded is None:
        loader = _StandInLoader()
        loaded = importlib.util.module_from_spec(importlib.machinery.ModuleSpec(EXT_NAME, loader))
        loader.exec_module(loaded)
        sys.modules[EXT_NAME] = loaded
        vars(mmcv)['_ext'] = loaded
    in_use = isinstance(getattr(getattr(loaded, '__spec__', None), 'loader', None), _StandInLoader)
    _report(in_use, problem)
    return in_use


def _report(in_use: bool, problem: Optional[str]) -> None:
    global _reported
    if _reported:
        return
    _reported = True
    if in_use:
        message = (
            f'mmsnn: {", ".join(_OPERATORS[:2])}, sigmoid_focal_loss and roi_align run in '
            f"PyTorch instead of MMCV's compiled operators ({problem})"
        )
    else:
        message = "mmsnn: using MMCV's compiled operators"
    print_log(message, logger='current', level=logging.INFO)
