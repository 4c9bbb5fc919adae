"""Tools as processes of their own, forked from one that has imported the stack.

Importing torch, MMDetection and mmsnn takes 9 s, most of what a short tool takes. So one process
imports them once, and each tool is a fork of it: it has its own memory, environment, folder, output
and exit status, and runs the tool's file as `python tools/x.py` does. What reads the environment or
writes to the screen while it is imported needs a fresh process.

The program below reads one request a line, {"argv", "env", "cwd", "output"}, and answers with the
tool's exit status.
"""

import atexit
import json
import os
import runpy
import select
import subprocess
import sys

#: Read while the stack is imported, by it or by us.
READ_AT_IMPORT = ('MMSNN_', 'OMP_', 'MKL_', 'ONEDNN_', 'ATEN_', 'TORCH', 'PYTHON', 'LD_')
#: Of those, read when a tool runs.
READ_LATER = ('MMSNN_DIGITS_ROOT', 'MMSNN_COCO_TINY', 'MMSNN_CIFAR10', 'MMSNN_EVENTS_BELOW')


class Prepared:
    """A process that has imported the stack, started when it is first asked for."""

    def __init__(self):
        self._process = None

    def takes(self, env: dict) -> bool:
        """Whether a tool with these environment variables may be its fork."""
        early = [name for name in env if name.startswith(READ_AT_IMPORT)]
        return hasattr(os, 'fork') and set(early) <= set(READ_LATER)

    def run(self, argv, env: dict, cwd, output, timeout: float) -> int:
        """Run a tool; its exit status.

        Args:
            argv: Path of its file, and its command line.
            env: The whole environment.
            cwd: Folder to run it in.
            output: File for its output and errors, joined.
            timeout: Seconds that it may take.

        Raises:
            subprocess.TimeoutExpired: It takes longer.
        """
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
        request = dict(argv=[str(part) for part in argv], env=env, cwd=str(cwd), output=str(output))
        self._process.stdin.write(json.dumps(request) + '\n')
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], timeout)[0]:
            self.stop()
            raise subprocess.TimeoutExpired(argv, timeout)
        answer = self._process.stdout.readline()
        if not answer:
            self.stop()
            raise RuntimeError('the process that imports the stack ended; run this file to see why')
        return int(answer)

    def stop(self) -> None:
        """End it, and the tool that runs."""
        if self._process is not None:
            os.killpg(self._process.pid, 9)
            self._process.communicate()
            self._process = None


def _serve() -> None:
    answers = os.dup(1)  # what imports and tools print goes elsewhere
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    import mmsnn  # noqa: F401, I001 (the first: without MMCV's operators MMDetection needs it)
    import mmdet.apis  # noqa: F401
    import mmengine.runner  # noqa: F401
    import mmsnn_cli.train  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if not child:
            _become_tool(**json.loads(line))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(answers, f'{status}\n'.encode())


def _become_tool(argv, env, cwd, output) -> None:
    """Run the tool as if this process had begun with it."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = argv
    sys.path[0] = os.path.dirname(os.path.abspath(argv[0]))
    status = 0
    try:
        runpy.run_path(argv[0], run_name='__main__')
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == '__main__':
    _serve()
