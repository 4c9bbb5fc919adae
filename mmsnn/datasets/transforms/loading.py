"""Pictures that are broken in the middle are named."""

import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Optional

import mmcv.transforms
from mmdet.registry import TRANSFORMS
from mmengine.logging import print_log

#: What decoders say of broken data, on the error output of the process and without a name.
_OF_DECODERS = re.compile(
    r'(corrupt (jpeg|data)|premature end|invalid (sos|jpeg)|unsupported marker|bad huffman|'
    r'extraneous bytes|libpng (warning|error)|jpeg datastream|tiff\w*: )',
    re.IGNORECASE,
)
_said: set = set()


@TRANSFORMS.register_module()
class LoadImageFromFile(mmcv.transforms.LoadImageFromFile):
    """mmcv's ``LoadImageFromFile``, which says which picture is broken.

    OpenCV fills up what it can't decode and goes on: the picture's pixels are wrong, and the
    decoder's complaint has no name in it. Here it is one warning a file, with its name. A picture
    that can't be decoded at all ends the run in one line with its name, whatever the decoder is.
    The pixels are mmcv's.

    Args:
        **kwargs: As of ``mmcv.transforms.LoadImageFromFile``.

    Raises:
        OSError: A picture that can't be read or decoded, unless ``ignore_empty``.
    """

    def transform(self, results: dict) -> Optional[dict]:
        """Load the image of ``results['img_path']``."""
        path = results['img_path']
        try:
            with _decoder_words() as words:
                loaded = super().transform(results)
        except Exception as error:  # what decoders raise for broken data depends on the format
            # mmcv's own assertion and errors of the file system name the file.
            if isinstance(error, AssertionError) or getattr(error, 'errno', None) is not None:
                raise
            raise OSError(f'failed to load image: {path}') from error
        if words and path not in _said:
            _said.add(path)
            print_log(
                f'mmsnn: {path} is broken in the middle; what was decoded behind it may be wrong '
                f'({words[0]}): fetch it again',
                logger='current',
                level=logging.WARNING,
            )
        return loaded


class _Capture:
    """A file in the place of the process's error output."""

    def __init__(self):
        self.file = tempfile.TemporaryFile()  # noqa: SIM115, as long as the process
        self.pid = os.getpid()


_capture: Optional[_Capture] = None


@contextmanager
def _decoder_words() -> Iterator[list[str]]:
    """Collect what decoders print on the error output; what others print there goes on to it."""
    global _capture
    words: list[str] = []
    try:
        kept = os.dup(2)
    except OSError:  # a process without an error output has nobody to tell
        yield words
        return
    if _capture is None or _capture.pid != os.getpid():
        _capture = _Capture()
    file = _capture.file
    try:
        os.dup2(file.fileno(), 2)
        yield words
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        size = os.lseek(file.fileno(), 0, os.SEEK_CUR)
        if size:
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            text = os.read(file.fileno(), size).decode(errors='replace')
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            for line in text.splitlines(keepends=True):
                if _OF_DECODERS.search(line):
                    words.append(line.strip())
                else:
                    os.write(2, line.encode())
