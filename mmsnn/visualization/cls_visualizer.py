"""Pictures with their true and found class."""

from typing import Optional

import mmcv
import numpy as np
from mmdet.registry import VISUALIZERS
from mmengine.dist import master_only
from mmengine.visualization import Visualizer
from torch import Tensor

from ..structures import ClsDataSample

#: Text needs this many pixels; smaller pictures are enlarged.
MIN_SIDE = 224


@VISUALIZERS.register_module()
class ClsVisualizer(Visualizer):
    """Writes the true class and the classes found on a picture.

    Args:
        name: As in mmengine.
        image: As in mmengine.
        vis_backends: As in mmengine.
        save_dir: As in mmengine.
    """

    @master_only
    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: Optional[ClsDataSample] = None,
        topk: int = 3,
        show: bool = False,
        wait_time: float = 0,
        out_file: Optional[str] = None,
        step: int = 0,
    ) -> None:
        """Draw a picture, and show it, save it or hand it to the backends.

        Args:
            name: Name of the picture.
            image: (H, W, 3), uint8, RGB.
            data_sample: With ``gt_label`` or ``pred_score``, or both.
            topk: How many classes to name.
            show: Whether to show it on the screen.
            wait_time: Seconds to show it; 0 waits for a key.
            out_file: Where to save it; None gives it to the backends, unless it is shown.
            step: Step for the backends.
        """
        scale = max(1, -(-MIN_SIDE // min(image.shape[:2])))
        image = mmcv.imrescale(image, scale, interpolation='nearest')
        lines, right = self._describe(data_sample, topk)
        size = max(8, min(image.shape[:2]) // 20)
        if lines:
            # Above the picture, where it hides nothing.
            strip = np.empty((7 * size * len(lines) // 4 + size, *image.shape[1:]), np.uint8)
            strip[:] = {None: (40, 40, 40), True: (0, 90, 0), False: (130, 0, 0)}[right]
            image = np.concatenate([strip, image])
        self.set_image(image)
        if lines:
            place = np.array([[size // 2, size // 2]])
            self.draw_texts('\n'.join(lines), place, font_sizes=size, colors='white')
        drawn = self.get_image()
        if show:
            self.show(drawn, win_name=name, wait_time=wait_time)
        if out_file is not None:
            mmcv.imwrite(drawn[..., ::-1], out_file)
        elif not show:
            self.add_image(name, drawn, step)

    def _describe(self, sample: Optional[ClsDataSample], topk: int) -> tuple[list, Optional[bool]]:
        """Lines of text, and whether the class was found where both are known."""
        lines: list = []
        if sample is None:
            return lines, None
        classes = (self.dataset_meta or {}).get('classes')

        def name(label: int) -> str:
            return classes[label] if classes is not None and label < len(classes) else str(label)

        right = None
        if 'gt_label' in sample:
            lines.append(f'true: {name(int(sample.gt_label))}')
            if 'pred_label' in sample:
                right = int(sample.gt_label) == int(sample.pred_label)
        if 'pred_score' in sample:
            scores, labels = sample.pred_score.topk(min(topk, len(sample.pred_score)))
            for score, label in zip(scores.tolist(), labels.tolist()):
                lines.append(f'{name(label)} {score:.2f}')
        return lines, right


def input_picture(inputs: Tensor) -> np.ndarray:
    """What a pipeline gives a network, as a picture.

    Args:
        inputs: An image (C, H, W) in mmcv's BGR, or grey, of values up to 255; or event frames
            (T, C, H, W), OFF in the first half of the channels and ON in the second. Of more
            than three channels of an image the first three are shown, of two the first.

    Returns:
        (H, W, 3), uint8, RGB.
    """
    values = inputs.cpu().numpy()
    if values.ndim == 4:
        return event_picture(values)
    values = values[:3] if len(values) >= 3 else values[:1]
    image = np.broadcast_to(values, (3, *values.shape[1:]))[::-1].transpose(1, 2, 0)
    if image.dtype != np.uint8:
        image = np.rint(image).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(image)


def event_picture(frames: np.ndarray) -> np.ndarray:
    """Event frames as one picture: ON events red, OFF events blue, on white.

    Args:
        frames: (T, 2, H, W), counts of OFF and ON events; of more channels, OFF in the first half.

    Returns:
        (H, W, 3), uint8, RGB.

    Raises:
        ValueError: An odd number of channels.
    """
    counts = np.asarray(frames, dtype=np.float64).sum(0)
    if len(counts) % 2:
        raise ValueError(
            f'frames of {len(counts)} channels have none of OFF and ON events to draw: take '
            "representation='counts' or 'stacked_histogram'"
        )
    counts = counts.reshape(2, -1, *counts.shape[1:]).sum(1)
    # The busiest pixels, often a flickering few, would leave all others white.
    bright = max(np.percentile(counts, 99), 1.0)
    off, on = np.clip(counts / bright, 0, 1)
    picture = np.stack([1 - off, 1 - np.maximum(on, off), 1 - on], -1)
    return (picture * 255).round().astype(np.uint8)
