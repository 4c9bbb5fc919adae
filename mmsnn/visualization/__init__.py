"""Pictures of what the networks see, do and say."""

from .cls_visualizer import ClsVisualizer, event_picture, input_picture
from .event_windows import draw_course, draw_window, save_animation
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
    'draw_course',
    'draw_spikes',
    'draw_window',
    'event_picture',
    'figure_picture',
    'first_image',
    'heat_map',
    'image_part',
    'input_picture',
    'overlay',
    'raster',
    'save_animation',
]
