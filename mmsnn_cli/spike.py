"""The command that makes a detector spike."""

import argparse
import copy
import os
import os.path as osp
from collections.abc import Mapping, Sequence
from typing import Any, Optional

# First: without mmcv's compiled ops, MMDetection's models import only behind it.
import mmsnn  # noqa: F401  isort: skip

import mmdet
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmsnn.apis.spiking import DEPTHS, CannotSpikeError, make_spiking, merged, try_spiking
from mmsnn.config_files import config_file
from mmsnn.config_types import type_name
from mmsnn.utils import ToolError, check_out, check_time_steps, exit_on_error, read_config

#: Where the installed MMDetection keeps its configs.
MMDET_CONFIGS = osp.join(osp.dirname(mmdet.__file__), '.mim', 'configs')
MMDET_NAME = 'mmdet::'
EPILOG = """The new config inherits the given one and shows what changed. Before it is written, the
detector takes one training step and makes one prediction on random data.

examples:
  mmsnn spike mmdet::retinanet/retinanet_r50_fpn_1x_coco.py -o spiking.py
  mmsnn spike my_detector.py -o spiking.py --depth 18

docs/tutorials/make-it-spike.md says which detectors were tried."""


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line.

    Args:
        argv: The words behind the command; default those of this process.

    Returns:
        The arguments.
    """
    parser = argparse.ArgumentParser(
        prog='mmsnn spike',
        description='Put a spiking backbone and decoders into any detector of MMDetection.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'config',
        help="path of the detector's config, or mmdet::FOLDER/NAME.py for one of MMDetection's own",
    )
    parser.add_argument('-o', '--out', required=True, help='config to write')
    parser.add_argument(
        '--depth',
        type=int,
        choices=DEPTHS,
        help='depth of the SGResNet (default: that of the ResNet it replaces, 18 for any other '
        'backbone)',
    )
    parser.add_argument('--time-steps', type=int, default=4, metavar='T', help='T (default: 4)')
    return parser.parse_args(argv)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Make a detector spike, try it, and write its config.

    Args:
        argv: The words behind the command; default those of this process.
    """
    args = parse_args(argv)
    # mmengine tells how each of hundreds of weights was initialised.
    MMLogger.get_current_instance().setLevel('WARNING')
    with exit_on_error(OSError):
        check_time_steps(args.time_steps)
        check_out(args.out, '.py', beside=None)
        cfg, path = read_config(args.config), config_file(args.config)
        try:
            spiking = make_spiking(cfg, args.depth, args.time_steps)
            trial = try_spiking(merged(cfg, spiking.changes))
        except CannotSpikeError as error:
            raise ToolError(f'{args.config} cannot be made to spike: {error}') from error
        text = config_text(cfg, path, args.out, spiking.changes)
        with open(args.out, 'x', encoding='utf-8') as file:
            file.write(text)
    losses = ', '.join(f'{name} {value:.3g}' for name, value in trial.losses.items())
    found = ', '.join(f'{name}: {count}' for name, count in trial.found.items())
    print(f'{args.config}: {type_name(cfg.model)}')
    for note in spiking.notes:
        print(f'  {note}')
    print(
        f'  one training step on random data: {losses}; a gradient reached {trial.reached} of the '
        f'{trial.parameters} parameters of the backbone'
    )
    print(f'  one prediction: {found}')
    print(f'written: {args.out}')


def base_name(path: str, out: str) -> str:
    """How a config names another one as its ``_base_``.

    Args:
        path: The other one.
        out: The config.

    Returns:
        ``mmdet::`` and a name for one of MMDetection's own; a path relative to the config's folder
        where they have a folder in common; else an absolute one.
    """
    path, folder = osp.abspath(path), osp.dirname(osp.abspath(out))
    if osp.commonpath([path, MMDET_CONFIGS]) == MMDET_CONFIGS:
        return MMDET_NAME + osp.relpath(path, MMDET_CONFIGS).replace(os.sep, '/')
    if osp.commonpath([path, folder]) == osp.abspath(os.sep):
        return path
    return osp.relpath(path, folder).replace(os.sep, '/')


def config_text(cfg: Config, path: str, out: str, changes: Mapping) -> str:
    """A config that inherits another one.

    Args:
        cfg: The other one.
        path: Its file.
        out: The file that will be written.
        changes: What it changes.

    Returns:
        Its text. A pure-Python config can be nobody's ``_base_``: it is written out whole.
    """
    names = ['mmsnn']
    own = cfg.get('custom_imports') or {}
    names = [name for name in own.get('imports', []) if name not in names] + names
    imports = dict(imports=names, allow_failed_imports=False)
    if Config._is_lazy_import(path):
        settings = {**_with_names(merged(cfg, changes).to_dict()), 'custom_imports': imports}
        settings['default_scope'] = settings.get('default_scope') or 'mmdet'
        head = f'# {osp.basename(path)}, made to spike.'
    else:
        settings = dict(
            _base_=base_name(path, out), custom_imports=imports, **copy.deepcopy(dict(changes))
        )
        head = f'# {osp.basename(path)} made to spike: an SGResNet, and decoders behind it.'
    return f'{head}\n{Config(settings).pretty_text}'


def _with_names(value: Any) -> Any:
    """The same with names in the place of classes, at any depth."""
    if isinstance(value, Mapping):
        return {key: _with_names(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_with_names(item) for item in value)
    return f'{value.__module__}.{value.__qualname__}' if isinstance(value, type) else value
