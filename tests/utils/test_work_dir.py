"""One run at a time in a work directory."""

import fcntl
import signal
import subprocess
import sys

import pytest

from mmsnn.utils import ToolError, lock_work_dir

# Another process that holds the lock, with a forked child of its own as a data-loader worker is.
HOLDER = """
import fcntl, os, sys, time
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.lockf(file, fcntl.LOCK_EX)
os.pwrite(file, b'process 7 on there', 0)
worker = os.fork()
if worker:
    print(worker, flush=True)
time.sleep(60)
"""


def test_a_second_run_waits_its_turn(tmp_path, monkeypatch):
    work_dir = tmp_path / 'run'
    work_dir.mkdir()
    holder = subprocess.Popen(
        [sys.executable, '-c', HOLDER, str(work_dir / '.lock')], stdout=subprocess.PIPE, text=True
    )
    worker = int(holder.stdout.readline())
    try:
        with pytest.raises(ToolError, match=r'is in use: process 7 on there .*--work-dir') as error:
            lock_work_dir(str(work_dir))
        assert str(work_dir) in str(error.value)
        # Other processes of one run share its folder.
        with monkeypatch.context() as patch:
            patch.setenv('RANK', '1')
            lock_work_dir(str(work_dir))
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        # Released, though the worker is still there.
        lock_work_dir(str(work_dir))
    finally:
        subprocess.run(['kill', '-9', str(worker)], check=False)
        holder.kill()
        holder.wait()
        holder.stdout.close()
    held = [sys.executable, '-c', HOLDER.replace('LOCK_EX', 'LOCK_EX | fcntl.LOCK_NB')]
    done = subprocess.run([*held, work_dir / '.lock'], capture_output=True, text=True, check=False)
    assert 'BlockingIOError' in done.stderr, 'now it is ours'


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(ToolError, match=r'work_dir .*file/run cannot be written to'):
        lock_work_dir(str(tmp_path / 'file' / 'run'))


def test_a_file_system_without_locks(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(37, 'No locks available')

    monkeypatch.setattr(fcntl, 'lockf', refuse)
    lock_work_dir(str(tmp_path))
    assert 'file system without locks' in capsys.readouterr().out
