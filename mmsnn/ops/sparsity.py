"""Up to which density of spikes a conv that goes by them takes less time than a dense one."""

import contextlib
import hashlib
import json
import logging
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from . import units
from .backends.c.build import cache_folder, kernel_flags, source_key
from .backends.c.calls import is_forked
from .defaults import torch_defaults
from .dispatch import REFERENCE, choose
from .event_conv import event_conv_lif
from .event_weights import pack_event_weights
from .layout import is_dense
from .lif import lif
from .operators import pack_spikes
from .operators.bits_conv import bits_conv, bits_conv_weight_grad
from .spec import LIF

logger = logging.getLogger('mmsnn')

#: One value in so many is looked at to tell how many spikes there are. A prime, so that all
#: channels are, unless their number is a multiple of it.
EVERY = 13

_LAST = torch.channels_last
#: How many bits of a byte are set.
_SET = torch.tensor(
    [bin(byte).count('1') for byte in range(256)], dtype=torch.float32, device='cpu'
)


def density(x: Tensor) -> float:
    """About which part of the values of ``x`` isn't 0.

    Args:
        x: Spikes in bytes.

    Returns:
        0 to 1, from every 13th value in memory.
    """
    if not x.numel():
        return 0.0
    sample = (x.as_strided((x.numel(),), (1,)) if is_dense(x) else x.flatten())[::EVERY]
    return sample.count_nonzero().item() / len(sample)


def density_of_bits(bits: Tensor) -> float:
    """The same of spikes in bits, from every 13th byte."""
    if not bits.numel():
        return 0.0
    return _SET[bits.flatten()[::EVERY].int()].mean().item() / 8


#: Ways to convolve whose times are compared.
WAYS = 'inference', 'forward', 'weight gradient'
#: A crossover where the times don't tell one.
_USUAL = 0.3
_lock = threading.Lock()


def crossover(way: str) -> float:
    """Density of spikes from which on a dense conv in float32 takes less time than one by events.

    It is measured once on a machine, on convs of 128 channels, and said in the log. It is kept
    beside the kernels (MMSNN_CACHE_DIR), so that the next run takes the same ways and gives the
    same numbers. MMSNN_EVENTS_BELOW sets it for all ways. Without kernels for such convs it is 0.

    Args:
        way: ``'inference'``, a conv with its neurons; ``'forward'``, that of training; or
            ``'weight gradient'``.

    Returns:
        0 to 1.

    Raises:
        SettingError: MMSNN_EVENTS_BELOW is no number from 0 to 1.
    """
    named = os.environ.get('MMSNN_EVENTS_BELOW', '')
    if not named:
        return _kept()[way]
    try:
        value = float(named)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise units.SettingError(f'MMSNN_EVENTS_BELOW is a density from 0 to 1, got {named!r}')
    return value


def _kept() -> dict[str, float]:
    """What was measured on this machine with these kernels, now or before."""
    backend = choose('bits_conv', torch.empty(0, dtype=torch.float32, device='cpu'))
    if backend is REFERENCE:
        return dict.fromkeys(WAYS, 0.0)  # its convs by events are dense ones
    with _lock:  # two threads that measure at once would time each other
        return _measured_with(backend.name, kernel_flags())


@cache
def _measured_with(*kernels: object) -> dict[str, float]:
    cpu = units.capabilities().get('cpu_name'), units.NEWEST
    key = repr((*cpu, torch.__version__, source_key(), *kernels))
    try:
        folder = cache_folder()
    except RuntimeError:  # the user has no home
        return _measure_all()[0]
    path = folder / f'crossover-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json'
    found = _read(path)
    if found is not None:
        return found
    found, certain = _measure_all()
    values = ', '.join(f'{value:.2f} ({way})' for way, value in found.items())
    logger.info('convs go by events here below a density of spikes of %s: %s', values, path)
    # In a child of a fork our kernels have one thread, whatever the dense conv has.
    return _write(path, found) if certain and not is_forked() else found


def _measure_all() -> tuple[dict[str, float], bool]:
    """Every way, and whether all could be told."""
    with torch_defaults():
        found = {way: _measure(*runs) for way, runs in _ways().items()}
    values = {way: _USUAL if value is None else round(value, 2) for way, value in found.items()}
    return values, None not in found.values()


def _read(path: Path) -> Optional[dict[str, float]]:
    """What a file has; one that has something else is removed."""
    try:
        found = json.loads(path.read_text())
    except OSError:
        return None
    except ValueError:
        found = None
    if isinstance(found, dict) and tuple(found) == WAYS:
        numbers = (isinstance(value, (int, float)) and 0 <= value <= 1 for value in found.values())
        if all(numbers):
            return found
    with contextlib.suppress(OSError):
        path.unlink()
    return None


def _write(path: Path, found: dict[str, float]) -> dict[str, float]:
    """Keep it, unless another process was first; what is kept."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        # In a folder of its own, and then whole: two processes may be here at once.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix='.crossover-') as folder:
            mine = Path(folder, 'file')
            mine.write_text(json.dumps(found))
            try:
                os.link(mine, path)
            except FileExistsError:
                pass
            except OSError:  # no hard links here
                os.replace(mine, path)
    return _read(path) or found


#: What is measured: maps of so many values, a 3x3 conv, and these densities.
_SIZE = 4, 128, 24, 24
_LOW, _HIGH = 0.1, 0.3


def _ways() -> dict[str, tuple[Callable[[Tensor], object], Callable[[Tensor], object]]]:
    """What convolves spikes in bytes by events, and what densely, by the name of the way."""
    generator = torch.Generator('cpu').manual_seed(0)
    grad, weight = (
        torch.randn(size, generator=generator, dtype=torch.float32)
        for size in (_SIZE, (128, 128, 3, 3))
    )
    packed = pack_event_weights([(weight, weight.new_ones(128))], weight.new_zeros(128))
    grad = grad.contiguous(memory_format=_LAST)
    last = weight.contiguous(memory_format=_LAST)
    options = [1, 1], [1, 1], [1, 1], 1

    def dense_inference(x: Tensor) -> Tensor:
        currents = F.conv2d(x.float(), last, padding=1)
        return lif(currents.unsqueeze(1), dtype=torch.uint8)

    def dense_weight_grad(x: Tensor) -> Tensor:
        return torch.ops.aten.convolution_backward(
            grad, x.float(), last, None, *options[:3], False, [0, 0], 1, [False, True, False]
        )[1]

    return {
        'inference': (
            lambda x: event_conv_lif(x.unsqueeze(1), packed, ((1, 1), (1, 1), (1, 1)), LIF()),
            dense_inference,
        ),
        'forward': (
            lambda x: bits_conv(pack_spikes(x, 1), x.shape, weight, None, *options),
            lambda x: F.conv2d(x.float(), last, padding=1),
        ),
        'weight gradient': (
            lambda x: bits_conv_weight_grad(grad, pack_spikes(x, 1), x.shape, weight, *options),
            dense_weight_grad,
        ),
    }


def _measure(
    by_events: Callable[[Tensor], object], dense: Callable[[Tensor], object]
) -> Optional[float]:
    """Where the times meet: that by events is a line over the density, the dense one a constant.

    None where more spikes take no more time.
    """
    generator = torch.Generator('cpu').manual_seed(0)
    few, many = (
        (torch.rand(_SIZE, generator=generator) < rate)
        .to(torch.uint8)
        .contiguous(memory_format=_LAST)
        for rate in (_LOW, _HIGH)
    )
    runs = (lambda: by_events(few), lambda: by_events(many), lambda: dense(many))
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(7):
        for run, found in zip(runs, times):
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
    at_low, at_high, constant = (statistics.median(found[1:]) for found in times)
    slope = (at_high - at_low) / (_HIGH - _LOW)
    if slope <= 0:
        return None
    return min(max(_LOW + (constant - at_low) / slope, 0.0), 1.0)
