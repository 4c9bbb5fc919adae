"""A package outside mmsnn, loaded by `custom_imports=dict(imports=['my_spikes'])` alone.

Its parts are what CONTRIBUTING.md shows.
"""

from . import backends, blocks, decoders, events, gates, neurons, surrogates  # noqa: F401
