"""The network in an integer file, run by NumPy alone: the reference for whoever builds the same.

``mmsnn export int8`` writes such a file. This module imports nothing of mmsnn and no PyTorch, and may be
copied and run by itself::

    python read_integers.py model.safetensors picture.npy

where the picture is float32 (C, H, W), or (T, C, H, W) with frames, as the file's ``preprocessing``
leaves it. docs/deploy-integers.md says what stands in the file.
"""

import json
import sys
from collections.abc import Iterator, Mapping

import numpy as np

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


def windows(x: np.ndarray, kernel, stride, padding, dilation, fill) -> Iterator[tuple]:
    """(row, column) of a window, and what stands there in all windows of x (..., H, W)."""
    edges = [(0, 0)] * (x.ndim - 2) + [(p, p) for p in padding]
    x = np.pad(x, edges, constant_values=fill)
    size = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[-2:], kernel, stride, dilation)]
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            rows = slice(i * dilation[0], i * dilation[0] + (size[0] - 1) * stride[0] + 1, stride[0])
            columns = slice(j * dilation[1], j * dilation[1] + (size[1] - 1) * stride[1] + 1, stride[1])
            yield (i, j), x[..., rows, columns]


def conv(node: dict, tensors: dict, x: np.ndarray) -> np.ndarray:
    """Currents: whole numbers are summed up exactly, then y = scale * sum + bias in float32."""
    name = node['name']
    whole = f'{name}.q' in tensors
    # A file without whole numbers for it has the layer that sees the picture.
    weight = tensors[f'{name}.q'].astype(np.int32) if whole else tensors[f'{name}.weight'].astype(float)
    geometry = node['stride'], node['padding'], node['dilation']
    parts = zip(np.split(weight, node['groups']), np.split(x, node['groups'], axis=-3))
    sums = np.concatenate([
        sum(np.einsum('oc,tchw->tohw', w[:, :, i, j], at.astype(w.dtype), optimize=not whole)
            for (i, j), at in windows(part, w.shape[2:], *geometry, 0))
        for w, part in parts
    ], axis=-3)  # fmt: skip
    bias = tensors[f'{name}.bias'].reshape(-1, 1, 1)
    if not whole:
        return (sums + bias).astype(np.float32)
    return sums.astype(np.float32) * tensors[f'{name}.scale'].reshape(-1, 1, 1) + bias


def neuron(node: dict, x: np.ndarray, time_steps: int) -> np.ndarray:
    """Spikes (T, C, H, W) of currents (T, C, H, W), or (1, C, H, W) that are the same at all steps.

    In float32, each operation rounded by itself: no fused multiply-add.
    """
    value = {key: np.float32(number) for key, number in node.items() if isinstance(number, (int, float))}
    spikes, v = [], np.zeros_like(x[0])
    for t in range(time_steps):
        y = x[t if len(x) > 1 else 0]
        if node['op'] == 'ilif':
            h = value['decay'] * v + y / value['v_threshold']
            s = np.clip(np.floor(h - np.float32(0.5)), -1, value['levels'] - 1) + np.float32(1)
            v = h - s
        else:
            h = value['decay'] * v + (y if node['input_scale'] == 1 else value['input_scale'] * y)
            s = (h - value['v_threshold'] >= 0).astype(np.float32)
            v = h * (1 - s) if node['reset'] == 'hard' else h - value['v_threshold'] * s
        spikes.append(s.astype(np.uint8))
    return np.stack(spikes)


def pool(node: dict, x: np.ndarray) -> np.ndarray:
    """The largest value of each window."""
    least = 0 if x.dtype == np.uint8 else -np.inf
    size = [[node[key]] * 2 for key in ('kernel_size', 'stride', 'padding')]
    return np.maximum.reduce([at for _, at in windows(x, *size, (1, 1), least)])


#: Of spikes in bytes R and S of a branch and a shortcut; `add` is of currents too.
GATES = {
    'or': np.maximum,
    'and': np.multiply,
    'iand': lambda r, s: (1 - r) * s,
    'add': lambda r, s: r + s if r.dtype == s.dtype else np.float32(r) + np.float32(s),
    'select': lambda g, r, s: g * r + (1 - g) * s,
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
        missing = [name for name in node['inputs'] if name not in values]
        if missing:
            continue  # before what was given
        inputs = [values[name] for name in node['inputs']]
        if node['op'] == 'conv':
            values[node['name']] = conv(node, tensors, *inputs)
        elif node['op'] in ('lif', 'ilif'):
            values[node['name']] = neuron(node, *inputs, network['time_steps'])
        elif node['op'] == 'pool':
            values[node['name']] = pool(node, *inputs)
        else:
            values[node['name']] = GATES[node['op']](*inputs)
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
            print(f'{name:32} {str(x.shape):22} {int((x > 0).sum()):9} spikes')
