"""Recordings of event cameras: readers, frames and data sets."""

from .blocks import Blocks
from .boxes import BOX_DTYPE, crop_boxes, make_boxes, read_boxes
from .cache import load_frames
from .folder import DVSCIFAR10, EventFolder, check_event_folder
from .frames import frame_index, to_frames
from .io import (
    EVENT_SUFFIXES,
    Events,
    check_event_header,
    event_suffixes,
    open_recording,
    read_events,
    register_event_reader,
)
from .prophesee import PropheseeDetection
from .recording import Recording
from .representations import (
    count_events,
    cut_events,
    find_representation,
    in_steps,
    stacked_histogram,
    time_surface,
    voxel_grid,
)
from .simulate import Camera, simulate_events, write_dat

__all__ = [
    'BOX_DTYPE',
    'DVSCIFAR10',
    'EVENT_SUFFIXES',
    'Blocks',
    'Camera',
    'EventFolder',
    'Events',
    'PropheseeDetection',
    'Recording',
    'check_event_folder',
    'check_event_header',
    'count_events',
    'crop_boxes',
    'cut_events',
    'event_suffixes',
    'find_representation',
    'frame_index',
    'in_steps',
    'load_frames',
    'make_boxes',
    'open_recording',
    'read_boxes',
    'read_events',
    'register_event_reader',
    'simulate_events',
    'stacked_histogram',
    'time_surface',
    'to_frames',
    'voxel_grid',
    'write_dat',
]
