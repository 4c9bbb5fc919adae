"""Moving handwritten digits before a simulated event camera, as recordings with boxes.

The digits are those of ``mmsnn digits``. In each recording a few of them move over a background
that stands still, on paths of their own: straight on and back at the borders, while they turn and
swell a little. A camera of 128x128 pixels looks at them (mmsnn.datasets.events.simulate). The
layout is Prophesee's::

    OUT_DIR/train/000001_td.dat, OUT_DIR/train/000001_bbox.npy ...
    OUT_DIR/val/000001_td.dat ...

Train and val show different scans of the digits, on different paths. The same options give the same
files.
"""

import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from mmsnn.datasets.events import make_boxes
from mmsnn.datasets.events.prophesee import SENSORS
from mmsnn.datasets.events.simulate import Camera, simulate_events, write_dat

from .digits_to_coco import (
    ALPHA_THRESHOLD,
    LUMA,
    SPLITS,
    ConverterError,
    digits_parser,
    draw_background,
    load_scans,
    made_beside,
    smooth_stroke,
    split_digits,
    tight_box,
)

SIZE = SENSORS['digits'].size[0]
#: Between two frames of the film, and between two labels, in microseconds.
FRAME, LABEL = 10_000, 100_000
CAMERA = Camera()
VERSION = '1'


class Path2D:
    """Where a digit is: its place, turn and size at a time.

    Args:
        rng: Source of everything random.
        options: What :func:`make_dataset` takes.
    """

    def __init__(self, rng, options):
        self.side = rng.uniform(options['min_size'], options['max_size'])
        self.room = max(SIZE - self.side, 1)
        self.start = rng.uniform(0, self.room, 2)
        angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(60, 160)
        self.velocity = speed * np.array([np.cos(angle), np.sin(angle)])  # pixels a second
        self.turn = rng.uniform(2, 8), rng.uniform(0.5, 1.5), rng.uniform(0, 2 * np.pi)
        self.swell = rng.uniform(0, 0.08), rng.uniform(0.5, 1.5), rng.uniform(0, 2 * np.pi)

    def at(self, t):
        """Left top, degrees and side at t seconds."""
        way = (self.start + t * self.velocity) % (2 * self.room)
        place = np.where(way > self.room, 2 * self.room - way, way)
        wave = [a * np.sin(2 * np.pi * f * t + phase) for a, f, phase in (self.turn, self.swell)]
        return place, wave[0], self.side * (1 + wave[1])


def draw_digit(stroke, place, degrees, side):
    """Alpha map of the whole sensor, of a stroke at a place.

    Args:
        stroke (np.ndarray): What ``smooth_stroke`` returns.
        place (np.ndarray): Left and top.
        degrees (float): How far it is turned.
        side (float): Longer side of its box before that, in pixels.

    Returns:
        np.ndarray: (SIZE, SIZE), in [0, 1].
    """
    x, y, w, h = tight_box(stroke)
    scale = side / max(w, h)
    if scale < 1:
        stroke = cv2.GaussianBlur(stroke, (0, 0), 0.35 / scale)
    matrix = cv2.getRotationMatrix2D((x + w / 2, y + h / 2), degrees, scale)
    matrix[:, 2] += place + side / 2 - (x + w / 2, y + h / 2)
    return np.clip(cv2.warpAffine(stroke, matrix, (SIZE, SIZE)), 0, 1)


def record(rng, scans, labels, pool, options, seed, duration):
    """One recording.

    Args:
        rng (np.random.Generator): Source of what is seen.
        scans (np.ndarray): All scans, (n, 8, 8).
        labels (np.ndarray): Their classes, (n,).
        pool (np.ndarray): Indices of those that may be shown.
        options (dict): What :func:`make_dataset` takes.
        seed (list[int]): Of the camera.
        duration (int): In milliseconds.

    Returns:
        tuple[Events, np.ndarray]: The events, and the boxes at each ``LABEL``.
    """
    background = draw_background(rng, SIZE).astype(np.float32) @ LUMA.astype(np.float32)
    digits = []
    for _ in range(rng.integers(1, options['max_digits'] + 1)):
        index = int(rng.choice(pool))
        stroke = smooth_stroke(rng, scans[index], int(options['max_size']) // 8 + 2)
        digits.append((int(labels[index]), stroke, Path2D(rng, options), rng.uniform(180, 255)))
    rows = []

    def film():
        for i in range(duration * 1000 // FRAME + 1):
            frame, alphas = background, []
            for _, stroke, path, ink in digits:
                alphas.append(draw_digit(stroke, *path.at(i * FRAME * 1e-6)))
                frame = frame + alphas[-1] * (ink - frame)
            if i and i * FRAME % LABEL == 0:
                rows.extend(_boxes(i * FRAME, digits, alphas))
            yield frame / 255

    events = simulate_events(film(), FRAME, CAMERA, seed)
    boxes = make_boxes(len(rows))
    for i, row in enumerate(rows):
        for name, value in zip(('t', 'x', 'y', 'w', 'h', 'class_id', 'track_id'), row):
            boxes[name][i] = value
    return events, boxes


def _boxes(t, digits, alphas):
    """Of those digits that another, in front of it, covers by less than half."""
    for i, (label, *_) in enumerate(digits):
        ink = alphas[i] > ALPHA_THRESHOLD
        hidden = np.zeros_like(ink)
        for alpha in alphas[i + 1 :]:
            hidden |= alpha > ALPHA_THRESHOLD
        if ink.any() and (ink & hidden).sum() <= ink.sum() / 2:
            yield (t, *tight_box(alphas[i]), label, i)


def check_options(options):
    """Raise ConverterError for options of which no data set can be made."""
    least = dict(train=1, val=1, max_digits=1, train_duration=LABEL // 1000, seed=0)
    for name, number in least.items():
        if options[name] < number:
            flag = '--' + name.replace('_', '-')
            raise ConverterError(f'{flag} is {options[name]}; give {number} or more')
    if options['val_duration'] < 600:
        raise ConverterError(
            f'--val-duration is {options["val_duration"]}; the metric leaves the first half '
            'second out, so give 600 ms or more'
        )
    if not 8 <= options['min_size'] <= options['max_size'] <= SIZE:
        raise ConverterError(
            f'digits of --min-size {options["min_size"]} to --max-size {options["max_size"]}: give '
            f'sizes from 8 to {SIZE}, the smaller one first'
        )


def describe(options):
    """What a data set that is already there is recognised by."""
    return {
        'description': 'Moving digits before a simulated event camera',
        'version': VERSION,
        'camera': CAMERA._asdict(),
        'options': options,
    }


def is_complete(root, options):
    """Tell whether ``root`` already holds the whole data set of these options."""
    try:
        same = json.loads((root / 'about.json').read_text()) == describe(options)
    except (OSError, ValueError):
        return False
    return same and all(
        len(list((root / split).glob(name))) == options[split]
        for split in SPLITS
        for name in ('*_td.dat', '*_bbox.npy')
    )


def make_dataset(out_dir, options):
    """Make the data set, unless it is already there.

    Args:
        out_dir (str | Path): Folder to make. Nothing that is already in it is ever changed.
        options (dict): ``train`` and ``val``, how many recordings; ``train_duration`` and
            ``val_duration`` in ms; ``min_size``, ``max_size``, ``max_digits`` and ``seed``, all
            int.

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
        for number, split in enumerate(SPLITS):
            (partial / split).mkdir()
            for i in track(range(options[split]), description=f'{split:5}'):
                seed = [options['seed'], number, i]
                rng = np.random.default_rng(seed)
                events, boxes = record(
                    rng, scans, labels, pools[split], options, [*seed, 1],
                    options[f'{split}_duration'],
                )  # fmt: skip
                write_dat(partial / split / f'{i + 1:06}_td.dat', events)
                np.save(partial / split / f'{i + 1:06}_bbox.npy', boxes)
        (partial / 'about.json').write_text(json.dumps(describe(options)))
    return True


def parse_args(argv=None):
    """Parse the command line."""
    return digits_parser(
        'mmsnn digits-events',
        'Make a small detection data set of event recordings: handwritten digits that '
        f'move before a simulated event camera of {SIZE}x{SIZE} pixels, as .dat and _bbox.npy in '
        "Prophesee's form. Nothing is downloaded, and the same options give the same files. Train "
        'and val show different scans of the digits, on different paths.',
        'data/digits-events --train 800',
        (
            ('--train', 400, 'number of training recordings'),
            ('--val', 24, 'number of validation recordings'),
            ('--train-duration', 400, 'length of a training recording, in milliseconds'),
            ('--val-duration', 1200, 'length of a validation recording, in milliseconds'),
            ('--min-size', 30, 'longer side of the smallest digit, in pixels'),
            ('--max-size', 56, 'longer side of the largest digit, in pixels'),
            ('--max-digits', 3, 'most digits in a recording'),
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
    recordings = [path for split in SPLITS for path in (out_dir / split).glob('*_bbox.npy')]
    boxes = sum(len(np.load(path)) for path in recordings)
    size = sum(os.path.getsize(p) for split in SPLITS for p in (out_dir / split).iterdir())
    state = 'made' if made else 'already there'
    print(
        f'{state}: {out_dir} ({len(recordings)} recordings, {boxes} boxes, {size / 2**20:.0f} MiB)'
    )
