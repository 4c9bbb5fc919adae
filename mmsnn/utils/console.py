"""What a run says on the console: what a person reads. The log file has everything."""

import inspect
import logging
import re
import warnings
from typing import Any

from mmdet.registry import RUNNERS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner

# Messages of MMEngine that are for looking something up later, or of its own calls.
_FOR_THE_FILE = re.compile(
    r'\s*-+\nSystem environment:'
    r'|Config:\n'
    r'|Hooks will be executed in the following order'
    r'|Distributed training is not used, all SyncBatchNorm'
    r'|paramwise_options -- '
    r'|"FileClient" will be deprecated'
    r'|"HardDiskBackend" is the alias'
)
# What MMDetection's metrics call an error, and is how every training from scratch begins.
_NO_BOX = 'The testing results of the whole dataset is empty.'

# Beginnings of warnings that come from the stack's or the tools' own doing.
_WARNINGS = (
    # --trust-checkpoint sets it.
    'Environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD detected',
    r'torch\.meshgrid: in an upcoming release',
)


class QuietConsole:
    """Mixin of MMEngine's runners: keeps long listings off the console from the first one on."""

    def build_logger(self, *args, **kwargs) -> MMLogger:
        """Build the logger of the run.

        Args:
            *args: As of MMEngine's.
            **kwargs: Likewise.

        Returns:
            The logger.
        """
        logger = super().build_logger(*args, **kwargs)  # type: ignore[misc]  # the runner's
        quiet_console(logger)
        return logger


def quiet_runner(cfg: Config) -> Runner:
    """Build the runner of a config, MMEngine's or its own ``runner_type``, with a quiet console.

    Args:
        cfg: The config.

    Returns:
        The runner.
    """
    runner_type = cfg.get('runner_type', Runner)
    if isinstance(runner_type, str):
        runner_type = RUNNERS.get(runner_type)
    if inspect.isclass(runner_type) and issubclass(runner_type, Runner):
        quiet: Any = type(runner_type.__name__, (QuietConsole, runner_type), {})
        return quiet.from_cfg(cfg)
    # Its logger isn't the runner's to build, or there is no such runner, which this says.
    runner = RUNNERS.build(cfg)
    quiet_console(runner.logger)
    return runner


def quiet_console(logger: MMLogger) -> None:
    """Keep off the console what is not so, can't be acted on, or is for looking up later.

    The log file has the listings all the same. At the level DEBUG the console has them too.

    Args:
        logger: Of a run.
    """
    for message in _WARNINGS:
        warnings.filterwarnings('ignore', message=message)
    logger.addFilter(_say_what_no_box_means)
    for handler in logger.handlers:
        # Those of files are subclasses.
        if type(handler) is logging.StreamHandler and handler.level > logging.DEBUG:
            handler.addFilter(_is_for_the_console)


def _say_what_no_box_means(record: logging.LogRecord) -> bool:
    if record.msg == _NO_BOX:
        record.msg = 'no box above the threshold yet: there is no mAP to compute'
        record.levelno, record.levelname = logging.INFO, 'INFO'
    return True


def _is_for_the_console(record: logging.LogRecord) -> bool:
    return record.levelno > logging.WARNING or not _FOR_THE_FILE.match(str(record.msg))
