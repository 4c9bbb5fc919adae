"""What may be handed in as a picture."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmsnn.apis import inference_classifier, inference_detector, init_classifier, init_detector
from mmsnn.apis.images import path_or_bgr

COLOUR = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]
CFG = Config(dict(test_dataloader=dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile')]))))


def grey_as_colour():
    return np.stack([GREY] * 3, -1)


@pytest.mark.parametrize(
    ('image', 'expected'),
    [
        (COLOUR, COLOUR),
        (GREY, grey_as_colour()),
        (GREY[..., None], grey_as_colour()),
        (COLOUR.astype(np.float32), COLOUR),
        (COLOUR.astype(np.int64), COLOUR),
        (Image.fromarray(COLOUR[..., ::-1]), COLOUR),
        (Image.fromarray(GREY), grey_as_colour()),
        (Image.fromarray(np.dstack([COLOUR[..., ::-1], GREY])), COLOUR),
        (Image.fromarray(GREY).convert('P'), grey_as_colour()),
    ],
    ids=lambda x: str(getattr(x, 'mode', getattr(x, 'dtype', ''))),
)
def test_what_is_taken(image, expected):
    found = path_or_bgr(image, CFG)
    assert found.shape == expected.shape
    assert (found == expected).all()


@pytest.mark.parametrize(
    ('image', 'match'),
    [
        (COLOUR.transpose(2, 0, 1), r'\(3, 20, 30\) and dtype uint8. Channels come last'),
        (np.dstack([COLOUR, GREY]), r'\(20, 30, 4\) and dtype uint8. Leave the fourth channel out'),
        (COLOUR[..., :2], r'\(20, 30, 2\)'),
        (COLOUR[:0], r'\(0, 30, 3\)'),
        (COLOUR.astype(np.uint16) * 257, r'dtype uint16 with values from \d+ to 65535'),
        (COLOUR.astype(np.uint16), 'dtype uint16'),
        (COLOUR / 255, r'dtype float64 with values from 0.0 to 1.0.*255 \* image'),
        (COLOUR / 127.5 - 1, 'values from -1.0 to 1.0'),
        (COLOUR * np.nan, 'dtype float64'),
        (COLOUR > 99, 'dtype bool'),
        (COLOUR[None, None], r'\(1, 1, 20, 30, 3\)'),
        (torch.from_numpy(COLOUR), r'got a Tensor of shape \(20, 30, 3\)'),
        (None, 'got a NoneType'),
        (Image.fromarray(GREY.astype(np.uint16)), "mode 'I;16'"),
        (Image.fromarray(GREY.astype(np.float32)), "mode 'F'"),
    ],
)
def test_what_is_refused(image, match):
    with pytest.raises(ValueError, match=match):
        path_or_bgr(image, CFG)


def test_a_pillow_image_stands_as_its_file_does(tmp_path):
    """A phone's picture lies on its side, and says so."""
    path = str(tmp_path / 'x.png')
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOUR[..., ::-1]).save(path, exif=exif)
    upright = path_or_bgr(Image.open(path), CFG)
    assert upright.shape == (30, 20, 3)
    assert (upright == np.rot90(COLOUR, -1)).all()


def test_a_pipeline_that_loads_otherwise_says_what_comes():
    load = dict(type='LoadImageFromFile', color_type='grayscale')
    cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=[load]))))
    assert path_or_bgr(GREY, cfg) is GREY


@pytest.mark.parametrize(
    ('init', 'infer', 'config', 'result'),
    [
        (
            init_detector,
            inference_detector,
            'configs/digits/spiking-retinanet_sg-r10_asd_fpn_digits.py',
            lambda sample: sample.pred_instances.scores,
        ),
        (
            init_classifier,
            inference_classifier,
            'configs/digits/sg-r10_asd_digits-cls.py',
            lambda sample: sample.pred_score,
        ),
    ],
    ids=['detector', 'classifier'],
)
def test_every_way_gives_what_the_file_gives(init, infer, config, result, request, tmp_path):
    options = {'model.test_cfg.score_thr': 0.0} if infer is inference_detector else None
    model = init(request.config.rootpath / config, cfg_options=options)
    path = tmp_path / 'x.png'
    cv2.imwrite(str(path), GREY)
    expected = result(infer(model, path))
    assert len(expected) > 0
    ways = [GREY, GREY[..., None], grey_as_colour(), Image.open(path)]
    for found in [*infer(model, ways), *infer(model, np.stack([grey_as_colour()] * 2))]:
        torch.testing.assert_close(result(found), expected)
    with pytest.raises(ValueError, match='Channels come last'):
        infer(model, COLOUR.transpose(2, 0, 1))
