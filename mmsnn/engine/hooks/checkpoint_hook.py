"""Saves checkpoints so that a run which dies while saving loses none."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Optional, Union

from mmdet.registry import HOOKS
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook as _CheckpointHook

Path = Union[str, os.PathLike]


@register_backend('whole', force=True)
class WholeFileBackend(LocalBackend):
    """Local files that are there whole or not at all.

    ``backend_args=dict(backend='whole')`` names it.
    """

    def put(self, obj: bytes, filepath: Path) -> None:
        """Write a file under another name, and rename it when it is on the disk.

        Args:
            obj: The content.
            filepath: The file. One that is there stays as it is until the new one is whole.

        Raises:
            OSError: It cannot be written, for example because the disk is full. What had been
                written of it is deleted.
        """
        target = os.path.realpath(filepath)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        # No .pth: a leftover must not be taken for a checkpoint. The next save overwrites it.
        temporary = f'{target}.tmp'
        try:
            with open(temporary, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except OSError as error:
            if os.path.exists(temporary):
                os.remove(temporary)
            # Writing names no file.
            raise OSError(error.errno, error.strerror, str(filepath)) from error


class _LateRemoval(WholeFileBackend):
    """Remembers what is to be deleted, until the files that replace it are written."""

    def __init__(self):
        self._doomed: list[tuple[Path, int]] = []

    def remove(self, filepath: Path) -> None:
        self._doomed.append((filepath, os.stat(filepath).st_ino))

    def remove_now(self) -> None:
        """Delete the files, except where another has taken a name since."""
        for path, inode in self._doomed:
            if os.path.exists(path) and os.stat(path).st_ino == inode:
                super().remove(path)
        self._doomed.clear()


@HOOKS.register_module()
class CheckpointHook(_CheckpointHook):
    """MMEngine's hook of that name, for files on a disk safe against a run that dies.

    A checkpoint is written under another name and renamed, so that each one that is there is
    whole. Old ones (``max_keep_ckpts``, ``save_best``) are deleted after the new one has been
    written, not before: the disk needs room for one more. After a work directory was moved or
    copied, the old best checkpoint is looked for in the new one.

    Configs of the scope ``mmdet`` that say ``type='CheckpointHook'`` get this one. Options are
    MMEngine's; one that names a backend of its own is left as it is.
    """

    backend_args: Optional[dict]

    def before_train(self, runner) -> None:
        """Find out where checkpoints go.

        Args:
            runner: The runner.
        """
        out_dir = str(self.out_dir or runner.work_dir)
        is_local = self.file_client_args is None and not self.backend_args and '://' not in out_dir
        if is_local:
            self.backend_args = dict(backend='whole')
            info = runner.message_hub.runtime_info
            for key in [key for key in info if key.startswith('best_ckpt') and info[key]]:
                name = os.path.basename(info[key])
                runner.message_hub.update_info(key, os.path.join(_target(out_dir, runner), name))
        super().before_train(runner)
        if is_local:
            self.file_backend = _LateRemoval()

    def after_train_iter(
        self, runner, batch_idx: int, data_batch=None, outputs: Optional[dict] = None
    ) -> None:
        """Save where it is time."""
        with self._old_ones_last():
            super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def after_train_epoch(self, runner) -> None:
        """Save where it is time."""
        with self._old_ones_last():
            super().after_train_epoch(runner)

    def after_val_epoch(self, runner, metrics) -> None:
        """Save the best."""
        with self._old_ones_last():
            super().after_val_epoch(runner, metrics)

    @contextmanager
    def _old_ones_last(self) -> Iterator[None]:
        # Not in a `finally`: where saving failed, the old ones are what is left.
        yield
        if isinstance(self.file_backend, _LateRemoval):
            self.file_backend.remove_now()


def _target(out_dir: str, runner) -> str:
    """The folder of the checkpoints: MMEngine puts the name of the run below an `out_dir`."""
    if out_dir == str(runner.work_dir):
        return out_dir
    return os.path.join(out_dir, os.path.basename(str(runner.work_dir).rstrip(os.sep)))
