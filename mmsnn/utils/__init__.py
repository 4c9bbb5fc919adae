"""What the command-line tools share."""

from ..engine.wrappers import unwrap
from .anytime import anytime, anytime_table, draw_anytime, plain_metrics, score_names
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
    get_time_steps,
    leave_launcher,
    load_config,
    picture_path,
    report_skipped,
    set_time_steps,
    setup_launcher,
)
from .measuring import add_measuring_arguments, input_batches, load_model, now
from .mmdet_tools import run_mmdet_tool

__all__ = [
    'ToolError',
    'add_common_arguments',
    'add_config_arguments',
    'add_fuse_argument',
    'add_measuring_arguments',
    'anytime',
    'anytime_table',
    'build_runner',
    'check_data',
    'check_out',
    'check_sync_bn',
    'check_work_dir',
    'draw_anytime',
    'enable_amp',
    'exit_on_error',
    'get_time_steps',
    'input_batches',
    'leave_launcher',
    'load_config',
    'load_model',
    'now',
    'picture_path',
    'plain_metrics',
    'report_skipped',
    'run_mmdet_tool',
    'score_names',
    'set_time_steps',
    'setup_launcher',
    'unwrap',
]
