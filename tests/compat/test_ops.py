"""The stand-in operators against slow references written from their definitions."""

import math
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmsnn.compat import ops, setup

CASES = 1000
F = np.float32


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def no_torchvision(monkeypatch):
    monkeypatch.setattr(ops, '_torchvision_ops', lambda: None)


def random_boxes(rng, num):
    """Quarter-cell corners, so that boxes, IoUs and zero areas repeat."""
    corner = rng.integers(0, 24, (num, 2)) / 4
    size = rng.integers(0, 16, (num, 2)) / 4
    return np.concatenate([corner, corner + size], 1).astype(F)


def random_scores(rng, num):
    return (rng.integers(1, 8, num) / 8).astype(F)


# --- Suppression ------------------------------------------------------------------------------


def area(box, offset):
    return F(F(box[2] - box[0] + F(offset)) * F(box[3] - box[1] + F(offset)))


def iou_of(a, b, offset):
    """IoU in the kernel's order of float32 operations: thresholds are met exactly here."""
    width = max(F(0), F(min(a[2], b[2]) - max(a[0], b[0]) + F(offset)))
    height = max(F(0), F(min(a[3], b[3]) - max(a[1], b[1]) + F(offset)))
    inter = F(width * height)
    union = F(F(area(a, offset) + area(b, offset)) - inter)
    if union == 0:
        return F('nan') if inter == 0 else F('inf')
    return F(inter / union)


def nms_reference(boxes, scores, threshold, offset):
    order = sorted(range(len(boxes)), key=lambda i: -scores[i])
    kept = []
    for i in order:
        if not any(iou_of(boxes[j], boxes[i], offset) > F(threshold) for j in kept):
            kept.append(i)
    return kept


def test_nms_equals_reference(no_torchvision):
    rng = np.random.default_rng(0)
    for case in range(CASES):
        num = int(rng.integers(0, 12))
        boxes, scores = random_boxes(rng, num), random_scores(rng, num)
        threshold, offset = rng.choice([0.0, 0.3, 0.5, 0.7, 1.0]), case % 2
        kept = ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold, offset)
        assert kept.dtype == torch.long
        assert kept.tolist() == nms_reference(boxes, scores, threshold, offset), case


def test_nms_equals_reference_across_blocks(no_torchvision, monkeypatch):
    monkeypatch.setattr('mmsnn.ops.nms._BLOCK', 4)
    rng = np.random.default_rng(1)
    for case in range(100):
        boxes, scores = random_boxes(rng, 30), random_scores(rng, 30)
        kept = ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.3, case % 2)
        assert kept.tolist() == nms_reference(boxes, scores, 0.3, case % 2), case


def test_nms_edges(no_torchvision):
    assert ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5, 0).tolist() == []
    assert ops.nms(torch.tensor([[0.0, 0, 1, 1]]), torch.ones(1), 0.5, 0).tolist() == [0]
    # Zero-area boxes have no IoU with each other; identical boxes with equal scores keep the
    # first.
    assert ops.nms(torch.ones(3, 4), torch.ones(3), 0.5, 0).tolist() == [0, 1, 2]
    same = torch.tensor([[0.0, 0, 2, 2]]).expand(300, 4)
    assert ops.nms(same, torch.ones(300), 0.5, 0).tolist() == [0]
    half = ops.nms(same.half(), torch.ones(300).half(), 0.5, 0)
    assert half.tolist() == [0]


@pytest.mark.parametrize('kind', ['random', 'apart'])
def test_nms_of_5000_boxes_takes_less_than_half_a_second(no_torchvision, kind):
    rng = torch.Generator().manual_seed(0)
    if kind == 'random':
        corner = torch.rand(5000, 2, generator=rng) * 1000
        boxes = torch.cat([corner, corner + torch.rand(5000, 2, generator=rng) * 100], 1)
    else:
        # Nothing is suppressed, so every pair has to be looked at.
        corner = torch.stack([torch.arange(5000) % 71, torch.arange(5000) // 71], 1) * 10.0
        boxes = torch.cat([corner, corner + 9], 1)
    scores = torch.rand(5000, generator=rng)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        kept = ops.nms(boxes, scores, 0.5, 0)
        times.append(time.perf_counter() - start)
    assert kind == 'random' or len(kept) == 5000
    assert min(times) < 0.5


def softnms_reference(boxes, scores, threshold, sigma, min_score, method, offset):
    """Select, swap to the front, decay the rest; a dropped box is replaced by the last one."""
    table = [[box, score, i] for i, (box, score) in enumerate(zip(boxes, scores))]
    i, num = 0, len(table)
    while i < num:
        best = i
        for j in range(i + 1, num):
            if table[j][1] > table[best][1]:
                best = j
        table[i], table[best] = table[best], table[i]
        j = i + 1
        while j < num:
            iou = iou_of(table[i][0], table[j][0], offset)
            weight = F(1)
            if method == 2:
                weight = np.exp(-F(iou * iou) / F(sigma), dtype=F)
            elif iou >= F(threshold):
                weight = F(0) if method == 0 else F(1 - iou)
            table[j][1] = F(table[j][1] * weight)
            if table[j][1] < F(min_score):
                table[j] = list(table[num - 1])
                num -= 1
            else:
                j += 1
        i += 1
    return table[:num]


@pytest.mark.parametrize('method', [0, 1, 2])
def test_softnms_equals_reference(method):
    rng = np.random.default_rng(method)
    for case in range(CASES):
        num = int(rng.integers(0, 10))
        boxes, scores = random_boxes(rng, num), random_scores(rng, num)
        threshold, offset = rng.choice([0.1, 0.3, 0.5]), case % 2
        min_score = rng.choice([1e-3, 0.2])
        dets = torch.full((num, 5), -7.0)
        inds = ops.softnms(
            torch.from_numpy(boxes), torch.from_numpy(scores), dets,
            iou_threshold=threshold, sigma=0.5, min_score=min_score, method=method, offset=offset,
        )  # fmt: skip
        expected = softnms_reference(boxes, scores, threshold, 0.5, min_score, method, offset)
        assert inds.tolist() == [index for _, _, index in expected], case
        for row, (box, score, _) in zip(dets, expected):
            np.testing.assert_array_equal(row[:4], box)
            np.testing.assert_allclose(row[4], score, rtol=1e-5, equal_nan=True)
        assert (dets[len(inds) :] == -7).all()


# --- Focal loss -------------------------------------------------------------------------------


def focal_reference(logits, target, weight, gamma, alpha):
    """Differentiable, float64, from ``-alpha_t (1 - p_t)^gamma log(p_t)``."""
    positive = torch.nn.functional.one_hot(target, logits.size(1) + 1)[:, :-1].bool()
    signed = torch.where(positive, logits, -logits)
    loss = -((1 - torch.sigmoid(signed)) ** gamma) * torch.nn.functional.logsigmoid(signed)
    loss = loss * torch.where(positive, alpha, 1 - alpha)
    if weight is not None:
        loss = loss * torch.cat([weight, weight.new_ones(1)])[target][:, None]
    return loss


def test_focal_loss_equals_reference():
    rng = torch.Generator().manual_seed(0)
    for case in range(CASES):
        num, classes = case % 7, 1 + case % 4
        # Further out, 1 - p cancels in float32, in the kernel as here.
        logits = (torch.randn(num, classes, generator=rng) * 3).clamp(-5, 5)
        target = torch.randint(0, classes + 1, (num,), generator=rng)
        weight = torch.rand(classes, generator=rng) if case % 3 == 0 else None
        gamma, alpha = [0.0, 1.0, 1.5, 2.0][case % 4], [0.25, 0.5, 0.9][case % 3]
        given = torch.empty(0) if weight is None else weight
        output, grad = torch.full_like(logits, -7), torch.full_like(logits, -7)
        ops.sigmoid_focal_loss_forward(logits, target, given, output, gamma=gamma, alpha=alpha)
        ops.sigmoid_focal_loss_backward(logits, target, given, grad, gamma=gamma, alpha=alpha)

        exact = logits.double().requires_grad_()
        loss = focal_reference(exact, target, weight, gamma, alpha)
        (exact_grad,) = torch.autograd.grad(loss.sum(), exact)
        torch.testing.assert_close(output.double(), loss.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(grad.double(), exact_grad, rtol=1e-4, atol=1e-5)


def test_focal_loss_of_saturated_logits_follows_the_kernel_floor():
    logits, target = torch.tensor([[-200.0, 200.0]]), torch.tensor([0])
    output, grad = torch.empty(1, 2), torch.empty(1, 2)
    floor = -math.log(torch.finfo(torch.float32).tiny)
    ops.sigmoid_focal_loss_forward(logits, target, torch.empty(0), output, 2.0, 0.25)
    ops.sigmoid_focal_loss_backward(logits, target, torch.empty(0), grad, 2.0, 0.25)
    torch.testing.assert_close(output, torch.tensor([[0.25 * floor, 0.75 * floor]]))
    torch.testing.assert_close(grad, torch.tensor([[-0.25, 0.75]]))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_focal_loss_of_half_precision_is_rounded_once(dtype):
    logits, target = torch.linspace(-8, 8, 20).view(5, 4).to(dtype), torch.arange(5)
    output, exact = torch.empty_like(logits), torch.empty(5, 4)
    ops.sigmoid_focal_loss_forward(logits, target, torch.empty(0), output, 2.0, 0.25)
    ops.sigmoid_focal_loss_forward(logits.float(), target, torch.empty(0), exact, 2.0, 0.25)
    assert torch.equal(output, exact.to(dtype))


# --- RoIAlign ---------------------------------------------------------------------------------


def axis_samples(start, size, pooled, ratio):
    """Sample coordinates of one axis, one list per bin, in the kernel's float32 order."""
    bin_size = F(size / F(pooled))
    grid = ratio if ratio > 0 else math.ceil(bin_size)
    return [
        [
            F(F(start + F(F(p) * bin_size)) + F(F(F(i + 0.5) * bin_size) / F(grid)))
            for i in range(grid)
        ]
        for p in range(pooled)
    ]


def neighbours(at, length):
    """Cells and shares of one coordinate; none beyond a cell outside of the map."""
    if at < -1 or at > length:
        return []
    at = max(F(0), at)
    low = int(at)
    if low >= length - 1:
        return [(length - 1, F(1)), (length - 1, F(0))]
    return [(low, F(F(1) - F(at - low))), (low + 1, F(at - low))]


def roi_align_reference(feature, rois, grad_output, pooled, scale, ratio, mode, aligned):
    """Output, argmax and gradient by loops over every RoI, bin and sample."""
    _, channels, height, width = feature.shape
    shape = (len(rois), channels, *pooled)
    output, grad = np.zeros(shape), np.zeros(feature.shape)
    argmax = np.full((2, *shape), -1.0)
    for k, roi in enumerate(rois):
        corners = [F(F(value * F(scale)) - F(0.5 if aligned else 0)) for value in roi[1:]]
        sizes = [F(corners[2] - corners[0]), F(corners[3] - corners[1])]
        if not aligned:
            sizes = [max(size, F(1)) for size in sizes]
        all_x = axis_samples(corners[0], sizes[0], pooled[1], ratio)
        all_y = axis_samples(corners[1], sizes[1], pooled[0], ratio)
        plane, grad_plane = feature[int(roi[0])], grad[int(roi[0])]
        for py, ys in enumerate(all_y):
            for px, xs in enumerate(all_x):
                points = [
                    (
                        y,
                        x,
                        [
                            (cy, cx, F(wy * wx))
                            for cy, wy in neighbours(y, height)
                            for cx, wx in neighbours(x, width)
                        ],
                    )
                    for y in ys
                    for x in xs
                ]
                count = max(len(points), 1)
                best = np.full(channels, F(-10000))
                chosen = [None] * channels
                for y, x, cells in points:
                    value = np.zeros(channels, F)
                    for cy, cx, share in cells:
                        value = value + share * plane[:, cy, cx]
                        if mode == 1:
                            grad_plane[:, cy, cx] += (
                                grad_output[k, :, py, px].astype(float) * share / count
                            )
                    if mode == 1:
                        output[k, :, py, px] += value.astype(float) / count
                        continue
                    for c in np.flatnonzero(value > best):
                        best[c], chosen[c] = value[c], cells
                        argmax[:, k, c, py, px] = y, x
                if mode == 0:
                    output[k, :, py, px] = best
                    for c, cells in enumerate(chosen):
                        # The kernel reads the row -1 as "no sample".
                        if argmax[0, k, c, py, px] == -1:
                            continue
                        for cy, cx, share in cells or ():
                            grad_plane[c, cy, cx] += share * grad_output[k, c, py, px]
    return output, argmax, grad


def random_rois(rng, num, images, aligned):
    """Quarter-cell RoIs inside, across the border and outside of the map; some of size zero."""
    corner = rng.integers(-24, 40, (num, 2)) / 4
    size = rng.integers(0, 20, (num, 2)) / 4
    size[rng.random(num) < 0.1] = 0
    if not aligned:
        size -= 0.5
    image = rng.integers(0, images, (num, 1))
    return np.concatenate([image, corner, corner + size], 1).astype(F)


@pytest.mark.parametrize('mode', [0, 1])
def test_roi_align_equals_reference(no_torchvision, mode):
    rng = np.random.default_rng(mode)
    for case in range(CASES):
        aligned, ratio = case % 2 == 0, case // 2 % 4
        images, channels, num = 1 + case % 2, 1 + case % 3, int(rng.integers(0, 4))
        height, width = rng.integers(1, 8, 2).tolist()
        pooled = tuple(rng.integers(1, 3, 2).tolist())
        scale = [1.0, 0.5, 0.3][case % 3]
        # Few levels, so that samples of a bin are often equal.
        feature = (rng.integers(-4, 5, (images, channels, height, width)) / 2).astype(F)
        rois = random_rois(rng, num, images, aligned)
        grad_output = rng.normal(size=(num, channels, *pooled)).astype(F)
        expected, argmax, grad = roi_align_reference(
            feature, rois, grad_output, pooled, scale, ratio, mode, aligned
        )
        output = torch.full((num, channels, *pooled), -7.0)
        maxima = [torch.full_like(output, -7) if mode == 0 else torch.empty(0) for _ in 'yx']
        rest = dict(
            aligned_height=pooled[0], aligned_width=pooled[1], spatial_scale=scale,
            sampling_ratio=ratio, pool_mode=mode, aligned=aligned,
        )  # fmt: skip
        rois_t, grad_input = torch.from_numpy(rois), torch.zeros(feature.shape)
        ops.roi_align_forward(torch.from_numpy(feature), rois_t, output, *maxima, **rest)
        ops.roi_align_backward(torch.from_numpy(grad_output), rois_t, *maxima, grad_input, **rest)
        np.testing.assert_allclose(output, expected, atol=1e-5, err_msg=str(case))
        if mode == 0:
            np.testing.assert_array_equal(maxima[0], argmax[0], err_msg=str(case))
            np.testing.assert_array_equal(maxima[1], argmax[1], err_msg=str(case))
        np.testing.assert_allclose(grad_input, grad, atol=1e-5, err_msg=str(case))


@pytest.mark.parametrize('mode', [0, 1])
def test_roi_align_gradient_is_the_derivative(no_torchvision, mode):
    setup()
    from mmcv.ops import roi_align

    rng = np.random.default_rng(7)
    for aligned, ratio in [(True, 0), (False, 0), (True, 2), (False, 3)]:
        feature = torch.from_numpy(rng.normal(size=(2, 2, 6, 7))).requires_grad_()
        rois = torch.from_numpy(random_rois(rng, 3, 2, aligned)).double()
        kind = ['max', 'avg'][mode]
        assert torch.autograd.gradcheck(
            lambda x, *rest: roi_align(x, *rest), (feature, rois, (2, 3), 1.0, ratio, kind, aligned)
        )


def test_roi_align_across_slices(no_torchvision, monkeypatch):
    rng = np.random.default_rng(3)
    feature, rois = torch.randn(3, 2, 9, 9), torch.from_numpy(random_rois(rng, 40, 3, True))
    results = []
    for size in (256, 4):
        monkeypatch.setattr(ops, '_ROI_SLICE', size)
        output, grad = torch.zeros(40, 2, 2, 2), torch.zeros_like(feature)
        empty = torch.empty(0)
        ops.roi_align_forward(feature, rois, output, empty, empty, 2, 2, 1.0, 0, 1, True)
        ops.roi_align_backward(output, rois, empty, empty, grad, 2, 2, 1.0, 0, 1, True)
        results.append((output, grad))
    torch.testing.assert_close(results[0], results[1])


def test_roi_align_of_half_precision(no_torchvision):
    feature, rois = torch.randn(1, 3, 8, 8), torch.tensor([[0.0, 1, 1, 6, 5]])
    empty = torch.empty(0)
    output, exact = torch.zeros(1, 3, 2, 2).half(), torch.zeros(1, 3, 2, 2)
    ops.roi_align_forward(feature.half(), rois.half(), output, empty, empty, 2, 2, 1.0, 0, 1, True)
    ops.roi_align_forward(feature.half().float(), rois, exact, empty, empty, 2, 2, 1.0, 0, 1, True)
    assert torch.equal(output, exact.half())


@pytest.mark.parametrize(
    ('roi', 'aligned', 'message'),
    [
        ([0, 5, 1, 4, 6], True, 'RoI 1.* has a negative size'),
        ([0, 1, float('nan'), 4, 6], False, 'RoI 1.* is not finite'),
        ([2, 1, 1, 4, 6], False, 'RoI 1.* names no image of the 2'),
        ([-1, 1, 1, 4, 6], False, 'RoI 1.* names no image of the 2'),
    ],
)
def test_roi_align_refuses_bad_rois(no_torchvision, roi, aligned, message):
    feature, rois = torch.zeros(2, 1, 8, 8), torch.tensor([[0, 1, 1, 2, 2], roi])
    empty = torch.empty(0)
    output = torch.zeros(2, 1, 2, 2)
    with pytest.raises(ValueError, match=message):
        ops.roi_align_forward(feature, rois, output, empty, empty, 2, 2, 1.0, 0, 1, aligned)


def test_roi_align_at_faster_rcnn_size_is_quick(no_torchvision):
    rng = torch.Generator().manual_seed(0)
    corner = torch.rand(512, 2, generator=rng) * torch.tensor([1100.0, 600.0])
    corners = torch.cat([corner, corner + 8 + torch.rand(512, 2, generator=rng) * 112], 1)
    rois = torch.cat([torch.arange(512)[:, None] % 2, corners], 1)
    feature, output, empty = (
        torch.zeros(2, 256, 200, 336),
        torch.zeros(512, 256, 7, 7),
        torch.empty(0),
    )
    start = time.perf_counter()
    ops.roi_align_forward(feature, rois, output, empty, empty, 7, 7, 0.25, 0, 1, True)
    # About 0.15 s on one core; the margin is for a machine that does other things too.
    assert time.perf_counter() - start < 2


# --- Through torchvision and through MMCV -----------------------------------------------------


def test_torchvision_runs_what_it_runs_alike(monkeypatch):
    calls = []

    def nms(boxes, scores, threshold):
        calls.append(('nms', threshold))
        return torch.tensor([1])

    def roi_align(feature, rois, size, scale, ratio, aligned):
        calls.append(('roi_align', size, scale, ratio, aligned))
        return feature.sum() * torch.ones(len(rois), feature.size(1), *size)

    fake = SimpleNamespace(nms=nms, roi_align=roi_align)
    monkeypatch.setattr(ops, '_torchvision_ops', lambda: fake)
    boxes = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1]])
    # Torchvision compares with the threshold in double precision, MMCV in float32.
    assert ops.nms(boxes, torch.ones(2), 0.3, 0).tolist() == [1]
    assert calls.pop() == ('nms', float(F(0.3)))
    # It has no offset and no maximum mode.
    assert ops.nms(boxes, torch.ones(2), 0.3, 1).tolist() == [0]
    feature, rois, empty = torch.ones(1, 1, 2, 2), torch.tensor([[0.0, 0, 0, 1, 1]]), torch.empty(0)
    output, grad = torch.zeros(1, 1, 2, 2), torch.zeros_like(feature)
    ops.roi_align_forward(
        feature, rois, output, output.clone(), output.clone(), 2, 2, 1.0, 2, 0, True
    )
    assert not calls
    ops.roi_align_forward(feature, rois, output, empty, empty, 2, 2, 1.0, 2, 1, True)
    ops.roi_align_backward(output, rois, empty, empty, grad, 2, 2, 1.0, 2, 1, True)
    assert calls == [('roi_align', (2, 2), 1.0, 2, True)] * 2
    assert (output == 4).all()
    assert (grad == 16).all()


def test_through_the_functions_of_mmcv():
    setup()
    from mmcv.ops import batched_nms, nms, roi_align, sigmoid_focal_loss, soft_nms

    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30], [0, 0, 10, 10]])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
    dets, kept = nms(boxes, scores, 0.5)
    assert kept.tolist() == [0, 2]
    assert torch.equal(dets, torch.cat([boxes, scores[:, None]], 1)[kept])
    _, kept = nms(boxes.numpy(), scores.numpy(), 0.5, score_threshold=0.75, max_num=1)
    assert kept.tolist() == [0]
    classes = torch.tensor([0, 0, 0, 1])
    _, kept = batched_nms(boxes, scores, classes, dict(type='nms', iou_threshold=0.5))
    assert kept.tolist() == [0, 2, 3]
    _, kept = batched_nms(boxes, scores, classes, dict(type='soft_nms', iou_threshold=0.5))
    assert sorted(kept.tolist()) == [0, 1, 2, 3]
    dets, kept = soft_nms(boxes, scores, 0.5, method='naive')
    assert kept.tolist() == [0, 2]
    assert torch.equal(dets[:, 4], scores[kept])

    feature = torch.randn(1, 2, 8, 8, requires_grad=True)
    rois = torch.tensor([[0.0, 0, 0, 8, 8]])
    pooled = roi_align(feature, rois, (2, 2), 1.0, 0, 'avg', True)
    pooled.sum().backward()
    assert pooled.shape == (1, 2, 2, 2)
    # Each of the 4 bins of each of the 2 channels spreads a gradient of one.
    torch.testing.assert_close(feature.grad.sum(), torch.tensor(8.0))

    logits = torch.randn(5, 3, requires_grad=True)
    target = torch.tensor([0, 1, 2, 3, 3])
    loss = sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'mean')
    loss.backward()
    exact = logits.detach().double().requires_grad_()
    reference = focal_reference(exact, target, None, 2.0, 0.25).sum() / 5
    reference.backward()
    torch.testing.assert_close(loss.double(), reference, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=1e-5, atol=1e-6)
