"""Pictures of spikes and attention: colours at known places."""

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure

from mmsnn.analysis import Attention
from mmsnn.visualization import draw_spikes, figure_picture, heat_map, image_part, overlay, raster

DARK, BRIGHT = (colormaps['viridis']([0.0, 1.0], bytes=True)[:, :3]).tolist()


def picture(height=16, width=24, value=200):
    return np.full((height, width, 3), value, np.uint8)


def attention(steps=2, channels=3, height=4, width=6):
    return Attention(
        torch.full((steps,), 1 / steps),
        torch.ones(steps, channels),
        torch.ones(steps, height, width),
    )


def test_colours_of_the_ends_and_beyond():
    values = torch.tensor([[-5.0, 2.0], [4.0, 9.0]])
    drawn = heat_map(values, 2, 4)
    assert drawn.dtype == np.uint8
    assert drawn.tolist() == [[DARK, DARK], [BRIGHT, BRIGHT]]
    middle = heat_map(np.array([[3.0]]), 2, 4)[0, 0]
    assert tuple(middle) == colormaps['viridis'](0.5, bytes=True)[:3]


def test_cells_stay_cells_when_enlarged():
    drawn = heat_map(np.array([[0.0, 1.0, 0.0]]), 0, 1, size=(4, 9))
    assert drawn.shape == (4, 9, 3)
    assert (drawn[:, :3] == DARK).all()
    assert (drawn[:, 3:6] == BRIGHT).all()
    assert (drawn[:, 6:] == DARK).all()


def test_lightness_rises_with_the_value():
    grey = heat_map(np.linspace(0, 1, 32)[None], 0, 1)[0] @ [0.299, 0.587, 0.114]
    assert (np.diff(grey) > 0).all()


def test_overlay_mixes_map_and_grey_picture():
    image = picture()
    image[:, 12:] = 40
    values = np.array([[0.0, 1.0], [0.0, 1.0]])
    plain = overlay(image, values, 0, 1, alpha=0)
    assert np.array_equal(plain, image)  # this picture is grey
    alone = overlay(image, values, 0, 1, alpha=1)
    assert alone[0, 0].tolist() == DARK
    assert alone[-1, -1].tolist() == BRIGHT
    mixed = overlay(image, values, 0, 1, alpha=0.25)
    expected = np.rint(0.75 * plain + 0.25 * alone)
    assert np.array_equal(mixed, expected.astype(np.uint8))
    # Smooth between the cells: neither jumps nor falls.
    steps = np.diff(alone[0, :, 1].astype(int))
    assert (steps >= 0).all()
    assert steps.max() < 40


def test_overlay_takes_the_colour_out_of_the_picture():
    image = picture()
    image[..., 1:] = 0
    plain = overlay(image, np.zeros((2, 2)), 0, 1, alpha=0)
    assert np.ptp(plain[0, 0]) == 0


@pytest.mark.parametrize('stride', [4, 8, 16, 32])
@pytest.mark.parametrize('image', [(97, 128), (96, 100), (128, 1), (128, 128)])
def test_the_part_of_the_image(stride, image):
    values = torch.arange(128 // stride * (128 // stride)).view(1, 128 // stride, -1)
    part = image_part(values, image, (128, 128))
    # Every cell that holds a pixel of the image.
    expected = [-(-side // stride) for side in image]
    assert list(part.shape[1:]) == expected
    assert torch.equal(part, values[:, : expected[0], : expected[1]])
    assert part.data_ptr() == values.data_ptr()


def test_the_part_of_an_image_whose_batch_the_stride_does_not_divide():
    # 100 pixels at stride 8 are 13 cells, of which 12 hold the first 96 pixels.
    assert image_part(np.zeros((13, 13)), (100, 100), (100, 100)).shape == (13, 13)
    assert image_part(np.zeros((13, 13)), (100, 88), (100, 100)).shape[1] in (11, 12)
    assert image_part(np.zeros((4, 2, 1, 1)), (5, 5), (100, 100)).shape == (4, 2, 1, 1)


def test_a_raster_of_few_neurons_is_all_of_them():
    spikes = (torch.rand(5, 2, 3, 4, generator=torch.Generator().manual_seed(0)) < 0.4).byte()
    drawn = raster(spikes)
    assert drawn.shape == (24, 5, 3)
    for t in range(5):
        for neuron, (c, y, x) in enumerate(np.ndindex(2, 3, 4)):
            assert drawn[neuron, t].tolist() == [0 if spikes[t, c, y, x] else 255] * 3


def test_a_raster_of_many_neurons_is_a_sample():
    spikes = torch.zeros(3, 16, 32, 32)
    spikes[1, 8:] = 1  # the upper half of the channels, in the second step
    drawn = raster(spikes, max_neurons=40)
    assert drawn.shape == (40, 3, 3)
    assert (drawn[:, [0, 2]] == 255).all()
    dark = drawn[:, 1, 0] == 0
    assert (np.diff(dark.astype(int)) >= 0).all(), 'in the order of the channels'
    assert 10 < dark.sum() < 30
    assert np.array_equal(drawn, raster(spikes, max_neurons=40)), 'always the same neurons'


def test_a_raster_leaves_random_numbers_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    raster(torch.zeros(3, 16, 32, 32))
    assert np.array_equal(np.random.get_state()[1], before)


def test_a_sheet():
    spikes = torch.zeros(2, 3, 4, 6, dtype=torch.uint8)
    spikes[1, :, 0, 0] = 1
    maps = attention()
    maps.temporal[:] = torch.tensor([0.75, 0.25])
    figure = draw_spikes(picture(), {'layer1.neuron': spikes}, {'neck.0': maps}, title='a skier')
    assert isinstance(figure, Figure)
    texts = {text.get_text() for text in figure.findobj(lambda x: hasattr(x, 'get_text'))}
    assert {'a skier', 't = 1: 0.000', 't = 2: 0.042', '64 of 72 neurons, over t'} <= texts
    assert {'t = 1: a_T = 0.750', 't = 2: a_T = 0.250', 'firing rate', 'a_S', 'a_C'} <= texts
    assert 'layer1.neuron: 3 channels of 4x6, firing rate 0.021' in texts
    images = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert np.array_equal(images[0], picture())
    first, second = images[1:3]
    assert (first == DARK).all()
    assert second[0, 0].tolist() == BRIGHT
    drawn = figure_picture(figure, dpi=50)
    assert drawn.dtype == np.uint8
    assert drawn.shape[2] == 3
    assert (drawn == 255).all(-1).any()
    assert (drawn == BRIGHT).all(-1).any()


def test_a_sheet_of_a_classifier_and_one_of_attention_alone():
    hidden = torch.zeros(4, 16, 1, 1)
    assert figure_picture(draw_spikes(picture(), {'head.neuron': hidden})).any()
    assert figure_picture(draw_spikes(picture(), {}, {'neck.0': attention(1)})).any()


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: heat_map(np.zeros((2, 2, 2)), 0, 1), r'\(2, 2, 2\)'),
        (lambda: heat_map(np.zeros((0, 2)), 0, 1), 'not empty'),
        (lambda: heat_map(np.array([[np.nan]]), 0, 1), 'not finite'),
        (lambda: heat_map(np.zeros((2, 2)), 1, 1), 'vmin < vmax'),
        (lambda: overlay(np.zeros((4, 4, 3)), np.zeros((2, 2)), 0, 1), 'float64'),
        (lambda: overlay(picture()[..., 0], np.zeros((2, 2)), 0, 1), r'\(16, 24\)'),
        (lambda: overlay(picture(), np.zeros((2, 2)), 0, 1, alpha=2), 'alpha'),
        (lambda: image_part(np.zeros(4), (4, 4), (8, 8)), r'\(\.\.\., h, w\)'),
        (lambda: image_part(np.zeros((4, 4)), (16, 4), (8, 8)), 'before padding'),
        (lambda: raster(np.zeros((2, 3))), r'\(T, C, H, W\)'),
        (lambda: raster(np.zeros((2, 3, 4, 4)), max_neurons=0), 'max_neurons'),
        (lambda: draw_spikes(picture(), {}), 'nothing to draw'),
        (lambda: draw_spikes(picture(), {'a': np.zeros((2, 1, 3, 4, 4))}), 'one image'),
        (lambda: draw_spikes(picture(), {}, {'d': Attention(*[np.zeros(2)] * 3)}), "of 'd'"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
