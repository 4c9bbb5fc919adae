"""What the command-line tools share."""

from ..engine.wrappers import unwrap
from .anytime import anytime, anytime_table, draw_anytime, plain_metrics, score_names
from .checkpoints import check_pretrained, find_start
from .cli import (
    ToolError,
    add_common_arguments,
    add_config_arguments,
    add_fuse_argument,
    build_runner,
    check_data,
    check_out,
    check_sync_bn,
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
from .faults import faults_in_one_line
from .measuring import add_measuring_arguments, input_batches, load_model, now
from .mmdet_tools import run_mmdet_tool
from .predictions import load_predictions, read_pickles_safely
from .work_dir import lock_work_dir

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
    'check_pretrained',
    'check_sync_bn',
    'draw_anytime',
    'enable_amp',
    'exit_on_error',
    'faults_in_one_line',
    'find_start',
    'get_time_steps',
    'input_batches',
    'leave_launcher',
    'load_config',
    'load_model',
    'load_predictions',
    'lock_work_dir',
    'now',
    'picture_path',
    'plain_metrics',
    'read_pickles_safely',
    'report_skipped',
    'run_mmdet_tool',
    'score_names',
    'set_time_steps',
    'setup_launcher',
    'unwrap',
]
