"""A checkpoint without its optimiser, named by its hash: MMDetection's own tool."""

import argparse
from collections.abc import Sequence
from typing import Optional

from mmsnn.compat import enforce_safe_loading, load_checkpoint_file
from mmsnn.utils import exit_on_error, run_mmdet_tool


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line: MMDetection's options, and ours."""
    parser = argparse.ArgumentParser(
        prog='mmsnn publish',
        description='Leave out of a checkpoint what only training needs, and name it by its hash.',
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
    return parser.parse_args(argv)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Look at the checkpoint, then hand over."""
    args = parse_args(argv)
    enforce_safe_loading(args.trust_checkpoint)
    with exit_on_error():
        load_checkpoint_file(args.in_file, args.trust_checkpoint)
    keep = ['--save-keys', *args.save_keys] if args.save_keys else []
    argv = [args.in_file, args.out_file, *keep]
    run_mmdet_tool('model_converters/publish_model.py', argv)
