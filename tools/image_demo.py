"""Run a checkpoint on pictures and save them with the boxes or classes found."""

import argparse
import json
import os

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

import mmcv
import torch
from mmdet.apis import DetInferencer
from mmengine.config import Config
from mmengine.utils import scandir
from rich.progress import track

from mmsnn.apis import inference_classifier, init_classifier
from mmsnn.compat import check_state_dict, enforce_safe_loading, load_checkpoint_file
from mmsnn.utils import ToolError, exit_on_error, fetch_checkpoint, read_config
from mmsnn.visualization import ClsVisualizer

IMG_EXTENSIONS = ('.jpg', '.jpeg', '.png', '.bmp', '.ppm', '.tif', '.tiff', '.webp')

EXAMPLES = """examples:
  python tools/image_demo.py photo.jpg CONFIG CHECKPOINT
  python tools/image_demo.py folder/ CONFIG CHECKPOINT --out-dir found --score-thr 0.5"""


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Find objects in pictures, or classify them, and save the pictures with their '
        'boxes or classes.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('inputs', help='a picture, or a folder of pictures')
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', help='path of the checkpoint')
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
    return parser.parse_args()


def classify(cfg: Config, args: argparse.Namespace) -> None:
    """Classify the pictures; everything is written as for boxes.

    Args:
        cfg: The config of a classifier.
        args: The command line.

    Raises:
        ToolError: There are no pictures.
        CheckpointError: The checkpoint can't be loaded, or is of another model.
    """
    paths = [args.inputs]
    if os.path.isdir(args.inputs):
        names = sorted(scandir(args.inputs, IMG_EXTENSIONS, case_sensitive=False))
        paths = [os.path.join(args.inputs, name) for name in names]
    if not paths:
        raise ToolError(f'{args.inputs} holds no pictures ({", ".join(IMG_EXTENSIONS)})')
    device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    model = init_classifier(cfg, args.checkpoint, device, trust_checkpoint=args.trust_checkpoint)
    visualizer = ClsVisualizer('image_demo')
    visualizer.dataset_meta = model.dataset_meta
    classes = model.dataset_meta.get('classes')
    os.makedirs(os.path.join(args.out_dir, 'preds'), exist_ok=True)
    for start in track(range(0, len(paths), args.batch_size), 'classifying'):
        batch = paths[start : start + args.batch_size]
        for path, sample in zip(batch, inference_classifier(model, batch)):
            name = os.path.basename(path)
            picture = mmcv.imread(path, channel_order='rgb')
            out_file = os.path.join(args.out_dir, 'vis', name)
            visualizer.add_datasample(name, picture, sample.cpu(), out_file=out_file)
            label = int(sample.pred_label)
            found = dict(label=label, scores=[round(s, 5) for s in sample.pred_score.tolist()])
            if classes is not None:
                found['class'] = classes[label]
            stem = os.path.splitext(name)[0]
            with open(os.path.join(args.out_dir, 'preds', f'{stem}.json'), 'w') as file:
                json.dump(found, file)
    print(f'pictures: {os.path.join(args.out_dir, "vis")}')


def main() -> None:
    """Run the demo."""
    args = parse_args()
    enforce_safe_loading(args.trust_checkpoint)
    with exit_on_error(ValueError, KeyError):
        if not os.path.exists(args.inputs):
            raise ToolError(f'{args.inputs} is not there')
        cfg = read_config(args.config)
        args.checkpoint = fetch_checkpoint(args.checkpoint)
        if 'head' in cfg.model:
            classify(cfg, args)
            return
        checkpoint = load_checkpoint_file(args.checkpoint, args.trust_checkpoint)
        inferencer = DetInferencer(cfg, args.checkpoint, args.device)
        check_state_dict(inferencer.model, checkpoint, args.checkpoint)
    inferencer(
        args.inputs,
        batch_size=args.batch_size,
        pred_score_thr=args.score_thr,
        out_dir=args.out_dir,
        no_save_pred=False,
    )
    print(f'pictures: {os.path.join(args.out_dir, "vis")}')


if __name__ == '__main__':
    main()
