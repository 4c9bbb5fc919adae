import numpy as np

from mmsnn.datasets.events import register_event_reader


def read_txyp(file, path):
    """A line an event: time, column, row, polarity."""
    t, x, y, p = np.loadtxt(file, dtype=np.int64, ndmin=2).T
    return (x, y, t, p), (34, 34)


register_event_reader('.txyp', read_txyp)
