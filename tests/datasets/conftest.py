"""What was seen of images is kept apart from the user's cache."""

import pytest

from mmsnn.datasets.checks import images


@pytest.fixture(autouse=True)
def image_cache(tmp_path_factory, monkeypatch):
    """The folder that stands for the cache of the user."""
    folder = tmp_path_factory.mktemp('cache')
    monkeypatch.setattr(images, 'cache_folder', lambda: folder)
    return folder
