"""Look at recordings with boxes before long work starts on them."""

from collections.abc import Mapping
from typing import Any, Optional

from ...config_types import type_name
from ..errors import DatasetError, MissingDataError
from ..events.prophesee import PropheseeDetection
from .classes import check_heads
from .classification import data_arguments, find_class


def is_event_detection(cls: Any) -> bool:
    """Whether a data set class reads recordings with boxes.

    Args:
        cls: The class.

    Returns:
        Whether it does.
    """
    return isinstance(cls, type) and issubclass(cls, PropheseeDetection)


def check_event_detection(
    dataset: Mapping[str, Any],
    key: str = 'dataset',
    num_classes: Optional[Mapping[str, int]] = None,
    hint: str = '',
) -> dict[str, Any]:
    """Check that recordings with boxes can be trained on and evaluated.

    Args:
        dataset: The config of a :class:`~mmsnn.datasets.PropheseeDetection`.
        key: The config key of the data set, for messages.
        num_classes: Number of classes of each head of the model, by the config key that sets it.
        hint: How to point to the data, said where they are missing.

    Returns:
        ``images`` and ``boxes``, how many times and boxes the run will see; ``classes``, their
        names by label; ``warnings``, in words.

    Raises:
        DatasetError: Anything is wrong. The message names the first problem and its place.
    """
    try:
        data = find_class(dataset)(**data_arguments(dataset), pipeline=[])
    except MissingDataError as error:
        raise DatasetError(f'{error} {hint}'.strip()) from error
    except DatasetError:
        raise
    except (TypeError, ValueError) as error:
        raise DatasetError(f'{key}: {error}') from error
    for transform in dataset.get('pipeline') or ():
        length = transform.get('length') if type_name(transform) == 'LoadEventWindow' else None
        if data.windows is not None and length not in (None, data.windows):
            raise DatasetError(
                f'{key}: windows={data.windows}, but its LoadEventWindow has length={length}: '
                'windows that follow one another are of one length, give both the same'
            )
    classes = tuple(data.metainfo['classes'])
    check_heads(classes, num_classes or {}, key)
    data.check_files()
    return {
        'images': len(data),
        'boxes': sum(len(data.get_data_info(i)['boxes']) for i in range(len(data))),
        'classes': classes,
        'warnings': [],
    }
