"""The commands of docs/tutorials/several-machines.md, as two nodes of one process on a machine."""

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from digits_detector import DIGITS, NARROW

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs/tutorials/several-machines.md'
# What Slurm does for slurm_train.sh: as many processes as --ntasks says, each on a node of its own.
SRUN = """#!/usr/bin/env bash
while [ "${1#-}" != "$1" ]; do
    case $1 in
        --ntasks=*) export SLURM_NTASKS=${1#*=} ;;
        -p) shift ;;
    esac
    shift
done
export SLURM_LOCALID=0 SLURM_NODELIST='node-[1-2]'
for ((i = 0; i < SLURM_NTASKS; i++)); do SLURM_PROCID=$i "$@" & pids+=($!); done
for pid in "${pids[@]}"; do wait "$pid" || exit 1; done
"""
SCONTROL = (
    '#!/usr/bin/env bash\n[ "$*" = "show hostnames node-[1-2]" ] && echo 127.0.0.1 && echo node-2\n'
)


def commands(start):
    """Commands of the page, made for two nodes of one process."""
    text = PAGE.read_text().replace('\\\n', ' ')
    found = [line for line in text.splitlines() if re.match(start, line)]
    assert found
    return [
        shlex.split(line.replace('node-1', '127.0.0.1').replace('CONFIG 8', 'CONFIG 1'), True)
        for line in found
    ]


def free_port():
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return str(server.getsockname()[1])


@pytest.fixture(scope='module')
def run(tmp_path_factory, digits_root):
    folder = tmp_path_factory.mktemp('machines')
    for name, text in dict(srun=SRUN, scontrol=SCONTROL).items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)

    def start(work_dir, *lines):
        """The weights after an epoch that was trained by commands that run at once."""
        port = free_port()
        words = {'CONFIG': DIGITS, 'RUN': str(work_dir), 'PORT=29500': f'PORT={port}'}
        words['--master_port=29500'] = f'--master_port={port}'
        env = dict(
            os.environ,
            PATH=f'{folder}:{Path(sys.executable).parent}:{os.environ["PATH"]}',
            PYTHONPATH=f'{ROOT}:{os.environ.get("PYTHONPATH", "")}',
            MMSNN_DIGITS_ROOT=str(digits_root),
            OMP_NUM_THREADS='1',
            MASTER_PORT=port,
        )
        options = [*NARROW, 'train_cfg.max_epochs=1', 'randomness.seed=0']
        started = [
            subprocess.Popen(
                ['env', *(words.get(word, word) for word in line), *options],
                cwd=ROOT,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for line in lines
        ]
        try:
            for process in started:
                output = process.communicate(timeout=300)[0]
                assert process.returncode == 0, output[-3000:]
        finally:
            for process in started:
                process.kill()
        return torch.load(work_dir / 'epoch_1.pth', weights_only=False)['state_dict']

    return start


@pytest.fixture(scope='module')
def one_machine(run, tmp_path_factory):
    """Two processes of one node."""
    line = shlex.split('PORT=29500 bash tools/dist_train.sh CONFIG 2 --work-dir RUN')
    return run(tmp_path_factory.mktemp('one') / 'run', line)


def torchrun_lines():
    """The page has the command of the first node; the second's differs by its number."""
    (first,) = commands('torchrun')
    first = ['--nproc_per_node=1' if word == '--nproc_per_node=8' else word for word in first]
    return [first, ['--node_rank=1' if word == '--node_rank=0' else word for word in first]]


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['dist_train', 'torchrun', 'slurm'])
def test_two_nodes_are_two_processes(run, one_machine, tmp_path, kind):
    if kind == 'slurm':
        lines = commands('GPUS=16')
        assert lines[0][:2] == ['GPUS=16', 'GPUS_PER_NODE=8']
        lines[0][:2] = ['GPUS=2', 'GPUS_PER_NODE=1']
    else:
        lines = torchrun_lines() if kind == 'torchrun' else commands('NNODES=')
        assert len(lines) == 2
    weights = run(tmp_path / 'run', *lines)
    assert weights.keys() == one_machine.keys()
    for name, value in weights.items():
        assert torch.equal(value, one_machine[name]), name
