"""Predictions that ``tools/test.py --out`` saved, read without running code that a file carries."""

import collections
import io
import os
import pickle
from typing import Any, Union

import numpy as np
import torch
from mmengine.fileio import register_handler
from mmengine.fileio.handlers import PickleHandler

from .cli import ToolError

_REMEDY = 'Make it again with tools/test.py --out'


class _UnknownTypeError(pickle.UnpicklingError):
    """The file asks for something that no prediction holds."""


def _load_from_bytes(content: bytes) -> Any:
    """Stand in for PyTorch's function of that name, which unpickles a storage freely."""
    return torch.load(io.BytesIO(content), map_location='cpu', weights_only=True)


def _dtype(code: Any, *args: Any) -> np.dtype:
    """Stand in for ``numpy.dtype``: numbers and booleans only, no objects."""
    dtype = np.dtype(code, *args)
    if dtype.kind not in 'biufc':
        raise _UnknownTypeError(f'an array of {dtype}')
    return dtype


_KNOWN = {
    ('collections', 'OrderedDict'): collections.OrderedDict,
    ('_codecs', 'encode'): lambda text, encoding: text.encode(encoding),
    ('torch', 'Size'): torch.Size,
    ('torch._utils', '_rebuild_tensor_v2'): torch._utils._rebuild_tensor_v2,
    ('torch.storage', '_load_from_bytes'): _load_from_bytes,
    ('numpy', 'dtype'): _dtype,
    ('numpy', 'ndarray'): np.ndarray,
    # NumPy 2.0 renamed the modules that these are pickled with.
    **{
        (f'numpy.{core}.{module}', name): function
        for core in ('core', '_core')
        for module, name, function in (
            ('multiarray', '_reconstruct', np.empty(0).__reduce__()[0]),
            ('multiarray', 'scalar', np.float64(0).__reduce__()[0]),
            ('numeric', '_frombuffer', np.empty(0).__reduce_ex__(5)[0]),
        )
    },
}


class _PredictionUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """What a name in the file stands for."""
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise _UnknownTypeError(f'{module}.{name}') from None


def _unpickle(file: io.BufferedIOBase, what: str) -> Any:
    try:
        return _PredictionUnpickler(file).load()
    except _UnknownTypeError as error:
        raise ToolError(
            f'{what} holds {error}, which predictions do not, and loading it could run code of '
            f'whoever wrote the file. {_REMEDY}'
        ) from error
    except Exception as error:  # unpickling garbage can end in nearly any of them
        reason = str(error).partition('\n')[0] or type(error).__name__
        raise ToolError(
            f'{what} is truncated, damaged or no file of predictions ({reason}). {_REMEDY}'
        ) from error


def load_predictions(path: Union[str, os.PathLike]) -> list[dict[str, Any]]:
    """Read what ``tools/test.py --out`` saved.

    A pickle file can run any code when it is opened. This reader knows what MMDetection writes:
    dicts, lists, numbers, text, tensors, and arrays of numbers.

    Args:
        path: The file.

    Returns:
        A dict for each image.

    Raises:
        ToolError: The file can't be read, or holds anything else.
    """
    try:
        with open(path, 'rb') as file:
            found = _unpickle(file, str(path))
    except OSError as error:
        raise ToolError(f'{path} cannot be read: {error.strerror}') from error
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ToolError(f'{path} holds no list of predictions, one dict an image. {_REMEDY}')
    return found


class PredictionHandler(PickleHandler):
    """MMEngine's handler of pickle files, with the reader of :func:`load_predictions`."""

    def load_from_fileobj(self, file: io.BufferedIOBase, **kwargs: Any) -> Any:
        """Read a file that is open."""
        return _unpickle(file, 'the .pkl file')


def read_pickles_safely() -> None:
    """Let ``mmengine.load`` read no pickle file but as :func:`load_predictions` does.

    For the process of a tool of MMDetection that reads predictions by itself.
    """
    register_handler(['pkl', 'pickle'])(PredictionHandler)
