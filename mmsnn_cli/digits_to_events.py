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
#: Pixels a second of the slowest and of the fastest digit: none stands still, as a camera sees
#: nothing of one that does.
SPEEDS = 40, 120
#: How many paths are tried for a digit before a recording has one less.
TRIES = 100
CAMERA = Camera()
VERSION = '2'


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
        angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(*SPEEDS)
        self.velocity = speed * np.array([np.cos(angle), np.sin(angle)])
        self.turn = rng.uniform(2, 8), rng.uniform(0.5, 1.5), rng.uniform(0, 2 * np.pi)
        self.swell = rng.uniform(0, 0.08), rng.uniform(0.5, 1.5), rng.uniform(0, 2 * np.pi)

    def place(self, t):
        """Left top at times t in seconds, (..., 2)."""
        way = (self.start + np.multiply.outer(t, self.velocity)) % (2 * self.room)
        return np.where(way > self.room, 2 * self.room - way, way)

    def meets(self, other, seconds):
        """Tell whether the squares around two digits overlap at any time up to then."""
        t = np.arange(0, seconds, 0.02)
        apart = self.place(t) + self.side / 2 - other.place(t) - other.side / 2
        return (np.abs(apart).max(-1) < (self.side + other.side) / 2).any()

    def at(self, t):
        """Left top, degrees and times of its size at t seconds."""
        wave = [a * np.sin(2 * np.pi * f * t + phase) for a, f, phase in (self.turn, self.swell)]
        return self.place(t), wave[0], 1 + wave[1]


def find_path(rng, options, others, seconds):
    """A path on which a digit meets no other one; None if there is hardly any.

    Args:
        rng (np.random.Generator): Source of everything random.
        options (dict): What :func:`make_dataset` takes.
        others (list[Path2D]): Paths of the digits that are there.
        seconds (float): Length of the recording.
    """
    for _ in range(TRIES):
        path = Path2D(rng, options)
        if not any(path.meets(other, seconds) for other in others):
            return path
    return None


class Digit:
    """A digit that moves.

    Args:
        label (int): Its class.
        stroke (np.ndarray): What ``smooth_stroke`` returns.
        path (Path2D): Where it is.
        ink (float): Its grey level, of 255.
    """

    def __init__(self, label, stroke, path, ink):
        x, y, w, h = tight_box(stroke)
        self.scale, self.center = path.side / max(w, h), (x + w / 2, y + h / 2)
        if self.scale < 1:  # without this, shrinking would skip pixels and fray the strokes
            stroke = cv2.GaussianBlur(stroke, (0, 0), 0.35 / self.scale)
        self.label, self.stroke, self.path, self.ink = label, stroke, path, ink

    def draw(self, t):
        """Alpha map of the whole sensor at t seconds, (SIZE, SIZE) in [0, 1]."""
        place, degrees, swell = self.path.at(t)
        matrix = cv2.getRotationMatrix2D(self.center, degrees, self.scale * swell)
        matrix[:, 2] += place + self.path.side / 2 - self.center
        return np.clip(cv2.warpAffine(self.stroke, matrix, (SIZE, SIZE)), 0, 1)


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
        tuple[Events, np.ndarray]: The events, and the boxes at the end and each ``LABEL`` before.
    """
    background = draw_background(rng, SIZE).astype(np.float32) @ LUMA.astype(np.float32)
    digits = []
    for _ in range(rng.integers(1, options['max_digits'] + 1)):
        index = int(rng.choice(pool))
        stroke = smooth_stroke(rng, scans[index], int(options['max_size']) // 8 + 2)
        path = find_path(rng, options, [digit.path for digit in digits], duration / 1000)
        if path is not None:
            digits.append(Digit(int(labels[index]), stroke, path, rng.uniform(180, 255)))
    rows, end = [], duration * 1000

    def film():
        for t in range(0, end + 1, FRAME):
            frame = background
            for number, digit in enumerate(digits):
                alpha = digit.draw(t * 1e-6)
                frame = frame + alpha * (digit.ink - frame)
                if t and (end - t) % LABEL == 0:
                    rows.append((t, *tight_box(alpha), digit.label, number))
            yield frame / 255

    events = simulate_events(film(), FRAME, CAMERA, seed)
    boxes = make_boxes(len(rows))
    for i, row in enumerate(rows):
        for name, value in zip(('t', 'x', 'y', 'w', 'h', 'class_id', 'track_id'), row):
            boxes[name][i] = value
    return events, boxes


def check_options(options):
    """Raise ConverterError for options of which no data set can be made."""
    least = dict(train=1, val=1, max_digits=1, train_duration=50, seed=0)
    for name, number in least.items():
        if options[name] < number:
            flag = '--' + name.replace('_', '-')
            raise ConverterError(f'{flag} is {options[name]}; give {number} or more')
    for split in SPLITS:
        duration = options[f'{split}_duration']
        if duration % (FRAME // 1000):
            raise ConverterError(
                f'--{split}-duration is {duration}; give a multiple of {FRAME // 1000} ms, the '
                'time between two frames of the film'
            )
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
            ('--train', 2400, 'number of training recordings'),
            ('--val', 40, 'number of validation recordings'),
            ('--train-duration', 60, 'length of a training recording, in milliseconds'),
            ('--val-duration', 1000, 'length of a validation recording, in milliseconds'),
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
