"""Run a checkpoint on pictures and save them with the boxes found."""

import argparse
import os

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

from mmdet.apis import DetInferencer
from mmengine.config import Config

from mmsnn.compat import check_state_dict, enforce_safe_loading, load_checkpoint_file
from mmsnn.utils import ToolError, exit_on_error

EXAMPLES = """examples:
  python tools/image_demo.py photo.jpg CONFIG CHECKPOINT
  python tools/image_demo.py folder/ CONFIG CHECKPOINT --out-dir found --score-thr 0.5"""


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Find objects in pictures and save the pictures with their boxes.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('inputs', help='a picture, or a folder of pictures')
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', help='path of the checkpoint')
    parser.add_argument(
        '--out-dir',
        default='outputs',
        help='pictures go to OUT_DIR/vis, boxes as JSON to OUT_DIR/preds (default: outputs)',
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


def main() -> None:
    """Run the demo."""
    args = parse_args()
    enforce_safe_loading(args.trust_checkpoint)
    with exit_on_error():
        for path in (args.inputs, args.config):
            if not os.path.exists(path):
                raise ToolError(f'{path} is not there')
        checkpoint = load_checkpoint_file(args.checkpoint, args.trust_checkpoint)
    with exit_on_error(ValueError, KeyError):
        cfg = Config.fromfile(args.config)
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
