"""Pictures of the report: what the network saw, its spikes over time, and where it looked."""

import base64
import os.path as osp
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Optional, cast

import cv2
import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel
from mmengine.runner import Runner, autocast
from rich.progress import track
from torch import nn

from ..analysis import SpikeRecorder, neuron_layers
from ..visualization import first_image, heat_map, input_picture, overlay

#: Pictures as ``data:`` addresses, by the number of the image, the layer or decoder where it is of
#: one, and t.
Pictures = dict[tuple, str]

#: Longest sides in pixels; larger ones are shrunk, or a page would weigh hundreds of megabytes.
PICTURE_SIDE, MAP_SIDE, OVERLAY_SIDE = 640, 96, 256


def show_images(
    runner: Runner,
    model: nn.Module,
    task,
    num_images: int,
    like: Optional[Sequence[tuple[int, str]]] = None,
) -> tuple[list[dict[str, Any]], Pictures]:
    """Choose images, run each once more, and draw its spikes and attention.

    Args:
        runner: The runner, for its test data set.
        model: The detector or classifier.
        task: As of :func:`mmsnn.report.tasks.task_of`.
        num_images: How many images.
        like: Images to show instead, with their groups, as of :func:`choose`.

    Returns:
        What is known of each image, the worst first, and the pictures.
    """
    dataset = runner.test_dataloader.dataset
    entries: list[dict[str, Any]] = []
    pictures: Pictures = {}
    recorder = SpikeRecorder(model) if neuron_layers(model) else None
    chosen = like or choose(task.order(), num_images)
    for n, (i, group) in enumerate(track(chosen, 'drawing')):
        data = dataset[i]
        with recorder or nullcontext(), torch.no_grad(), autocast(enabled=runner.test_loop.fp16):
            sample = cast(BaseModel, model).test_step(pseudo_collate([data]))[0]
        image = input_picture(data['inputs'])
        shown = _shrink(image, PICTURE_SIDE)
        height, width = shown.shape[:2]
        shrunk = width / image.shape[1], height / image.shape[0]
        # Not the ratio of the sizes: the pipeline may have padded.
        resized = sample.metainfo.get('scale_factor', (1, 1))
        spikes, attention = first_image(recorder, data['inputs'], sample) if recorder else ({}, {})
        path = sample.metainfo.get('img_path')
        entry = dict(
            index=i,
            name=f'{i}' if path is None else osp.basename(path),
            group=group,
            width=width,
            height=height,
            **task.entry(i, (resized[0] * shrunk[0], resized[1] * shrunk[1])),
            layer=_decoded_layer(spikes, attention),
            layers={},
            attention={},
        )
        pictures[n,] = _encode(shown, '.jpg')
        for name, s in spikes.items():
            maps = s.float().mean(1).numpy()
            entry['layers'][name] = maps.mean((1, 2)).tolist()
            top = max(maps.max(), 1e-9)
            for t, values in enumerate(maps):
                cells = heat_map(_shrink(values, MAP_SIDE), 0, top)
                pictures[n, name, t] = _encode(cells, '.png')
        small = _shrink(image, OVERLAY_SIDE)
        for name, weights in attention.items():
            maps = np.nan_to_num(weights.spatial.numpy())
            low, high = float(maps.min()), float(maps.max())
            inside, outside = _split(maps.mean(0), entry.get('true', ()), (height, width))
            entry['attention'][name] = dict(
                temporal=weights.temporal.tolist(),
                channel=[float(weights.channel.min()), float(weights.channel.max())],
                spatial=[low, high],
                inside=inside,
                outside=outside,
                size=maps.shape[1:],
            )
            for t, values in enumerate(maps):
                drawn = overlay(small, values, low, max(high, low + 1e-6))
                pictures[n, name, t] = _encode(drawn, '.jpg')
        entries.append(entry)
    return entries, pictures


def _split(values: np.ndarray, true: Sequence[dict], shape: tuple[int, int]) -> tuple:
    """Mean of a map inside the true boxes and outside; None where there is no such place."""
    inside = np.zeros(shape, np.uint8)
    for box in true:
        x1, y1, x2, y2 = (round(v) for v in box['box'])
        inside[max(y1, 0) : y2, max(x1, 0) : x2] = 1
    share = cv2.resize(inside.astype(np.float32), values.shape[::-1], interpolation=cv2.INTER_AREA)
    means = []
    for weight in (share, 1 - share):
        total = float(weight.sum())
        means.append(float((values * weight).sum()) / total if true and total > 0.5 else None)
    return tuple(means)


def attention_summary(images: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the attention of each decoder is like on the images shown.

    Args:
        images: As of :func:`show_images`.

    Returns:
        Of each decoder its name, the range of its weights of time, of channels and of space, and
        the means of space inside and outside of true boxes, over images.
    """
    rows = []
    for name in images[0]['attention']:
        seen = [image['attention'][name] for image in images]
        row = dict(name=name)
        row['steps'] = np.mean([s['temporal'] for s in seen], axis=0).tolist()
        for key in ('temporal', 'channel', 'spatial'):
            row[key] = [min(min(s[key]) for s in seen), max(max(s[key]) for s in seen)]
        for key in ('inside', 'outside'):
            means = [s[key] for s in seen if s[key] is not None]
            row[key] = sum(means) / len(means) if means else None
        rows.append(row)
    return rows


def choose(order: list[int], num_images: int) -> list[tuple[int, str]]:
    """The worst, the typical and the best images, a third each.

    Args:
        order: Images from the worst to the best.
        num_images: How many to choose.

    Returns:
        Numbers of images with ``'worst'``, ``'typical'`` or ``'best'``, in that order, none twice.

    Example:
        >>> from mmsnn.report.gallery import choose
        >>> choose(list('abcdefghi'), 3)
        [('a', 'worst'), ('e', 'typical'), ('i', 'best')]
    """
    num_images = min(num_images, len(order))
    few = num_images // 3
    worst, middle = num_images - 2 * few, (len(order) - few) // 2
    start = max(worst, min(middle, len(order) - 2 * few))
    groups = dict(
        worst=order[:worst],
        typical=order[start : start + few],
        best=order[len(order) - few :],
    )
    return [(i, group) for group, images in groups.items() for i in images]


def _decoded_layer(spikes: dict, attention: dict) -> Optional[str]:
    """The last layer with maps, of the size that the first decoder sees where there is one."""
    for weights in attention.values():
        same = [name for name, s in spikes.items() if s.shape[2:] == weights.spatial.shape[1:]]
        if same:
            return same[-1]
    return next(reversed(spikes), None)


def _shrink(image: np.ndarray, side: int) -> np.ndarray:
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _encode(image: np.ndarray, suffix: str) -> str:
    """An RGB picture as a ``data:`` address."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 88] if suffix == '.jpg' else []
    done, data = cv2.imencode(suffix, np.ascontiguousarray(image[..., ::-1]), options)
    if not done:
        raise RuntimeError(f'OpenCV could not write a picture of shape {image.shape}')
    kind = 'jpeg' if suffix == '.jpg' else 'png'
    return f'data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode("ascii")}'
