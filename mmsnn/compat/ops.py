"""MMCV's compiled operators that MMDetection's mainstream detectors call, in PyTorch.

Each function has the name, the argument order and the in-place outputs of the entry of
``mmcv._ext`` that it stands in for, and decides as MMCV's CPU kernels decide: same order of
float32 arithmetic wherever a comparison hangs on it, same treatment of ties, empty inputs and
degenerate boxes. All of them take CPU and CUDA tensors. Half-precision inputs are computed in
float32 and rounded once, at the end.
"""

import functools
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor

from ..ops.nms import nms as greedy_nms

# Bounds the sampling weights that exist at once: _ROI_SLICE x bins x side of the map.
_ROI_SLICE = 256
# The value from which MMCV's CPU kernel starts the maximum of a bin, hence that of an empty bin.
_MAX_POOL_START = -10000.0


@functools.lru_cache(maxsize=1)
def _torchvision_ops() -> Optional[Any]:
    """Return ``torchvision.ops``, or None where it or its compiled part does not load."""
    try:
        from torchvision import ops

        ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except Exception:
        # Torchvision is optional and fails in many ways when built for another torch.
        return None
    return ops


def _compute_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


@torch.no_grad()
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Greedy non-maximum suppression.

    A box is dropped when its IoU with a kept box of higher score is *above* the threshold.
    Two zero-area boxes have the IoU 0/0, which is above nothing, so both stay.

    Args:
        boxes: ``(N, 4)`` as ``(x1, y1, x2, y2)``.
        scores: ``(N,)``. Of equal scores the lower index goes first.
        iou_threshold: IoU above which a box is dropped, rounded to float32 as the kernel does.
        offset: 0, or 1 for boxes whose ``x2`` and ``y2`` are the last pixel inside.

    Returns:
        Indices of the kept boxes by descending score, ``(K,)`` int64.
    """
    if boxes.numel() == 0:
        return torch.empty(0, dtype=torch.long, device=boxes.device)
    boxes = boxes.detach().to(_compute_dtype(boxes))
    torchvision_ops = _torchvision_ops()
    if torchvision_ops is not None and offset == 0:
        threshold = float(np.float32(iou_threshold))
        return torchvision_ops.nms(boxes, scores.detach().to(boxes.dtype), threshold)
    return greedy_nms(boxes, scores, iou_threshold, offset)


@torch.no_grad()
def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft non-maximum suppression: overlapping boxes lose score instead of being dropped.

    Args:
        boxes: ``(N, 4)`` as ``(x1, y1, x2, y2)``.
        scores: ``(N,)``.
        dets: ``(N, 5)``, written in place: the first K rows hold the kept boxes and their
            decayed scores in the order of selection; the rest is left as it was.
        iou_threshold: IoU from which the methods 0 and 1 decay a score.
        sigma: Width of the decay of method 2.
        min_score: Boxes whose decayed score falls below this are dropped.
        method: 0 drops (naive), 1 decays by ``1 - IoU`` (linear), 2 by
            ``exp(-IoU**2 / sigma)`` (gaussian).
        offset: 0, or 1 for boxes whose ``x2`` and ``y2`` are the last pixel inside.

    Returns:
        Indices of the kept boxes in the order of selection, ``(K,)`` int64.
    """
    if boxes.numel() == 0:
        return torch.empty(0, dtype=torch.long, device=boxes.device)
    # Rows: x1, y1, x2, y2, score, area. The selection is sequential, so it runs in NumPy.
    dtype = np.float64 if boxes.dtype == torch.float64 else np.float32
    num = len(boxes)
    table = np.empty((6, num), dtype=dtype)
    table[:4] = boxes.detach().to('cpu', _compute_dtype(boxes)).numpy().T
    table[4] = scores.detach().to('cpu', _compute_dtype(boxes)).numpy()
    table[5] = (table[2] - table[0] + offset) * (table[3] - table[1] + offset)
    inds = np.arange(num)
    # Single precision, as the kernel has them.
    threshold, width_of_decay, least = (
        dtype(np.float32(value)) for value in (iou_threshold, sigma, min_score)
    )

    i = 0
    while i < num:
        best = i + _first_max(table[4, i:num])
        # The kernel swaps, and the order that swaps leave decides between equal scores.
        table[:, [i, best]] = table[:, [best, i]]
        inds[[i, best]] = inds[[best, i]]
        x1, y1, x2, y2, _, area = table[:, i]
        i += 1
        rest = table[:, i:num]
        width = np.maximum(np.minimum(x2, rest[2]) - np.maximum(x1, rest[0]) + offset, 0)
        height = np.maximum(np.minimum(y2, rest[3]) - np.maximum(y1, rest[1]) + offset, 0)
        inter = width * height
        with np.errstate(divide='ignore', invalid='ignore', over='ignore'):
            iou = inter / (area + rest[5] - inter)
            if method == 0:
                rest[4] *= ~(iou >= threshold)
            elif method == 1:
                rest[4] *= np.where(iou >= threshold, 1 - iou, dtype(1))
            else:
                rest[4] *= np.exp(-(iou * iou) / width_of_decay)
        dropped = rest[4] < least
        if dropped.any():
            # The kernel fills each hole, left to right, with the last box that is not dropped.
            num -= int(dropped.sum())
            size = num - i
            holes = np.flatnonzero(dropped[:size])
            fillers = (size + np.flatnonzero(~dropped[size:]))[::-1]
            rest[:, holes] = rest[:, fillers]
            inds[i + holes] = inds[i + fillers]
    dets[:num] = torch.from_numpy(np.ascontiguousarray(table[:5, :num].T)).to(dets)
    return torch.from_numpy(inds[:num].copy()).to(boxes.device)


def _first_max(scores: np.ndarray) -> int:
    """Position of the first maximum; NaN never beats the running maximum, as in the kernel."""
    best = int(scores.argmax())
    if np.isnan(scores[best]):
        best = 0 if np.isnan(scores[0]) else int(np.nanargmax(scores))
    return best


def _focal_terms(input: Tensor, target: Tensor, weight: Tensor, alpha: float):
    """Shared part of the focal loss and its gradient, each ``(N, C)``.

    Returns the mask of positives, the probability of the truth, that of the contrary, and the
    factor of the class balance and of the weight.
    """
    input = input.detach().to(_compute_dtype(input))
    num_classes = input.size(1)
    positive = target[:, None] == torch.arange(num_classes, device=target.device)
    prob = 1 / (1 + torch.exp(-input))
    contrary = 1 - prob
    truth = torch.where(positive, prob, contrary)
    contrary = torch.where(positive, contrary, prob)
    factor = torch.full_like(input, 1 - alpha).masked_fill_(positive, alpha)
    if weight.numel():
        # The kernel reads weight[target], past its end for the background class, whose weight
        # nobody can have set: such rows are left unweighted.
        is_class = (target >= 0) & (target < num_classes)
        row_weight = weight.detach().to(input.dtype)[target.clamp(0, num_classes - 1)]
        factor = factor * torch.where(is_class, row_weight, torch.ones_like(row_weight))[:, None]
    return positive, truth, contrary, factor


def _log(prob: Tensor) -> Tensor:
    # The kernel's floor is the smallest normal float32, whatever the type of the input.
    return prob.clamp(min=torch.finfo(torch.float32).tiny).log()


@torch.no_grad()
def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Sigmoid focal loss per element, ``-alpha_t * (1 - p_t)**gamma * log(p_t)``.

    Args:
        input: Logits, ``(N, C)``.
        target: Class of each row, ``(N,)`` int64. C, the background, makes no class positive.
        weight: ``(C,)`` weight of the rows of each class, or empty for none. Background rows
            are left unweighted.
        output: ``(N, C)``, written in place.
        gamma: Exponent of the focus.
        alpha: Weight of positives; negatives weigh ``1 - alpha``.
    """
    _, truth, contrary, factor = _focal_terms(input, target, weight, alpha)
    output.copy_(-factor * contrary.pow(gamma) * _log(truth))


@torch.no_grad()
def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Gradient of :func:`sigmoid_focal_loss_forward` by its logits.

    Args:
        input: Logits, ``(N, C)``.
        target: Class of each row, ``(N,)`` int64.
        weight: ``(C,)`` or empty.
        grad_input: ``(N, C)``, written in place.
        gamma: Exponent of the focus.
        alpha: Weight of positives.
    """
    positive, truth, contrary, factor = _focal_terms(input, target, weight, alpha)
    grad = factor * contrary.pow(gamma) * (contrary - gamma * truth * _log(truth))
    grad_input.copy_(torch.where(positive, -grad, grad))


class _RoIGrid:
    """Where RoIAlign samples along one axis, for all RoIs.

    Args:
        start: Lower edges in feature cells, ``(K,)``.
        size: Extents in feature cells, ``(K,)``.
        pooled: Bins per RoI along this axis.
        sampling_ratio: Samples per bin, or 0 for one per started feature cell.
        length: Cells of the map along this axis.
    """

    def __init__(self, start: Tensor, size: Tensor, pooled: int, sampling_ratio: int, length: int):
        bin_size = size / pooled
        if sampling_ratio > 0:
            grid = torch.full_like(start, sampling_ratio, dtype=torch.long)
        else:
            grid = bin_size.ceil().long()
        # One flat entry per sample: RoIs differ in their number of samples, and padding to the
        # largest would let a single huge RoI decide the memory.
        per_bin = grid.repeat_interleave(pooled)
        bins = torch.arange(len(per_bin)).repeat_interleave(per_bin)
        nth = torch.arange(len(bins)) - (per_bin.cumsum(0) - per_bin)[bins]
        roi = bins // pooled
        self.coord = (
            start[roi]
            + (bins % pooled) * bin_size[roi]
            + (nth + 0.5).to(start.dtype) * bin_size[roi] / grid[roi].to(start.dtype)
        )
        self.inside, self.low, self.high, self.frac = _interpolation(self.coord, length)
        self.grid = grid
        self.num_rois, self.pooled, self.length = len(start), pooled, length
        self.bins, self.roi = bins, roi
        self.offsets = (grid * pooled).cumsum(0) - grid * pooled

    def samples(self, roi: int) -> slice:
        """Slice of the flat sample tensors that belongs to one RoI."""
        begin = int(self.offsets[roi])
        return slice(begin, begin + int(self.grid[roi]) * self.pooled)

    def average_weights(self):
        """Weights that average a bin, ``(K, pooled, length)``, and the cells they touch.

        Bilinear weights factor into one part per axis, and so does the rule that samples more
        than a cell outside of the map count as zero. A RoI's average pooling is therefore
        ``weights_y @ window @ weights_x.T``.

        Returns:
            The weights and two lists, the first and one past the last cell of each RoI.
        """
        scale = self.inside / self.grid.clamp(min=1)[self.roi].to(self.coord.dtype)
        flat = self.coord.new_zeros(self.num_rois * self.pooled * self.length)
        base = self.bins * self.length
        flat.index_add_(0, base + self.low, (1 - self.frac) * scale)
        flat.index_add_(0, base + self.high, self.frac * scale)
        roi, low, high = self.roi[self.inside], self.low[self.inside], self.high[self.inside]
        first = torch.full((self.num_rois,), self.length).scatter_reduce(0, roi, low, 'amin')
        last = torch.zeros(self.num_rois, dtype=torch.long)
        last = last.scatter_reduce(0, roi, high + 1, 'amax')
        weights = flat.view(self.num_rois, self.pooled, self.length)
        return weights, first.tolist(), last.tolist()


def _interpolation(coord: Tensor, length: int):
    """Neighbours of sampling points along one axis: inside, lower, upper, upper's share."""
    inside = (coord >= -1) & (coord <= length)
    clamped = torch.where(inside, coord, 0).clamp(min=0)
    low = clamped.long().clamp(max=length - 1)
    high = (low + 1).clamp(max=length - 1)
    frac = torch.where(low == high, 0, clamped - low)
    return inside, low, high, frac


def _roi_geometry(rois: Tensor, num_images: int, scale: float, aligned: bool, dtype: torch.dtype):
    """Image index, start and size of RoIs on the CPU, with one transfer for all of them.

    Raises:
        ValueError: A RoI has a negative size (with ``aligned``), is not finite or names no
            image.
    """
    rois = rois.detach().to('cpu', dtype)
    corners = rois[:, 1:] * scale - (0.5 if aligned else 0.0)
    start, size = corners[:, :2], corners[:, 2:] - corners[:, :2]
    problems = [
        (~rois.isfinite().all(1), 'is not finite'),
        ((rois[:, 0] < 0) | (rois[:, 0] >= num_images), f'names no image of the {num_images}'),
    ]
    if aligned:
        problems.append(((size < 0).any(1), 'has a negative size'))
    else:
        size = size.clamp(min=1)
    for mask, problem in problems:
        if mask.any():
            index = int(mask.nonzero()[0, 0])
            raise ValueError(f'RoI {index}, {rois[index].tolist()}, {problem}')
    return rois[:, 0].long(), start, size


def _roi_slices(rois: Tensor, shape, pooled, spatial_scale, sampling_ratio, aligned, dtype):
    """Yield ``(image, RoI indices, y grid, x grid)`` for bounded groups of RoIs of one image."""
    image, start, size = _roi_geometry(rois, shape[0], spatial_scale, aligned, dtype)
    for index in image.unique().tolist():
        for group in (image == index).nonzero()[:, 0].split(_ROI_SLICE):
            grid_x, grid_y = (
                _RoIGrid(start[group, i], size[group, i], bins, sampling_ratio, length)
                for i, bins, length in ((0, pooled[1], shape[3]), (1, pooled[0], shape[2]))
            )
            yield index, group, grid_y, grid_x


@torch.no_grad()
def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """RoIAlign.

    Args:
        input: Feature map, ``(N, C, H, W)``.
        rois: ``(K, 5)`` as ``(image, x1, y1, x2, y2)``.
        output: ``(K, C, aligned_height, aligned_width)``, written in place.
        argmax_y: In maximum mode, of the shape of ``output``: row of the chosen sample in
            feature cells, -1 for a bin without samples. Written in place.
        argmax_x: Likewise its column.
        aligned_height: Bins along y.
        aligned_width: Bins along x.
        spatial_scale: Feature cells per unit of the RoIs.
        sampling_ratio: Samples per bin and axis, or 0 for one per started feature cell.
        pool_mode: 0 takes the maximum of a bin's samples, 1 their average.
        aligned: Whether RoIs are shifted by half a cell. Without it, sizes below one cell
            count as one cell.

    Raises:
        ValueError: A RoI has a negative size (with ``aligned``), is not finite or names no
            image.
    """
    if output.numel() == 0:
        return
    dtype = _compute_dtype(input)
    input = input.detach()
    pooled = (aligned_height, aligned_width)
    torchvision_ops = _torchvision_ops()
    if torchvision_ops is not None and pool_mode == 1:
        _roi_geometry(rois, input.size(0), spatial_scale, aligned, dtype)
        rois = rois.detach().to(input)
        args = (rois, pooled, spatial_scale, sampling_ratio, aligned)
        output.copy_(torchvision_ops.roi_align(input, *args))
        return
    current: Optional[int] = None
    feature: Optional[Tensor] = None
    for image, group, grid_y, grid_x in _roi_slices(
        rois, input.shape, pooled, spatial_scale, sampling_ratio, aligned, dtype
    ):
        if image != current:
            # Channels last: a row of a RoI's window is then one run of memory.
            current, feature = image, input[image].to(dtype).permute(1, 2, 0).contiguous()
        assert feature is not None  # no slice is of image None
        group = group.to(output.device)
        if pool_mode == 1:
            output[group] = _average_pool(feature, grid_y, grid_x).to(output.dtype)
        else:
            pools = _max_pool(feature, grid_y, grid_x)
            for target, value in zip((output, argmax_y, argmax_x), pools):
                target[group] = value.to(target.dtype)


def _average_pool(feature: Tensor, grid_y: _RoIGrid, grid_x: _RoIGrid) -> Tensor:
    """Average pooling of one image's ``(H, W, C)`` map, ``(k, C, ph, pw)``.

    A feature that is not finite spoils all bins of the RoIs around it, not only its own: the
    product of its zero weight is NaN.
    """
    weights_y, top, bottom = grid_y.average_weights()
    weights_x, left, right = grid_x.average_weights()
    weights_y, weights_x = weights_y.to(feature.device), weights_x.to(feature.device)
    num_channels = feature.size(2)
    pooled = feature.new_zeros(grid_y.num_rois, grid_y.pooled, grid_x.pooled, num_channels)
    for i, (y1, y2, x1, x2) in enumerate(zip(top, bottom, left, right)):
        if y1 >= y2 or x1 >= x2:
            continue
        # Views only: BLAS reads the window in place, so a RoI costs its own cells, no more.
        window = feature[y1:y2, x1:x2].flatten(1)
        rows = (weights_y[i, :, y1:y2] @ window).view(grid_y.pooled, x2 - x1, num_channels)
        torch.matmul(weights_x[i, :, x1:x2], rows, out=pooled[i])
    return pooled.permute(0, 3, 1, 2)


def _max_pool(feature: Tensor, grid_y: _RoIGrid, grid_x: _RoIGrid):
    """Maximum pooling of one image's ``(H, W, C)`` map: values, rows, columns, ``(k, C, ph, pw)``.

    Sample by sample, not by the separable product: which of several equal samples is the first
    maximum must not hang on how a matrix product rounds.
    """
    num_channels = feature.size(2)
    shape = (grid_y.num_rois, grid_y.pooled, grid_x.pooled, num_channels)
    value = feature.new_full(shape, _MAX_POOL_START)
    argmax_y, argmax_x = feature.new_full(shape, -1.0), feature.new_full(shape, -1.0)
    cells = feature.view(-1, num_channels)
    width = feature.size(1)
    for i in range(grid_y.num_rois):
        at_y, at_x = grid_y.samples(i), grid_x.samples(i)
        count_y, count_x = int(grid_y.grid[i]), int(grid_x.grid[i])
        if count_y == 0 or count_x == 0:
            continue

        def along(name, at_y=at_y, at_x=at_x):
            y, x = getattr(grid_y, name)[at_y], getattr(grid_x, name)[at_x]
            return y[:, None].to(feature.device), x[None, :].to(feature.device)

        (y, x), (inside_y, inside_x) = along('coord'), along('inside')
        (low_y, low_x), (high_y, high_x) = along('low'), along('high')
        frac_y, frac_x = along('frac')
        sampled = cells.new_zeros(())
        for row, share_y in ((low_y, 1 - frac_y), (high_y, frac_y)):
            for column, share_x in ((low_x, 1 - frac_x), (high_x, frac_x)):
                share = share_y * share_x * (inside_y & inside_x)
                sampled = sampled + share[..., None] * cells[row * width + column]
        bins = sampled.view(grid_y.pooled, count_y, grid_x.pooled, count_x, num_channels)
        best, index = bins.transpose(1, 2).flatten(2, 3).max(2)
        found = best > _MAX_POOL_START
        value[i] = torch.where(found, best, value[i])
        rows = y.view(grid_y.pooled, 1, 1, count_y).expand(-1, grid_x.pooled, num_channels, -1)
        columns = x.view(1, grid_x.pooled, 1, count_x).expand(grid_y.pooled, -1, num_channels, -1)
        row = rows.gather(3, (index // count_x)[..., None])[..., 0]
        column = columns.gather(3, (index % count_x)[..., None])[..., 0]
        argmax_y[i] = torch.where(found, row, argmax_y[i])
        argmax_x[i] = torch.where(found, column, argmax_x[i])
    return [pooled.permute(0, 3, 1, 2) for pooled in (value, argmax_y, argmax_x)]


@torch.no_grad()
def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Gradient of :func:`roi_align_forward` by its feature map.

    Args:
        grad_output: ``(K, C, aligned_height, aligned_width)``.
        rois: ``(K, 5)`` as ``(image, x1, y1, x2, y2)``.
        argmax_y: What the forward pass wrote, in maximum mode.
        argmax_x: Likewise.
        grad_input: ``(N, C, H, W)``, added to in place.
        aligned_height: Bins along y.
        aligned_width: Bins along x.
        spatial_scale: Feature cells per unit of the RoIs.
        sampling_ratio: Samples per bin and axis, or 0 for one per started feature cell.
        pool_mode: 0 for maximum, 1 for average.
        aligned: Whether RoIs are shifted by half a cell.

    Raises:
        ValueError: A RoI has a negative size (with ``aligned``), is not finite or names no
            image.
    """
    if grad_output.numel() == 0:
        return
    dtype = _compute_dtype(grad_input)
    pooled = (aligned_height, aligned_width)
    if pool_mode == 0:
        image, _, _ = _roi_geometry(rois, grad_input.size(0), spatial_scale, aligned, dtype)
        for group in torch.arange(len(image)).split(_ROI_SLICE):
            at = group.to(grad_output.device)
            maxima = (grad_output[at], argmax_y[at], argmax_x[at])
            _max_pool_backward(*maxima, image[group].to(at.device), grad_input)
        return
    torchvision_ops = _torchvision_ops()
    if torchvision_ops is not None:
        _roi_geometry(rois, grad_input.size(0), spatial_scale, aligned, dtype)
        with torch.enable_grad():
            feature = torch.zeros_like(grad_input, requires_grad=True)
            args = (rois.detach().to(feature), pooled, spatial_scale, sampling_ratio, aligned)
            aligned_rois = torchvision_ops.roi_align(feature, *args)
            grad_input += torch.autograd.grad(aligned_rois, feature, grad_output)[0]
        return
    current: Optional[int] = None
    grad_feature: Optional[Tensor] = None
    for image, group, grid_y, grid_x in _roi_slices(
        rois, grad_input.shape, pooled, spatial_scale, sampling_ratio, aligned, dtype
    ):
        if image != current:
            if current is not None and grad_feature is not None:
                grad_input[current] += grad_feature.permute(2, 0, 1).to(grad_input.dtype)
            num_channels, height, width = grad_input.shape[1:]
            grad_feature = grad_input.new_zeros(height, width, num_channels, dtype=dtype)
            current = image
        assert grad_feature is not None  # no slice is of image None
        _average_pool_backward(
            grad_output[group.to(grad_output.device)].to(dtype), grid_y, grid_x, grad_feature
        )
    if current is not None and grad_feature is not None:
        grad_input[current] += grad_feature.permute(2, 0, 1).to(grad_input.dtype)


def _average_pool_backward(
    grad_pooled: Tensor, grid_y: _RoIGrid, grid_x: _RoIGrid, grad_feature: Tensor
) -> None:
    """Transpose of :func:`_average_pool`, added to the ``(H, W, C)`` gradient in place."""
    weights_y, top, bottom = grid_y.average_weights()
    weights_x, left, right = grid_x.average_weights()
    weights_y, weights_x = weights_y.to(grad_feature.device), weights_x.to(grad_feature.device)
    grad_pooled = grad_pooled.permute(0, 2, 3, 1).contiguous()
    for i, (y1, y2, x1, x2) in enumerate(zip(top, bottom, left, right)):
        if y1 >= y2 or x1 >= x2:
            continue
        rows = torch.matmul(weights_x[i, :, x1:x2].t(), grad_pooled[i])
        window = grad_feature[y1:y2, x1:x2]
        window += (weights_y[i, :, y1:y2].t() @ rows.flatten(1)).view(window.shape)


def _max_pool_backward(
    grad_pooled: Tensor, argmax_y: Tensor, argmax_x: Tensor, image: Tensor, grad_input: Tensor
) -> None:
    """Add the gradient of the chosen samples to the ``(N, C, H, W)`` gradient in place."""
    num_channels, height, width = grad_input.shape[1:]
    dtype = _compute_dtype(grad_input)
    inside_y, low_y, high_y, frac_y = _interpolation(argmax_y.to(dtype), height)
    inside_x, low_x, high_x, frac_x = _interpolation(argmax_x.to(dtype), width)
    # -1 marks a bin without samples, also to the kernel.
    used = inside_y & inside_x & (argmax_y != -1)
    grad_pooled = grad_pooled.to(dtype) * used
    channel = torch.arange(num_channels, device=grad_input.device)[None, :, None, None]
    plane = (image[:, None, None, None] * num_channels + channel) * height
    grad = torch.zeros(grad_input.numel(), dtype=dtype, device=grad_input.device)
    for row, share_y in ((low_y, 1 - frac_y), (high_y, frac_y)):
        for column, share_x in ((low_x, 1 - frac_x), (high_x, frac_x)):
            cell = (plane + row) * width + column
            grad.scatter_add_(0, cell.flatten(), (grad_pooled * (share_y * share_x)).flatten())
    grad_input += grad.view(grad_input.shape).to(grad_input.dtype)
