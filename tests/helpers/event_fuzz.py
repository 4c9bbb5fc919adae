"""Reads corrupted recordings and cache entries, and measures what each takes.

``python tests/helpers/event_fuzz.py KIND SEED NUMBER`` prints what it found as JSON, for a process
of its own: a crash of a package then fails one test, and the peak of memory is the readers' alone.
"""

import json
import resource
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
from event_files import WRITERS, corrupt, draw

from mmsnn.datasets import DatasetError
from mmsnn.datasets.events import check_event_header, load_frames

SIZE = (34, 34)


def fuzz_recordings(folder, seed, number, names=tuple(WRITERS)):
    """Yield the name, the bytes and a call that reads them, for corrupted files of each format."""
    rng, whole = np.random.default_rng(seed), {}
    for name in names:
        WRITERS[name](folder / name, draw(60, SIZE, end=1000))
        whole[name] = (folder / name).read_bytes()
    for i in range(number):
        path = folder / names[i % len(names)]
        path.write_bytes(corrupt(whole[path.name], rng))

        def read(path=path, size=SIZE if i % 3 else None, split_by=('count', 'time')[i % 2]):
            check_event_header(path)
            frames = load_frames(path, 4, split_by, size)
            assert frames.shape[:2] == (4, 2)
            assert frames.sum() > 0

        yield path, read


def fuzz_entries(folder, seed, number):
    """The same for corrupted entries of the cache, which are to be made again or be right."""
    rng, path = np.random.default_rng(seed), folder / 'a.npy'
    WRITERS['a.npy'](path, draw(60, SIZE, end=1000))
    arguments = path, 4, 'count', SIZE, folder / 'cache'
    expected = load_frames(*arguments)
    (entry,) = (folder / 'cache').rglob('*.npz')
    whole = entry.read_bytes()

    def read():
        np.testing.assert_array_equal(load_frames(*arguments), expected)

    for _ in range(number):
        entry.write_bytes(corrupt(whole, rng))
        yield entry, read


KINDS = {'recordings': fuzz_recordings, 'entries': fuzz_entries}


def measure(cases):
    """Run cases; what ends in another exception than DatasetError, and the largest of each cost.

    Returns:
        dict: ``read`` and ``refused``, numbers of files; ``wrong``, texts; ``seconds`` of the
        slowest; ``megabytes``, the peak of what Python and NumPy took for one of them, and
        ``resident``, by how much the peak of the process grew over all of them.
    """
    counts, wrong, seconds, megabytes = Counter(), [], 0, 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path, read in cases:
        tracemalloc.start()
        start = time.perf_counter()
        try:
            read()
            counts['read'] += 1
        except DatasetError as error:
            counts['refused'] += 1
            if path.name not in str(error) or '\n' in str(error):
                wrong.append(f'not one line that names {path.name}: {error}')
        except Exception as error:
            wrong.append(f'{path.name}: {error!r}, of {path.read_bytes().hex()}')
        seconds = max(seconds, time.perf_counter() - start)
        megabytes = max(megabytes, tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    resident = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return dict(
        counts, wrong=wrong, seconds=seconds, megabytes=megabytes, resident=max(resident, 0)
    )


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as root:
        result = measure(KINDS[sys.argv[1]](Path(root), int(sys.argv[2]), int(sys.argv[3])))
    print(json.dumps(result))
