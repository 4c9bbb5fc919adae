"""A checkpoint without its optimiser, named by its hash: MMDetection's own tool."""

import argparse
import sys

from mmsnn.compat import enforce_safe_loading, load_checkpoint_file
from mmsnn.utils import exit_on_error, run_mmdet_tool


def parse_args() -> argparse.Namespace:
    """Read the command line: MMDetection's options, and ours."""
    parser = argparse.ArgumentParser(
        description='Leave out of a checkpoint what only training needs, and name it by its hash.'
    )
    parser.add_argument('in_file', help='path of the checkpoint')
    parser.add_argument('out_file', help='path of the published one; the hash is put into its name')
    parser.add_argument(
        '--save-keys', nargs='+', metavar='KEY', help='what to keep (default: meta state_dict)'
    )
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='load a checkpoint that holds more than weights; such a file can run code when it is '
        'loaded, so only one whose source you trust',
    )
    return parser.parse_args()


def main() -> None:
    """Look at the checkpoint, then hand over."""
    args = parse_args()
    enforce_safe_loading(args.trust_checkpoint)
    with exit_on_error():
        load_checkpoint_file(args.in_file, args.trust_checkpoint)
    keep = ['--save-keys', *args.save_keys] if args.save_keys else []
    sys.argv[1:] = [args.in_file, args.out_file, *keep]
    run_mmdet_tool('model_converters/publish_model.py')


if __name__ == '__main__':
    main()
