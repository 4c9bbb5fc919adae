"""The common part of all commands: options, config, launcher, and errors a person can act on."""

import argparse
import difflib
import glob
import hashlib
import inspect
import logging
import os
import os.path as osp
import re
import subprocess
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Optional

import mmdet.registry
import torch
from mmdet.registry import MODELS
from mmengine.config import Config, DictAction
from mmengine.logging import print_log
from mmengine.registry import Registry, init_default_scope
from mmengine.runner import Runner
from torch import nn

from .. import checkpoints
from ..compat import CheckpointError, quiet_coco
from ..config_files import config_file, config_names
from ..config_types import find_type, type_name
from ..datasets import DatasetError, check_config_datasets
from ..deploy import FEW_BITS, PRECISIONS
from ..engine.hooks.non_finite_loss_hook import NonFiniteLossError
from ..models import TDBN
from ..ops import SettingError
from .console import quiet_runner


class ToolError(RuntimeError):
    """Something that the user can mend; the message says how."""


#: What building the parts of a config raises where an argument of theirs can't be.
CONFIG_ERRORS = (OSError, ValueError, KeyError, TypeError, AssertionError)


@contextmanager
def exit_on_error(*also: type) -> Iterator[None]:
    """End with one message instead of a traceback where the user can mend the cause.

    ``MMSNN_TRACEBACK=1`` shows the traceback all the same.

    Args:
        *also: Further exception types to treat so, for stretches of code in which they come from
            what the user gave.
    """
    ours = (ToolError, CheckpointError, DatasetError, NonFiniteLossError, SettingError)
    try:
        yield
    except Exception as error:
        of_worker = _words_of_worker(error)
        # The words of mmcv's loader.
        unreadable = re.search('failed to load image: (.*)', of_worker or str(error))
        known = isinstance(error, (*ours, *also)) or of_worker or unreadable
        if os.environ.get('MMSNN_TRACEBACK') == '1' or not str(error) or not known:
            raise
        message = of_worker or error_words(error)
        if unreadable:
            message = f'{unreadable[1]} cannot be decoded: the picture is broken, fetch it again'
        # What is not ours to explain may need the place where it happened.
        explained = isinstance(error, ours) or unreadable
        where = ' (in a process of the data loader)' if of_worker else ''
        hint = '' if explained else f'{where}\n(MMSNN_TRACEBACK=1 shows where)'
        sys.exit(f'\nerror: {message}{hint}')


def _words_of_worker(error: Exception) -> str:
    """The last words of a loader's process, without the traceback that torch puts before them."""
    if not re.match(r'Caught \w+ in DataLoader worker process', str(error)):
        return ''
    # Lines of a traceback are indented, but for its head and for what was said in the end.
    said = re.split(r'^\s+.*\n', str(error).rstrip(), flags=re.MULTILINE)[-1]
    name = type(error).__name__
    if isinstance(error, (ToolError, DatasetError)):
        return re.sub(rf'^(\w+\.)*{name}: ', '', said)
    return said


def error_words(error: Exception) -> str:
    """What an exception says, with the name that a misspelt one comes closest to.

    Args:
        error: The exception.

    Returns:
        The text.
    """
    # A KeyError shows the repr of what it was given.
    message = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    # mmengine's advice on registries fills four lines.
    unknown = re.match(r'.* is not in the [\w: ]+ registry(?=\.)', message)
    message = unknown[0] if unknown else message
    near = _did_you_mean(message)
    if unknown and not near:
        near = '; custom_imports of the config names the modules of your own'
    return f'{message}{near}'


def _did_you_mean(message: str) -> str:
    """The argument or type that a misspelt one of a config comes closest to."""
    registries = [r for r in vars(mmdet.registry).values() if isinstance(r, Registry)]
    known: Iterable[str] = ()
    key = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", message)
    kind = re.search(r'(\S+) is not in the \w+::([\w ]+) registry', message)
    if key:
        found = (find_type(dict(type=key[1]), registry) for registry in registries)
        cls = next((cls for cls in found if cls), None)
        known = inspect.signature(cls).parameters if cls else ()
        wrong = key[2]
    elif kind:
        named = [r for r in registries if r.name == kind[2]]
        known = {name for r in named for one in (r, r.parent) if one for name in one.module_dict}
        wrong = kind[1].rpartition('.')[2]
    near = difflib.get_close_matches(wrong, known, n=1) if known else []
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
        choices=(*PRECISIONS, *FEW_BITS),
        help='test the model in its fast form: norms folded into convs, channels_last, and the '
        'precision given (without one: the fastest whose results hold on this machine); int4 and '
        'int2 show what such weights on a chip would give, and are no faster than int8',
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
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    check_launcher(args.launcher)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(args.config))[0])
    return cfg


def read_config(path: str, cfg_options: Optional[dict] = None) -> Config:
    """Read a config, old style or pure Python.

    Args:
        path: The file, or what ``mmsnn.config_files.config_file`` takes in its place.
        cfg_options: Settings that override its own.

    Returns:
        The config; ``default_scope`` is MMDetection's where it names none, as in pure Python.

    Raises:
        ToolError: It can't be read.
    """
    example = 'mmsnn::spiking_retinanet/spiking-retinanet_sg-r18_asd_fpn_1x_coco.py'
    given, path = path, config_file(path)
    if not osp.isfile(path):
        what = 'is a folder' if osp.isdir(path) else 'is not there'
        stem = osp.splitext(osp.basename(path))[0]
        near = difflib.get_close_matches(stem, config_names(), n=1) if what != 'is a folder' else []
        meant = f' (did you mean {near[0]!r}?)' if near else ''
        raise ToolError(f'config {given} {what}{meant}: give the path of a file, as in {example}')
    try:
        cfg = Config.fromfile(path)
        if cfg_options is not None:
            cfg.merge_from_dict(cfg_options)
    except Exception as error:  # a config is a program, which can fail in any way
        raise ToolError(f'config {path} cannot be read: {config_problem(error)}') from error
    if cfg.get('default_scope') is None:
        cfg['default_scope'] = 'mmdet'
    for key, known in misspelt_keys(cfg).items():
        if is_first_process():
            text = f'{path}: nothing reads the setting {key!r}; did you mean {known!r}?'
            print_log(text, logger='current', level=logging.WARNING)
    return cfg


def config_problem(error: Exception) -> str:
    """What is wrong in a config, and where.

    Args:
        error: What reading it raised.

    Returns:
        File, line and reason, as far as they are known.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    of_file = [frame.f_code.co_name in _READ_CONFIG for frame, _ in frames]
    if isinstance(error, SyntaxError):
        names = [frame.f_locals['filename'] for (frame, _), read in zip(frames, of_file) if read]
        return f'{names[-1] if names else error.filename}, line {error.lineno}: {error.msg}'
    if isinstance(error, ImportError):
        if error.name == 'pkg_resources':
            return "this mmengine looks packages up by pkg_resources: pip install 'setuptools<82'"
        first: BaseException = error
        while first.__context__ is not None:
            first = first.__context__
        return f'{first}: is it installed, or its folder in PYTHONPATH?'
    # They run the text of a config under the file's name.
    run = [
        f'{frame.f_code.co_filename}, line {line}: '
        for (frame, line), called_by_reader in zip(frames[1:], of_file)
        if called_by_reader and frame.f_code.co_name == '<module>'
    ]
    return f'{run[-1] if run else ""}{type(error).__name__}: {error_words(error)}'


# mmengine's functions that read a file, and its bases by calling themselves.
_READ_CONFIG = ('_is_lazy_import', '_file2dict', '_parse_lazy_import')


def misspelt_keys(cfg: Config) -> dict[str, str]:
    """Top-level settings that are nearly one that the runner reads.

    A config may have variables of any name, and a setting by a wrong name is one of them.

    Args:
        cfg: The config.

    Returns:
        For each of them the name that was probably meant.
    """
    known = [*inspect.signature(Runner.__init__).parameters, *_READ_BESIDE_RUNNER]
    found = {}
    for key in cfg:
        near = [] if key in known else difflib.get_close_matches(key, known, 1, NEARLY)
        if near:
            found[key] = near[0]
    return found


# test_pipeline, a variable of most configs, is just below it beside tta_pipeline.
NEARLY = 0.885
# Top-level settings that are read by name, though they are no arguments of the runner.
_READ_BESIDE_RUNNER = (
    'custom_imports',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
)


def is_first_process() -> bool:
    """Whether this is the only process of a run, or the first of several, before they meet."""
    ranks = (os.environ.get(names['RANK']) for names in (_TORCHRUN, *_LAUNCHERS.values()))
    return int(next((rank for rank in ranks if rank is not None), 0)) == 0


_TORCHRUN = dict(RANK='RANK', WORLD_SIZE='WORLD_SIZE', LOCAL_RANK='LOCAL_RANK')
# What other launchers call the same.
_LAUNCHERS = dict(
    slurm=dict(RANK='SLURM_PROCID', WORLD_SIZE='SLURM_NTASKS', LOCAL_RANK='SLURM_LOCALID'),
    mpi=dict(
        RANK='OMPI_COMM_WORLD_RANK',
        WORLD_SIZE='OMPI_COMM_WORLD_SIZE',
        LOCAL_RANK='OMPI_COMM_WORLD_LOCAL_RANK',
    ),
)


def fetch_checkpoint(path: str) -> str:
    """The file of a checkpoint, which may be given as a URL or a name.

    Args:
        path: A path, a URL of http or https, or ``mmsnn://NAME`` (:mod:`mmsnn.checkpoints`).

    Returns:
        A path; a file from the network is kept in torch's cache.

    Raises:
        ToolError: It can't be fetched, or the URL is of another kind.
    """
    try:
        shipped = checkpoints.resolve(path)
    except checkpoints.ShippedCheckpointError as error:
        raise ToolError(str(error)) from None
    if shipped is not None:
        return shipped
    scheme, mark, rest = path.partition('://')
    if not mark:
        return path
    if scheme not in ('http', 'https'):
        raise ToolError(
            f'checkpoint {path}: {scheme}:// is not taken here. Fetch the file and give its path'
        )
    # Files of one name from several places are several files.
    folder = hashlib.sha256(path.encode()).hexdigest()[:16]
    kept = osp.join(torch.hub.get_dir(), 'checkpoints', folder, osp.basename(rest.split('?')[0]))
    if not osp.isfile(kept):
        os.makedirs(osp.dirname(kept), exist_ok=True)
        try:
            torch.hub.download_url_to_file(path, kept, progress=False)
        except OSError as error:
            raise ToolError(f'checkpoint {path} cannot be fetched: {error}') from error
    return kept


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
    if cfg.launcher == 'none' or torch.cuda.is_available():
        return
    for name, theirs in _LAUNCHERS.get(cfg.launcher, {}).items():
        os.environ[name] = os.environ[theirs]
    if cfg.launcher != 'pytorch':
        os.environ.setdefault('MASTER_PORT', '29500')
    if cfg.launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
        nodes = ['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']]
        names = subprocess.run(nodes, check=True, capture_output=True, text=True).stdout
        os.environ['MASTER_ADDR'] = names.split()[0]
    cfg.env_cfg.dist_cfg.backend = 'gloo'
    torch.distributed.init_process_group('gloo')
    # mmengine's default names a GPU for each process.
    wrapper = dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = {**wrapper, **cfg.get('model_wrapper_cfg', {}), 'device_ids': None}


def check_launcher(launcher: str) -> None:
    """Check that a launcher has told this process its place among the others.

    Args:
        launcher: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.

    Raises:
        ToolError: It hasn't.
    """
    names = {} if launcher == 'none' else _LAUNCHERS.get(launcher, _TORCHRUN)
    lacking = [name for name in names.values() if name not in os.environ]
    if lacking:
        start = dict(pytorch='torchrun or tools/dist_*.sh', slurm='srun or tools/slurm_*.sh')
        raise ToolError(
            f'--launcher {launcher}: {lacking[0]} is not in the environment: start the processes '
            f'by {start.get(launcher, "mpirun of Open MPI")}, which sets it'
        )
    if launcher == 'mpi' and 'MASTER_ADDR' not in os.environ:
        raise ToolError(
            '--launcher mpi: set MASTER_ADDR to the name of the machine of the first process, as '
            'mpirun -x MASTER_ADDR=localhost'
        )


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
    kind = type_name(cfg.optim_wrapper) or 'OptimWrapper'
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
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    found = sum(isinstance(module, TDBN) for module in MODELS.build(cfg.model).modules())
    if found:
        raise ToolError(
            f'sync_bn={cfg.sync_bn!r} would turn the {found} tdBN layers of the model into '
            'SyncBatchNorm, which loses their factor alpha * V_th: take sync_bn away and choose '
            "norm_cfg=dict(type='SyncTDBN'), whose statistics are those of all processes"
        )


def build_runner(cfg: Config, loops: Sequence[str]) -> Runner:
    """Build the runner, and what it will run; what the config got wrong ends in one message.

    Args:
        cfg: The config.
        loops: Of ``'train'``, ``'val'`` and ``'test'``: their data sets, loaders and evaluators are
            built, which the runner itself would build after its hooks have begun.

    Returns:
        The runner.
    """
    with exit_on_error(*CONFIG_ERRORS):
        check_sync_bn(cfg)
        runner = quiet_runner(cfg)
        runner.logger.info(f'mmsnn: reading the data sets of {" and ".join(loops)}')
        with quiet_coco():
            for name in loops:
                getattr(runner, f'{name}_loop')
        return runner


def get_time_steps(model: nn.Module) -> Optional[int]:
    """T of a detector or classifier.

    Args:
        model: The detector or classifier.

    Returns:
        T; None where its backbone has none.
    """
    return getattr(getattr(model, 'backbone', model), 'time_steps', None)


def check_time_steps(*time_steps: int) -> None:
    """Refuse a T that no model can have.

    Args:
        *time_steps: What the command line says.

    Raises:
        ToolError: One is less than 1.
    """
    for t in time_steps:
        if t < 1:
            raise ToolError(f'--time-steps must be at least 1, got {t}')


def set_time_steps(model: nn.Module, time_steps: int) -> None:
    """Let a detector run at another T than that of its config.

    Args:
        model: The detector.
        time_steps: Number of time steps, T.

    Raises:
        ToolError: T is less than 1, or the detector's backbone has no T.
    """
    check_time_steps(time_steps)
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
    folder = os.path.dirname(out) or '.'
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise ToolError(f'the folder of --out cannot be made: {error_words(error)}') from error
    if not os.access(folder, os.W_OK):
        raise ToolError(f'{folder} cannot be written to: choose another --out')
