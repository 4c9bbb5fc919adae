"""What the command-line tools share."""

from ..engine.wrappers import unwrap
from .anytime import anytime, anytime_table, draw_anytime, main_score, plain_metrics, score_names
from .checkpoints import Start, check_pretrained, find_start
from .cli import (
    CONFIG_ERRORS,
    ToolError,
    add_common_arguments,
    add_config_arguments,
    add_fuse_argument,
    build_runner,
    check_data,
    check_out,
    check_sync_bn,
    check_time_steps,
    enable_amp,
    exit_on_error,
    fetch_checkpoint,
    get_time_steps,
    leave_launcher,
    load_config,
    picture_path,
    read_config,
    report_skipped,
    set_time_steps,
    setup_launcher,
)
from .faults import faults_in_one_line
from .measuring import add_measuring_arguments, input_batches, load_model, now
from .mmdet_tools import run_mmdet_tool
from .predictions import load_predictions, read_pickles_safely
from .settings import check_settings
from .work_dir import lock_work_dir

__all__ = [
    'CONFIG_ERRORS',
    'Start',
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
    'check_settings',
    'check_sync_bn',
    'check_time_steps',
    'draw_anytime',
    'enable_amp',
    'exit_on_error',
    'faults_in_one_line',
    'fetch_checkpoint',
    'find_start',
    'get_time_steps',
    'input_batches',
    'leave_launcher',
    'load_config',
    'load_model',
    'load_predictions',
    'lock_work_dir',
    'main_score',
    'now',
    'picture_path',
    'plain_metrics',
    'read_config',
    'read_pickles_safely',
    'report_skipped',
    'run_mmdet_tool',
    'score_names',
    'set_time_steps',
    'setup_launcher',
    'unwrap',
]
