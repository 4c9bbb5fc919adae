"""Batches in which recordings go on, for models that hand on their states."""

from collections.abc import Iterator
from typing import Any

import torch
from mmdet.registry import DATA_SAMPLERS
from mmengine.dist import get_dist_info
from torch.utils.data import BatchSampler, Sampler

from .errors import DatasetError


@DATA_SAMPLERS.register_module()
class StreamBatchSampler(BatchSampler):
    """Batches of recordings side by side, each window where its recording had the one before.

    Place b of a batch goes on with the recording of place b in the batch before, until that ends.
    Where a sample's predecessor was not in the batch before, :class:`mmsnn.engine.StreamHook` lets
    it begin from rest.

    - Without shuffling, as for evaluation, every window of every recording comes, in order; the
      last batches are smaller, where fewer recordings are left than places.
    - With shuffling, as for training, all recordings, in random order, form one long line that is
      cut into ``batch_size`` equal parts. What is left of a recording beyond a multiple of
      ``windows``, and of the line beyond one of ``batch_size``, is left out of that epoch.

    Args:
        sampler: What says the data set, whether to shuffle and the seed, as mmengine's
            ``DefaultSampler``; its order isn't asked for.
        batch_size: Recordings side by side.
        windows: Windows of each recording in a batch, all first ones first: over so many, gradients
            run back through time.
        drop_last: Not for this; False.

    Raises:
        DatasetError: Samples that are no sequences of windows, a recording or a data set too short
            for a batch, or several processes to evaluate in.
        ValueError: A number out of range.
    """

    def __init__(
        self, sampler: Sampler, batch_size: int, windows: int = 1, drop_last: bool = False
    ):
        for name, value in (('batch_size', batch_size), ('windows', windows)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f'{name} must be a whole number of at least 1, got {value!r}')
        if drop_last:
            raise ValueError('StreamBatchSampler has no drop_last: take it out of the config')
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last
        self.windows = windows
        given: Any = sampler
        self.shuffle = bool(getattr(given, 'shuffle', False))
        if windows > 1 and not self.shuffle:
            raise ValueError(
                f'windows={windows} is for training, with shuffle=True in the sampler: without '
                'shuffling, as in evaluation, a batch has one window of each recording'
            )
        self._runs = [run for run in _runs(given.dataset) if len(run) >= windows]
        if not self._runs:
            raise DatasetError(
                f'no recording has windows={windows} windows: lower windows of the batch_sampler'
            )
        rank, world = get_dist_info()
        if world > 1 and not self.shuffle:
            raise DatasetError(
                'streams are evaluated in one process: their recordings have different lengths. '
                'Start it without a launcher'
            )
        self._rank, self._world = rank, world
        if self.shuffle and not self._per_place():
            chunks = sum(len(run) // windows for run in self._runs)
            raise DatasetError(
                f'the recordings have {chunks} times {windows} windows, fewer than the '
                f'{batch_size * world} of a batch: lower batch_size'
            )
        # Kept: mmengine asks for it at every iteration.
        self._length = self._per_place() if self.shuffle else sum(1 for _ in self._in_order())

    def __iter__(self) -> Iterator[list[int]]:
        places = self._line() if self.shuffle else self._in_order()
        for chunks in places:
            yield [chunk[i] for i in range(len(chunks[0])) for chunk in chunks]

    def __len__(self) -> int:
        return self._length

    def _per_place(self) -> int:
        chunks = sum(len(run) // self.windows for run in self._runs)
        return chunks // (self.batch_size * self._world)

    def _line(self) -> Iterator[list[range]]:
        given: Any = self.sampler
        generator = torch.Generator()
        generator.manual_seed(getattr(given, 'seed', 0) + getattr(given, 'epoch', 0))
        order = torch.randperm(len(self._runs), generator=generator).tolist()
        line = [chunk for i in order for chunk in _chunks(self._runs[i], self.windows)]
        number = self._per_place()
        first = self._rank * self.batch_size
        for i in range(number):
            yield [line[(first + place) * number + i] for place in range(self.batch_size)]

    def _in_order(self) -> Iterator[list[range]]:
        waiting = [_chunks(run, 1) for run in reversed(self._runs)]
        going: list[list[range]] = []
        while waiting or going:
            while waiting and len(going) < self.batch_size:
                going.append(waiting.pop())
            yield [chunks.pop(0) for chunks in going]
            going = [chunks for chunks in going if chunks]


def _runs(dataset: Any) -> list[range]:
    """Windows that follow one another, by their numbers in the data set."""
    runs: list[range] = []
    before = None
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        if 'window' not in info:
            raise DatasetError(
                f'{type(dataset).__name__} gives samples that are no windows in order: give it '
                'windows=LENGTH, in microseconds'
            )
        here = info['recording'], info['window']
        if before == (here[0], here[1] - 1):
            runs[-1] = range(runs[-1].start, i + 1)
        else:
            runs.append(range(i, i + 1))
        before = here
    return runs


def _chunks(run: range, windows: int) -> list[range]:
    end = len(run) // windows * windows
    return [run[i : i + windows] for i in range(0, end, windows)]
