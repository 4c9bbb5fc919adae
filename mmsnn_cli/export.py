"""A checkpoint as a file that other programs read: ``mmsnn export TARGET``."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.model import BaseModel

#: By target, the module that runs it and what it writes.
TARGETS = {
    'onnx': ('.export_onnx', 'a graph of plain ONNX operators, for ONNX Runtime and OpenVINO'),
    'pt2': ('.export_pt2', "a program for PyTorch, with mmsnn's kernels, without MMDetection"),
    'nir': ('.export_nir', 'the spiking backbone in NIR, for neuromorphic simulators and chips'),
    'int8': ('.export_int8', 'the spiking backbone in whole numbers, for FPGAs and chips'),
}


def export_parser(
    target: str, suffix: str, description: str, epilog: str
) -> argparse.ArgumentParser:
    """What the commands of all targets take.

    Args:
        target: Name of the target.
        suffix: What names of its files end in.
        description: Of the command.
        epilog: Likewise.

    Returns:
        The parser.
    """
    from mmsnn.utils import add_config_arguments

    parser = argparse.ArgumentParser(
        prog=f'mmsnn export {target}',
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', help='path of the checkpoint')
    parser.add_argument(
        '-o', '--out', required=True, metavar=f'FILE{suffix}', help='the file to write'
    )
    parser.add_argument(
        '--time-steps', type=int, metavar='T', help="T time steps, whatever the config's are"
    )
    add_config_arguments(parser)
    return parser


def add_size_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that fix the size and the number of images.

    Args:
        parser: That of :func:`export_parser`.
    """
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='size of all images, padding included (default: any)',
    )
    parser.add_argument(
        '--batch', type=int, metavar='B', help='number of images at once (default: any)'
    )


def sizes_in_words(args: argparse.Namespace) -> str:
    """What the options of :func:`add_size_arguments` ask for.

    Args:
        args: Parsed arguments.

    Returns:
        The end of a line.
    """
    size = 'x'.join(map(str, args.shape)) if args.shape else 'any size'
    return f'images of {size}, {args.batch or "any number"} at once'


def load_for_export(args: argparse.Namespace, suffix: str) -> 'tuple[Config, BaseModel]':
    """Check the output, and load the model.

    Args:
        args: Parsed arguments of :func:`export_parser`.
        suffix: What the output's name must end in.

    Returns:
        The config, with the T asked for, and the model on the CPU in eval mode, with its ``cfg``
        and ``dataset_meta``.

    Raises:
        ToolError: An option is wrong, or the output is there already.
        CheckpointError: The checkpoint can't be loaded, or is of another model.
        DatasetError: The data are event frames of another T.
    """
    from mmsnn.compat import enforce_safe_loading
    from mmsnn.utils import check_out, load_model

    check_out(args.out, suffix, beside=None)
    enforce_safe_loading(args.trust_checkpoint)
    cfg, model = load_model(argparse.Namespace(**{**vars(args), 'out': None, 'shape': None}))
    return cfg, model.cpu()


def about_model(cfg: 'Config', model: 'BaseModel') -> dict:
    """What a file of a backbone says of what stands before and behind it.

    Args:
        cfg: The config.
        model: Its model.

    Returns:
        ``preprocessing``, ``classes`` and ``host``, the parts behind the spikes, as the config has
        them; values that JSON has no words for are text.
    """
    import json

    parts = cfg.model.to_dict()
    preprocessing = parts.pop('data_preprocessor', None)
    others = ('type', 'backbone', 'init_cfg', 'train_cfg', 'test_cfg')
    host = {key: value for key, value in parts.items() if key not in others}
    meta = getattr(model, 'dataset_meta', None) or {}
    about = dict(preprocessing=preprocessing, classes=meta.get('classes'), host=host)
    return json.loads(json.dumps(about, default=str))


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Run ``mmsnn export``.

    Args:
        argv: The target and the words after it; by default the process's own.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    lines = [f'  {name:6} {text}' for name, (_, text) in TARGETS.items()]
    parser = argparse.ArgumentParser(
        prog='mmsnn export',
        description='Write a checkpoint as a file that other programs read.',
        epilog='targets:\n'
        + '\n'.join(lines)
        + '\n\n`mmsnn export TARGET --help` has the options of a target.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('target', choices=list(TARGETS), metavar='TARGET', help=', '.join(TARGETS))
    target = parser.parse_args(argv[:1]).target
    importlib.import_module(TARGETS[target][0], __package__).main(argv[1:])
