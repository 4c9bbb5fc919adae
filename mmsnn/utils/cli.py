"""The common part of tools/: options, config, launcher, and errors a person can act on."""

import argparse
import difflib
import glob
import inspect
import os
import os.path as osp
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Optional

import torch
from mmdet.registry import MODELS, RUNNERS
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import nn

from ..compat import CheckpointError
from ..datasets import DatasetError, check_config_datasets
from ..deploy import PRECISIONS
from ..engine.hooks.non_finite_loss_hook import NonFiniteLossError
from ..models import TDBN


class ToolError(RuntimeError):
    """Something that the user can mend; the message says how."""


@contextmanager
def exit_on_error(*also: type) -> Iterator[None]:
    """End with one message instead of a traceback where the user can mend the cause.

    ``MMSNN_TRACEBACK=1`` shows the traceback all the same.

    Args:
        *also: Further exception types to treat so, for stretches of code in which they come from
            what the user gave.
    """
    try:
        yield
    except (ToolError, CheckpointError, DatasetError, NonFiniteLossError, *also) as error:
        if os.environ.get('MMSNN_TRACEBACK') == '1' or not str(error):
            raise
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        message = f'{message}{_did_you_mean(error)}'
        # What is not ours to explain may need the place where it happened.
        hint = '\n(MMSNN_TRACEBACK=1 shows where)' if isinstance(error, also) else ''
        sys.exit(f'\nerror: {message}{hint}')


def _did_you_mean(error: Exception) -> str:
    """The argument that a misspelt key of a config comes closest to."""
    misspelt = re.search(
        r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error)
    )
    cls = misspelt and MODELS.get(misspelt[1])
    if not cls:
        return ''
    near = difflib.get_close_matches(misspelt[2], inspect.signature(cls).parameters, n=1)
    return f' (did you mean {near[0]!r}?)' if near else ''


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of every tool that reads a config and a checkpoint.

    Args:
        parser: The tool's parser.
    """
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config, for example train_dataloader.batch_size=4 '
        'model.backbone.time_steps=2; lists as key="[a,b]" or key=a,b, without blanks',
    )
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='load checkpoints that hold more than weights; such a file can run code when it is '
        'loaded, so only for files whose source you trust',
    )
    parser.add_argument(
        '--no-data-check',
        action='store_true',
        help='start without looking through the data sets first, for data that the check takes '
        'for wrong and the run would not',
    )
    # What load_config looks at, for tools without the options of a run.
    parser.set_defaults(launcher='none', local_rank=0, work_dir=None)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and testing share with MMDetection.

    Args:
        parser: The tool's parser.
    """
    add_config_arguments(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher; tools/dist_*.sh and tools/slurm_*.sh set it',
    )
    # torch.distributed.launch passes it, torchrun sets LOCAL_RANK.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def add_fuse_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--fuse``, for the tools that test.

    Args:
        parser: The tool's parser.
    """
    parser.add_argument(
        '--fuse',
        nargs='?',
        const='auto',
        choices=PRECISIONS,
        help='test the model in its fast form: norms folded into convs, channels_last, and the '
        'precision given (without one: the fastest whose results hold on this machine)',
    )


def load_config(args: argparse.Namespace) -> Config:
    """Read the config, with the command line's settings merged in.

    Args:
        args: Parsed arguments of :func:`add_common_arguments` or :func:`add_config_arguments`, with
            ``config``.

    Returns:
        The config, with ``work_dir`` and ``launcher`` set.

    Raises:
        ToolError: The config can't be read.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if not osp.isfile(args.config):
        raise ToolError(
            f'config {args.config} is not there: give the path of a file, as in '
            'configs/spiking_retinanet/spiking-retinanet_sg-r18_asd_fpn_1x_coco.py'
        )
    try:
        cfg = Config.fromfile(args.config)
        if args.cfg_options is not None:
            cfg.merge_from_dict(args.cfg_options)
    except (OSError, SyntaxError, ImportError, KeyError, TypeError, ValueError) as error:
        raise ToolError(f'config {args.config} cannot be read: {error}') from error
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(args.config))[0])
    return cfg


def check_work_dir(work_dir: str) -> None:
    """Refuse to start a new run over another run's checkpoints.

    Args:
        work_dir: Where the run will save.

    Raises:
        ToolError: There are checkpoints.
    """
    found = sorted(glob.glob(osp.join(glob.escape(work_dir), '*.pth')))
    if found:
        raise ToolError(
            f'{work_dir} holds the checkpoints of another run ({osp.basename(found[-1])}), which '
            'a new run would overwrite. Go on with that run by --resume, or choose another folder '
            'with --work-dir'
        )


def is_first_process() -> bool:
    """Whether this is the only process of a run, or the first of several, before they meet."""
    return int(os.environ.get('RANK', os.environ.get('SLURM_PROCID', 0))) == 0


def check_data(
    cfg: Config,
    splits: Sequence[str],
    args: argparse.Namespace,
    time_steps: Optional[int] = None,
    checkpoint: Optional[Mapping] = None,
    checkpoint_path: str = '',
) -> None:
    """Look through the data sets before any long work, once for all ranks.

    Args:
        cfg: The config.
        splits: Of ``'train'``, ``'val'`` and ``'test'``.
        args: Parsed arguments of :func:`add_config_arguments`; ``--no-data-check`` skips it all.
        time_steps: T that the model will have; None for the config's.
        checkpoint: What the checkpoint file holds whose classes must be those of the data.
        checkpoint_path: The file.

    Raises:
        DatasetError: Something in them would fail later, or train on less than was meant.
    """
    if not args.no_data_check and is_first_process():
        check_config_datasets(cfg, splits, time_steps, checkpoint, checkpoint_path)


def setup_launcher(cfg: Config) -> None:
    """Where there is no GPU, join the process group with gloo before mmengine asks for CUDA.

    Args:
        cfg: The config; ``env_cfg.dist_cfg.backend`` and ``model_wrapper_cfg`` are set.
    """
    if cfg.launcher == 'pytorch' and not torch.cuda.is_available():
        cfg.env_cfg.dist_cfg.backend = 'gloo'
        torch.distributed.init_process_group('gloo')
        # mmengine's default names a GPU for each process.
        wrapper = dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
        cfg.model_wrapper_cfg = {**wrapper, **cfg.get('model_wrapper_cfg', {}), 'device_ids': None}


def leave_launcher() -> None:
    """Leave the process group together.

    A process that ends while another still holds a connection to it can take that one down.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def enable_amp(cfg: Config) -> None:
    """Turn on bfloat16 mixed precision.

    Args:
        cfg: The config; its ``optim_wrapper.type`` is changed.

    Raises:
        ToolError: The config has an optimiser wrapper of its own kind.
    """
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper', 'BF16OptimWrapper'):
        raise ToolError(
            f'--amp replaces an OptimWrapper, but the config uses {kind!r}: take '
            '--amp away, or change optim_wrapper.type'
        )
    cfg.optim_wrapper.type = 'BF16OptimWrapper'
    for key in ('loss_scale', 'dtype'):
        cfg.optim_wrapper.pop(key, None)


def check_sync_bn(cfg: Config) -> None:
    """Refuse mmengine's ``sync_bn`` for a model with tdBN.

    In distributed runs it puts ``SyncBatchNorm`` in the place of every batch norm by weight and
    bias alone, and a tdBN would lose its alpha * V_th without a word.

    Args:
        cfg: The config.

    Raises:
        ToolError: Both are there.
    """
    if cfg.get('sync_bn') is None:
        return
    # Many configs have tdBN by default and don't name it: only the model itself knows.
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    found = sum(isinstance(module, TDBN) for module in MODELS.build(cfg.model).modules())
    if found:
        raise ToolError(
            f'sync_bn={cfg.sync_bn!r} would turn the {found} tdBN layers of the model into '
            'SyncBatchNorm, which loses their factor alpha * V_th: take sync_bn away and choose '
            "norm_cfg=dict(type='SyncTDBN'), whose statistics are those of all processes"
        )


def build_runner(cfg: Config) -> Runner:
    """Build the runner, and with it the model; what the config got wrong ends in one message.

    Args:
        cfg: The config.

    Returns:
        The runner.
    """
    with exit_on_error(ValueError, KeyError, TypeError, AssertionError):
        check_sync_bn(cfg)
        return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def get_time_steps(model: nn.Module) -> Optional[int]:
    """T of a detector or classifier.

    Args:
        model: The detector or classifier.

    Returns:
        T; None where its backbone has none.
    """
    return getattr(getattr(model, 'backbone', model), 'time_steps', None)


def set_time_steps(model: nn.Module, time_steps: int) -> None:
    """Let a detector run at another T than that of its config.

    Args:
        model: The detector.
        time_steps: T.

    Raises:
        ToolError: T is less than 1, or the detector's backbone has no T.
    """
    if time_steps < 1:
        raise ToolError(f'--time-steps must be at least 1, got {time_steps}')
    backbone = getattr(model, 'backbone', model)
    if not hasattr(backbone, 'time_steps'):
        raise ToolError(
            '--time-steps needs a spiking backbone, such as SGResNet: the '
            f"config's {type(backbone).__name__} has no time_steps"
        )
    backbone.time_steps = time_steps


def report_skipped(skipped: Sequence[str], done: int) -> None:
    """Say which pictures were left out.

    Args:
        skipped: One text for each of them.
        done: How many were not.

    Raises:
        ToolError: None was done.
    """
    if not skipped:
        return
    more = f' and {len(skipped) - 5} more' if len(skipped) > 5 else ''
    text = f'{len(skipped)} pictures cannot be read: {", ".join(skipped[:5])}{more}'
    if not done:
        raise ToolError(f'{text}. There is no other')
    print(f'skipped: {text}')


def picture_path(out: str) -> str:
    """Where the picture goes that belongs to a file of results.

    Args:
        out: Path of the file of results.

    Returns:
        The same with another suffix.
    """
    return f'{os.path.splitext(out)[0]}.png'


def check_out(out: str, suffix: str = '.json', beside: Optional[str] = '.png') -> None:
    """Refuse an output that can't be written, or would replace something.

    Args:
        out: The file of results.
        suffix: What its name must end in.
        beside: Suffix of a file that goes beside it; None for none.

    Raises:
        ToolError: The name ends in something else, or one of the files is there already.
    """
    if not out.endswith(suffix):
        raise ToolError(f'--out must name a {suffix} file, got {out}')
    for path in (out, *([f'{os.path.splitext(out)[0]}{beside}'] if beside else [])):
        if os.path.exists(path):
            raise ToolError(f'{path} is there already: choose another --out')
    os.makedirs(os.path.dirname(out) or '.', exist_ok=True)
