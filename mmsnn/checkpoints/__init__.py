"""Checkpoints that come with mmsnn, by name: ``mmsnn://NAME``, weights only.

A name is that of the config. Each file is ``NAME-HASH.pth`` with the first eight digits of its
SHA-256, as MMDetection's published checkpoints are named, and is compared with them when it is
opened. ``configs/*/metafile.yml`` says what each reaches, and which command made it; by it
MMDetection finds them, too: ``DetInferencer(NAME, scope='mmsnn')``.
"""

import hashlib
import os
from functools import cache
from pathlib import Path
from typing import Optional

from mmengine.runner import CheckpointLoader

#: What an address of such a checkpoint begins with.
SCHEME = 'mmsnn://'
#: The detector that is shown where nobody names another.
DIGITS_DETECTOR = 'spiking-retinanet_sg-r10_asd_fpn_digits'


class ShippedCheckpointError(ValueError):
    """There is no such checkpoint, or its file is not the one that was shipped."""


def shipped_checkpoints() -> dict[str, Path]:
    """Files by name.

    Example:
        >>> from mmsnn.checkpoints import shipped_checkpoints
        >>> sorted(shipped_checkpoints())
        ['spiking-retinanet_sg-r10_asd_fpn_digits']
    """
    files = sorted(Path(__file__).parent.glob('*-????????.pth'))
    return {path.stem[: -len('-12345678')]: path for path in files}


@cache
def shipped_checkpoint(name: str) -> str:
    """The file of a checkpoint that comes with mmsnn.

    Args:
        name: The name of its config, with or without ``mmsnn://``.

    Returns:
        Its path.

    Raises:
        ShippedCheckpointError: None has this name, or the file was damaged or changed.

    Example:
        >>> from mmsnn.checkpoints import shipped_checkpoint
        >>> shipped_checkpoint('mmsnn://spiking-retinanet_sg-r10_asd_fpn_digits').endswith('.pth')
        True
    """
    files = shipped_checkpoints()
    key = name[len(SCHEME) :] if name.startswith(SCHEME) else name
    if key not in files:
        raise ShippedCheckpointError(
            f'no checkpoint {name!r} comes with mmsnn: there is '
            f'{", ".join(SCHEME + known for known in files)}'
        )
    path = files[key]
    found = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    if not path.stem.endswith(found):
        raise ShippedCheckpointError(
            f'{path} is not the file that was shipped (its hash begins with {found}): install '
            'mmsnn again'
        )
    return str(path)


def resolve(path: str) -> Optional[str]:
    """The file of ``mmsnn://NAME``, and None for any other path or address.

    Args:
        path: Path or address of a checkpoint.

    Returns:
        A path, or None.

    Raises:
        ShippedCheckpointError: As of :func:`shipped_checkpoint`.
    """
    path = os.fspath(path)
    return shipped_checkpoint(path) if path.startswith(SCHEME) else None


@CheckpointLoader.register_scheme(prefixes=SCHEME, force=True)
def _load(filename: str, map_location=None) -> dict:
    """``load_from`` and ``Pretrained`` in configs, and MMDetection's own functions."""
    return CheckpointLoader.load_checkpoint(shipped_checkpoint(filename), map_location)
