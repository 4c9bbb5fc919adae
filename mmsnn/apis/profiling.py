"""What a model costs on pictures."""

import itertools
import os
from collections.abc import Iterable
from typing import Any, Optional, Union, cast

import numpy as np
from PIL import Image as PILImage
from torch import nn

from ..analysis import SpikeProfile, SpikeProfiler, eval_mode
from ..analysis import profile as profile_batches
from ..models import SpikingClassifier
from .classification import inference_classifier
from .detection import inference_detector
from .images import Image, as_list


def profile(
    model: nn.Module,
    images: Union[Image, Iterable[Any]],
    max_batches: Optional[int] = None,
    **kwargs: Any,
) -> SpikeProfile:
    """Firing rates, operations and energy of a model on pictures or on batches.

    As :func:`mmsnn.analysis.profile`, which takes batches.

    Args:
        model: From :func:`init_detector` or :func:`init_classifier`; for batches, any model.
        images: What :func:`inference_detector` takes: paths, arrays or Pillow images, one or
            several; or batches, of a dataloader or as plain tensors that are preprocessed.
        max_batches: Take no more pictures or batches than these; None for all.
        **kwargs: Arguments of :class:`mmsnn.analysis.SpikeProfiler`.

    Returns:
        The profile; its numbers are those of one image.

    Raises:
        ValueError: Nothing to measure on, an array that is no picture, or as of
            :class:`mmsnn.analysis.SpikeProfiler`.

    Example:
        >>> from mmsnn.apis import init_detector, profile
        >>> from mmsnn.samples import DIGITS
        >>> model = init_detector('spiking-retinanet_sg-r10_asd_fpn_digits')
        >>> result = profile(model, sorted((DIGITS / 'val').glob('*.png')))
        >>> result.images, 0.05 < result.firing_rate < 0.2
        (8, True)
    """
    pictures, _ = as_list(images)
    if not pictures or not isinstance(pictures[0], (str, os.PathLike, np.ndarray, PILImage.Image)):
        return profile_batches(model, cast(Iterable[Any], images), max_batches, **kwargs)
    classifies = isinstance(model, SpikingClassifier)
    inference = inference_classifier if classifies else inference_detector
    profiler = SpikeProfiler(model, **kwargs)
    with eval_mode(model), profiler:
        for picture in itertools.islice(pictures, max_batches):
            inference(model, picture)
    return profiler.result()
