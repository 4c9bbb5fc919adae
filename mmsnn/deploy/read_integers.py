"""The network in an integer file, run by NumPy alone: the reference for whoever builds the same.

``mmsnn export int8`` writes such a file. This module imports nothing of mmsnn and no PyTorch, and
may be copied and run by itself::

    python read_integers.py model.safetensors picture.npy

where the picture is float32 (C, H, W), or (T, C, H, W) with frames, as the file's ``preprocessing``
leaves it. docs/deploy-integers.md says what stands in the file.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

FORMAT, VERSION = 'mmsnn-integers', '1'
#: What safetensors calls the dtypes of such files.
DTYPES = {'I8': np.int8, 'F32': np.float32}


def read(path: str) -> tuple[dict, dict[str, np.ndarray]]:
    """The network and its tensors: a length, that many bytes of JSON, and the tensors' bytes.

    Raises:
        ValueError: Another kind of file, another version, or only a part of a file.
    """
    with open(path, 'rb') as file:
        data = file.read()
    length = int.from_bytes(data[:8], 'little')
    try:
        header = json.loads(data[8 : 8 + length])
        known = header.pop('__metadata__', {})
    except (ValueError, AttributeError):
        known, header = {}, {}
    if known.get('format') != FORMAT:
        raise ValueError(f'{path} is no integer file of mmsnn, or only the beginning of one')
    if known.get('version') != VERSION:
        raise ValueError(
            f'{path} has version {known.get("version")} of the format, this reader takes {VERSION}'
        )
    body = data[8 + length :]
    tensors = {}
    for name, entry in header.items():
        first, last = entry['data_offsets']
        if last > len(body):
            raise ValueError(f'{path} is cut off: {name} ends {last - len(body)} bytes behind it')
        values = np.frombuffer(body[first:last], DTYPES[entry['dtype']])
        tensors[name] = values.reshape(entry['shape'])
    return json.loads(known['network']), tensors


def windows(
    x: np.ndarray,
    kernel: Sequence,
    stride: Sequence,
    padding: Sequence,
    dilation: Sequence,
    around: float,
) -> np.ndarray:
    """(T, C, H, W) to what each window sees, (T, C, H', W', kH, kW)."""
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)], constant_values=around)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    # NumPy's own annotations know of a single axis alone.
    views = sliding_window_view(x, reach, axis=(2, 3))  # type: ignore[call-overload]
    return views[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def conv(node: dict, tensors: dict, x: np.ndarray) -> np.ndarray:
    """Currents: whole numbers are summed up exactly, then y = scale * sum + bias in float32.

    The conv that sees the picture has real weights, whose sums are taken in float64.
    """
    name, groups = node['name'], node['groups']
    whole = f'{name}.q' in tensors
    weight = tensors[f'{name}.q' if whole else f'{name}.weight']
    wide = np.int32 if whole else np.float64
    geometry = weight.shape[2:], node['stride'], node['padding'], node['dilation']
    sums = [
        np.tensordot(
            w.astype(wide), windows(part, *geometry, 0).astype(wide), ((1, 2, 3), (1, 4, 5))
        )
        for w, part in zip(np.split(weight, groups), np.split(x, groups, axis=1))
    ]
    y = np.concatenate(sums).swapaxes(0, 1)
    bias = tensors[f'{name}.bias'].reshape(-1, 1, 1)
    if not whole:
        return (y + bias).astype(np.float32)
    return y.astype(np.float32) * tensors[f'{name}.scale'].reshape(-1, 1, 1) + bias


def lif(node: dict, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spikes, and the potential that is left of h."""
    threshold = np.float32(node['v_threshold'])
    s = (h - threshold >= 0).astype(np.float32)
    return s, h * (1 - s) if node['reset'] == 'hard' else h - threshold * s


def ilif(node: dict, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers of spikes, and what is left of h, which is in units of the threshold."""
    s = np.clip(np.floor(h - np.float32(0.5)) + 1, 0, node['levels'])
    return s, h - s


def neuron(node: dict, x: np.ndarray, time_steps: int) -> np.ndarray:
    """Currents (T, C, H, W), or (1, C, H, W) that are the same at all steps, to spikes in bytes.

    In float32, where each operation is rounded by itself: there is no fused multiply-add.
    """
    if node['op'] == 'ilif':
        fires, y = ilif, x / np.float32(node['v_threshold'])
    else:
        fires, y = lif, np.float32(node['input_scale']) * x
    spikes, v = [], np.zeros_like(x[0])
    for current in np.broadcast_to(y, (time_steps, *x.shape[1:])):
        s, v = fires(node, np.float32(node['decay']) * v + current)
        spikes.append(s.astype(np.uint8))
    return np.stack(spikes)


def pool(node: dict, x: np.ndarray) -> np.ndarray:
    """The largest value of each window."""
    kernel, stride, padding = ([node[k]] * 2 for k in ('kernel_size', 'stride', 'padding'))
    around = 0 if x.dtype == np.uint8 else -np.inf
    return windows(x, kernel, stride, padding, [1, 1], around).max((4, 5))


#: Of spikes in bytes R and S of a branch and a shortcut; `add` is of currents too.
GATES: dict[str, Callable[..., np.ndarray]] = {
    'or': np.maximum,
    'and': np.multiply,
    'iand': lambda r, s: (1 - r) * s,
    'add': lambda r, s: (
        r + s if r.dtype == s.dtype else r.astype(np.float32) + s.astype(np.float32)
    ),
}


def run(network: dict, tensors: dict, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What every node gives.

    Args:
        network: Of :func:`read`.
        tensors: Likewise.
        values: ``input``, float32 (1, C, H, W), or (T, C, H, W) for frames; or what other nodes
            give, which are then not computed.

    Returns:
        (T, C, H, W) by name: uint8 spikes, or float32 currents.
    """
    values = dict(values)
    for node in network['nodes']:
        if node['name'] in values:
            continue
        if not all(name in values for name in node['inputs']):
            continue  # It comes before what was given.
        first, *others = (values[name] for name in node['inputs'])
        if node['op'] == 'conv':
            y = conv(node, tensors, first)
        elif node['op'] in ('lif', 'ilif'):
            y = neuron(node, first, network['time_steps'])
        elif node['op'] == 'pool':
            y = pool(node, first)
        else:
            y = GATES[node['op']](first, *others)
        values[node['name']] = y
    return values


if __name__ == '__main__':
    try:
        network, tensors = read(sys.argv[1])
        picture = np.load(sys.argv[2])
    except (IndexError, OSError, ValueError) as error:
        sys.exit(f'error: {error}; usage: read_integers.py FILE.safetensors PICTURE.npy')
    values = run(network, tensors, {'input': picture.reshape(-1, *picture.shape[-3:])})
    for name, x in values.items():
        if x.dtype == np.uint8:
            print(f'{name:32} {x.shape!s:22} {int((x > 0).sum()):9} spikes')
