"""What the command-line tools share."""

from ..engine.wrappers import unwrap
from .cli import (
    ToolError,
    add_common_arguments,
    add_config_arguments,
    add_fuse_argument,
    build_runner,
    check_data,
    check_out,
    check_sync_bn,
    check_work_dir,
    enable_amp,
    exit_on_error,
    leave_launcher,
    load_config,
    picture_path,
    set_time_steps,
    setup_launcher,
)
from .measuring import add_measuring_arguments, input_batches, load_model
from .mmdet_tools import run_mmdet_tool

__all__ = [
    'ToolError',
    'add_common_arguments',
    'add_config_arguments',
    'add_fuse_argument',
    'add_measuring_arguments',
    'build_runner',
    'check_data',
    'check_out',
    'check_sync_bn',
    'check_work_dir',
    'enable_amp',
    'exit_on_error',
    'input_batches',
    'leave_launcher',
    'load_config',
    'load_model',
    'picture_path',
    'run_mmdet_tool',
    'set_time_steps',
    'setup_launcher',
    'unwrap',
]
