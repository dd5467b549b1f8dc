"""Downloads: one engine that fetches and verifies, for the three verbs `download`, `stream` and `read`."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from meta_media.errors import ConfigurationError, DownloadTooLargeError, IntegrityError, MediaError
from meta_media.http.call import Call
from meta_media.http.retry import RetryState
from meta_media.protocol.filenames import typed_filename
from meta_media.protocol.models import DownloadedMedia
from meta_media.protocol.responses import disposition_filename
from meta_media.transfer.destinations import Destination, open_sink
from meta_media.transfer.progress import ProgressCallback, ProgressReporter
from meta_media.transfer.resume import ResumableBody, wrong_size
from meta_media.transfer.threads import BackgroundWriter

__all__ = ["MediaStream", "download", "open_stream", "read"]

_BUFFER_COUNT: Final = 3  # one to fill, one to hash and write, one between, so that neither waits for the other


@asynccontextmanager
async def open_stream(
    call: Call, what: object, *, max_size: int | None = None, retry: RetryState | None = None
) -> AsyncIterator[MediaStream]:
    """Open a download. It survives expired URLs and broken connections."""
    async with contextlib.aclosing(ResumableBody(call, what, retry or RetryState())) as body:
        await body.open()
        max_size = call.settings.max_download_size if max_size is None else max_size
        async with contextlib.aclosing(MediaStream(body, call.settings.chunk_size, max_size)) as stream:
            yield stream


class MediaStream:
    """
    A download in progress: an async iterator over its chunks of bytes, which can be used once.

    Each chunk has `Settings.chunk_size` bytes, except the last. When the iteration ends without an error, the length of the
    bytes that it returned has been verified, and their SHA-256 where Meta gave one.

    Attributes:
        info: Meta's answer to `get_info`, if the download needed one.
        media_id: None if only a URL is known.
        mime_type: Type that Meta states.
        size: Size in bytes, where Meta states it.
        filename: A safe name for the file.
    """

    def __init__(self, body: ResumableBody, chunk_size: int, max_size: int) -> None:
        location = body.location
        self.info = location.info
        self.media_id = location.media_id
        self.mime_type = location.mime_type or body.headers.get("content-type") or "application/octet-stream"
        self.size = body.size
        name, stem = location.filename or disposition_filename(body.headers), location.media_id or "media"
        self.filename = typed_filename(name, self.mime_type, stem, sent=False)
        self._body = body
        self._max_size = max_size
        self._digest = hashlib.sha256()
        self._chunk_size = chunk_size
        self._chunks = self._copies()
        self._finished = False
        self._check_limit(self.size or 0)

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes that were returned, once the iteration has ended."""
        return self._digest.hexdigest()

    def __aiter__(self) -> AsyncIterator[bytes]:
        if self._finished:
            raise ConfigurationError("a MediaStream can be iterated once, inside its block: call media.stream again")
        return self._chunks

    async def aclose(self) -> None:
        """End the iteration. The rest is not read."""
        self._finished = True
        await self._chunks.aclose()

    def _check_limit(self, size: int) -> None:
        if size > self._max_size:
            sentence = f"the media has at least {size} bytes, more than the allowed {self._max_size}"
            raise DownloadTooLargeError(sentence, limit=self._max_size, actual=size)

    async def _copies(self) -> AsyncGenerator[bytes, None]:
        async with contextlib.aclosing(self.views()) as views:
            async for view in views:
                yield bytes(view)

    async def views(self, work: Callable[[memoryview], None] | None = None) -> AsyncGenerator[memoryview, None]:
        """
        Yield the chunks in three buffers by turns: one is filled while the others are hashed, and given to `work`, on a thread.

        A chunk is valid until the next one is requested.
        """
        room = self._chunk_size if self.size is None else min(self._chunk_size, self.size + 1)  # 1: to notice a surplus
        buffers = deque([memoryview(bytearray(room))])
        received = 0

        def hash_and_write(view: memoryview) -> None:
            self._digest.update(view)
            if work is not None:
                work(view)

        try:
            async with BackgroundWriter(hash_and_write, depth=_BUFFER_COUNT - 1) as writer:
                while count := await self._body.readinto(buffers[0]):
                    received += count
                    self._check_limit(received)
                    if self.size is not None and received > self.size:
                        break
                    await writer.put(buffers[0][:count])
                    yield buffers[0][:count]
                    if count < room:
                        break
                    if len(buffers) < _BUFFER_COUNT:
                        buffers.append(memoryview(bytearray(room)))
                    buffers.rotate(1)  # the last one is the one that was handed over first
        finally:
            self._finished = True  # after an error, too: a second iteration must not look like a complete one
        self._check(received)

    def _check(self, received: int) -> None:
        if self.size is not None and received != self.size:
            raise wrong_size(received, self.size)
        promised = self._body.location.sha256
        if promised and not hmac.compare_digest(promised, self.sha256):
            sentence = "the bytes that arrived do not have the SHA-256 that Meta promised"
            raise IntegrityError(sentence, expected=promised, actual=self.sha256)


async def download(
    call: Call, what: object, destination: Destination, *, overwrite: bool, progress: ProgressCallback | None
) -> DownloadedMedia:
    """Write a verified download to a destination. Wrong bytes are fetched again if the destination can be rewound."""
    retry = RetryState()
    async with open_sink(destination, overwrite=overwrite, fsync=call.settings.fsync) as sink:
        while True:
            try:
                async with open_stream(call, what, retry=retry) as stream:
                    reporter = ProgressReporter(progress, stream.size)
                    async with contextlib.aclosing(stream.views(sink.blocking)) as views:
                        async for view in views:
                            await sink.write(view)
                            await reporter.add(len(view))
                break
            except MediaError as error:
                if not sink.rewindable:
                    raise
                await call.recover(error, retry)
                await sink.rewind()
        return DownloadedMedia(
            path=await sink.commit(stream.filename),
            size=reporter.transferred,
            sha256=stream.sha256,
            mime_type=stream.mime_type,
            media_id=stream.media_id,
            attempts=call.attempts,
        )


async def read(call: Call, what: object, max_size: int | None) -> bytes:
    """Return a verified download. Wrong bytes are fetched again."""
    retry = RetryState()
    while True:
        try:
            async with open_stream(call, what, max_size=max_size, retry=retry) as stream:
                return b"".join([chunk async for chunk in stream])
        except MediaError as error:
            await call.recover(error, retry)
