"""Recordings of event cameras: readers, frames and data sets."""

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
from .recording import Recording

__all__ = [
    'BOX_DTYPE',
    'DVSCIFAR10',
    'EVENT_SUFFIXES',
    'EventFolder',
    'Events',
    'Recording',
    'check_event_folder',
    'check_event_header',
    'crop_boxes',
    'event_suffixes',
    'frame_index',
    'load_frames',
    'make_boxes',
    'open_recording',
    'read_boxes',
    'read_events',
    'register_event_reader',
    'to_frames',
]
