"""CIFAR-10 and CIFAR-100 from the official Python batches.

Get them from https://www.cs.toronto.edu/~kriz/cifar.html and unpack the archive; nothing here
downloads. The batches are pickle files, and a pickle file can run any code when it is opened:
they are read by an unpickler that knows dicts, lists, numbers, text, bytes and plain arrays and
refuses everything else.
"""

import hashlib
import io
import logging
import os
import os.path as osp
import pickle
import pickletools
from typing import Any, Literal, NamedTuple, Optional, cast

import numpy as np
from mmdet.registry import DATASETS
from mmengine.dataset import force_full_init
from mmengine.logging import print_log

from .base import ClsDataset
from .errors import DatasetError, MissingDataError
from .files import open_file

SOURCE = 'https://www.cs.toronto.edu/~kriz/cifar.html'
SIDE = 32
PIXELS = 3 * SIDE * SIDE


class OfficialFile(NamedTuple):
    """Size in bytes and MD5 of a file as its authors published it."""

    size: int
    md5: str


# --- reading pickle files without running them -------------------------------------------------


class _UnsafePickleError(pickle.UnpicklingError):
    """The file asks for something that no batch of images needs."""


class _DType:
    """Stands for ``numpy.dtype`` in a file."""

    def __init__(self, name: Any, *_: Any) -> None:
        name = name.decode('ascii') if isinstance(name, bytes) else name
        if name not in ('u1', '|u1', 'uint8'):
            raise _UnsafePickleError(f'it holds an array of {name!r}, not of uint8')

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like, which one byte does not have."""


class _Array:
    """Stands for ``numpy.ndarray`` in a file, so that no state in it reaches NumPy unchecked."""

    value: Optional[np.ndarray] = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, _, is_fortran, content = state
        self.value = _from_buffer(content, None, shape, 'F' if is_fortran else 'C').value


def _reconstruct(*_: Any) -> _Array:
    """Stands for NumPy's function of that name: an array whose content follows."""
    return _Array()


def _from_buffer(content: Any, _: Any, shape: tuple, order: Literal['C', 'F'] = 'C') -> _Array:
    """Stands for NumPy's function of that name: an array by its bytes."""
    array = _Array()
    if isinstance(content, str):  # bytes, as protocol 2 spells them
        content = content.encode('latin1')
    if not isinstance(content, (bytes, bytearray)):  # bytes() of a number allocates as many
        raise pickle.UnpicklingError(f'an array has {type(content).__name__} for its content')
    array.value = np.frombuffer(bytes(content), np.uint8).reshape(shape, order=order)
    return array


def _encode(text: str, _: str = 'latin1') -> bytes:
    """Stands for ``_codecs.encode``, by which protocol 2 of Python 3 spells bytes."""
    return text.encode('latin1')


class _BatchUnpickler(pickle.Unpickler):
    KNOWN = {
        ('numpy', 'dtype'): _DType,
        ('numpy', 'ndarray'): _Array,
        ('numpy.core.multiarray', '_reconstruct'): _reconstruct,
        ('numpy._core.multiarray', '_reconstruct'): _reconstruct,
        ('numpy.core.numeric', '_frombuffer'): _from_buffer,
        ('numpy._core.numeric', '_frombuffer'): _from_buffer,
        ('_codecs', 'encode'): _encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the file stands for."""
        try:
            return self.KNOWN[module, name]
        except KeyError:
            raise _UnsafePickleError(
                f'it asks for {module}.{name}, which no CIFAR batch needs and which could run code'
            ) from None


def _check_memo(raw: bytes) -> None:
    """Refuse places in the memo far behind those in use: Python fills the memory up to them."""
    try:
        places = _memo_places(raw)
    except UnicodeDecodeError:
        # Python 2 spells bytes by \x in its text protocol, which pickletools takes for ASCII.
        places = _memo_places(raw.replace(b'\\x', b'__'))
    for operation, place in places:
        if place > operation:
            raise pickle.UnpicklingError(f'operation {operation} has place {place} in the memo')


def _memo_places(raw: bytes) -> list[tuple[int, int]]:
    return [
        (number, cast(int, argument))
        for number, (opcode, argument, _) in enumerate(pickletools.genops(raw))
        if opcode.name in ('PUT', 'BINPUT', 'LONG_BINPUT')
    ]


class Batch(NamedTuple):
    """What a batch file holds.

    - ``content``: text as keys, arrays as :class:`numpy.ndarray`.
    - ``is_official``: whether the file is the published one, by its MD5.
    """

    content: dict[str, Any]
    is_official: bool


def load_batch(path: str, official: Optional[OfficialFile] = None) -> Batch:
    """Read a batch file safely.

    Args:
        path: The file.
        official: The published file of this name. A file of its size must have its MD5; a file
            of another size is taken for a subset.

    Returns:
        What the file holds.

    Raises:
        MissingDataError: There is no such file.
        DatasetError: It is corrupt, is not a batch file, or asks for something unsafe.
    """
    advice = f'Fetch it again from {SOURCE}'
    try:
        with open_file(path) as file:
            raw = file.read()
    except FileNotFoundError as error:
        raise MissingDataError(f'{path} does not exist.') from error
    except OSError as error:
        raise DatasetError(
            f'{path} cannot be read: {error.strerror}. Correct the permissions or the disk'
        ) from error
    md5 = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    if official and len(raw) == official.size and md5 != official.md5:
        raise DatasetError(
            f'{path} is corrupt: it has the size of the official file, but its MD5 is {md5}, not '
            f'{official.md5}. {advice}'
        )
    is_official = official is not None and md5 == official.md5
    try:
        if not is_official:
            _check_memo(raw)
        content = _BatchUnpickler(io.BytesIO(raw), encoding='bytes').load()
    except _UnsafePickleError as error:
        raise DatasetError(f'{path} is not opened: {error}. {advice}') from error
    except Exception as error:  # unpickling garbage can end in nearly any of them
        expected = f'; the official file has {official.size}' if official else ''
        raise DatasetError(
            f'{path} is truncated or not a batch file ({len(raw)} bytes{expected}): '
            f'{type(error).__name__}: {error}. {advice}'
        ) from error
    if not isinstance(content, dict):
        raise DatasetError(
            f'{path} is not a batch file: it holds a {type(content).__name__}, not a dict. {advice}'
        )
    return Batch(
        {
            key.decode('latin1') if isinstance(key, bytes) else str(key): (
                value.value if isinstance(value, _Array) else value
            )
            for key, value in content.items()
        },
        is_official=is_official,
    )


# --- the data sets -----------------------------------------------------------------------------


class _CIFAR(ClsDataset):
    """What CIFAR-10 and CIFAR-100 share."""

    FOLDER: str
    FILES: dict[str, dict[str, OfficialFile]]
    META: tuple[str, OfficialFile]
    LABELS: str
    NAMES: str

    def __init__(self, data_root: str = '', split: str = 'train', **kwargs: Any) -> None:
        if split not in self.FILES:
            raise ValueError(f'split must be one of {", ".join(self.FILES)}: got {split!r}')
        self.split = split
        # One array that forked workers share; mmengine would pickle it image by image.
        super().__init__(
            **{'data_prefix': {}, 'serialize_data': False, **kwargs, 'data_root': data_root}
        )

    def find_folder(self) -> str:
        """The folder that holds the batches: ``data_root`` or the official folder in it.

        Returns:
            Its path.

        Raises:
            MissingDataError: Neither has them.
        """
        root = os.fspath(self.data_root)
        if not osp.isdir(root):
            raise MissingDataError(f'the data root {root} does not exist.')
        for folder in (root, osp.join(root, self.FOLDER)):
            if any(osp.isfile(osp.join(folder, name)) for name in self.FILES[self.split]):
                return folder
        names = list(self.FILES[self.split])
        more = f' to {names[-1]}' if len(names) > 1 else ''
        raise MissingDataError(
            f'{root} holds no {names[0]}{more}, and no folder {self.FOLDER} with them. Get the '
            f'python version of {type(self).__name__} from {SOURCE} and unpack it.'
        )

    def load_data_list(self) -> list[int]:
        """Read the batches into :attr:`images` and :attr:`labels`.

        Returns:
            The index of each image.

        Raises:
            DatasetError: A batch is missing, corrupt or of another form.
        """
        folder = self.find_folder()
        self._check_meta(folder)
        names = list(self.FILES[self.split])
        batches = [self._load_checked(osp.join(folder, name)) for name in names]
        self._ends = np.cumsum([len(labels) for _, labels, _ in batches])
        self._paths = [osp.join(folder, name) for name in names]
        self.labels = np.concatenate([labels for _, labels, _ in batches])
        self.images = np.empty((len(self.labels), SIDE, SIDE, 3), np.uint8)
        for end, (data, _, _) in zip(self._ends, batches):
            # Stored as planes of red, green and blue.
            planes = data.reshape(-1, 3, SIDE, SIDE)
            self.images[end - len(data) : end] = planes.transpose(0, 2, 3, 1)[..., ::-1]
        if not all(is_official for _, _, is_official in batches):
            print_log(
                f'{folder}: not the official files of {type(self).__name__}, taken as a subset of '
                f'{len(self.labels)} {self.split} images',
                logger='current',
                level=logging.INFO,
            )
        return list(range(len(self.labels)))

    def _load_checked(self, path: str) -> tuple[np.ndarray, np.ndarray, bool]:
        """The pixels (N, 3072) and labels (N,) of a batch, and whether its file is official."""
        batch, is_official = load_batch(path, self.FILES[self.split][osp.basename(path)])
        for key in ('data', self.LABELS):
            if key not in batch:
                raise DatasetError(
                    f'{path} is not a batch of {type(self).__name__}: it has no {key!r} (it has '
                    f'{", ".join(map(repr, batch))}). Fetch it again from {SOURCE}'
                )
        data, labels = batch['data'], batch[self.LABELS]
        if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != PIXELS:
            form = getattr(data, 'shape', type(data).__name__)
            raise DatasetError(
                f'{path}: data must be an array of uint8 of the shape (images, {PIXELS}), '
                f'got {form}. Fetch it again from {SOURCE}'
            )
        labels = labels.tolist() if isinstance(labels, np.ndarray) else labels
        if not isinstance(labels, list) or len(labels) != len(data) or not labels:
            count = len(labels) if isinstance(labels, list) else type(labels).__name__
            raise DatasetError(
                f'{path}: {self.LABELS} must be a list with one label for each of the {len(data)} '
                f'images, at least one, got {count}. Fetch it again from {SOURCE}'
            )
        classes = len(self.METAINFO['classes'])
        for position, label in enumerate(labels):
            if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < classes:
                raise DatasetError(
                    f'{path}: image {position} has the label {label!r}, but the labels of '
                    f'{type(self).__name__} are whole numbers from 0 to {classes - 1}. Correct '
                    f'it, or fetch the file again from {SOURCE}'
                )
        return data, np.array(labels, np.int64), is_official

    def _check_meta(self, folder: str) -> None:
        """Find out data of other classes in the same form; the file may be left out."""
        name, official = self.META
        path = osp.join(folder, name)
        if not osp.isfile(path):
            return
        names = load_batch(path, official).content.get(self.NAMES)
        if isinstance(names, list):
            names = tuple(n.decode('latin1') if isinstance(n, bytes) else n for n in names)
        if not isinstance(names, tuple) or names != self.METAINFO['classes']:
            raise DatasetError(
                f'{path}: {self.NAMES} are not the classes of {type(self).__name__}. Give a folder '
                f'of {type(self).__name__}, or fetch the file again from {SOURCE}'
            )

    @force_full_init
    def get_data_info(self, idx: int) -> dict[str, Any]:
        """One image with its label.

        Args:
            idx: Its position in the data set.

        Returns:
            ``img`` (32, 32, 3), uint8, in BGR as mmcv's loaders give it, a copy that transforms
            may write into; ``gt_label``; ``img_path``, the batch file and the position in it, for
            messages; ``sample_idx``; ``height``, ``width``, ``ori_shape`` and ``img_shape``.
        """
        index = self.data_list[idx]
        batch = int(np.searchsorted(self._ends, index, side='right'))
        start = self._ends[batch - 1] if batch else 0
        return {
            'img': self.images[index].copy(),
            'gt_label': int(self.labels[index]),
            'img_path': f'{self._paths[batch]}:{index - start}',
            'sample_idx': idx % len(self),
            'height': SIDE,
            'width': SIDE,
            'ori_shape': (SIDE, SIDE),
            'img_shape': (SIDE, SIDE),
        }

    @force_full_init
    def get_gt_labels(self) -> np.ndarray:
        """The class of every image.

        Returns:
            (N,), int64.
        """
        return self.labels[self.data_list]

    def _copy_without_annotation(self, memo: Optional[dict] = None) -> 'ClsDataset':
        # Subsets share the images.
        memo = {} if memo is None else memo
        for name in ('images', 'labels'):
            if hasattr(self, name):
                memo[id(getattr(self, name))] = getattr(self, name)
        return super()._copy_without_annotation(memo)


@DATASETS.register_module()
class CIFAR10(_CIFAR):
    """CIFAR-10: 50,000 training and 10,000 test images of 32x32 pixels in 10 classes.

    Reads the official Python batches, see :mod:`mmsnn.datasets.cifar`. Items carry the image
    itself, so pipelines start without a transform that loads; it is in BGR, as from mmcv's
    loaders, and the data preprocessor's ``bgr_to_rgb`` turns it.

    Args:
        data_root (str): The folder ``cifar-10-batches-py``, or the folder that holds it.
        split (str): ``'train'`` or ``'test'``.
        **kwargs: Arguments of :class:`mmengine.dataset.BaseDataset`: ``pipeline``,
            ``test_mode``, ``indices``, ``metainfo``, ``lazy_init``.

    Raises:
        DatasetError: A batch is missing, corrupt, or of another form.
        ValueError: There is no such split.

    Example:
        >>> from mmsnn.datasets import CIFAR10
        >>> dataset = CIFAR10('data/cifar-10-batches-py', split='test', lazy_init=True)
        >>> dataset.metainfo['classes'][3]
        'cat'
    """

    FOLDER = 'cifar-10-batches-py'
    FILES = {
        'train': {
            'data_batch_1': OfficialFile(31035704, 'c99cafc152244af753f735de768cd75f'),
            'data_batch_2': OfficialFile(31035320, 'd4bba439e000b95fd0a9bffe97cbabec'),
            'data_batch_3': OfficialFile(31035999, '54ebc095f3ab1f0389bbae665268c751'),
            'data_batch_4': OfficialFile(31035696, '634d18415352ddfa80567beed471001a'),
            'data_batch_5': OfficialFile(31035623, '482c414d41f54cd18b22e5b47cb7c3cb'),
        },
        'test': {'test_batch': OfficialFile(31035526, '40351d587109b95175f43aff81a1287e')},
    }
    META = ('batches.meta', OfficialFile(158, '5ff9c542aee3614f3951f8cda6e48888'))
    LABELS = 'labels'
    NAMES = 'label_names'
    METAINFO = {
        'classes': (
            'airplane',
            'automobile',
            'bird',
            'cat',
            'deer',
            'dog',
            'frog',
            'horse',
            'ship',
            'truck',
        )
    }


@DATASETS.register_module()
class CIFAR100(_CIFAR):
    """CIFAR-100: 50,000 training and 10,000 test images of 32x32 pixels in 100 classes.

    The labels are the 100 fine ones. Everything else is as in :class:`CIFAR10`, with the folder
    ``cifar-100-python``.

    Args:
        data_root (str): The folder ``cifar-100-python``, or the folder that holds it.
        split (str): ``'train'`` or ``'test'``.
        **kwargs: Arguments of :class:`mmengine.dataset.BaseDataset`.

    Raises:
        DatasetError: A batch is missing, corrupt, or of another form.
        ValueError: There is no such split.
    """

    FOLDER = 'cifar-100-python'
    FILES = {
        'train': {'train': OfficialFile(155249918, '16019d7e3df5f24257cddd939b257f8d')},
        'test': {'test': OfficialFile(31049696, 'f0ef6b0ae62326f3e7ffdfab6717acfc')},
    }
    META = ('meta', OfficialFile(1473, '7973b15100ade9c7d40fb424638fde48'))
    LABELS = 'fine_labels'
    NAMES = 'fine_label_names'
    # fmt: off
    METAINFO = {
        'classes': (
            'apple', 'aquarium_fish', 'baby', 'bear', 'beaver', 'bed', 'bee', 'beetle', 'bicycle',
            'bottle', 'bowl', 'boy', 'bridge', 'bus', 'butterfly', 'camel', 'can', 'castle',
            'caterpillar', 'cattle', 'chair', 'chimpanzee', 'clock', 'cloud', 'cockroach', 'couch',
            'crab', 'crocodile', 'cup', 'dinosaur', 'dolphin', 'elephant', 'flatfish', 'forest',
            'fox', 'girl', 'hamster', 'house', 'kangaroo', 'keyboard', 'lamp', 'lawn_mower',
            'leopard', 'lion', 'lizard', 'lobster', 'man', 'maple_tree', 'motorcycle', 'mountain',
            'mouse', 'mushroom', 'oak_tree', 'orange', 'orchid', 'otter', 'palm_tree', 'pear',
            'pickup_truck', 'pine_tree', 'plain', 'plate', 'poppy', 'porcupine', 'possum',
            'rabbit', 'raccoon', 'ray', 'road', 'rocket', 'rose', 'sea', 'seal', 'shark', 'shrew',
            'skunk', 'skyscraper', 'snail', 'snake', 'spider', 'squirrel', 'streetcar',
            'sunflower', 'sweet_pepper', 'table', 'tank', 'telephone', 'television', 'tiger',
            'tractor', 'train', 'trout', 'tulip', 'turtle', 'wardrobe', 'whale', 'willow_tree',
            'wolf', 'woman', 'worm',
        )
    }
    # fmt: on
