"""MMDetection's own tools, with spiking configs."""

import os.path as osp
import runpy
import sys
import traceback
from collections.abc import Sequence
from typing import Optional

import mmdet
from mmengine.config import Config

from ..config_files import config_file
from .cli import ToolError, config_problem, exit_on_error


def run_mmdet_tool(name: str, argv: Optional[Sequence[str]] = None) -> None:
    """Run a tool that comes with the installed MMDetection.

    Importing mmsnn first is all that it lacks: the models, and the stand-ins for MMCV's compiled
    operators, are registered then.

    Args:
        name: Path below MMDetection's ``tools/``, such as ``'misc/print_config.py'``.
        argv: Its arguments, in which configs may be given as ``'PACKAGE::FOLDER/NAME.py'``; None
            for those of this process.
    """
    path = osp.join(osp.dirname(mmdet.__file__), '.mim', 'tools', name)
    with exit_on_error():
        if not osp.isfile(path):
            raise ToolError(
                f'the installed MMDetection comes without its tools ({path} is not there): install '
                "it from a wheel, as pip install 'mmsnn[onedl]' does"
            )
    given = sys.argv[1:] if argv is None else argv
    sys.argv = [path, *(config_file(word) if '::' in word else word for word in given)]
    # Tools import their neighbours.
    sys.path.insert(0, osp.dirname(path))
    with exit_on_error():
        try:
            runpy.run_path(path, run_name='__main__')
        except ModuleNotFoundError as error:
            raise ToolError(
                f"MMDetection's {name} needs {error.name}: pip install {error.name}"
            ) from error
        except Exception as error:
            codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
            if Config.fromfile.__code__ in codes:
                raise ToolError(f'the config cannot be read: {config_problem(error)}') from error
            raise
