"""A detector or classifier as one graph, from images to boxes or scores, and what to say of it."""

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Optional

import torch
from mmengine.config import Config
from torch import Tensor, nn

from ..config_types import loads_frames, plain_values
from ..datasets import datasets_of
from ..version import __version__
from .dense_boxes import DenseBoxes
from .plain import MOST, ExportError


class WholeGraph(NamedTuple):
    """What :func:`mmsnn.deploy.plain.trace` takes, and what goes into a file beside it."""

    module: nn.Module
    #: An example of them.
    inputs: tuple[Tensor, ...]
    #: Which of their sizes are free; None where none is.
    dynamic_shapes: Optional[tuple[dict, ...]]
    input_names: list[str]
    output_names: list[str]
    #: JSON by name.
    metadata: dict[str, str]


def whole_graph(
    model: nn.Module,
    prepare: Callable[[nn.Module], nn.Module],
    shape: Optional[Sequence[int]] = None,
    batch_size: Optional[int] = None,
) -> WholeGraph:
    """The graph of a detector or classifier, with its inputs.

    Args:
        model: The detector or classifier.
        prepare: Makes the copy to be traced: :func:`mmsnn.deploy.plain.plain` or ``folded``.
        shape: Height and width that all images have; None for any multiples of the padding's
            divisor (of 32 where there is none), from two times it on.
        batch_size: Number of images; None for any.

    Returns:
        WholeGraph.

    Raises:
        ExportError: A size that can't be, a model without a time step, or boxes that aren't found
            as :class:`DenseBoxes` finds them.
    """
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
        graph: nn.Module = DenseBoxes(prepare(model))
        inputs: tuple[Tensor, ...] = images, torch.tensor([[height, width]] * batch)
        names = ['images', 'sizes'], ['boxes', 'scores', 'labels']
        dynamic: tuple[dict, ...] = axes, dims
    else:
        graph, inputs = ClassScores(prepare(model)), (images,)
        names, dynamic = (['images'], ['scores']), (axes,)
    metadata = {
        'mmsnn.version': __version__,
        'mmsnn.time_steps': time_steps,
        'mmsnn.classes': described['classes'],
        'mmsnn.preprocessing': described['preprocessing'],
    }
    return WholeGraph(
        graph.eval(),
        inputs,
        dynamic if axes else None,
        *names,
        {name: json.dumps(value) for name, value in metadata.items()},
    )


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
    told['pipeline'] = pipeline and json.loads(json.dumps(plain_values(pipeline), default=str))
    classes = (getattr(model, 'dataset_meta', None) or {}).get('classes')
    return dict(classes=classes and list(classes), preprocessing=told)


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
