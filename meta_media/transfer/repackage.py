"""The plain function that repackages a file without an event loop."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from typing import IO, BinaryIO, Final

from meta_media.errors import InvalidMediaError
from meta_media.protocol.repackage import repackage_steps
from meta_media.transfer.readers import BATCH_SIZE, as_bytes
from meta_media.transfer.threads import storage_errors

__all__ = ["repackage"]

_MEMORY: Final = 2**20  # bytes of a pipe that are kept in memory; more of them in a temporary file


def repackage(file: BinaryIO | bytes) -> Iterator[bytes]:
    """
    Yield Opus in WebM, Matroska, MP4 or Ogg as mono Opus in Ogg, which WhatsApp accepts as a voice note.

    The packets of sound are untouched: nothing is lost, and no time is spent on encoding. Stereo is announced as mono, and
    players mix it down. Memory is constant, but for the index of an MP4 without fragments: 1 MB for an hour.

    Args:
        file: Bytes, or a binary file, which is read from its position. It is left open, and its position is restored. A file
            that cannot seek, such as a pipe, is kept up to the first page: 64 KiB of it, or, if it is an MP4 whose index lies
            at its end, all of it, in a temporary file.

    Raises:
        CorruptedMediaError: The file ends too early, or is damaged.
        InvalidMediaError: It is no binary file.
        StorageError: It cannot be read.
        UnsupportedMediaTypeError: It is not one track of mono or stereo Opus.
    """
    source = io.BytesIO(file) if isinstance(file, bytes) else file
    if not callable(getattr(source, "read", None)):
        raise InvalidMediaError(f"cannot read a {type(file).__name__}: pass bytes, or a file opened with mode 'rb'")
    steps = repackage_steps()
    with _opened(source) as opened:
        step = next(steps)
        while True:
            if isinstance(step, bytes):
                opened.keeping, sent = False, b""
                yield step
            else:
                with storage_errors("read the file"):
                    sent = opened.at(*step)
            try:
                step = steps.send(sent)
            except StopIteration:
                return


@contextlib.contextmanager
def _opened(file: BinaryIO) -> Iterator[_File | _Pipe]:
    try:
        start = file.tell()
        file.seek(start)
    except (AttributeError, OSError, ValueError):  # a pipe or a socket, or it is closed
        with tempfile.SpooledTemporaryFile(_MEMORY) as kept:
            yield _Pipe(file, kept)
        return
    try:
        yield _File(file, start)
    finally:
        with contextlib.suppress(OSError, ValueError):  # a position that cannot be restored must not hide the outcome
            file.seek(start)


class _File:
    """A file that can seek, from a position."""

    keeping = False

    def __init__(self, file: BinaryIO, start: int) -> None:
        self._file, self._start = file, start

    def at(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`; fewer at the end."""
        self._file.seek(self._start + offset)
        return b"".join(_chunks(self._file, size))


class _Pipe:
    """
    A file that cannot seek.

    Attributes:
        keeping: Whether the bytes that are read are kept, to go back to them.
    """

    def __init__(self, file: BinaryIO, kept: IO[bytes]) -> None:
        self.keeping = True
        self._file, self._kept, self._position = file, kept, 0

    def at(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`; fewer at the end, and of bytes that were not kept."""
        self._kept.seek(offset)
        data = self._kept.read(size)
        start = offset + len(data)
        if start < self._position:
            return data
        for chunk in _chunks(self._file, offset + size - self._position):
            if self.keeping:
                self._kept.seek(0, os.SEEK_END)
                self._kept.write(chunk)
            data += chunk[max(start - self._position, 0) :]
            self._position += len(chunk)
        return data


def _chunks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield `size` bytes of a file, from its position; fewer at its end. A pipe gives what is there."""
    while size and (chunk := as_bytes(file.read(min(size, BATCH_SIZE)) or b"")):
        yield chunk
        size -= len(chunk)
