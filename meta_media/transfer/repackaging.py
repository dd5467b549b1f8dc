"""Opus that becomes a voice note: that of a file, without an event loop, and that of a source when it is opened."""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from typing import IO, BinaryIO, Final

import attrs

from meta_media.errors import InvalidMediaError
from meta_media.protocol.filenames import typed_filename
from meta_media.protocol.media_types import HEAD_SIZE, MAX_SIZE, Inspection, check_size, subject
from meta_media.protocol.repackage import RepackageSteps, repackage_steps
from meta_media.transfer.adapters import own_name
from meta_media.transfer.bodies import Body, make_replayable
from meta_media.transfer.opening import open_stream
from meta_media.transfer.readers import BATCH_SIZE, as_bytes
from meta_media.transfer.sources import Source
from meta_media.transfer.threads import FileWork, storage_errors

__all__ = ["repackage", "repackaged"]

_MEMORY: Final = 2**20  # bytes of a pipe that are kept in memory; more of them in a temporary file
_CONTAINER: Final = re.compile(rb"\x1a\x45\xdf\xa3|OggS|....(?:ftyp|styp|moov|mdat|free|wide)", re.DOTALL)
_MATROSKA: Final = frozenset({"audio/webm", "video/webm", "video/x-matroska"})


def _advance(steps: RepackageSteps, data: bytes | None) -> tuple[bytes, tuple[int, int] | None]:
    """Return the pages until the next read, and that read; None at the end."""
    pages: list[bytes] = []
    try:
        step = next(steps) if data is None else steps.send(data)
        while isinstance(step, bytes):
            pages.append(step)
            step = steps.send(b"")
    except StopIteration:
        step = None
    return b"".join(pages), step


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
    with _opened(source) as opened:
        name = own_name(source)
        steps, data = repackage_steps(name), None
        while True:
            pages, place = _advance(steps, data)
            if pages:
                opened.keeping = False
                yield pages
            if place is None:
                return
            with storage_errors(f"read {subject(name)}"):
                data = opened.at(*place)


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


def repackaged(source: Source, mime_type: str | None, filename: str | None) -> Source:
    """
    Return a source of the same file, with its Opus in Ogg, if it is Opus that WhatsApp does not take as it is.

    `mime_type` is what the caller declares: the bytes of a declared document or picture are left as they are, and refused.
    `filename` replaces the source's own name.
    """
    declared = (mime_type or "audio").strip().lower()
    is_sound = declared.startswith(("application/ogg", "audio", "video"))
    return _Repackaged(source=source, filename=filename) if is_sound else source


@attrs.frozen(kw_only=True)
class _Repackaged(Source):
    source: Source
    filename: str | None

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Body]:
        """See `Source`. Name, type and SHA-256 are those of the body."""
        async with self.source.open() as body:
            name = self.filename or self.source.name or body.name
            if not await _is_opus(body, name):
                body.name, body.mime_type = name, self.source.mime_type or body.mime_type
                body.sha256 = self.source.sha256 or body.sha256
                yield body
                return
            async with contextlib.aclosing(_pages(body, name)) as pages, open_stream(pages, None) as result:
                result.name = name and typed_filename(name, "audio/ogg", "media", sent=True)
                result.repackaged_size = body.size
                yield result

    @property
    def again(self) -> Callable[[int], Awaitable[Source]] | None:
        """See `Source`."""
        if (again := self.source.again) is None:
            return None

        async def repackaged_again(size: int) -> Source:
            return attrs.evolve(self, source=await again(size))

        return repackaged_again


async def _is_opus(body: Body, name: str | None) -> bool:
    """Return whether a file may be Opus that must be repackaged. A stream that may be is spooled, to be read anywhere."""
    if not _CONTAINER.match(body.head):
        return False
    streamed = not body.seekable
    make_replayable(body)
    size = await body.measure(MAX_SIZE, HEAD_SIZE)
    signature, _ = await body.signature()
    flaw = signature and signature.flaw
    if signature is None or (_MATROSKA.isdisjoint(signature.candidates) and not (flaw and flaw.repackable)):
        return False
    if streamed:  # it ends where the spool does
        check_size(Inspection(mime_type=signature.candidates[0], kind="audio", max_size=MAX_SIZE), size, filename=name)
    return True


async def _pages(body: Body, name: str | None) -> AsyncGenerator[bytes, None]:
    """Yield the pages of the Ogg file, which are computed on a thread."""
    steps, work, data = repackage_steps(name), FileWork("the source", limit=None), None
    while True:
        pages, place = await work.run(_advance, steps, data)
        if pages:
            yield pages
        if place is None:
            return
        data = await _read(body, *place)


async def _read(body: Body, offset: int, size: int) -> bytes:
    """Read from an offset. The bytes are fewer than the size only at the end."""
    data = b""
    while len(data) < size and (chunk := await body.at(offset + len(data), size - len(data))):
        data += chunk
    return data
