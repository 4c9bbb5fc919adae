"""Write scikit-learn's handwritten digits as image files in one folder for each class.

The 1,797 scans (8x8 pixels) ship inside scikit-learn's wheel, so nothing is downloaded. They are
enlarged and split between training and test, the same share of every class::

    OUT_DIR/train/0/0000.png ...
    OUT_DIR/test/0/0010.png ...

A file's name is the number of its scan, so no scan is in both. The split is by scan, not by writer
(scikit-learn does not say who wrote which digit). The same options give the same files.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from .digits_to_coco import ConverterError, digits_parser, load_scans, made_beside, split_digits

FOLDERS = {'train': 'train', 'val': 'test'}  # by the names that split_digits gives
MAX_INK = 16  # of a pixel of a scan


def enlarge(scan, size):
    """Turn a scan into an image.

    Args:
        scan (np.ndarray): (8, 8), from 0 to 16.
        size (int): Side of the image in pixels.

    Returns:
        np.ndarray: (size, size), uint8, light strokes on black.
    """
    grey = (scan * (255 / MAX_INK)).astype(np.float32)
    large = cv2.resize(grey, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.clip(np.rint(large), 0, 255).astype(np.uint8)


def make_dataset(out_dir, size, seed):
    """Make the data set.

    Args:
        out_dir (str | Path): Folder to make. Nothing that is already in it is ever changed.
        size (int): Side of the images in pixels.
        seed (int): Seed of the split.

    Returns:
        dict[str, int]: Number of images in ``train`` and in ``test``.

    Raises:
        ConverterError: If an option makes no sense, ``out_dir`` is not empty, or scikit-learn is
            not installed.
        OSError: If a file cannot be written.
    """
    if size < 8:
        raise ConverterError(f'--size is {size}; the scans have 8 pixels, so give 8 or more')
    if seed < 0:
        raise ConverterError(f'--seed is {seed}; give 0 or more')
    out_dir = Path(out_dir).absolute()
    with made_beside(out_dir, lambda: False) as partial:
        scans, labels = load_scans()
        splits = split_digits(labels, seed)
        for split, folder in FOLDERS.items():
            for label in np.unique(labels):
                (partial / folder / str(label)).mkdir(parents=True)
            for index in track(splits[split], description=f'{folder:5}'):
                path = partial / folder / str(labels[index]) / f'{index:04d}.png'
                if not cv2.imwrite(str(path), enlarge(scans[index], size)):
                    raise OSError(f'cannot write {path}')
    return {folder: len(splits[split]) for split, folder in FOLDERS.items()}


def parse_args(argv=None):
    """Parse the command line."""
    return digits_parser(
        'mmsnn digits-folder',
        "Write scikit-learn's handwritten digits as images in one folder for each "
        'class, for training and for test. Nothing is downloaded, and the same options give the '
        'same files.',
        'data/digits-cls',
        (
            ('--size', 16, 'side of the square images, in pixels'),
            ('--seed', 0, 'seed of the split'),
        ),
    ).parse_args(argv)


def main(argv=None):
    """Run the command line."""
    args = parse_args(argv)
    try:
        made = make_dataset(args.out_dir, args.size, args.seed)
    except (ConverterError, OSError) as error:
        sys.exit(f'error: {error}')
    print(f'made: {args.out_dir} ({made["train"]} training and {made["test"]} test images)')
