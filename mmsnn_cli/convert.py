"""Data sets of other formats to COCO's: ``mmsnn convert voc`` and ``mmsnn convert yolo``."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Optional

from mmsnn.datasets import DatasetError
from mmsnn.datasets.converters import (
    Converted,
    check_out_dir,
    config_lines,
    read_voc,
    read_yolo,
    summary,
    write_coco,
)

FORMATS = {
    'voc': 'Convert a data set in the format of Pascal VOC (Annotations/*.xml, JPEGImages, '
    'ImageSets/Main/*.txt) to COCO annotation files, one for each list of images. Boxes are those '
    "of MMDetection's VOCDataset; difficult objects become iscrowd.",
    'yolo': 'Convert a data set in the format of YOLO (data.yaml, or images, labels and '
    'classes.txt) to COCO annotation files, one for each split. Outlines become the boxes around '
    'them.',
}


def parse_args(kind: str, argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        kind: ``'voc'`` or ``'yolo'``.
        argv: The words; by default the process's own.

    Returns:
        The options.
    """
    prog = f'mmsnn convert {kind}'
    where = 'data/VOCdevkit/VOC2007' if kind == 'voc' else 'data/pets/data.yaml'
    parser = argparse.ArgumentParser(
        prog=prog,
        description=f'{FORMATS[kind]} Images stay where they are, and nothing is overwritten. The '
        'files are checked as before a training, and what a config needs is printed.',
        epilog=f'Example: {prog} {where}',
    )
    of_root = {
        'voc': 'folder that has Annotations, such as VOCdevkit/VOC2007',
        'yolo': 'data.yaml, or the folder of the data set',
    }[kind]
    parser.add_argument('root', metavar='ROOT', help=of_root)
    parser.add_argument(
        '-o', '--out-dir', metavar='DIR', help='folder to make (default: coco in the data set)'
    )
    of_classes = {
        'voc': 'in the order of their labels; other objects are left out (default: all that there '
        'are, sorted)',
        'yolo': 'where no file of the data set says them',
    }[kind]
    parser.add_argument(
        '--classes',
        nargs='+',
        default=(),
        metavar='NAME',
        help=f'names of the classes, {of_classes}',
    )
    if kind == 'voc':
        parser.add_argument(
            '--splits',
            nargs='+',
            default=(),
            metavar='NAME',
            help='lists of ImageSets/Main (default: train, val, trainval and test, those that are '
            'there)',
        )
        parser.add_argument(
            '--zero-based',
            action='store_true',
            help='pixels are counted from 0, and not from 1 as in VOC',
        )
    parser.add_argument(
        '--val-share',
        type=float,
        default=0,
        metavar='SHARE',
        help='share of the images that is held back to validate, where the data set has no splits '
        '(default: none)',
    )
    return parser.parse_args(argv)


def voc_to_coco(argv: Optional[Sequence[str]] = None) -> None:
    """Run the command for Pascal VOC.

    Args:
        argv: The words; by default the process's own.
    """
    args = parse_args('voc', argv)
    _run(
        args,
        lambda: read_voc(args.root, args.splits, args.classes, args.val_share, args.zero_based),
    )


def yolo_to_coco(argv: Optional[Sequence[str]] = None) -> None:
    """Run the command for YOLO.

    Args:
        argv: The words; by default the process's own.
    """
    args = parse_args('yolo', argv)
    _run(args, lambda: read_yolo(args.root, args.classes, args.val_share))


def _run(args, read: Callable[[], Converted]) -> None:
    folder = args.root if os.path.isdir(args.root) else os.path.dirname(args.root)
    out_dir = os.path.join(folder, 'coco') if args.out_dir is None else args.out_dir
    try:
        check_out_dir(out_dir)
        converted = read()
        warnings = write_coco(converted, out_dir)
    except (DatasetError, OSError) as error:
        sys.exit(f'error: {error}')
    print('\n'.join(summary(converted, out_dir)))
    for text in warnings:
        print(f'warning: {text}')
    print(f'\nFor a config, under its _base_:\n\n{config_lines(converted, out_dir)}')


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Run ``mmsnn convert``.

    Args:
        argv: The format and the words after it; by default the process's own.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog='mmsnn convert',
        description='Convert a data set to COCO files. `mmsnn convert FORMAT --help` has '
        'the options of a format.',
    )
    parser.add_argument('format', choices=sorted(FORMATS), metavar='FORMAT', help='voc or yolo')
    kind = parser.parse_args(argv[:1]).format
    {'voc': voc_to_coco, 'yolo': yolo_to_coco}[kind](argv[1:])
