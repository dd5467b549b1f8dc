"""Downloads: one engine that finds, fetches and verifies, behind the three verbs `download`, `stream` and `read`."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from meta_media.errors import ConfigurationError, DownloadTooLargeError, IntegrityError, MediaError
from meta_media.http.call import Call
from meta_media.http.retry import RetryState
from meta_media.protocol.filenames import safe_filename
from meta_media.protocol.media_types import extension_for
from meta_media.protocol.models import DownloadedMedia
from meta_media.protocol.responses import disposition_filename
from meta_media.transfer.destinations import Destination, Sink, open_sink
from meta_media.transfer.lanes import BackgroundWriter
from meta_media.transfer.progress import ProgressCallback, ProgressReporter
from meta_media.transfer.resume import ResumableBody

__all__ = ["MediaStream", "download", "open_stream", "read"]

_BUFFERS: Final = 3  # one to fill, one to hash and write, one between, so that neither waits for the other


@asynccontextmanager
async def open_stream(
    call: Call, what: object, *, max_size: int | None = None, retry: RetryState | None = None
) -> AsyncIterator[MediaStream]:
    """Open a download, which survives whatever a resumed transfer cures."""
    limit = call.settings.max_download_size if max_size is None else max_size
    async with ResumableBody(call, what, retry or RetryState()) as origin:
        stream = MediaStream(origin, call.settings.chunk_size, limit)
        async with contextlib.aclosing(stream):
            yield stream


class MediaStream:
    """
    A download in progress: iterate once over its chunks of bytes, of `Settings.chunk_size` but for the last.

    When the iteration ends without an error, the length and, where Meta gave one, the SHA-256 have been verified over
    exactly the bytes that were handed over.

    Attributes:
        info: What Meta said of it, where it was asked.
        media_id: None when only a URL was known.
        mime_type: As Meta says.
        size: Bytes, where Meta says.
        filename: A safe name for it.
    """

    def __init__(self, origin: ResumableBody, chunk_size: int, max_size: int) -> None:
        target = origin.target
        self.info = target.info
        self.media_id = target.media_id
        self.mime_type = target.mime_type or origin.served_type or "application/octet-stream"
        self.size = origin.size
        fallback = f"{target.media_id or 'media'}{extension_for(self.mime_type) or ''}"
        self.filename = safe_filename(target.filename or disposition_filename(origin.headers), fallback)
        self._origin = origin
        self._max_size = max_size
        self._digest = hashlib.sha256()
        self._chunk_size = chunk_size
        self._chunks = self._copied()
        self._over = False
        self._check_limit(self.size or 0)

    @property
    def sha256(self) -> str:
        """The SHA-256 of the bytes handed over, once the iteration has ended."""
        return self._digest.hexdigest()

    def __aiter__(self) -> AsyncIterator[bytes]:
        if self._over:
            raise ConfigurationError("a MediaStream is iterated once, inside its block: there is nothing left to give")
        return self._chunks

    async def aclose(self) -> None:
        """Stop; what has not been read is not."""
        self._over = True
        await self._chunks.aclose()

    def _check_limit(self, size: int) -> None:
        if size > self._max_size:
            raise DownloadTooLargeError(
                f"the media has {size} bytes or more, and {self._max_size} are allowed",
                limit=self._max_size,
                actual=size,
            )

    async def _copied(self) -> AsyncGenerator[bytes, None]:
        async with contextlib.aclosing(self.views()) as views:
            async for view in views:
                yield bytes(view)

    async def views(self, work: Callable[[memoryview], None] | None = None) -> AsyncGenerator[memoryview, None]:
        """
        Yield the chunks in three buffers, by turns: one is filled while others are hashed.

        Each is the receiver's until the next is asked for.

        Args:
            work: What else to do with each, on the thread that hashes it.
        """
        room = (
            self._chunk_size if self.size is None else min(self._chunk_size, self.size + 1)
        )  # so that the end is seen
        buffers = [memoryview(bytearray(room))]
        received = 0

        def worked(view: memoryview) -> None:
            self._digest.update(view)
            if work is not None:
                work(view)

        try:
            async with BackgroundWriter(worked, depth=_BUFFERS - 1) as lane:
                while count := await self._origin.readinto(buffers[0]):
                    received += count
                    self._check_limit(received)
                    if self.size is not None and received > self.size:
                        break
                    await lane.put(buffers[0][:count])
                    yield buffers[0][:count]
                    if count < room:
                        break
                    if len(buffers) < _BUFFERS:
                        buffers.append(memoryview(bytearray(room)))
                    buffers.insert(0, buffers.pop())  # the one that was handed over first
        finally:
            self._over = True  # also after an error: to iterate again must not look like a good end
        self._check(received)

    def _check(self, received: int) -> None:
        if self.size is not None and received != self.size:
            raise IntegrityError(
                f"{received} bytes arrived where Meta promised {self.size}", expected=self.size, actual=received
            )
        promised = self._origin.target.sha256
        if promised and not hmac.compare_digest(promised, self.sha256):
            raise IntegrityError(
                "the bytes that arrived do not have the SHA-256 that Meta promised",
                expected=promised,
                actual=self.sha256,
            )


async def download(
    call: Call, what: object, destination: Destination, *, overwrite: bool, progress: ProgressCallback | None
) -> DownloadedMedia:
    """Write a verified download to a destination; where bytes can be taken back, wrong ones get a fresh try."""
    retry = RetryState()
    async with open_sink(destination, overwrite=overwrite, fsync=call.settings.fsync) as sink:
        while True:
            try:
                stream, size = await _written(call, what, sink, retry, progress)
                break
            except MediaError as error:
                if not sink.rewindable:
                    raise
                await call.recover(error, retry)
                await sink.rewind()
        return DownloadedMedia(
            path=await sink.commit(stream.filename),
            size=size,
            sha256=stream.sha256,
            mime_type=stream.mime_type,
            media_id=stream.media_id,
            attempts=call.attempts,
        )


async def _written(
    call: Call, what: object, sink: Sink, retry: RetryState, progress: ProgressCallback | None
) -> tuple[MediaStream, int]:
    async with open_stream(call, what, retry=retry) as stream:
        meter = ProgressReporter(progress, stream.size)
        async with contextlib.aclosing(stream.views(sink.blocking)) as views:
            async for view in views:
                await sink.write(view)
                await meter.add(len(view))
    return stream, meter.transferred


async def read(call: Call, what: object, max_size: int | None) -> bytes:
    """Return a verified download; wrong bytes get a fresh try."""
    retry = RetryState()
    while True:
        try:
            async with open_stream(call, what, max_size=max_size, retry=retry) as stream:
                return b"".join([chunk async for chunk in stream])
        except MediaError as error:
            await call.recover(error, retry)
