"""Detection in event recordings: Prophesee's Gen1 and 1Mpx, and one's own in their form."""

import logging
import os
import os.path as osp
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional, Union

import numpy as np
from mmdet.registry import DATASETS
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from ..errors import DatasetError, MissingDataError
from ..files import is_by_product
from .boxes import crop_boxes, read_boxes
from .io import event_suffixes, open_recording
from .problems import check_all
from .recording import Recording

__all__ = ['SENSORS', 'PropheseeDetection', 'Sensor', 'find_sensor', 'open_of_sensor']


class Sensor(NamedTuple):
    """A generation of Prophesee's data sets.

    - ``size``: (W, H) in pixels.
    - ``labels``: Names of all class ids in its files.
    - ``classes``: Those that are trained on and evaluated, as is usual.
    """

    size: tuple[int, int]
    labels: tuple[str, ...]
    classes: tuple[str, ...]


SENSORS = {
    'gen1': Sensor((304, 240), ('car', 'pedestrian'), ('car', 'pedestrian')),
    '1mpx': Sensor(
        (1280, 720),
        ('pedestrian', 'two wheeler', 'car', 'truck', 'bus', 'traffic sign', 'traffic light'),
        ('pedestrian', 'two wheeler', 'car'),
    ),
    # The simulated camera of `mmsnn digits-events`.
    'digits': Sensor((128, 128), tuple('0123456789'), tuple('0123456789')),
}
BOXES = '_bbox.npy'
# From this share of boxes outside of the sensor on, they are those of another one.
MOST_OUTSIDE = 0.05
# By how much a label may lie behind the last event: nothing need move where one ends.
MOST_AFTER_END = 1_000_000


def find_sensor(
    generation: Union[str, Sequence[int]], classes: Optional[Sequence[str]] = None
) -> Sensor:
    """A sensor by its name, or that of one's own recordings by its size.

    Args:
        generation: 'gen1', '1mpx' or 'digits'; or (W, H) in pixels.
        classes: What the class ids of one's own boxes mean, from 0 on.

    Returns:
        The sensor.

    Raises:
        ValueError: It is none of these.

    Example:
        >>> from mmsnn.datasets.events.prophesee import find_sensor
        >>> find_sensor((346, 260), ('hand', 'ball')).labels
        ('hand', 'ball')
    """
    if isinstance(generation, str) and generation in SENSORS:
        return SENSORS[generation]
    own = isinstance(generation, (tuple, list)) and len(generation) == 2
    if not own or not all(isinstance(side, int) and side > 0 for side in generation):
        raise ValueError(
            f'generation is {generation!r}, expected one of {", ".join(SENSORS)}, or (width, '
            'height) of your own sensor in pixels'
        )
    names = tuple(classes or ())
    return Sensor((int(generation[0]), int(generation[1])), names, names)


def open_of_sensor(path: str, size: tuple[int, int]) -> Recording:
    """Open a recording that must be of a sensor.

    Args:
        path: The file.
        size: (W, H) of the sensor, in pixels.

    Returns:
        The recording.

    Raises:
        DatasetError: It can't be used, or says another size.
    """
    recording = open_recording(path, size)
    said = recording.blocks.size
    if said is not None and tuple(said) != tuple(size):
        recording.close()
        raise DatasetError(
            f'{path} is of a sensor of {said[0]}x{said[1]} pixels, but {size[0]}x{size[1]} are '
            'expected. Set generation of the data set to the sensor of its recordings'
        )
    return recording


@DATASETS.register_module()
class PropheseeDetection(BaseDataset):
    """Recordings with boxes: one sample for each time that has a box, or all windows in order.

    The folder has, for each ``NAME_bbox.npy``, the recording ``NAME_td.dat``, ``NAME_td.dat.h5`` or
    any other that :func:`~mmsnn.datasets.events.open_recording` opens, with ``_td`` or without. So
    Gen1 and 1Mpx are laid out, and RVT's and eTraM's copies of them.

    Items have ``recording`` and ``img_path`` (the file), ``t`` (the time of the boxes, in
    microseconds), ``sensor_size``; ``boxes``, the true ones as the metric takes them, and
    ``instances``, the same for training, cut at the sensor's borders. The events before ``t`` are
    read by :class:`~mmsnn.datasets.transforms.LoadEventWindow`.

    Args:
        data_root: The folder.
        data_prefix: ``dict(img='train/')`` for a folder in it.
        generation: 'gen1' (304x240; car, pedestrian), '1mpx' (1280x720; pedestrian, two wheeler,
            car), or 'digits' (128x128; 0 to 9), which ``mmsnn digits-events`` makes. For recordings
            of one's own (W, H) of the sensor, with ``metainfo``.
        stride: Least time between the samples of a recording, in microseconds. 1Mpx has labels each
            16 ms, where the metric takes predictions for one time that are up to 50 ms away.
        windows: Length in microseconds, where the samples shall be windows that follow one another,
            for streams: from the first event of a recording to its last label, on a grid on which
            the first label is the end of one. Items have ``window``, which counts them, and the
            boxes for which theirs is the nearest end; ``instances`` are those of the time nearest
            to it. ``labelled`` says whether there was a label: a window without one needn't be
            empty, and takes no part in a loss (:class:`mmsnn.engine.StreamHook`).
        metainfo: ``classes`` chooses among the labels of the sensor, as all 7 of 1Mpx, and their
            order. Boxes of others are left out. For recordings of one's own it names the class ids
            of the files, from 0 on.
        **kwargs: As in ``mmengine.dataset.BaseDataset``: pipeline, indices, test_mode, ...

    Raises:
        DatasetError: Recordings without boxes or boxes without a recording, an unknown class id,
            boxes outside of the sensor.
        ValueError: An argument that can't be.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from mmsnn.datasets import PropheseeDetection
        >>> from mmsnn.datasets.events import make_boxes
        >>> boxes = make_boxes(2)
        >>> boxes['t'], boxes['w'], boxes['h'] = 500_000, 30, 20
        >>> with tempfile.TemporaryDirectory() as root:
        ...     np.save(f'{root}/a_td.npy', np.array([[3, 5, 100, 1]]))
        ...     np.save(f'{root}/a_bbox.npy', boxes)
        ...     dataset = PropheseeDetection(data_root=root, generation='gen1')
        >>> info = dataset.get_data_info(0)
        >>> len(dataset), info['t'], len(info['instances']), info['instances'][0]['bbox']
        (1, 500000, 2, [0.0, 0.0, 30.0, 20.0])
    """

    def __init__(
        self,
        data_root: str,
        data_prefix: Optional[dict] = None,
        generation: Union[str, Sequence[int]] = 'gen1',
        stride: int = 0,
        windows: Optional[int] = None,
        metainfo: Optional[dict] = None,
        **kwargs: Any,
    ):
        self.sensor = find_sensor(generation, (metainfo or {}).get('classes'))
        if not self.sensor.labels:
            raise ValueError(
                f'recordings of a sensor of {self.sensor.size} need metainfo=dict(classes=(...)): '
                'what the class ids of their boxes mean'
            )
        if stride < 0:
            raise ValueError(f'stride must be at least 0 microseconds, got {stride}')
        if windows is not None and (not isinstance(windows, int) or windows < 1 or stride):
            raise ValueError(
                f'windows must be a whole number of microseconds, without a stride, got {windows!r}'
            )
        self.windows = windows
        self.generation, self.stride = generation, stride
        metainfo = {'classes': self.sensor.classes, **(metainfo or {})}
        unknown = [name for name in metainfo['classes'] if name not in self.sensor.labels]
        if unknown:
            raise DatasetError(
                f'the class {unknown[0]!r} is none of {generation}, which has '
                f'{", ".join(self.sensor.labels)}. Set metainfo.classes to some of them'
            )
        super().__init__(
            data_root=os.fspath(data_root),
            data_prefix=data_prefix or dict(img=''),
            metainfo=metainfo,
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """List the times with boxes.

        Returns:
            A sample each, by recording and time.
        """
        folder = self.data_prefix['img']
        items = []
        for recording, path in find_pairs(folder):
            boxes = self._load_boxes(path)
            if self.windows is not None:
                items += self._sequence(recording, boxes, self.windows)
                continue
            last: Optional[int] = None
            for t in np.unique(boxes['t']).tolist():
                if last is None or t - last >= self.stride:
                    last = t
                    items.append(self._item(recording, t, boxes[boxes['t'] == t]))
        if not items:
            raise DatasetError(
                f'{folder} has no boxes of the classes {", ".join(self.metainfo["classes"])}'
            )
        return items

    def check_files(self) -> None:
        """Look at each recording: its sensor, and that it lasts until its last label.

        Raises:
            DatasetError: One is broken, of another sensor, or ends before.
        """
        last: dict[str, int] = {}
        for i in range(len(self)):
            info = self.get_data_info(i)
            last[info['recording']] = max(last.get(info['recording'], 0), info['t'])

        def check(path):
            with open_of_sensor(path, self.sensor.size) as recording:
                if last[path] > recording.end + MOST_AFTER_END:
                    raise DatasetError(
                        f'{path} ends at {recording.end} us, but has a label at {last[path]} us. '
                        'Fetch both again: they are not of the same recording, or it is truncated'
                    )

        check_all(list(last), check)

    def _load_boxes(self, path: str) -> np.ndarray:
        """The boxes of the wanted classes, which are numbered anew."""
        boxes = read_boxes(path)
        ids, labels = boxes['class_id'], self.sensor.labels
        wrong = np.flatnonzero((ids < 0) | (ids >= len(labels)))
        if len(wrong):
            raise DatasetError(
                f'{path}: box {wrong[0]} has the class id {ids[wrong[0]]}, but those of '
                f'{self.generation} go from 0 to {len(labels) - 1} ({", ".join(labels)}). Set '
                'generation to the sensor of its recordings'
            )
        inside = crop_boxes(boxes, self.sensor.size)
        outside = ((inside['w'] <= 0) | (inside['h'] <= 0)) & (boxes['w'] > 0) & (boxes['h'] > 0)
        number = int(outside.sum())
        if number > MOST_OUTSIDE * len(boxes):
            first = boxes[outside][0]
            raise DatasetError(
                f'{path}: {number} of {len(boxes)} boxes lie outside of the sensor of '
                f'{self.sensor.size[0]}x{self.sensor.size[1]} pixels, the first at x={first["x"]}, '
                f'y={first["y"]}. Set generation to the sensor of its recordings'
            )
        if number:
            print_log(
                f'{path}: {number} of {len(boxes)} boxes lie outside of the sensor; they are left '
                'out',
                logger='current',
                level=logging.WARNING,
            )
        boxes = boxes[~outside]
        number_of = {name: k for k, name in enumerate(self.metainfo['classes'])}
        numbers = np.array([number_of.get(name, -1) for name in labels])
        boxes['class_id'] = numbers[boxes['class_id']]
        return boxes[boxes['class_id'] >= 0]

    def _sequence(self, recording: str, boxes: np.ndarray, length: int) -> list[dict]:
        """All windows of a recording, up to its last label."""
        if not len(boxes):
            return []
        with open_of_sensor(recording, self.sensor.size) as opened:
            start = min(opened.start, int(boxes['t'][0]))
        before = max(-(-(int(boxes['t'][0]) - start) // length), 1) - 1
        first_end = int(boxes['t'][0]) - before * length
        # The nearest end; halfway, the later one.
        numbers = (boxes['t'] - first_end + length // 2) // length
        items = []
        for i in range(int(numbers[-1]) + 1):
            t, here = first_end + i * length, boxes[numbers == i]
            nearest = here['t'][np.argmin(np.abs(here['t'] - t))] if len(here) else t
            item = self._item(recording, t, here[here['t'] == nearest])
            item.update(boxes=here, window=i, labelled=len(here) > 0)
            items.append(item)
        return items

    def _item(self, recording, t, boxes):
        inside = crop_boxes(boxes, self.sensor.size)
        corners = [inside['x'], inside['y'], inside['x'] + inside['w'], inside['y'] + inside['h']]
        instances = [
            dict(bbox=corner, bbox_label=label, ignore_flag=0)
            for corner, label, w, h in zip(
                np.stack(corners, 1).tolist(),
                inside['class_id'].tolist(),
                inside['w'],
                inside['h'],
            )
            if w >= 1 and h >= 1  # less can't be learnt
        ]
        return dict(
            recording=recording,
            img_path=recording,
            img_id=f'{osp.basename(recording)}@{t}',
            t=t,
            sensor_size=self.sensor.size,
            boxes=boxes,
            instances=instances,
        )


def name_of_recording(path: str) -> str:
    """The name that a recording shares with its boxes: without ``_td`` and suffixes.

    Args:
        path: The file of the recording.
    """
    name, suffix = osp.splitext(osp.basename(path))
    if suffix.lower() in ('.h5', '.hdf5') and name.endswith('.dat'):
        name = name[: -len('.dat')]
    return name[: -len('_td')] if name.endswith('_td') else name


def list_recordings(folder: str) -> dict[str, str]:
    """The recordings of a folder.

    Args:
        folder: The folder.

    Returns:
        Names of files by :func:`name_of_recording`, in the order of the files' names.

    Raises:
        DatasetError: Two recordings of a name.
    """
    recordings: dict[str, str] = {}
    for file in sorted(os.listdir(folder)):
        known = osp.splitext(file)[1].lower() in event_suffixes() and not file.endswith(BOXES)
        if is_by_product(file) or not known:
            continue
        other = recordings.setdefault(name_of_recording(file), file)
        if other != file:
            raise DatasetError(
                f'{folder} has the recording {other} also as {file}. Leave one of them'
            )
    return recordings


def find_pairs(folder: str) -> list[tuple[str, str]]:
    """Recordings with their boxes.

    Args:
        folder: Where both lie.

    Returns:
        Pairs of paths, in the order of their names.

    Raises:
        DatasetError: No folder, one without the other, or two recordings of a name.
    """
    if not osp.isdir(folder):
        raise MissingDataError(f'the folder of recordings {folder or repr(folder)} does not exist.')
    names = [name for name in os.listdir(folder) if not is_by_product(name)]
    boxes = {name[: -len(BOXES)]: name for name in sorted(names) if name.endswith(BOXES)}
    recordings = list_recordings(folder)
    alone = [f'the recording {recordings[stem]} has no {stem}{BOXES}' for stem in recordings]
    alone = [text for text, stem in zip(alone, recordings) if stem not in boxes]
    alone += [f'{boxes[stem]} has no recording' for stem in boxes if stem not in recordings]
    if alone:
        more = f', and {len(alone) - 1} more of that kind' if len(alone) > 1 else ''
        raise DatasetError(
            f'{folder}: {alone[0]} beside it{more}. Expected: NAME{BOXES} beside NAME_td.dat, '
            'NAME_td.dat.h5, NAME.raw or the like. Fetch what is missing'
        )
    if not boxes:
        raise MissingDataError(
            f'{folder} has no recordings. Expected: NAME{BOXES} beside NAME_td.dat or the like.'
        )
    return [(osp.join(folder, recordings[stem]), osp.join(folder, boxes[stem])) for stem in boxes]
