"""Pictures of what the networks see, do and say."""

from .cls_visualizer import ClsVisualizer, event_picture, input_picture
from .spike_maps import (
    draw_spikes,
    figure_picture,
    first_image,
    heat_map,
    image_part,
    overlay,
    raster,
)

__all__ = [
    'ClsVisualizer',
    'draw_spikes',
    'event_picture',
    'figure_picture',
    'first_image',
    'heat_map',
    'image_part',
    'input_picture',
    'overlay',
    'raster',
]
