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

from mmsnn.analysis import SpikeRecorder
from mmsnn.apis import init_detector, stream
from mmsnn.compat import enforce_safe_loading
from mmsnn.datasets import DatasetError
from mmsnn.datasets.events import event_suffixes, read_boxes
from mmsnn.utils import ToolError, exit_on_error, fetch_checkpoint, read_config
from mmsnn.visualization import draw_course, draw_window, save_animation

EXAMPLES = """examples:
  mmsnn follow CONFIG CHECKPOINT recording_td.dat
  mmsnn follow CONFIG CHECKPOINT data/gen1/test --num 5 --out-dir followed
  mmsnn follow CONFIG CHECKPOINT recording.raw --start 2 --end 6 --format gif"""


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
    names = sorted(
        name
        for name in os.listdir(path)
        if name.lower().endswith(event_suffixes()) and not name.endswith('_bbox.npy')
    )
    if not names:
        raise ToolError(f'{path} holds no recordings ({", ".join(event_suffixes())})')
    return [osp.join(path, name) for name in names[:number]]


def stem_of(path: str) -> str:
    """The name of a recording without what its suffixes add."""
    stem = osp.basename(path)
    for suffix in ('.h5', '.hdf5', osp.splitext(path)[1], '.dat', '_td'):
        stem = stem[: -len(suffix)] if suffix and stem.endswith(suffix) else stem
    return stem


class Follower:
    """Follows recordings and draws what it finds.

    Args:
        model: A detector of events.
        args: The command line.
    """

    def __init__(self, model, args: argparse.Namespace):
        self.model, self.args = model, args
        self.stream = stream(model)
        self.classes = model.dataset_meta.get('classes') or ()

    def name(self, label: int) -> str:
        """Of a class."""
        return str(self.classes[label]) if label < len(self.classes) else f'{label}'

    def follow(self, path: str) -> dict[str, Any]:
        """One recording: its pictures, rates and boxes."""
        start, end = (
            None if s is None else round(s * 1e6) for s in (self.args.start, self.args.end)
        )
        beside = osp.join(osp.dirname(path), f'{stem_of(path)}_bbox.npy')
        boxes = read_boxes(beside) if osp.isfile(beside) else None
        recorder = SpikeRecorder(self.model)
        pictures, found, seconds, events = [], [], [], []
        rates: dict[str, list[float]] = {}
        before = base = -1
        with recorder:
            for sample in self.stream.follow(path, start, end):
                frames = sample.frames.numpy()
                length = sample.length
                base = sample.t - length if base < 0 else base
                for layer, spikes in recorder.spikes.items():
                    steps = (spikes != 0).float().flatten(1).mean(1)
                    rates.setdefault(layer, []).extend(steps.tolist())
                events += frames.sum((1, 2, 3)).tolist()
                part = length / len(frames)
                seconds += [
                    (sample.t - length + (i + 0.5) * part) * 1e-6 for i in range(len(frames))
                ]
                kept = self._kept(sample)
                found += [dict(t=sample.t, **box) for box in kept]
                true = [] if boxes is None else self._true(boxes, before, sample.t)
                before = sample.t
                words = [(b['bbox'], f'{b["class"]} {b["score"]:.2f}') for b in kept]
                title = f'{(sample.t - base) * 1e-6:.2f} s'
                pictures.append(draw_window(frames, true, words, title))
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

    def _true(self, boxes: np.ndarray, before: int, t: int) -> list[tuple[list[float], str]]:
        """Those of the last label in a window."""
        here = boxes[(boxes['t'] > before) & (boxes['t'] <= t)]
        here = here[here['t'] == here['t'].max()] if len(here) else here
        return [
            ([b['x'], b['y'], b['x'] + b['w'], b['y'] + b['h']], str(int(b['class_id'])))
            for b in here
        ]


def layers_of(rates: dict[str, Any], most: int = 6) -> dict[str, Any]:
    """Some layers, from the first to the last."""
    names = list(rates)
    chosen = {round(i * (len(names) - 1) / max(most - 1, 1)) for i in range(most)}
    return {name: rates[name] for i, name in enumerate(names) if i in chosen}


def save(found: dict[str, Any], stem: str, args: argparse.Namespace) -> list[str]:
    """Write what was found in a recording; the paths."""
    paths = [osp.join(args.out_dir, f'{stem}{suffix}') for suffix in (f'.{args.format}', '.png')]
    save_animation(found['pictures'], paths[0], round(found['length'] / 1000))
    step = max(1, len(found['pictures']) // 8)
    sheet = found['pictures'][step - 1 :: step][:8]
    figure = draw_course(
        sheet, layers_of(found['rates']), found['events'], found['seconds'],
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
    with exit_on_error(ValueError, KeyError, OSError, DatasetError):
        recordings = find_recordings(args.recordings, args.num)
        cfg = read_config(args.config)
        checkpoint = fetch_checkpoint(args.checkpoint)
        model = init_detector(
            cfg, checkpoint, device=args.device, trust_checkpoint=args.trust_checkpoint
        )
        follower = Follower(model, args)
        os.makedirs(args.out_dir, exist_ok=True)
        for path in track(recordings, 'following'):
            save(follower.follow(path), stem_of(path), args)
    print(
        f'{len(recordings)} recordings: animations (.{args.format}), sheets (.png) and boxes '
        f'(.json) in {osp.join(args.out_dir, "")}'
    )
