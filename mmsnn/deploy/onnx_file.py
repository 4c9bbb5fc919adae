"""Trained models as ONNX files."""

import os
from collections.abc import Sequence
from typing import Any, Optional, Union

import torch
from torch import nn

from ..version import __version__
from .plain import ExportError, last_words, plain, quiet, trace
from .whole_graph import whole_graph

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
    whole = whole_graph(model, plain, shape, batch_size)
    keep = torch.ops.mmsnn.keep_boxes.default
    with quiet():
        program = trace(whole.module, whole.inputs, whole.dynamic_shapes, [keep])
        try:
            written = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=whole.input_names,
                output_names=whole.output_names,
                custom_translation_table={keep: _keep_boxes},
            )
        except Exception as error:
            raise ExportError(f'ONNX has no word for the model: {last_words(error)}') from error
    assert written is not None  # it is with dynamo=True
    written.model.producer_name = 'mmsnn'
    written.model.producer_version = __version__
    written.model.metadata_props.update(whole.metadata)
    written.save(os.fspath(path))
    onnx.checker.check_model(os.fspath(path), full_check=True)


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
