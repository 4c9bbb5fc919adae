"""Trained models as ONNX files."""

import json
import logging
import os
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any, Optional, Union

import torch
from mmengine.config import Config
from torch import Tensor, nn

from ..config_types import loads_frames
from ..datasets import datasets_of
from ..version import __version__
from .dense_boxes import DenseBoxes
from .plain import MOST, ExportError, plain, trace

#: Version of the operator set ai.onnx in the files.
OPSET = 18


def export_onnx(
    model: nn.Module,
    path: Union[str, os.PathLike],
    shape: Optional[Sequence[int]] = None,
    batch_size: Optional[int] = None,
) -> None:
    """Write a detector or classifier as a graph of plain ONNX operators.

    The graph is the model in eval mode and float32 at its own number of time steps, with norms
    folded and neurons unrolled over time; no program needs mmsnn to run it. Input and outputs:

    ========== ================================= ==================================================
    name       of                                what
    ========== ================================= ==================================================
    ``images`` float32 (B, C, H, W)              normalised and padded, as ``mmsnn.preprocessing``
                                                 of the metadata says; event frames with time in
                                                 the channels, (B, T * C, H, W)
    ``sizes``  int64 (B, 2), detectors           height and width of each image in its padding
    ``boxes``  float32 (B, N, 4), detectors      x1, y1, x2, y2 in pixels of ``images``
    ``scores`` float32 (B, N), or (B, K)         of boxes, from the highest on; or of all classes
    ``labels`` int64 (B, N), detectors           places in ``mmsnn.classes`` of the metadata
    ========== ================================= ==================================================

    Rows behind an image's last box have a score of 0 and the label -1. Non-maximum suppression is
    in the graph. Detectors are MMDetection's one-stage detectors whose heads decode as those of
    RetinaNet, FCOS and ATSS do.

    The metadata are JSON by name: ``mmsnn.version``, ``mmsnn.time_steps``, ``mmsnn.classes`` and
    ``mmsnn.preprocessing``, the last two as far as ``model.cfg`` and ``model.dataset_meta``, which
    :func:`mmsnn.apis.init_detector` and ``init_classifier`` set, know them.

    Args:
        model: The detector or classifier, not fused; it isn't changed.
        path: The file.
        shape: Height and width that all images have; None for any multiples of the padding's
            divisor (of 32 where there is none), from two times it on.
        batch_size: Number of images; None for any.

    Raises:
        ExportError: What the model does can't be said in ONNX, or not for inputs of any size; it
            has no time step; or onnx and onnxscript aren't installed.

    Example:
        >>> import torch
        >>> from mmsnn.deploy import export_onnx
        >>> from mmsnn.models import SpikingClassifier
        >>> model = SpikingClassifier(
        ...     dict(type='SGResNet', depth=10, base_channels=8, stem='cifar'),
        ...     dict(type='SpikingClsHead', num_classes=10, in_channels=64))
        >>> export_onnx(model, 'digits.onnx', shape=(32, 32))  # doctest: +SKIP
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"ONNX files need the packages onnx and onnxscript ({error}): pip install 'mmsnn[onnx]'"
        ) from None
    time_steps = getattr(getattr(model, 'backbone', None), 'time_steps', None)
    if time_steps is not None and time_steps < 1:
        raise ExportError(f'a graph has at least one time step, got time_steps={time_steps}')
    described = describe(model)
    divisor = described['preprocessing'].get('pad_size_divisor', 1)
    grid = divisor if divisor > 1 else 32
    if shape is not None and any(n < 1 or n % divisor for n in shape):
        raise ExportError(
            f'images are padded to multiples of {divisor}, so height and width of the file must be '
            f'such, got {tuple(shape)}'
        )
    if batch_size is not None and batch_size < 1:
        raise ExportError(f'the number of images must be at least 1, got {batch_size}')

    # On no level of a pyramid one row or column, which torch.export would take for the rule.
    height, width = shape or (12 * grid, 15 * grid)
    batch = batch_size or 2
    images = torch.zeros(batch, described['preprocessing']['channels'], height, width)
    # Less than two is told apart by torch.export; the graph holds for it too.
    dims: dict[int, Any] = {}
    if batch_size is None:
        dims[0] = torch.export.Dim('batch', min=2, max=MOST)
    axes = dict(dims)
    if shape is None:
        for axis, name in ((2, 'rows'), (3, 'columns')):
            axes[axis] = grid * torch.export.Dim(name, min=2, max=MOST)
    if hasattr(model, 'bbox_head') or not hasattr(model, 'head'):
        graph: nn.Module = DenseBoxes(plain(model))
        inputs: tuple[Tensor, ...] = images, torch.tensor([[height, width]] * batch)
        names = ['images', 'sizes'], ['boxes', 'scores', 'labels']
        dynamic: tuple[dict, ...] = axes, dims
    else:
        graph, inputs = ClassScores(plain(model)), (images,)
        names, dynamic = (['images'], ['scores']), (axes,)

    keep = torch.ops.mmsnn.keep_boxes.default
    with _quiet():
        program = trace(graph.eval(), inputs, dynamic if axes else None, [keep])
        try:
            written = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=names[0],
                output_names=names[1],
                custom_translation_table={keep: _keep_boxes},
            )
        except Exception as error:
            raise ExportError(f'ONNX has no word for the model: {_last_words(error)}') from error
    assert written is not None  # it is with dynamo=True
    written.model.producer_name = 'mmsnn'
    written.model.producer_version = __version__
    written.model.metadata_props.update(
        {
            'mmsnn.version': json.dumps(__version__),
            'mmsnn.time_steps': json.dumps(time_steps),
            'mmsnn.classes': json.dumps(described['classes']),
            'mmsnn.preprocessing': json.dumps(described['preprocessing']),
        }
    )
    written.save(os.fspath(path))
    onnx.checker.check_model(os.fspath(path), full_check=True)


def describe(model: nn.Module) -> dict:
    """What a user of the file has to know of a model.

    Args:
        model: The detector or classifier; what its ``cfg`` and ``dataset_meta`` know is told.

    Returns:
        ``classes``, names or None; and ``preprocessing``: ``channels`` of the input, their
        ``order``, ``mean`` and ``std`` in it, or None; ``pad_size_divisor`` and ``pad_value``,
        behind the normalisation, of detectors; and the ``pipeline`` of the test data, or None.
    """
    cfg = getattr(model, 'cfg', None) or Config()
    data: Any = model.data_preprocessor
    pipeline = next((dataset.get('pipeline') for *_, dataset in datasets_of(cfg, ('test',))), None)
    backbone: Any = model.backbone
    channels = getattr(backbone, 'in_channels', 3)
    of_events = loads_frames(pipeline)
    if of_events:
        channels *= backbone.time_steps
    turned = getattr(data, 'bgr_to_rgb', False) or getattr(data, '_channel_conversion', False)
    normalised = getattr(data, 'normalises', getattr(data, '_enable_normalize', False))
    told: dict[str, Any] = dict(
        channels=channels,
        # Of what mmcv reads, whose pictures are BGR.
        order='events' if of_events else 'RGB' if turned else 'BGR',
        mean=data.mean.flatten().tolist() if normalised else None,
        std=data.std.flatten().tolist() if normalised else None,
    )
    if hasattr(data, 'pad_size_divisor'):
        told.update(pad_size_divisor=data.pad_size_divisor, pad_value=data.pad_value)
    # What isn't JSON, as a class in the place of its name, is told as text.
    told['pipeline'] = pipeline and json.loads(json.dumps(_plain_values(pipeline), default=str))
    classes = (getattr(model, 'dataset_meta', None) or {}).get('classes')
    return dict(classes=classes and list(classes), preprocessing=told)


def _plain_values(value):
    if isinstance(value, dict):
        return {key: _plain_values(v) for key, v in value.items()}
    return [_plain_values(v) for v in value] if isinstance(value, (list, tuple)) else value


class ClassScores(nn.Module):
    """A classifier from normalised images to scores.

    Args:
        model: The classifier.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Scores (B, K) of images (B, C, H, W), which add up to 1."""
        return self.model(images).float().softmax(-1)


def _keep_boxes(boxes, scores, iou_threshold: float, most: int):
    """``mmsnn::keep_boxes`` in ONNX's operators."""
    import onnxscript

    op: Any = onnxscript.opset18

    def ints(*values):
        return op.Constant(value_ints=list(values))

    # (found, 3): image, class and place of each box that is kept. Scores that are left out are -1.
    found = op.NonMaxSuppression(
        boxes,
        op.Unsqueeze(scores, ints(1)),
        ints(most),
        op.Constant(value_floats=[iou_threshold]),
        op.Constant(value_floats=[-0.5]),
    )
    places = op.Gather(found, ints(0, 2), axis=1)
    nothing = op.Mul(scores, op.Constant(value_float=0.0))
    rows = op.Shape(places, start=0, end=1)
    ones = op.Expand(op.Constant(value_float=1.0), rows)
    return op.Greater(op.ScatterND(nothing, places, ones), op.Constant(value_float=0.0))


def _last_words(error: BaseException) -> str:
    """What lies at the bottom of an exporter's error, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition('\n')[0] or type(error).__name__


@contextmanager
def _quiet():
    """Without what torch tells of itself while it exports."""
    logger = logging.getLogger('torch.onnx')
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(before)
