"""A trained detector for all tests of tools; none of them writes to its folder."""

from types import SimpleNamespace

import pytest
from digits_detector import DIGITS, NARROW


@pytest.fixture(scope='session')
def trained(tool, digits_root, tmp_path_factory):
    """What two epochs of the narrow detector left, and said."""
    work_dir = tmp_path_factory.mktemp('trained') / 'run'
    done = tool(
        'train.py', DIGITS, '--work-dir', work_dir, *NARROW, MMSNN_DIGITS_ROOT=digits_root,
        fresh=True,
    )  # fmt: skip
    checkpoint = work_dir / 'epoch_2.pth'
    return SimpleNamespace(work_dir=work_dir, checkpoint=checkpoint, output=done.stdout)


@pytest.fixture(scope='session')
def tested(trained, tool, digits_root, tmp_path_factory):
    """What test.py said of it, its predictions and pictures."""
    work_dir = tmp_path_factory.mktemp('tested')
    predictions = work_dir / 'predictions.pkl'
    done = tool(
        'test.py', DIGITS, trained.checkpoint, '--work-dir', work_dir, '--out', predictions,
        '--show-dir', 'shown', *NARROW, MMSNN_DIGITS_ROOT=digits_root, fresh=True,
    )  # fmt: skip
    return SimpleNamespace(work_dir=work_dir, predictions=predictions, output=done.stdout)
