"""Boxes in event recordings, window by window, with states that go on."""

import argparse
import json
import os
import os.path as osp
from collections.abc import Sequence
from typing import Any, Optional

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

import numpy as np
from rich.progress import track

from mmsnn.analysis import SpikeRecorder, some_layers
from mmsnn.apis import init_detector, stream
from mmsnn.apis.model import test_dataset
from mmsnn.compat import enforce_safe_loading
from mmsnn.datasets.events import event_suffixes, read_boxes
from mmsnn.datasets.events.prophesee import BOXES, find_sensor, list_recordings, name_of_recording
from mmsnn.utils import CONFIG_ERRORS, ToolError, exit_on_error, fetch_checkpoint, read_config
from mmsnn.visualization import draw_course, draw_window, save_animation

EXAMPLES = """examples:
  mmsnn follow CONFIG CHECKPOINT recording_td.dat
  mmsnn follow CONFIG CHECKPOINT data/gen1/test --num 5 --out-dir followed
  mmsnn follow CONFIG CHECKPOINT recording.raw --start 2 --end 6 --format gif"""

#: Layers whose rates stand in the sheet.
MAX_LAYERS = 6


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='mmsnn follow',
        description='Let a detector of events go on from window to window of a recording, as a '
        'camera would feed it, and write for each recording an animation of events and boxes '
        '(found: orange; true, where NAME_bbox.npy lies beside it: green), a sheet with the spikes '
        'over time, and the boxes as JSON.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='path or name of the config')
    parser.add_argument('checkpoint', help='path of the checkpoint')
    parser.add_argument('recordings', help='a recording, or a folder of them')
    parser.add_argument('--out-dir', default='followed', help='default: followed')
    parser.add_argument(
        '--num', type=int, default=3, help='how many recordings of a folder (default: 3)'
    )
    parser.add_argument(
        '--score-thr', type=float, default=0.4, help='least score of a box (default: 0.4)'
    )
    parser.add_argument('--start', type=float, metavar='S', help='seconds; default the first event')
    parser.add_argument('--end', type=float, metavar='S', help='seconds; default the last event')
    parser.add_argument(
        '--format', choices=('webp', 'gif'), default='webp', help='of the animation (default: webp)'
    )
    parser.add_argument('--device', default='cpu', help='cpu, cuda:0, ... (default: cpu)')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='load a checkpoint that holds more than weights; only for files whose '
        'source you trust',
    )
    return parser.parse_args(argv)


def find_recordings(path: str, number: int) -> list[str]:
    """The recording, or the first ones of a folder.

    Args:
        path: A file or a folder.
        number: How many at most.

    Returns:
        Paths.

    Raises:
        ToolError: There is none.
    """
    if number < 1:
        raise ToolError(f'--num must be at least 1, got {number}')
    if not osp.exists(path):
        raise ToolError(f'{path} is not there')
    if not osp.isdir(path):
        return [path]
    files = list(list_recordings(path).values())
    if not files:
        raise ToolError(f'{path} holds no recordings ({", ".join(event_suffixes())})')
    return [osp.join(path, file) for file in files[:number]]


class Follower:
    """Follows recordings and draws what it finds.

    Args:
        model: A detector of events.
        args: The command line.
    """

    def __init__(self, model, args: argparse.Namespace):
        self.model, self.args = model, args
        self.stream = stream(model)
        dataset = test_dataset(model.cfg)
        generation = dataset.get('generation')
        sensor = find_sensor(generation) if generation else None
        named = [model.dataset_meta, dataset.get('metainfo') or {}, sensor and sensor._asdict()]
        classes = (names['classes'] for names in named if names and names.get('classes'))
        self.classes = tuple(next(classes, ()))
        #: Names by the class ids of files of boxes.
        self.labels = (sensor and sensor.labels) or self.classes

    def name(self, label: int) -> str:
        """Of a class."""
        return str(self.classes[label]) if label < len(self.classes) else f'{label}'

    def follow(self, path: str) -> dict[str, Any]:
        """One recording: its pictures, rates and boxes."""
        start, end = (
            None if s is None else round(s * 1e6) for s in (self.args.start, self.args.end)
        )
        beside = osp.join(osp.dirname(path), name_of_recording(path) + BOXES)
        boxes = read_boxes(beside) if osp.isfile(beside) else None
        recorder = SpikeRecorder(self.model, some_layers(self.model, MAX_LAYERS))
        pictures, found, seconds, events = [], [], [], []
        rates: dict[str, list[float]] = {}
        base: Optional[int] = None
        with recorder:
            for sample in self.stream.follow(path, start, end):
                frames = sample.frames.numpy()
                length = sample.length
                begin = sample.t - length
                base = begin if base is None else base
                for layer, spikes in recorder.spikes.items():
                    steps = (spikes != 0).float().flatten(1).mean(1)
                    rates.setdefault(layer, []).extend(steps.tolist())
                events += frames.sum((1, 2, 3)).tolist()
                part = length / len(frames)
                seconds += [(begin + (i + 0.5) * part) * 1e-6 for i in range(len(frames))]
                kept = self._kept(sample)
                found += [dict(t=sample.t, **box) for box in kept]
                true = [] if boxes is None else self._true(boxes, begin, sample.t)
                words = [(b['bbox'], f'{b["class"]} {b["score"]:.2f}') for b in kept]
                # Boxes are in pixels of the sensor, the frames may be of another size.
                scale = 2 * tuple(sample.scale_factor)
                drawn = (
                    [([v * by for v, by in zip(box, scale)], word) for box, word in pairs]
                    for pairs in (true, words)
                )
                title = f'{(sample.t - base) * 1e-6:.2f} s'
                pictures.append(draw_window(frames, *drawn, title=title))
        if not pictures:
            raise ToolError(f'{path} has no whole window from --start to --end')
        return dict(
            pictures=pictures, rates=rates, events=events, seconds=seconds, boxes=found,
            length=length,
        )  # fmt: skip

    def _kept(self, sample) -> list[dict[str, Any]]:
        found = sample.pred_instances
        found = found[found.scores >= self.args.score_thr].cpu()
        rows = zip(found.bboxes.tolist(), found.labels.tolist(), found.scores.tolist())
        return [
            {
                'bbox': [round(v, 2) for v in box],
                'class': self.name(label),
                'score': round(score, 4),
            }
            for box, label, score in rows
        ]

    def _true(self, boxes: np.ndarray, begin: int, t: int) -> list[tuple[list[float], str]]:
        """Those of the last label in a window, of the classes that the model knows."""
        here = boxes[(boxes['t'] > begin) & (boxes['t'] <= t)]
        here = here[here['t'] == here['t'].max()] if len(here) else here
        named = [(b, self.labels[b['class_id']]) for b in here if b['class_id'] < len(self.labels)]
        return [
            ([b['x'], b['y'], b['x'] + b['w'], b['y'] + b['h']], name)
            for b, name in named
            if name in self.classes
        ]


def save(found: dict[str, Any], stem: str, args: argparse.Namespace) -> list[str]:
    """Write what was found in a recording; the paths."""
    paths = [osp.join(args.out_dir, f'{stem}{suffix}') for suffix in (f'.{args.format}', '.png')]
    save_animation(found['pictures'], paths[0], round(found['length'] / 1000))
    step = max(1, len(found['pictures']) // 8)
    sheet = found['pictures'][step - 1 :: step][:8]
    figure = draw_course(
        sheet, found['rates'], found['events'], found['seconds'],
        f'{stem}: found boxes orange, true boxes green; spikes over time',
    )  # fmt: skip
    figure.savefig(paths[1], dpi=90)
    paths.append(osp.join(args.out_dir, f'{stem}.json'))
    with open(paths[2], 'w') as file:
        json.dump(found['boxes'], file)
    return paths


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Follow, draw and write."""
    args = parse_args(argv)
    enforce_safe_loading(args.trust_checkpoint)
    with exit_on_error(*CONFIG_ERRORS):
        recordings = find_recordings(args.recordings, args.num)
        cfg = read_config(args.config)
        checkpoint = fetch_checkpoint(args.checkpoint)
        model = init_detector(
            cfg, checkpoint, device=args.device, trust_checkpoint=args.trust_checkpoint
        )
        follower = Follower(model, args)
        os.makedirs(args.out_dir, exist_ok=True)
        for path in track(recordings, 'following'):
            save(follower.follow(path), name_of_recording(path), args)
    print(
        f'{len(recordings)} recordings: animations (.{args.format}), sheets (.png) and boxes '
        f'(.json) in {osp.join(args.out_dir, "")}'
    )
