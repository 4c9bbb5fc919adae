"""Recordings of event cameras: readers, frames and data sets."""

from .cache import load_frames
from .folder import DVSCIFAR10, EventFolder, check_event_folder
from .frames import frame_index, to_frames
from .io import EVENT_SUFFIXES, Events, check_event_header, read_events

__all__ = [
    'DVSCIFAR10',
    'EVENT_SUFFIXES',
    'EventFolder',
    'Events',
    'check_event_folder',
    'check_event_header',
    'frame_index',
    'load_frames',
    'read_events',
    'to_frames',
]
