"""A full disk, a file that is gone and a worker that is killed: each in one line."""

import errno
import os
import signal

import pytest
from torch.utils.data import DataLoader, Dataset

from mmsnn.utils import ToolError, faults_in_one_line


class Pictures(Dataset):
    """Reads a file, or kills the process that asks for one."""

    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 2

    def __getitem__(self, index):
        if self.path is None:
            os.kill(os.getpid(), signal.SIGKILL)
        with open(self.path) as file:
            return file.read()


def message_of(path, workers):
    with pytest.raises(ToolError) as error, faults_in_one_line():
        list(DataLoader(Pictures(path), num_workers=workers))
    message = str(error.value)
    assert '\n' not in message
    assert '--resume' in message
    return message


@pytest.mark.parametrize(('workers', 'name'), [(0, 'gone.png'), (1, "it's gone.png")])
def test_a_picture_that_is_gone(tmp_path, workers, name):
    message = message_of(tmp_path / name, workers)
    assert message.startswith(f'{tmp_path / name}: No such file or directory')


def test_a_worker_that_is_killed():
    message = message_of(None, 1)
    assert 'data-loader worker (process ' in message
    assert 'killed by signal: Killed' in message or 'exited unexpectedly' in message
    assert 'num_workers' in message


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(code):
    error = OSError(code, os.strerror(code), 'run/epoch_2.pth')
    said = r'run/epoch_2.pth cannot be written: .*Make room'
    with pytest.raises(ToolError, match=said), faults_in_one_line():
        raise error


def test_full_shared_memory():
    text = 'unable to write to file </torch_1_2_3>: No space left on device (28)'
    said = r'shared memory is full .*num_workers'
    with pytest.raises(ToolError, match=said), faults_in_one_line():
        raise RuntimeError(text)


@pytest.mark.parametrize('error', [RuntimeError('shapes differ'), OSError('strange'), KeyError(1)])
def test_what_is_no_fault_of_the_machine_stays_as_it_is(error):
    with pytest.raises(type(error)) as raised, faults_in_one_line():
        raise error
    assert raised.value is error
