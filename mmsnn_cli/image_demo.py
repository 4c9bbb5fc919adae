"""Run a checkpoint on pictures and save them with the boxes or classes found."""

import argparse
import json
import os
from collections.abc import Sequence
from typing import Optional

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

import numpy as np
import torch
from mmdet.apis import DetInferencer
from mmengine.config import Config
from rich.progress import track

from mmsnn.apis import inference_classifier, init_classifier
from mmsnn.checkpoints import DIGITS_DETECTOR, SCHEME, shipped_checkpoints
from mmsnn.compat import check_state_dict, enforce_safe_loading, load_checkpoint_file
from mmsnn.datasets.image_files import (
    IMAGE_EXTENSIONS,
    UnreadableImageError,
    list_images,
    output_names,
    read_rgb,
)
from mmsnn.samples import DIGITS
from mmsnn.utils import ToolError, exit_on_error, fetch_checkpoint, read_config, report_skipped
from mmsnn.visualization import ClsVisualizer

EXAMPLES = """examples:
  mmsnn image-demo                                       # its own pictures, its own detector
  mmsnn image-demo photo.jpg CONFIG CHECKPOINT
  mmsnn image-demo folder/ CONFIG CHECKPOINT --out-dir found --score-thr 0.5"""


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog='mmsnn image-demo',
        description='Find objects in pictures, or classify them, and save the pictures with their '
        'boxes or classes.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'inputs',
        nargs='?',
        default=str(DIGITS / 'val'),
        help='a picture, or a folder: all pictures in it and below it (default: digits that come '
        'with mmsnn)',
    )
    parser.add_argument(
        'config', nargs='?', help='path of the config (default: the detector of digits)'
    )
    parser.add_argument('checkpoint', nargs='?', help='path of the checkpoint, or mmsnn://NAME')
    parser.add_argument(
        '--out-dir',
        default='outputs',
        help='pictures go to OUT_DIR/vis, boxes or classes as JSON to OUT_DIR/preds '
        '(default: outputs)',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='draw boxes of at least this score (default: 0.3)',
    )
    parser.add_argument('--batch-size', type=int, default=1)
    parser.add_argument('--device', help='cpu, cuda:0, ... (default: a GPU where there is one)')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='load a checkpoint that holds more than weights; only for files whose '
        'source you trust',
    )
    args = parser.parse_args(argv)
    if args.config is None:
        args.config = DIGITS_DETECTOR
    if args.checkpoint is None:
        if args.config not in shipped_checkpoints():
            parser.error(f'{args.config} needs a checkpoint: give its path behind the config')
        args.checkpoint = SCHEME + args.config
    return args


def find_pictures(inputs: str) -> list[str]:
    """The picture, or the pictures in the folder and below it; says what else is there.

    Args:
        inputs: A file or a folder.

    Returns:
        Paths.

    Raises:
        ToolError: There is no picture.
    """
    if not os.path.isdir(inputs):
        return [inputs]
    pictures, others = list_images(inputs)
    if not pictures:
        raise ToolError(f'{inputs} holds no pictures ({", ".join(IMAGE_EXTENSIONS)})')
    if others:
        names = ', '.join(os.path.relpath(path, inputs) for path in others[:3])
        print(f'{len(others)} other files are left out: {names}{", ..." if others[3:] else ""}')
    return pictures


class Classifier:
    """Classifies pictures, draws and describes what was found.

    Args:
        cfg: The config of a classifier.
        args: The command line.

    Raises:
        CheckpointError: The checkpoint can't be loaded, or is of another model.
    """

    def __init__(self, cfg: Config, args: argparse.Namespace):
        device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
        self.model = init_classifier(
            cfg, args.checkpoint, device, trust_checkpoint=args.trust_checkpoint
        )
        self.visualizer = ClsVisualizer('image_demo')
        self.visualizer.dataset_meta = self.model.dataset_meta

    def predict(self, paths: list[str]) -> list:
        """One sample for each picture."""
        return inference_classifier(self.model, paths)

    def draw(self, name: str, image: np.ndarray, sample, out_file: str) -> None:
        """Save the picture with its classes."""
        self.visualizer.add_datasample(name, image, sample.cpu(), out_file=out_file)

    def describe(self, sample) -> dict:
        """What was found, in plain numbers."""
        label = int(sample.pred_label)
        found = dict(label=label, scores=[round(s, 5) for s in sample.pred_score.tolist()])
        classes = self.model.dataset_meta.get('classes')
        return found if classes is None else {**found, 'class': classes[label]}


class Detector:
    """The same for boxes, by MMDetection's inferencer.

    Args:
        cfg: The config of a detector.
        args: The command line.

    Raises:
        CheckpointError: As of :class:`Classifier`.
    """

    def __init__(self, cfg: Config, args: argparse.Namespace):
        checkpoint = load_checkpoint_file(args.checkpoint, args.trust_checkpoint)
        self.inferencer = DetInferencer(cfg, args.checkpoint, args.device, show_progress=False)
        check_state_dict(self.inferencer.model, checkpoint, args.checkpoint)
        self.score_thr = args.score_thr

    def predict(self, paths: list[str]) -> list:
        """One sample for each picture."""
        found = self.inferencer(paths, batch_size=len(paths), return_datasamples=True)
        return found['predictions']

    def draw(self, name: str, image: np.ndarray, sample, out_file: str) -> None:
        """Save the picture with its boxes."""
        self.inferencer.visualizer.add_datasample(
            name, image, sample, draw_gt=False, pred_score_thr=self.score_thr, out_file=out_file
        )

    def describe(self, sample) -> dict:
        """What was found, in plain numbers."""
        return self.inferencer.pred2dict(sample)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Run the demo."""
    args = parse_args(argv)
    enforce_safe_loading(args.trust_checkpoint)
    with exit_on_error(ValueError, KeyError):
        if not os.path.exists(args.inputs):
            raise ToolError(f'{args.inputs} is not there')
        cfg = read_config(args.config)
        paths = find_pictures(args.inputs)
        args.checkpoint = fetch_checkpoint(args.checkpoint)
        model = (Classifier if 'head' in cfg.model else Detector)(cfg, args)
    pictures, predictions = output_names(paths), output_names(paths, '.json')
    skipped: list = []
    for start in track(range(0, len(paths), args.batch_size), 'finding'):
        images = {}
        for path in paths[start : start + args.batch_size]:
            try:
                images[path] = read_rgb(path)
            except UnreadableImageError as error:
                skipped.append(str(error))
        samples = model.predict(list(images)) if images else []
        for (path, image), sample in zip(images.items(), samples):
            out_file = os.path.join(args.out_dir, 'vis', pictures[path])
            model.draw(pictures[path], image, sample, out_file)
            out_file = os.path.join(args.out_dir, 'preds', predictions[path])
            os.makedirs(os.path.dirname(out_file), exist_ok=True)
            with open(out_file, 'w') as file:
                json.dump(model.describe(sample), file)
    with exit_on_error():
        report_skipped(skipped, len(paths) - len(skipped))
    print(f'pictures: {os.path.join(args.out_dir, "vis")}')
