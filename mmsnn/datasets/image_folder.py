"""Images in one folder for each class, or listed with their labels; ImageNet."""

import os
import os.path as osp
from collections.abc import Sequence
from typing import Any, Optional

from mmdet.registry import DATASETS
from mmengine.dataset import force_full_init

from .base import ClsDataset
from .errors import DatasetError, MissingDataError
from .files import MAX_DIGITS, is_by_product, open_file
from .image_files import IMAGE_EXTENSIONS

# Opening this many files takes seconds on a local disk; of a larger set, as many are opened.
MAX_OPENED = 100_000


def _has_images(folder: str, extensions: Sequence[str]) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(tuple(extensions)) for entry in entries)


@DATASETS.register_module()
class ImageFolder(ClsDataset):
    """Images in one folder for each class, or listed in a file with their labels.

    Without ``ann_file``, the names of the folders are the classes, in alphabetical order, and
    all images below a folder belong to its class::

        data_root/cat/1.jpg
        data_root/cat/indoors/2.jpg
        data_root/dog/1.png

    ``metainfo=dict(classes=(...))`` fixes the classes and their order; folders of other names are
    left out then. With ``ann_file``, its lines are ``relative/path.jpg label``, the label a
    whole number from 0.

    Items give ``img_path`` and ``gt_label``; the pipeline starts with ``LoadImageFromFile``.

    Args:
        data_root (str): Folder that ``ann_file`` and ``data_prefix`` start from.
        ann_file (str): File that lists images and labels, or nothing.
        data_prefix (dict[str, str] | str): ``dict(img=FOLDER)`` or FOLDER: where the class
            folders, or the paths of the list, start.
        extensions (Sequence[str]): Endings of file names that are images, in small letters.
        **kwargs: Arguments of :class:`mmengine.dataset.BaseDataset`: ``pipeline``, ``metainfo``,
            ``test_mode``, ``indices``, ``lazy_init``.

    Raises:
        DatasetError: A folder or the list is missing, a class has no images, or a line cannot be
            read.

    Example:
        >>> import os, tempfile
        >>> from mmsnn.datasets import ImageFolder
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for name in ('cat', 'dog'):
        ...         os.makedirs(f'{root}/train/{name}')
        ...         open(f'{root}/train/{name}/1.jpg', 'w').close()
        ...     dataset = ImageFolder(data_root=root, data_prefix=dict(img='train'))
        >>> dataset.metainfo['classes'], dataset.get_data_info(1)['gt_label']
        (('cat', 'dog'), 1)
    """

    def __init__(
        self,
        data_root: str = '',
        ann_file: str = '',
        data_prefix: Any = '',
        extensions: Sequence[str] = IMAGE_EXTENSIONS,
        **kwargs: Any,
    ) -> None:
        self.extensions = tuple(extensions)
        prefix = {'img': data_prefix} if isinstance(data_prefix, str) else dict(data_prefix)
        super().__init__(data_root=data_root, ann_file=ann_file, data_prefix=prefix, **kwargs)

    @property
    def img_dir(self) -> str:
        """Folder that the paths start from."""
        return osp.normpath(self.data_prefix.get('img') or self.data_root or '.')

    def load_data_list(self) -> list[dict[str, Any]]:
        """List the images.

        Returns:
            ``img_path`` and ``gt_label`` of each.

        Raises:
            DatasetError: Something is missing or cannot be read.
        """
        if not osp.isdir(self.img_dir):
            # An absolute data_prefix needs no data root.
            lacking = self.data_root and not osp.isdir(self.data_root)
            below = lacking and self.img_dir.startswith(osp.normpath(self.data_root))
            kind, path = ('data root', self.data_root) if below else ('image folder', self.img_dir)
            raise MissingDataError(f'the {kind} {path} does not exist.')
        pairs = self._read_list() if self.ann_file else self._scan()
        return [
            {'img_path': osp.join(self.img_dir, name), 'gt_label': label} for name, label in pairs
        ]

    def _scan(self) -> list[tuple[str, int]]:
        """(path relative to the folder, label) of each image in a class folder."""
        with os.scandir(self.img_dir) as entries:
            found = sorted(e.name for e in entries if e.is_dir() and not is_by_product(e.name))
        if not found:
            flat = _has_images(self.img_dir, self.extensions)
            raise DatasetError(
                f'{self.img_dir} holds {"images but " if flat else ""}no class folders. Sort the '
                'images into one folder for each class, or set ann_file to a file with lines '
                '"relative/path.jpg label"'
            )
        classes = self._metainfo.setdefault('classes', tuple(found))
        missing = [name for name in classes if name not in found]
        if missing:
            raise DatasetError(
                f'{self.img_dir} has no folder {", ".join(map(str, missing[:5]))} of the '
                f'{len(classes)} classes in metainfo.classes. It has: {", ".join(found[:20])}. '
                'Correct the names, or give another folder'
            )
        pairs = []
        for label, name in enumerate(classes):
            images = self._images_below(name)
            if not images:
                raise DatasetError(
                    f'the class folder {osp.join(self.img_dir, name)} holds no images '
                    f'({", ".join(self.extensions)}). Add them, remove the folder, or leave its '
                    'class out with metainfo=dict(classes=(...))'
                )
            pairs += [(image, label) for image in images]
        return pairs

    def _images_below(self, name: str) -> list[str]:
        images = []
        for folder, folders, files in os.walk(osp.join(self.img_dir, name), followlinks=True):
            folders.sort()
            start = osp.relpath(folder, self.img_dir)
            images += [
                osp.join(start, file)
                for file in sorted(files)
                if file.lower().endswith(self.extensions) and not is_by_product(file)
            ]
        return images

    def _read_list(self) -> list[tuple[str, int]]:
        """(path relative to the folder, label) of each line of the list."""
        try:
            with open_file(self.ann_file) as file:
                lines = file.read().decode('utf-8').splitlines()
        except FileNotFoundError as error:
            raise MissingDataError(
                f'the annotation file {self.ann_file} does not exist.'
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(
                f'{self.ann_file} cannot be read as text: {error}. Give a file with lines '
                '"relative/path.jpg label"'
            ) from error
        classes = self._metainfo.get('classes')
        pairs = []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            # From the right: paths may have blanks in them.
            name, _, label = line.strip().rpartition(' ')
            if not name or not label.isdecimal() or len(label) > MAX_DIGITS:
                raise DatasetError(
                    f'{self.ann_file}, line {number}: {line!r} is not "relative/path.jpg label", '
                    'the label a whole number from 0. Correct or delete it'
                )
            if classes is not None and int(label) >= len(classes):
                raise DatasetError(
                    f'{self.ann_file}, line {number}: {name} has the label {label}, but '
                    f'metainfo.classes has {len(classes)} classes, so that labels go from 0 to '
                    f'{len(classes) - 1}. Correct the label or add the class'
                )
            pairs.append((name.strip(), int(label)))
        if not pairs:
            raise DatasetError(f'{self.ann_file} lists no images. Give a file that does')
        return pairs

    @force_full_init
    def image_files(self) -> tuple[str, list[str]]:
        """The images; of very many, an even sample.

        Returns:
            The folder, and their paths relative to it.
        """
        step = -(-len(self) // MAX_OPENED)
        paths = [self.get_data_info(i)['img_path'] for i in range(0, len(self), step)]
        return self.img_dir, [osp.relpath(path, self.img_dir) for path in paths]


@DATASETS.register_module()
class ImageNet(ImageFolder):
    """ImageNet-1k (ILSVRC 2012) in its official layout.

    The images are in ``train/`` and ``val/`` below the data root, in one folder for each synset::

        data_root/train/n01440764/n01440764_10026.JPEG
        data_root/val/n01440764/ILSVRC2012_val_00000293.JPEG

    The official ``val`` comes without folders; ``ann_file='meta/val.txt'`` names a list with lines
    ``ILSVRC2012_val_00000001.JPEG 65`` then, as OpenMMLab's other projects use it. Labels are
    numbers of the synsets in alphabetical order in both.

    Args:
        data_root (str): Folder that holds ``train`` and ``val``.
        split (str): ``'train'`` or ``'val'``.
        ann_file (str): File that lists images and labels, or nothing.
        data_prefix (dict[str, str] | str | None): As in :class:`ImageFolder`; the split's name by
            default.
        **kwargs: Arguments of :class:`ImageFolder`.

    Raises:
        DatasetError: As in :class:`ImageFolder`.
        ValueError: There is no such split.
    """

    def __init__(
        self,
        data_root: str = '',
        split: str = 'train',
        ann_file: str = '',
        data_prefix: Optional[Any] = None,
        **kwargs: Any,
    ) -> None:
        if split not in ('train', 'val'):
            raise ValueError(f'split must be train or val: got {split!r}')
        self.split = split
        super().__init__(
            data_root=data_root,
            ann_file=ann_file,
            data_prefix=split if data_prefix is None else data_prefix,
            **kwargs,
        )
