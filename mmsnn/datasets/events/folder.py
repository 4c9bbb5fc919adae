"""Data sets of event recordings: any folder of classes, and DVS-CIFAR10."""

import os
import os.path as osp
import re
from collections.abc import Sequence
from typing import Any, Optional

from mmdet.registry import DATASETS

from ..base import ClsDataset
from ..cifar import CIFAR10
from ..errors import DatasetError, MissingDataError
from ..files import MAX_DIGITS, is_by_product, open_file
from .io import check_event_header, event_suffixes
from .problems import check_all

__all__ = ['DVSCIFAR10', 'EventFolder', 'check_event_folder']


def check_event_folder(
    root: str,
    classes: Optional[Sequence[str]] = None,
    suffixes: Optional[Sequence[str]] = None,
) -> dict[str, list[str]]:
    """Check a folder of the form ``root/class/recording.suffix``; it lists, and opens no file.

    Args:
        root: The folder.
        classes: Names of the folders of classes. None takes all, sorted.
        suffixes: Suffixes of the recordings. None takes all that can be read.

    Returns:
        For each class, the sorted names of its files.

    Raises:
        DatasetError: If the root or a class is missing, a class has no files, or two files of a
            class differ in nothing but the suffix.
    """
    suffixes = _suffixes(suffixes)
    if not osp.isdir(root):
        raise MissingDataError(f'the data root {root or repr(root)} does not exist.')
    found = _classes(root)
    classes = found if classes is None else list(classes)
    if not classes:
        raise MissingDataError(
            f'{root} has no folders of classes. Expected: {root}/CLASS/RECORDING with one of the '
            f'suffixes {", ".join(suffixes)}.'
        )
    missing = [name for name in classes if name not in found]
    if missing:
        raise DatasetError(
            f'{root} has no folder for the class {", ".join(missing[:3])}. It has: '
            f'{", ".join(found[:20]) or "none"}. Expected one folder a class: '
            f'{", ".join(classes[:20])}'
        )
    return {name: _list_class(osp.join(root, name), suffixes) for name in classes}


@DATASETS.register_module()
class EventFolder(ClsDataset):
    """Recordings in one folder for each class: ``data_root/class/recording.suffix``.

    Or recordings that a list names: each line of ``ann_file`` is a path, relative to
    ``data_root``, a space and the label, which is the index or the name of a class.

    It gives ``img_path`` (the recording), ``gt_label`` and ``sample_idx``; the events are read by
    the transform :class:`~mmsnn.datasets.transforms.LoadEventFrames`.

    Args:
        data_root: The folder.
        ann_file: The list, relative to ``data_root``. Empty lists the folders.
        suffixes: Suffixes of the recordings. None takes all that can be read.
        metainfo: ``classes`` names the classes, in the order of their labels. Without it, they are
            the sorted names of the folders.
        **kwargs: As in ``mmengine.dataset.BaseDataset``: pipeline, indices, lazy_init, ...

    Raises:
        DatasetError: If files, folders or labels are missing or wrong.

    Example:
        >>> import os, tempfile
        >>> from mmsnn.datasets import EventFolder
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for name in ('left', 'right'):
        ...         os.mkdir(f'{root}/{name}')
        ...         open(f'{root}/{name}/1.aedat', 'w').close()
        ...     dataset = EventFolder(root)
        >>> dataset.metainfo['classes'], dataset.get_data_info(1)['gt_label']
        (('left', 'right'), 1)
    """

    def __init__(
        self,
        data_root: str,
        ann_file: str = '',
        suffixes: Optional[Sequence[str]] = None,
        **kwargs: Any,
    ):
        self.suffixes = suffixes
        super().__init__(ann_file=ann_file, data_root=os.fspath(data_root), **kwargs)

    def load_data_list(self) -> list[dict]:
        """List the recordings.

        Returns:
            ``dict(img_path=..., gt_label=...)`` of each, sorted by class and name.
        """
        if self.ann_file:
            return self._load_ann_file()
        files = check_event_folder(
            self.data_root, self._metainfo.get('classes'), suffixes=self.suffixes
        )
        self._metainfo['classes'] = tuple(files)
        return [
            dict(img_path=osp.join(self.data_root, name, file), gt_label=label)
            for label, name in enumerate(files)
            for file in self.select(files[name])
        ]

    def select(self, files: list[str]) -> list[str]:
        """Choose the recordings of one class that belong to the data set.

        Args:
            files: The sorted file names of the class.

        Returns:
            All of them. Data sets with splits override this.
        """
        return files

    def check_files(self) -> None:
        """Look at the head of each recording; of very many, an even sample.

        The events themselves are checked as they are loaded.

        Raises:
            DatasetError: One is empty, cut or of another format, or needs the package ``aedat``,
                which is missing.
        """
        check_all([self.get_data_info(i)['img_path'] for i in range(len(self))], check_event_header)

    def _load_ann_file(self):
        if not osp.isdir(self.data_root):
            raise MissingDataError(f'the data root {self.data_root} does not exist.')
        if not osp.isfile(self.ann_file):
            raise DatasetError(f'the list {self.ann_file} does not exist. Set ann_file')
        classes = self._metainfo.setdefault('classes', tuple(_classes(self.data_root)))
        known, suffixes = {name: i for i, name in enumerate(classes)}, _suffixes(self.suffixes)
        items = []
        try:
            with open_file(self.ann_file) as file:
                lines = file.read().decode('utf-8').splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(
                f'the list {self.ann_file} cannot be read as text: {error}. Save it as UTF-8'
            ) from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            path, _, label = line.strip().rpartition(' ')
            is_index = label.isdecimal() and len(label) <= MAX_DIGITS
            index = int(label) if is_index else known.get(label, -1)
            where = f'{self.ann_file}, line {number}'
            if not path or not 0 <= index < len(classes):
                raise DatasetError(
                    f'{where} is {line.strip()!r}. Expected: a path, a space and a label, '
                    f'which is one of {", ".join(classes[:20])} or below {len(classes)}'
                )
            path = osp.join(self.data_root, path.strip())
            if osp.splitext(path)[1].lower() not in suffixes:
                raise DatasetError(
                    f'{where}: {path} has none of the suffixes {", ".join(suffixes)}'
                )
            if not osp.isfile(path):
                raise DatasetError(f'{where}: {path} does not exist')
            items.append(dict(img_path=path, gt_label=index))
        if not items:
            raise DatasetError(f'{self.ann_file} lists no recordings')
        return items


@DATASETS.register_module()
class DVSCIFAR10(EventFolder):
    """DVS-CIFAR10 (Li et al. 2017): 1000 recordings of 128x128 pixels for each of 10 classes.

    The layout is the official one, ``data_root/airplane/cifar10_airplane_0.aedat``; ``.aedat4``
    and ``.npz`` of the same names do as well. There is no official split. The usual one is 9:1:
    of each class, in the order of the numbers in the file names, the first 90 % (900) train and
    the others (100) test.

    Args:
        data_root: The folder of the ten class folders.
        split: 'train' or 'test'.
        **kwargs: As in :class:`EventFolder`.

    Raises:
        DatasetError: If a class folder is missing or empty.
        ValueError: If ``split`` is unknown.
    """

    METAINFO = CIFAR10.METAINFO  # the recordings are of its images

    def __init__(self, data_root: str, split: str = 'train', **kwargs: Any):
        if split not in ('train', 'test'):
            raise ValueError(f"split is {split!r}, expected 'train' or 'test'")
        self.split = split
        super().__init__(data_root, **kwargs)

    def select(self, files: list[str]) -> list[str]:
        """Choose the recordings of one class that belong to the split.

        Args:
            files: The file names of the class.

        Returns:
            The first 90 % in the order of their numbers for 'train', otherwise the others.
        """
        files = sorted(files, key=_number)
        end = len(files) * 9 // 10
        return files[:end] if self.split == 'train' else files[end:]


# --- listing -----------------------------------------------------------------------------------


def _suffixes(suffixes):
    known = event_suffixes()
    if suffixes is None:
        return known
    suffixes = (suffixes,) if isinstance(suffixes, str) else tuple(suffixes)
    unknown = [suffix for suffix in suffixes if suffix not in known]
    if unknown:
        raise DatasetError(
            f'the suffix {unknown[0]!r} is none of an event file. Known: {", ".join(known)}. '
            '`register_event_reader` takes formats of your own'
        )
    return suffixes


def _classes(root):
    with os.scandir(root) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not is_by_product(e.name))


def _list_class(folder, suffixes):
    files = sorted(
        name
        for name in os.listdir(folder)
        if name.lower().endswith(suffixes) and not is_by_product(name)
    )
    if not files:
        raise DatasetError(
            f'{folder} has no recordings. Known suffixes: {", ".join(suffixes)}. Unpack or fetch '
            'them into it'
        )
    stems = {}
    for name in files:
        # The same recording in two formats would be learnt and tested at once.
        other = stems.setdefault(osp.splitext(name)[0], name)
        if other != name:
            raise DatasetError(
                f'{folder} has the recording {other} also as {name}. Choose one format with '
                f"suffixes=('{osp.splitext(name)[1]}',)"
            )
    return files


def _number(name):
    numbers = re.findall(r'\d+', osp.splitext(name)[0])
    return (int(numbers[-1]) if numbers else -1, name)
