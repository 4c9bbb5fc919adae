"""The checkpoint that a training run starts from."""

import glob
import os
import os.path as osp
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, Optional

from mmengine.config import Config

from ..compat import CheckpointError, DamagedCheckpointError, load_checkpoint_file
from ..config_types import loads_weights
from .cli import ToolError, check_work_dir, is_first_process


class Start(NamedTuple):
    """A checkpoint to start from.

    - ``path``: the file.
    - ``content``: what it holds.
    """

    path: str
    content: dict[str, Any]


def find_start(cfg: Config, trust: bool = False) -> Optional[Start]:
    """Find what a training run starts from, and refuse a start that would overwrite another run.

    Args:
        cfg: The config. ``load_from`` and ``resume`` are set to what was found, so that the runner
            looks for nothing itself.
        trust: Allow more than weights in the checkpoint, which lets the file run any code.

    Returns:
        The checkpoint; None to start from nothing.

    Raises:
        CheckpointError: The checkpoint can't be used.
        ToolError: There are checkpoints of another run, or none that the run could go on from.
    """
    resume, path = bool(cfg.get('resume')), cfg.get('load_from')
    folders = checkpoint_folders(cfg)
    if resume and path is None:
        start = newest_checkpoint(folders, trust)
        cfg.resume, cfg.load_from = start is not None, start and start.path
        _say(
            f'resumed from the latest checkpoint, {start.path}'
            if start
            else f'{cfg.work_dir} holds no checkpoint to resume from: training starts anew'
        )
        return start
    inside = path is not None and osp.dirname(osp.realpath(path)) in map(osp.realpath, folders)
    if not (resume and inside):
        for folder in folders:
            check_work_dir(folder)
    if path is None:
        return None
    start = Start(path, load_checkpoint_file(path, trust))
    if resume:
        _check_resumable(start, trust)
        later = [p for p in _by_age(folders) if inside and _number(p) > _number(path) >= 0]
        if later:
            _say(f'training again from {path}: it overwrites {", ".join(map(osp.basename, later))}')
    return start


def checkpoint_folders(cfg: Config) -> list[str]:
    """Where a run saves checkpoints: its work directory, and the hook's ``out_dir``.

    Args:
        cfg: The config.

    Returns:
        One folder or two.
    """
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    out_dir = hook.get('out_dir')
    if out_dir is None or '://' in str(out_dir) or str(out_dir) == cfg.work_dir:
        return [cfg.work_dir]
    return [cfg.work_dir, osp.join(out_dir, osp.basename(cfg.work_dir.rstrip(os.sep)))]


def newest_checkpoint(folders: list[str], trust: bool = False) -> Optional[Start]:
    """Find the newest checkpoint that a run can go on from.

    That is the one that ``last_checkpoint`` names, there or under the same name beside it. Where it
    is missing or damaged, the others follow by the number in their names.

    Args:
        folders: As of :func:`checkpoint_folders`.
        trust: Allow more than weights, which lets the file run any code.

    Returns:
        The checkpoint; None where no run has been.

    Raises:
        CheckpointError: The newest is whole, but holds more than weights or can't be read.
        ToolError: Checkpoints are there or were there, and none can be gone on from.
    """
    named = _named_last(folders[0])
    others = _by_age(folders)
    first = []
    if named:
        beside = [osp.join(folder, osp.basename(named)) for folder in folders]
        first = [path for path in [*beside, named] if osp.isfile(path)][:1]
    reasons = []
    if named and not first:
        reasons.append(f'last_checkpoint names {named}, which is not there')
    for path in dict.fromkeys([*first, *others]):
        try:
            start = Start(path, load_checkpoint_file(path, trust))
            _check_resumable(start, trust)
        except (DamagedCheckpointError, _NotResumableError) as error:
            reasons.append(str(error))
            continue
        if reasons:
            _say(f'{reasons[0]}. {osp.basename(path)} is the newest that is whole')
        return start
    reasons += [f'{path} holds weights alone' for path in _best(folders)]
    if reasons:
        raise ToolError(
            f'{folders[0]} holds no checkpoint that training could go on from: '
            f'{"; ".join(reasons)}. Name another by --resume CHECKPOINT, or begin a new run in '
            'another folder with --work-dir'
        )
    return None


def check_pretrained(cfg: Config, trust: bool = False) -> None:
    """Look into what ``Pretrained`` and ``ANNPretrained`` in a config name, before long work.

    Args:
        cfg: The config.
        trust: Allow more than weights in them, which lets a file run any code.

    Raises:
        CheckpointError: One is missing, damaged or not trusted.
    """
    for path in dict.fromkeys(_pretrained(cfg.model)):
        # One process fetches what the others then find in PyTorch's cache.
        if '://' not in path or is_first_process():
            load_checkpoint_file(path, trust)


def _pretrained(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        path = node.get('checkpoint')
        if loads_weights(node) and isinstance(path, str):
            yield path
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from _pretrained(item)


class _NotResumableError(CheckpointError):
    """Weights without the state of training."""


def _check_resumable(start: Start, trust: bool) -> None:
    """Check that a run can go on from a checkpoint, and that nothing in it is run.

    Raises:
        CheckpointError: It holds weights alone, or a config that MMEngine would execute.
    """
    meta = start.content.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    if not {'epoch', 'iter'} <= set(meta) or 'message_hub' not in start.content:
        raise _NotResumableError(
            f'{start.path}: holds weights, but not the state of training. To begin with these '
            'weights, take --resume away and set --cfg-options load_from=FILE'
        )
    if 'config' in meta and not trust:
        # MMEngine's Runner.resume gives this text to Python. It writes `cfg`, which nobody runs.
        raise CheckpointError(
            f"{start.path}: meta['config'] holds a config, which is Python, and resuming would run "
            'it. Pass --trust-checkpoint only if you trust its source.'
        )
    if 'optimizer' not in start.content:
        _say(f'{start.path} holds no state of the optimiser: it starts anew')


def _named_last(work_dir: str) -> str:
    try:
        with open(osp.join(work_dir, 'last_checkpoint'), encoding='utf-8') as file:
            return file.read().strip()
    except (FileNotFoundError, NotADirectoryError):
        return ''
    except (OSError, ValueError) as error:
        raise ToolError(f'{work_dir}/last_checkpoint cannot be read: {error}') from error


def _number(path: str) -> int:
    """The number in a name such as epoch_12.pth; -1 for a name without."""
    found = re.search(r'_(\d+)\.pth$', osp.basename(path))
    return int(found[1]) if found else -1


def _best(folders: list[str]) -> list[str]:
    return [p for folder in folders for p in glob.glob(osp.join(glob.escape(folder), 'best_*.pth'))]


def _by_age(folders: list[str]) -> list[str]:
    """Checkpoints, the newest first. Copying a folder changes times, but no names."""
    found = [
        entry
        for folder in folders
        if osp.isdir(folder)
        for entry in os.scandir(folder)
        # `best_` are copies of weights in the middle of a run.
        if entry.name.endswith('.pth') and not entry.name.startswith('best_') and entry.is_file()
    ]
    found.sort(key=lambda entry: (_number(entry.name), entry.stat().st_mtime), reverse=True)
    return [entry.path for entry in found]


def _say(message: str) -> None:
    if is_first_process():
        print(f'mmsnn: {message}')
