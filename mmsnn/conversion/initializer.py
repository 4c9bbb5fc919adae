"""``init_cfg=dict(type='ANNPretrained', ...)``: a spiking model that starts from an ANN."""

import logging

from mmengine.logging import print_log
from mmengine.model import update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from terminaltables import AsciiTable
from torch import nn

from ..compat import CheckpointError, load_checkpoint_file
from .inherit import Account, InheritError, account_rows, inherit, target_of


@WEIGHT_INITIALIZERS.register_module()
class ANNPretrained:
    """Start a spiking model from an ANN's weights.

    Takes ResNet-18, 34, 50, 101 and 152 as torchvision, timm, MMDetection and MMPreTrain save them,
    and whole detectors of MMDetection, whose neck and head come along where the ``init_cfg`` is the
    model's. What the numbers become says :func:`target_of`, and what becomes of each tensor one
    table in the log: used, left out and why, or not in the ANN and how it was initialised. A ResNet
    of another depth, stem or width than the backbone's is refused.

    Rates then stand for the ANN's values as far as neurons reach them.

    Args:
        checkpoint: Path or address, as of ``Pretrained``.

    Raises:
        CheckpointError: The file is missing, damaged, not trusted, or of another network; the
            message says what would fit.

    Example:
        >>> import os, tempfile
        >>> import torch
        >>> from mmdet.models import ResNet
        >>> from mmsnn.models import SGResNet
        >>> ann = ResNet(18)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, 'resnet18.pth')
        ...     torch.save(ann.state_dict(), path)
        ...     net = SGResNet(18, init_cfg=dict(type='ANNPretrained', checkpoint=path))
        ...     net.init_weights()
        >>> torch.equal(net.layer1[0].conv1.weight, ann.layer1[0].conv1.weight)
        True
    """

    def __init__(self, checkpoint: str):
        self.checkpoint = checkpoint

    def __call__(self, module: nn.Module) -> None:
        """Initialise a model in place.

        Args:
            module: An ``SGResNet``, or a detector or classifier with one.
        """
        # Of all initialisers MMEngine lets only Pretrained come behind those of the parts. Parts
        # that are initialised here are not initialised again.
        for child in module.children():
            begin = getattr(child, 'init_weights', None)
            if callable(begin) and not getattr(child, 'is_init', False):
                begin()
                if hasattr(child, '_params_init_info'):
                    words = f"{type(child).__name__}'s init_weights"
                    update_init_info(child, init_info=words)
        account = load_ann(module, self.checkpoint)
        log_account(account, self.checkpoint, how_initialised(module))
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'ANNPretrained: {self.checkpoint}')


def load_ann(model: nn.Module, checkpoint: str, trust: bool = False) -> Account:
    """Put an ANN's weights into a spiking model.

    Args:
        model: An ``SGResNet``, or a detector or classifier with one.
        checkpoint: Path or address.
        trust: Allow more than weights in it, which lets the file run any code.

    Returns:
        What became of every tensor.

    Raises:
        CheckpointError: As of :class:`ANNPretrained`.
    """
    content = load_checkpoint_file(checkpoint, trust)
    try:
        state, account = inherit(content, target_of(model))
    except InheritError as error:
        raise CheckpointError(f'{checkpoint}: {error}') from error
    model.load_state_dict(state, strict=False)
    return account


def how_initialised(module: nn.Module) -> dict[str, str]:
    """How the parameters of a model were initialised, as far as MMEngine knows.

    Args:
        module: The model, while its ``init_weights`` runs.

    Returns:
        A few words by the parameter's name.
    """
    known = getattr(module, '_params_init_info', {})
    words = {}
    for name, param in module.named_parameters():
        info = str(known[param]['init_info']) if param in known else ''
        words[name] = 'as it was built' if 'same before and after' in info else info
    return words


def log_account(account: Account, checkpoint: str, how: dict[str, str]) -> None:
    """Say in one table of the log what became of every tensor.

    Args:
        account: The account.
        checkpoint: The file.
        how: As of :func:`account_rows`.
    """
    level = logging.WARNING if account.left or account.notes else logging.INFO
    print_log(account_text(account, checkpoint, how), logger='current', level=level)


def account_text(account: Account, checkpoint: str, how: dict[str, str]) -> str:
    """An account as a table, with a line above it.

    Args:
        account: The account.
        checkpoint: The file.
        how: As of :func:`account_rows`.

    Returns:
        Several lines.
    """
    rows = [['', 'part', 'tensors', ''], *account_rows(account, how)]
    return (
        f'{checkpoint}: an ANN of {len(account.used) + len(account.left)} tensors, '
        f'{len(account.used)} used, {len(account.left)} left out; {len(account.missing)} of the '
        f'model are not in it\n{AsciiTable(rows).table}'
    )
