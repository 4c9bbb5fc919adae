"""Compose handwritten digits on cluttered backgrounds into a COCO-format data set.

The digits are the 1,797 scans (8x8 pixels) that ship inside scikit-learn's wheel, so nothing is
downloaded. Every image holds a few of them, in many sizes and light colours, on a dark
background of gradients, blobs, lines and noise, like chalk on a used blackboard. The layout is
the one of COCO 2017::

    OUT_DIR/annotations/instances_train.json
    OUT_DIR/annotations/instances_val.json
    OUT_DIR/train/000000000001.png ...
    OUT_DIR/val/000000000001.png ...

The scans themselves are split between train and val before anything is composed: validation
shows only digits that training never saw. The split is by scan, not by writer (scikit-learn does
not say who wrote which digit). Each annotation keeps the number of its scan as ``digit_index``.

The same options give the same files: image ``i`` is drawn from its own seed, so it does not
depend on how many images are made beside it.
"""

import argparse
import contextlib
import json
import os
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

SPLITS = ('train', 'val')
VAL_SHARE = 0.2

# Pixels whose ink covers less than this are the soft rim of a stroke and stay outside its box.
ALPHA_THRESHOLD = 0.35
# Grey levels (of 255) between the ink and what lies under it. Clutter stays below
# CLUTTER_CONTRAST, so that a stray line is never as strong as a stroke.
MIN_CONTRAST = 90
CLUTTER_CONTRAST = 45
# Share of the smaller of two boxes that another may cover. It bounds the IoU as well, and unlike
# the IoU it also keeps a small digit out of the hole of a large 0.
MAX_COVER = 0.05

# Raise it when the same options no longer give the same files.
VERSION = '2'
LICENSE = {'id': 1, 'name': 'CC BY 4.0', 'url': 'https://creativecommons.org/licenses/by/4.0/'}
LUMA = np.array([0.114, 0.587, 0.299])  # weights of BGR, OpenCV's order


class ConverterError(Exception):
    """What the user has to change before the data set can be made."""


def split_digits(labels, seed):
    """Split the scans between train and val, the same share of every class.

    Args:
        labels (np.ndarray): Class of each scan.
        seed (int): Seed of the split.

    Returns:
        dict[str, np.ndarray]: Indices of the scans of each split.
    """
    rng = np.random.default_rng(seed)
    train, val = [], []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        count = round(len(members) * VAL_SHARE)
        val.extend(members[:count])
        train.extend(members[count:])
    return {'train': np.sort(train), 'val': np.sort(val)}


def tight_box(alpha):
    """Return the box (x, y, w, h) around the strokes of an alpha map."""
    ys, xs = np.nonzero(alpha > ALPHA_THRESHOLD)
    x, y = xs.min(), ys.min()
    return int(x), int(y), int(xs.max() - x + 1), int(ys.max() - y + 1)


def smooth_stroke(rng, scan, cell):
    """Turn an 8x8 scan into a large, smooth, slightly turned and slanted stroke.

    Args:
        rng (np.random.Generator): Source of the rotation and the shear.
        scan (np.ndarray): The 8x8 scan, on any non-negative scale.
        cell (int): Pixels that one pixel of the scan becomes.

    Returns:
        np.ndarray: Alpha map in [0, 1].
    """
    side = 14 * cell
    padded = np.pad(scan.astype(np.float32) / scan.max(), 3)
    # Sharpening opens the small holes of an 8 or a 9 and keeps faint strokes in one piece.
    padded = 1.5 * padded - 0.5 * cv2.GaussianBlur(padded, (0, 0), 1.0)
    large = cv2.resize(padded, (side, side), interpolation=cv2.INTER_CUBIC)

    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-10, 10), 1.0)
    shear = rng.uniform(-0.12, 0.12)
    matrix[0, 1] += shear
    matrix[0, 2] -= shear * side / 2
    large = cv2.warpAffine(large, matrix, (side, side))

    # The scans are far too coarse to have edges: blurring and then cutting at a grey level gives
    # round strokes with a clear rim where the plain enlargement gives a blotch.
    large = cv2.GaussianBlur(large, (0, 0), 0.2 * cell)
    ramp = np.clip((large - 0.36) / 0.2, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def place_stroke(stroke, size, image_size, rng):
    """Shrink a stroke and put it at a random place of an empty image.

    Args:
        stroke (np.ndarray): What :func:`smooth_stroke` returns.
        size (int): Longer side of the stroke's box in pixels, met to within a pixel.
        image_size (int): Side of the image.
        rng (np.random.Generator): Source of the place.

    Returns:
        np.ndarray: Alpha map of the whole image, in [0, 1].
    """
    x, y, w, h = tight_box(stroke)
    scale = size / max(w, h)
    left = rng.integers(0, image_size - int(np.ceil(w * scale)) + 1)
    top = rng.integers(0, image_size - int(np.ceil(h * scale)) + 1)
    if scale < 1:  # without this, shrinking would skip pixels and fray the strokes
        stroke = cv2.GaussianBlur(stroke, (0, 0), 0.35 / scale)
    # Pixel centres lie at half coordinates, hence the shift by 0.5 there and back.
    shift_x = left - (x - 0.5) * scale - 0.5
    shift_y = top - (y - 0.5) * scale - 0.5
    matrix = np.array([[scale, 0, shift_x], [0, scale, shift_y]])
    return np.clip(cv2.warpAffine(stroke, matrix, (image_size, image_size)), 0, 1)


def pick_ink(rng, under):
    """Pick an ink that stands out from what lies under it.

    Args:
        rng (np.random.Generator): Source of the colour.
        under (np.ndarray): Mean colour (BGR) under the digit.

    Returns:
        np.ndarray: Colour (BGR) at least MIN_CONTRAST grey levels lighter.
    """
    for _ in range(20):
        ink = rng.uniform(80, 255, 3)
        if (ink - under) @ LUMA >= MIN_CONTRAST:
            return ink
    return np.full(3, 255.0)


def draw_background(rng, size):
    """Draw a gradient with blobs, lines and shapes that are not digits.

    Args:
        rng (np.random.Generator): Source of everything random.
        size (int): Side of the image in pixels.

    Returns:
        np.ndarray: Image (size, size, 3), uint8.
    """
    angle = rng.uniform(0, 2 * np.pi)
    ys, xs = np.mgrid[0:size, 0:size] / size - 0.5
    along = (np.cos(angle) * xs + np.sin(angle) * ys)[..., None]
    image = rng.uniform(25, 105, 3) + along * rng.normal(0, 45, 3)
    grid = int(rng.integers(3, 8))
    blobs = rng.normal(0, 14, (grid, grid, 3))
    image += cv2.resize(blobs, (size, size), interpolation=cv2.INTER_CUBIC)
    image = np.clip(image, 0, 255).astype(np.uint8)

    for _ in range(rng.integers(4, 12)):
        kind = rng.choice(['line', 'disc', 'rectangle', 'arc'])
        at = rng.integers(0, size, 2)
        reach = int(rng.uniform(0.05, 0.3) * size)
        shift = rng.choice([-1, 1]) * rng.uniform(12, CLUTTER_CONTRAST) + rng.normal(0, 6, 3)
        color = np.clip(image[at[1], at[0]] + shift, 0, 255).tolist()
        thickness = int(rng.integers(1, max(2, size // 40) + 1))
        start = tuple(at.tolist())
        end = tuple(rng.integers(0, size, 2).tolist())
        if kind == 'line':
            cv2.line(image, start, end, color, thickness, cv2.LINE_AA)
        elif kind == 'disc':
            cv2.circle(image, start, max(2, reach // 2), color, cv2.FILLED, cv2.LINE_AA)
        elif kind == 'rectangle':
            corner = (start[0] + reach, start[1] + int(rng.uniform(0.05, 0.3) * size))
            cv2.rectangle(image, start, corner, color, cv2.FILLED)
        else:  # less than a third of a turn: a closed ring would be a 0
            turn = int(rng.integers(0, 360))
            axes = (reach, max(2, reach // 2))
            cv2.ellipse(image, start, axes, turn, 0, 110, color, thickness, cv2.LINE_AA)
    return image


def covers(box, other):
    """Tell whether two boxes cover more than MAX_COVER of the smaller one."""
    w = min(box[0] + box[2], other[0] + other[2]) - max(box[0], other[0])
    h = min(box[1] + box[3], other[1] + other[3]) - max(box[1], other[1])
    smaller = min(box[2] * box[3], other[2] * other[3])
    return w > 0 and h > 0 and w * h > MAX_COVER * smaller


def compose_image(rng, scans, pool, options):
    """Compose one image.

    Args:
        rng (np.random.Generator): Source of everything random in the image.
        scans (np.ndarray): All scans, (n, 8, 8).
        pool (np.ndarray): Indices of the scans that this split may show.
        options (dict): What :func:`make_dataset` takes.

    Returns:
        tuple[np.ndarray, list[tuple], list[np.ndarray]]: The image (BGR, uint8), and of each digit
        ``(digit_index, (x, y, w, h))`` and the alpha map of its ink.
    """
    size = options['image_size']
    image = draw_background(rng, size).astype(np.float32)
    digits, alphas = [], []
    for _ in range(rng.integers(1, options['max_digits'] + 1)):
        index = int(rng.choice(pool))
        stroke = smooth_stroke(rng, scans[index], options['max_size'] // 8 + 2)
        # A full image may have no room left: then it holds fewer digits.
        for _ in range(20):
            side = int(rng.integers(options['min_size'], options['max_size'] + 1))
            alpha = place_stroke(stroke, side, size, rng)
            box = tight_box(alpha)
            if not any(covers(box, other) for _, other in digits):
                break
        else:
            continue
        x, y, w, h = box
        ink = pick_ink(rng, image[y : y + h, x : x + w].mean((0, 1)))
        image += alpha[..., None] * (ink.astype(np.float32) - image)
        digits.append((index, box))
        alphas.append(alpha)
    image += rng.uniform(2, 6) * rng.standard_normal(image.shape, np.float32)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), digits, alphas


def load_scans():
    """Load scikit-learn's digits.

    Returns:
        tuple[np.ndarray, np.ndarray]: The scans (n, 8, 8) and their classes (n,).

    Raises:
        ConverterError: If scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ConverterError(
            'the digits come with scikit-learn, which is not installed: '
            'run `pip install mmsnn[demo]`'
        ) from error
    data = load_digits()
    return data.images, data.target


def check_options(options):
    """Raise ConverterError for options of which no data set can be made."""
    small, large, side = options['min_size'], options['max_size'], options['image_size']
    for name in ('train_images', 'val_images', 'max_digits'):
        if options[name] < 1:
            flag = '--' + name.replace('_', '-')
            raise ConverterError(f'{flag} is {options[name]}; give 1 or more')
    if options['seed'] < 0:
        raise ConverterError(f'--seed is {options["seed"]}; give 0 or more')
    if small < 8:
        raise ConverterError(f'--min-size is {small}; the scans have 8 pixels, so give 8 or more')
    if small > large:
        raise ConverterError(
            f'--min-size {small} is larger than --max-size {large}; swap them or lower --min-size'
        )
    if large > side:
        raise ConverterError(
            f'a digit of --max-size {large} does not fit in an image of --image-size {side}; '
            'lower --max-size or raise --image-size'
        )


def annotation_path(root, split):
    """Return the annotation file of a split."""
    return Path(root) / 'annotations' / f'instances_{split}.json'


def describe(options):
    """Return the info field, by which a data set that is already there is recognised."""
    return {
        'description': 'Handwritten digits on cluttered backgrounds',
        'version': VERSION,
        'options': options,
    }


def is_complete(root, options):
    """Tell whether ``root`` already holds the whole data set of these options."""
    try:
        for split in SPLITS:
            coco = json.loads(annotation_path(root, split).read_text())
            if coco['info'] != describe(options):
                return False
            if not all((root / split / entry['file_name']).is_file() for entry in coco['images']):
                return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def write_split(root, split, scans, labels, pool, options):
    """Write the images and the annotation file of one split.

    Args:
        root (Path): Folder of the data set.
        split (str): 'train' or 'val'.
        scans (np.ndarray): All scans, (n, 8, 8).
        labels (np.ndarray): Their classes, (n,).
        pool (np.ndarray): Indices of the scans that this split may show.
        options (dict): What :func:`make_dataset` takes.

    Raises:
        OSError: If an image cannot be written.
    """
    (root / split).mkdir()
    images, annotations = [], []
    numbers = range(options[f'{split}_images'])
    for number in track(numbers, description=f'{split:5}'):
        rng = np.random.default_rng([options['seed'], SPLITS.index(split), number])
        image, digits, _ = compose_image(rng, scans, pool, options)
        name = f'{number + 1:012d}.png'
        if not cv2.imwrite(str(root / split / name), image):
            raise OSError(f'cannot write {root / split / name}')
        height, width = image.shape[:2]
        images.append(
            {'id': number + 1, 'file_name': name, 'height': height, 'width': width, 'license': 1}
        )
        for index, (x, y, w, h) in digits:
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': number + 1,
                    'category_id': int(labels[index]) + 1,
                    'bbox': [float(x), float(y), float(w), float(h)],
                    'area': float(w * h),
                    'iscrowd': 0,
                    'segmentation': [],
                    'digit_index': index,
                }
            )
    coco = {
        'info': describe(options),
        'licenses': [LICENSE],
        'images': images,
        'annotations': annotations,
        'categories': [{'id': i + 1, 'name': str(i), 'supercategory': 'digit'} for i in range(10)],
    }
    path = annotation_path(root, split)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(coco))


def make_dataset(out_dir, options):
    """Make the data set, unless it is already there.

    Args:
        out_dir (str | Path): Folder to make. Nothing that is already in it is ever changed.
        options (dict): ``train_images``, ``val_images``, ``image_size``, ``min_size``,
            ``max_size``, ``max_digits`` and ``seed``, all int.

    Returns:
        bool: False if the same data set was already there.

    Raises:
        ConverterError: If the options cannot be met, if ``out_dir`` holds something else, or if
            scikit-learn is not installed.
        OSError: If a file cannot be written.
    """
    check_options(options)
    out_dir = Path(out_dir).absolute()
    with made_beside(out_dir, lambda: is_complete(out_dir, options)) as partial:
        if partial is None:
            return False
        scans, labels = load_scans()
        pools = split_digits(labels, options['seed'])
        for split in SPLITS:
            write_split(partial, split, scans, labels, pools[split], options)
    return True


@contextlib.contextmanager
def made_beside(out_dir, is_there):
    """Make a folder beside its place and then rename it.

    A run that is cut off halfway leaves nothing there that looks finished.

    Args:
        out_dir (Path): The folder. Nothing that is already in it is ever changed.
        is_there (Callable): Whether it already holds what is to be made.

    Yields:
        Path | None: Where to write; None if it is already there.

    Raises:
        ConverterError: If ``out_dir`` holds something else.
    """
    if out_dir.exists():
        if not out_dir.is_dir():
            raise ConverterError(f'{out_dir} is a file; give a folder')
        if is_there():
            yield None
            return
        if any(out_dir.iterdir()):
            raise ConverterError(
                f'{out_dir} is not empty and does not hold the data set of these options; '
                'give another folder, or move this one away'
            )
    partial = out_dir.parent / f'.{out_dir.name}.partial-{os.getpid()}'
    partial.mkdir(parents=True)
    try:
        yield partial
        if out_dir.exists():
            out_dir.rmdir()  # empty, or it would have been refused above
        partial.rename(out_dir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def digits_parser(prog, description, example, options):
    """The command line of what makes a data set of digits.

    Args:
        prog (str): Name of the command.
        description (str): What it makes.
        example (str): Its arguments, in an example.
        options (Iterable[tuple[str, int, str]]): Flag, default and help of each option.

    Returns:
        argparse.ArgumentParser: The parser.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=f'Example: {prog} {example}',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('out_dir', metavar='OUT_DIR', help='folder to make; never overwritten')
    for flag, default, text in options:
        parser.add_argument(flag, type=int, default=default, metavar='N', help=text)
    return parser


def parse_args(argv=None):
    """Parse the command line."""
    return digits_parser(
        'mmsnn digits',
        'Make a small detection data set in COCO format: handwritten digits of many '
        'sizes and light colours on dark, cluttered backgrounds. Nothing is downloaded, and the '
        'same options give the same files. Train and val show different scans of the digits.',
        'data/digits --train-images 1200 --val-images 150',
        (
            ('--train-images', 1200, 'number of training images'),
            ('--val-images', 150, 'number of validation images'),
            ('--image-size', 128, 'side of the square images, in pixels'),
            ('--min-size', 18, 'longer side of the smallest digit, in pixels'),
            ('--max-size', 60, 'longer side of the largest digit, in pixels'),
            ('--max-digits', 5, 'most digits in one image; fewer where they find no room'),
            ('--seed', 0, 'seed of everything random'),
        ),
    ).parse_args(argv)


def main(argv=None):
    """Run the command line."""
    options = vars(parse_args(argv))
    out_dir = Path(options.pop('out_dir'))
    try:
        made = make_dataset(out_dir, options)
    except (ConverterError, OSError) as error:
        sys.exit(f'error: {error}')
    images = boxes = 0
    for split in SPLITS:
        coco = json.loads(annotation_path(out_dir, split).read_text())
        images += len(coco['images'])
        boxes += len(coco['annotations'])
    state = 'made' if made else 'already there'
    print(f'{state}: {out_dir} ({images} images, {boxes} boxes)')
