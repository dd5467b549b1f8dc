"""Downloads: one engine that fetches and verifies, for `stream` and for the verbs here, `download` and `read`."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import io
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from meta_media.errors import ConfigurationError, DownloadTooLargeError, IntegrityError, MediaError
from meta_media.http.call import Call
from meta_media.http.memory import fitting_buffer
from meta_media.protocol.filenames import typed_filename
from meta_media.protocol.models import DownloadedMedia
from meta_media.transfer.adapters import NO_STR_PATHS, Buffer
from meta_media.transfer.background_writer import BackgroundWriter
from meta_media.transfer.bodies import ChunkSize
from meta_media.transfer.destinations import Destination, Sink, open_sink
from meta_media.transfer.progress import ProgressCallback, ProgressReporter
from meta_media.transfer.resume import MediaLocation, ResumableBody, checked_count, wrong_size
from meta_media.transfer.threads import file_deadline

__all__ = ["Transfer", "download", "open_transfer", "read"]

Chunk = TypeVar("Chunk", bound=Buffer)
_BUFFER_COUNT: Final = 3  # one to fill, one to hash and write, one between, so that neither waits for the other


@asynccontextmanager
async def open_transfer(call: Call, body: ResumableBody, max_size: int | None = None) -> AsyncIterator[Transfer]:
    """Open a download at its first byte. It survives expired URLs and broken connections."""
    async with call.share() as chunk_size, contextlib.aclosing(body):
        await body.open()
        yield Transfer(body, chunk_size, call.settings.max_download_size if max_size is None else max_size)


class Transfer:
    """An open download: what is known about it, and its bytes, which are verified when they have all been yielded."""

    def __init__(self, body: ResumableBody, chunk_size: ChunkSize, max_size: int) -> None:
        location = body.location
        self.mime_type = location.mime_type or body.response.mime_type or "application/octet-stream"
        self.size = body.size
        name, stem = location.filename or body.response.filename, location.media_id or "media"
        self.filename = typed_filename(name, self.mime_type, stem, sent=False)
        self._body = body
        self._max_size = max_size
        self._digest = hashlib.sha256()
        self._chunk_size = chunk_size
        self._check_limit(self.size or 0)

    @property
    def location(self) -> MediaLocation:
        """Where the media is, and what Meta says of it."""
        return self._body.location

    @property
    def promised(self) -> str | None:
        """SHA-256 that the bytes must have; None where Meta gives none, and for a part."""
        return self.location.sha256 if self._body.whole else None

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes that were yielded."""
        return self._digest.hexdigest()

    def _check_limit(self, size: int) -> None:
        if size > self._max_size:
            sentence = f"the media has at least {size} bytes, more than the allowed {self._max_size}"
            sentence += ": pass a larger max_size or Settings.max_download_size"
            raise DownloadTooLargeError(sentence, limit=self._max_size, actual=size)

    async def chunks(
        self, keep: Callable[[memoryview], Chunk], sink: Sink | None = None
    ) -> AsyncGenerator[Chunk, None]:
        """
        Yield the chunks. The next one is received while the others are hashed, and written to `sink`, on a thread.

        A memoryview is valid until the next one is requested, because three buffers take turns. Bytes are copied from one.
        """
        buffer, used = self._buffer(), deque[memoryview]()
        received = 0
        files = None if sink is None else sink.work

        def hash_and_write(chunk: Chunk) -> None:
            self._digest.update(chunk)
            if sink is not None and files is not None:
                sink.put(memoryview(chunk))

        async with BackgroundWriter(hash_and_write, depth=_BUFFER_COUNT - 1, files=files) as writer:
            while count := await self._body.readinto(buffer):
                received += count
                self._check_limit(received)
                if self.size is not None and received > self.size:
                    break
                chunk = keep(buffer[:count])
                await writer.put(chunk)
                yield chunk
                if count < len(buffer):
                    break
                used.append(buffer)
                buffer = self._buffer(used.popleft() if keep is bytes or len(used) == _BUFFER_COUNT else None)
        self._check(received)

    def _buffer(self, used: memoryview | None = None) -> memoryview:
        """Return the buffer of the next chunk, which may be a used one; one byte longer than the media shows a surplus."""
        room = self._chunk_size()
        return fitting_buffer(room if self.size is None else min(room, self.size + 1), used)

    def _check(self, received: int) -> None:
        if self.size is not None and received != self.size:
            raise wrong_size(received, self.size)
        if self.promised and not hmac.compare_digest(self.promised, self.sha256):
            sentence = "the bytes that arrived do not have the SHA-256 that Meta promised"
            raise IntegrityError(sentence, expected=self.promised, actual=self.sha256)


async def download(
    call: Call, what: object, destination: Destination, *, overwrite: bool, progress: ProgressCallback | None
) -> DownloadedMedia:
    """Write a verified download to a destination. Wrong bytes are fetched again if the destination can be rewound."""
    if isinstance(destination, str) and not call.settings.str_paths:
        raise ConfigurationError(NO_STR_PATHS)
    body = ResumableBody(call, what)
    sink_opening = open_sink(destination, overwrite=overwrite, fsync=call.settings.fsync)
    async with file_deadline(call.settings.deadline), sink_opening as sink:
        while True:
            try:
                async with open_transfer(call, body) as transfer:
                    reporter = ProgressReporter(progress, transfer.size)
                    async with contextlib.aclosing(transfer.chunks(memoryview.toreadonly, sink)) as views:
                        async for view in views:
                            await sink.write(view)
                            await reporter.add(len(view))
                break
            except MediaError as error:
                if not sink.rewindable:
                    raise
                await body.recover(error)
                await sink.rewind()
        return DownloadedMedia(
            path=await sink.commit(transfer.filename, transfer.mime_type, transfer.sha256),
            key=sink.key,
            size=reporter.transferred,
            sha256=transfer.sha256,
            mime_type=transfer.mime_type,
            media_id=transfer.location.media_id,
            attempts=call.attempts,
        )


async def read(call: Call, what: object, max_size: int | None) -> bytes:
    """Return a verified download. Wrong bytes are fetched again."""
    max_size = None if max_size is None else checked_count(max_size, "max_size")
    body = ResumableBody(call, what)
    while True:
        try:
            async with open_transfer(call, body, max_size) as transfer:
                content = io.BytesIO()  # gives what it has without a copy
                async with contextlib.aclosing(transfer.chunks(memoryview.toreadonly)) as views:
                    async for view in views:
                        content.write(view)
                return content.getvalue()
        except MediaError as error:
            await body.recover(error)
