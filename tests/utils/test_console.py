import io
import logging
from itertools import count

import pytest
from mmdet.registry import RUNNERS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch import nn

from mmsnn.compat import without_lines
from mmsnn.utils.console import quiet_console, quiet_runner

LISTINGS = [
    '\n------\nSystem environment:\n    sys.platform: linux\n',
    'Config:\nmodel = dict()',
    'Hooks will be executed in the following order:\nbefore_run:',
    'paramwise_options -- backbone.conv1.weight:lr=0.1',
    '"FileClient" will be deprecated in future. Please use io functions',
    '"HardDiskBackend" is the alias of "LocalBackend"',
]
numbers = count()


@pytest.fixture
def logged(tmp_path):
    """What console and file have of messages, at a level that a config says."""

    def log(level, *records):
        before = dict(MMLogger._instance_dict)
        file = tmp_path / f'{next(numbers)}.log'
        logger = MMLogger.get_instance(f'{tmp_path}{file}', log_file=str(file), log_level=level)
        (console,) = (h for h in logger.handlers if type(h) is logging.StreamHandler)
        console.setStream(io.StringIO())
        quiet_console(logger)
        for kind, text in records:
            logger.log(kind, text)
        for handler in logger.handlers:
            handler.flush()
        MMLogger._instance_dict.clear()
        MMLogger._instance_dict.update(before)
        return console.stream.getvalue(), file.read_text()

    return log


@pytest.mark.parametrize('text', LISTINGS)
def test_listings_are_in_the_file_alone(logged, text):
    console, file = logged('INFO', (logging.INFO, text), (logging.INFO, 'Epoch(train) [1][1/2]'))
    assert text in file
    assert text not in console
    assert 'Epoch(train)' in console
    assert text not in logged('INFO', (logging.WARNING, text))[0]


def test_levels_of_the_user(logged):
    records = [(logging.INFO, text) for text in LISTINGS] + [(logging.DEBUG, 'a detail')]
    console, file = logged('DEBUG', *records)
    for _, text in records:
        assert text in console
        assert text in file
    console, file = logged('WARNING', *records, (logging.WARNING, 'beware'))
    assert 'beware' in console
    assert 'Config:' not in console + file


def test_no_box_is_no_error(logged):
    said = 'The testing results of the whole dataset is empty.'  # MMDetection's words
    for text in logged('INFO', *[(logging.ERROR, said)] * 2, (logging.ERROR, 'another')):
        assert text.count('no box above the threshold yet') == 2
        assert said not in text
        assert text.count('ERROR') == 1


def test_without_lines(capsys):
    with without_lines('creating index...', 'Done (t='):
        print('creating index...')
        print('Done (t=0.01s)')
        print()
        print('index of creating index...')
        print('Done (t=0.01s)', flush=True)
        print('a', 'b', end='')
        print('creating index...\n', end='')
        print('\n', end='')
    print('Done (t=')
    assert capsys.readouterr().out == '\nindex of creating index...\na b\nDone (t=\n'


class OwnRunner(Runner):
    """What a user registers."""


@pytest.mark.parametrize('named', [None, 'OwnRunner'])
def test_runners_of_a_config_are_quiet(named, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(RUNNERS.module_dict, 'OwnRunner', OwnRunner)
    monkeypatch.setattr(MMLogger, '_instance_dict', MMLogger._instance_dict.copy())
    monkeypatch.setattr(Runner, 'build_model', lambda self, model: nn.Identity())
    cfg = Config(dict(model={}, work_dir=str(tmp_path), experiment_name=f'quiet {named}'))
    if named is not None:
        cfg.runner_type = named
    runner = quiet_runner(cfg)
    runner.logger.info('a line for a person')
    said = capsys.readouterr().out
    assert isinstance(runner, Runner if named is None else OwnRunner)
    assert 'a line for a person' in said
    (log,) = tmp_path.glob('*/*.log')
    for listing in ('System environment:', 'Config:', 'Hooks will be executed'):
        assert listing in log.read_text()
        assert listing not in said


def test_no_such_runner():
    with pytest.raises(KeyError, match='NoRunner is not in the'):
        quiet_runner(Config(dict(runner_type='NoRunner')))
