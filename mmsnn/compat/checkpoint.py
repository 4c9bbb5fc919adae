"""Checkpoints that load on both stacks, without running code that they carry."""

import errno
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Callable, Union

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.runner import CheckpointLoader
from torch import nn

from .. import checkpoints

FORCE_SAFE = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
FORCE_UNSAFE = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used; the message names the file, the reason and the remedy."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint is empty, truncated or another kind of file: an older one may be whole."""


# Functions that MMEngine's state refers to. Pickle protocol 2, in which PyTorch writes, has no
# other way to name a function inside a class than a call of ``getattr``.
_CLASS_FUNCTIONS = {
    HistoryBuffer: ('min', 'max', 'current', 'mean'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}


def _restricted_getattr(owner: Any, name: str) -> Callable:
    """Stand in for ``getattr`` while a checkpoint is read.

    The real ``getattr`` must not be allowed. PyTorch calls only allowed functions itself, but
    one of those it always allows, ``torch._tensor._rebuild_from_type_v2``, calls whatever
    function the file hands to it. The protection is that a file can get hold of nothing but
    allowed objects, and ``getattr`` undoes it: from any method it leads to ``__globals__``, from
    there to ``__builtins__`` and to ``eval``, so that an allow-list with ``getattr`` in it is no
    safer than plain unpickling. Hence a function of the same name that answers for the handful
    of pairs that MMEngine really writes, and for nothing else.
    """
    if isinstance(owner, type) and name in _CLASS_FUNCTIONS.get(owner, ()):
        return getattr(owner, name)
    raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not allowed')


def _named(function: Callable, module: str, name: str) -> Callable:
    """Wrap a function so that PyTorch allows it under the given global name."""

    def wrapper(*args):
        return function(*args)

    wrapper.__module__, wrapper.__name__, wrapper.__qualname__ = module, name, name
    return wrapper


def _numpy_globals() -> list[Any]:
    """What arrays, scalars and their dtypes are rebuilt from."""
    # The function that arrays are rebuilt with, and the one for scalars. Both are pickled with
    # the module name of the NumPy that wrote them, which 2.0 changed: allow either.
    reconstruct: Any = np.empty(0).__reduce__()[0]
    scalar: Any = np.float64(0).__reduce__()[0]
    functions = [
        _named(function, f'numpy.{core}.multiarray', name)
        for core in ('core', '_core')
        for function, name in ((reconstruct, '_reconstruct'), (scalar, 'scalar'))
    ]
    # Numbers and booleans only: no object arrays.
    dtypes = {type(np.dtype(code)) for code in '?' + np.typecodes['AllInteger'] + 'efd'}
    return [*functions, np.ndarray, np.dtype, *dtypes]


_SAFE_GLOBALS = [
    *_CLASS_FUNCTIONS,
    _named(_restricted_getattr, 'builtins', 'getattr'),
    *_numpy_globals(),
]


def allow_mmengine_types() -> None:
    """Let ``torch.load(weights_only=True)`` read what MMEngine writes beside the weights.

    That is the log history in ``message_hub``, with its arrays and NumPy numbers, and the state
    of the parameter schedulers. Calling it again does nothing.
    """
    known = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals([item for item in _SAFE_GLOBALS if item not in known])
    # OneDL's MMEngine adds a list of its own around each load, with the real `getattr` in it
    # (see `_restricted_getattr`), and afterwards takes what is on it off the list for good.
    from mmengine.runner import checkpoint

    if hasattr(checkpoint, 'get_torch_safe_globals'):
        checkpoint.get_torch_safe_globals = list


def load_safely_by_default() -> None:
    """Let every ``torch.load`` of this process, MMEngine's included, take weights only.

    :func:`mmsnn.compat.setup` calls it. It closes the ways into a file that are not ours:
    ``mmengine.load_checkpoint``, ``mmdet.apis.init_detector`` and ``Pretrained`` on the stack of
    OneDL, which falls back to unrestricted unpickling, and ``weights_only=False`` in anyone's
    code. Who has set one of PyTorch's two variables, to whatever value, has decided already:
    nothing is changed then.
    """
    if FORCE_SAFE not in os.environ and FORCE_UNSAFE not in os.environ:
        os.environ[FORCE_SAFE] = '1'


def enforce_safe_loading(trust: bool = False) -> None:
    """Decide for the whole process, MMEngine's own loading included, what checkpoints may hold.

    To be called first thing by a program that loads checkpoints.

    Args:
        trust: Allow everything, which lets the file run any code. By default only weights and
            MMEngine's types load, and the fallback of OneDL's MMEngine to unrestricted loading
            is shut.
    """
    force, other = (FORCE_UNSAFE, FORCE_SAFE) if trust else (FORCE_SAFE, FORCE_UNSAFE)
    os.environ.pop(other, None)
    os.environ[force] = '1'


@contextmanager
def _loading(trust: bool) -> Iterator[None]:
    """Decide it for one file. PyTorch knows no other way to trust a file than these variables."""
    before = {name: os.environ.get(name) for name in (FORCE_SAFE, FORCE_UNSAFE)}
    enforce_safe_loading(trust)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def load_checkpoint_file(path: Union[str, os.PathLike], trust: bool = False) -> dict[str, Any]:
    """Load a checkpoint onto the CPU.

    Args:
        path: The file, ``mmsnn://NAME`` for one that comes with mmsnn, or an address that MMEngine
            knows, such as ``https://...``.
        trust: Allow more than weights, which lets the file run any code. It holds for this file,
            whatever PyTorch's variables say; while it is read, it holds for other threads, too.

    Returns:
        What the file holds.

    Raises:
        DamagedCheckpointError: The file is empty, truncated or no checkpoint.
        CheckpointError: The file is missing, or holds more than weights and is not trusted.
    """
    path = os.path.expanduser(os.fspath(path))
    try:
        path = checkpoints.resolve(path) or path
    except checkpoints.ShippedCheckpointError as error:
        raise CheckpointError(str(error)) from None
    is_address = re.match(r'[\w.+-]+://', path) is not None
    if not is_address:
        if not os.path.isfile(path):
            raise CheckpointError(f'{path}: no such checkpoint file. Check the path.')
        if os.path.getsize(path) == 0:
            raise DamagedCheckpointError(f'{path}: the file is empty. Copy or download it again.')
    allow_mmengine_types()
    try:
        with _loading(trust):
            if is_address:
                checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
            else:
                checkpoint = torch.load(path, map_location='cpu', weights_only=not trust)
    except Exception as error:
        # A damaged file can make the unpickler raise almost anything.
        raise _refusal(path, error) from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f'{path}: holds a {type(checkpoint).__name__}, not a dict with the weights. '
            'Is it a checkpoint of MMEngine?'
        )
    return checkpoint


def _refusal(path: str, error: Exception) -> CheckpointError:
    reason = str(error)
    unknown = re.search(r'GLOBAL (\S+)', reason)
    refused = re.search(r'(getattr\(.*\)) is not allowed', reason)
    # Also what PyTorch calls an unpickling error in a file that is whole: it met something that
    # only unrestricted unpickling could build.
    if unknown or (isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(path)):
        name = unknown.group(1) if unknown else (refused.group(1) if refused else 'code')
        return CheckpointError(
            f'{path}: holds {name}, which is not a plain weight, and loading it could run code '
            'of whoever wrote the file. Pass --trust-checkpoint only if you trust its source.'
        )
    # In a truncated file zip's directory can point before its start: an invalid seek.
    if isinstance(error, OSError) and error.errno != errno.EINVAL:
        return CheckpointError(f'{path}: cannot be read: {reason}')
    # PyTorch wraps the unpickler's own words in a page of advice.
    reason = reason.rpartition('WeightsUnpickler error: ')[2].strip()
    first_line = reason.splitlines()[0] if reason else type(error).__name__
    if isinstance(error, (ImportError, AttributeError)):
        return CheckpointError(
            f'{path}: refers to something that is not installed here: {first_line}. Install '
            'what it was written with.'
        )
    return DamagedCheckpointError(
        f'{path}: not a readable checkpoint; it is truncated, damaged or another kind of file '
        f'({first_line}). Copy or download it again.'
    )


def check_state_dict(
    model: Union[nn.Module, Mapping[str, Any]],
    checkpoint: Mapping[str, Any],
    path: Union[str, os.PathLike],
) -> None:
    """Check that a checkpoint is of the architecture of a model.

    Args:
        model: The model or its state dict.
        checkpoint: What :func:`load_checkpoint_file` returned, or a bare state dict. A prefix
            ``module.`` of all keys, left by a parallel wrapper, is ignored.
        path: The file, for the message.

    Raises:
        CheckpointError: It holds no weights, or keys are missing, unexpected or of another
            shape.
    """
    own = _strip(model.state_dict() if isinstance(model, nn.Module) else model)
    state = checkpoint.get('state_dict', checkpoint)
    if not isinstance(state, Mapping) or not state or not all(map(torch.is_tensor, state.values())):
        raise CheckpointError(
            f"{path}: holds no weights: neither a 'state_dict' nor a bare state dict. "
            'Is it a checkpoint of a model?'
        )
    state = _strip(state)
    # As in MMEngine: a model that has never counted its batches works all the same.
    missing = [key for key in own if key not in state and not key.endswith('num_batches_tracked')]
    unexpected = [key for key in state if key not in own]
    wrong = [key for key in own if key in state and own[key].shape != state[key].shape]
    if not (missing or unexpected or wrong):
        return
    lines = [
        f'{path}: is of another architecture than the model: {len(missing)} missing, '
        f'{len(unexpected)} unexpected and {len(wrong)} wrong-shape keys.'
    ]
    for title, keys, show in (
        ('missing', missing, lambda key: f'{key} {tuple(own[key].shape)}'),
        ('unexpected', unexpected, lambda key: f'{key} {tuple(state[key].shape)}'),
        (
            'wrong shape',
            wrong,
            lambda key: f'{key} {tuple(state[key].shape)}, model {tuple(own[key].shape)}',
        ),
    ):
        if keys:
            more = f'; and {len(keys) - 3} more' if len(keys) > 3 else ''
            lines.append(f'  {title}: ' + '; '.join(map(show, keys[:3])) + more)
    if any('head' in key and 'cls' in key for key in wrong):
        lines.append(
            '  The classification head differs in shape: the checkpoint was probably trained '
            'with another num_classes.'
        )
    lines.append(
        'Use the config the checkpoint was trained with; it is dumped beside it in the work '
        'directory.'
    )
    raise CheckpointError('\n'.join(lines))


def load_weights(
    model: nn.Module, path: Union[str, os.PathLike], trust: bool = False
) -> dict[str, Any]:
    """Load a checkpoint into a model: all its weights, or an error.

    Args:
        model: The model.
        path: The file.
        trust: Allow more than weights in it, which lets the file run any code.

    Returns:
        What the file holds.

    Raises:
        CheckpointError: As of :func:`load_checkpoint_file` and :func:`check_state_dict`.
    """
    checkpoint = load_checkpoint_file(path, trust)
    check_state_dict(model, checkpoint, path)
    # Not strict: num_batches_tracked may be missing.
    model.load_state_dict(_strip(checkpoint.get('state_dict', checkpoint)), strict=False)
    return checkpoint


def _strip(state: Mapping[str, Any]) -> dict[str, Any]:
    """Without the prefix of a parallel wrapper; with the versions of modules, if there are."""
    prefix = 'module.' if all(key.startswith('module.') for key in state) else ''
    stripped: Any = OrderedDict((key.removeprefix(prefix), v) for key, v in state.items())
    versions = getattr(state, '_metadata', None)
    if isinstance(versions, Mapping):
        stripped._metadata = {key.removeprefix(prefix): v for key, v in versions.items()}
    return stripped
