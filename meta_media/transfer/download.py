"""Downloads: one engine that fetches and verifies, for the three verbs `download`, `stream` and `read`."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Self

import attrs

from meta_media.errors import ConfigurationError, DownloadTooLargeError, IntegrityError, MediaError
from meta_media.http.call import Call
from meta_media.http.loop_bound import LoopBound
from meta_media.protocol.filenames import typed_filename
from meta_media.protocol.models import DownloadedMedia, MediaInfo
from meta_media.transfer.adapters import NO_STR_PATHS
from meta_media.transfer.background_writer import BackgroundWriter
from meta_media.transfer.bodies import Body, open_stream
from meta_media.transfer.destinations import Destination, Sink, open_sink
from meta_media.transfer.progress import ProgressCallback, ProgressReporter
from meta_media.transfer.resume import MediaLocation, ResumableBody, checked_count, wrong_size
from meta_media.transfer.sources import Source
from meta_media.transfer.threads import await_completion, file_deadline

__all__ = ["MediaStream", "MediaStreamSource", "download", "read"]

_BUFFER_COUNT: Final = 3  # one to fill, one to hash and write, one between, so that neither waits for the other
_NOT_OPEN: Final = "the stream is not open yet: use `async with media.stream(...) as stream` first"
_OVER: Final = "a MediaStream can be read once, inside its block: call media.stream again"


@asynccontextmanager
async def _open_transfer(call: Call, body: ResumableBody, max_size: int | None = None) -> AsyncIterator[_Transfer]:
    """Open a download at its first byte. It survives expired URLs and broken connections."""
    async with contextlib.aclosing(body):
        await body.open()
        yield _Transfer(
            body, call.settings.chunk_size, call.settings.max_download_size if max_size is None else max_size
        )


class _Transfer:
    """An open download: what is known about it, and its bytes, which are verified when they have all been yielded."""

    def __init__(self, body: ResumableBody, chunk_size: int, max_size: int) -> None:
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
            raise DownloadTooLargeError(sentence, limit=self._max_size, actual=size)

    async def views(self, sink: Sink | None = None) -> AsyncGenerator[memoryview, None]:
        """
        Yield the chunks in three buffers by turns: one is filled while the others are hashed, and written to `sink`, on a thread.

        A chunk is valid until the next one is requested.
        """
        room = self._chunk_size if self.size is None else min(self._chunk_size, self.size + 1)  # 1: to notice a surplus
        buffers = deque([memoryview(bytearray(room))])
        received = 0
        write, files = (None, None) if sink is None else (sink.blocking, sink.work)

        def hash_and_write(view: memoryview) -> None:
            self._digest.update(view)
            if write is not None:
                write(view)

        async with BackgroundWriter(hash_and_write, depth=_BUFFER_COUNT - 1, files=files) as writer:
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
        self._check(received)

    def _check(self, received: int) -> None:
        if self.size is not None and received != self.size:
            raise wrong_size(received, self.size)
        if self.promised and not hmac.compare_digest(self.promised, self.sha256):
            sentence = "the bytes that arrived do not have the SHA-256 that Meta promised"
            raise IntegrityError(sentence, expected=self.promised, actual=self.sha256)


class MediaStream:
    """
    A download in progress, in chunks of bytes that can be read once: `async with media.stream(what) as stream`.

    It is an async iterator over chunks of `Settings.chunk_size` bytes, and has `read`. Without a block, it opens at the first
    step and closes at its end. When it ends without an error, the length of the bytes that it returned has been verified, and
    their SHA-256 where Meta gave one. The attributes are known once it is open.
    """

    def __init__(self, make_call: Callable[[], Call], what: object, start: int, end: int | None) -> None:
        self._opened: list[_Transfer] = []
        self._chunks = _chunks(
            make_call, what, start, end, self._opened
        )  # refers to no `MediaStream`: no cycle keeps it
        self._rest = memoryview(b"")  # of a chunk of which `read` returned the beginning
        self._reader: asyncio.Task[object] | None = None  # the task that waits for a chunk
        self._idle = asyncio.Event()  # set when none does any more
        self._bound = LoopBound("MediaStream", lambda _: None)
        self._ended = False  # after the last byte, verified
        self._over = False  # after an error, a cancellation or the end of the block
        self._left = False  # closed without an error
        self._received = 0  # bytes of all chunks

    @property
    def _transfer(self) -> _Transfer:
        if not self._opened:
            raise ConfigurationError(_NOT_OPEN)
        return self._opened[0]

    @property
    def info(self) -> MediaInfo | None:
        """Meta's answer to `get_info`, if the download needed one."""
        return self._transfer.location.info

    @property
    def media_id(self) -> str | None:
        """Media id; None if only a URL is known."""
        return self._transfer.location.media_id

    @property
    def mime_type(self) -> str:
        """MIME type that Meta states."""
        return self._transfer.mime_type

    @property
    def size(self) -> int | None:
        """Bytes from `start` to `end`, where Meta states the size of the media."""
        return self._transfer.size

    @property
    def filename(self) -> str:
        """A safe name for the file."""
        return self._transfer.filename

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes that were returned, once the iteration has ended."""
        return self._transfer.sha256

    @property
    def verified(self) -> bool:
        """Whether all bytes were returned and had Meta's SHA-256. False for a part, of which only the length is verified."""
        return self._ended and self._transfer.promised is not None

    @property
    def opened(self) -> bool:
        """Whether the download has begun."""
        return bool(self._opened)

    def __media_source__(self) -> Source:
        """Return the source of an upload: name, type and size are the stream's."""
        if self._received:
            raise ConfigurationError("a part of this MediaStream was read already: upload another media.stream(...)")
        return MediaStreamSource(download=self)

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        await self._close(failed=error is not None)

    async def aclose(self) -> None:
        """End the download. The rest is not read. Another task that waits for a chunk gets a `ConfigurationError`."""
        await self._close(failed=False)

    async def _close(self, *, failed: bool) -> None:
        self._bound.get()
        self._over, self._left = not self._ended, not failed
        if self._reader is not None:
            self._reader.cancel()
            await await_completion(self._idle.wait())
        await self._chunks.aclose()

    def __aiter__(self) -> Self:
        self._check_readable()
        if self._ended:
            raise ConfigurationError(_OVER)
        return self

    async def __anext__(self) -> bytes:
        await self._open()
        if not self._rest:
            return await self._step()
        chunk, self._rest = bytes(self._rest), memoryview(b"")
        return chunk

    async def read(self, n: int | None = -1) -> bytes:
        """Return the next `n` bytes, fewer only at the end; all that are left if `n` is -1 or None."""
        left = -1 if n is None or n == -1 else checked_count(n, "n")
        pieces: list[memoryview] = []
        with contextlib.suppress(StopAsyncIteration):
            await self._open()
            while left:
                if not self._rest:
                    self._rest = memoryview(await self._step())
                pieces.append(self._rest if left < 0 else self._rest[:left])
                self._rest = self._rest[len(pieces[-1]) :]
                left -= 0 if left < 0 else len(pieces[-1])
            if self._received == self._transfer.size and not self._rest:
                await self._step()  # verifies all of it before its last byte is returned
        return b"".join(pieces)

    def _check_readable(self) -> None:
        self._bound.get()
        if self._over:
            raise ConfigurationError(_OVER)
        if self._reader is not None:
            raise ConfigurationError("another task waits for a chunk of this MediaStream: read it in one task")

    async def _open(self) -> None:
        self._check_readable()
        if not self._opened:
            await self._step()

    async def _step(self) -> bytes:
        """Return the next chunk. A cancellation arrives here whatever task reads, and `aclose` waits until it has."""
        self._reader = task = asyncio.current_task()
        self._idle.clear()
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            self._ended = True
            raise
        except asyncio.CancelledError:
            self._over = True
            if self._left and task is not None and not task.uncancel():  # by `aclose` alone
                raise ConfigurationError(_OVER) from None
            raise
        except BaseException:
            self._over = True
            raise
        finally:
            self._reader = None
            self._idle.set()
        self._received += len(chunk)
        return chunk


@attrs.frozen(kw_only=True)
class MediaStreamSource(Source):
    """A `MediaStream` to upload, which has name and type. It is opened here unless it is already."""

    download: MediaStream = attrs.field(repr=False)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Body]:
        """See `Source`."""
        opening = contextlib.nullcontext() if self.download.opened else self.download
        async with opening, open_stream(aiter(self.download), self.download.size) as body:
            body.name, body.mime_type = self.download.filename, self.download.mime_type
            yield body


async def _chunks(
    make_call: Callable[[], Call], what: object, start: int, end: int | None, opened: list[_Transfer]
) -> AsyncGenerator[bytes, None]:
    """Open a download, add it to `opened`, and yield nothing; then yield its chunks. Dropped half way, it closes itself."""
    async with make_call() as call, _open_transfer(call, ResumableBody(call, what, start, end)) as transfer:
        opened.append(transfer)
        yield b""
        async with contextlib.aclosing(transfer.views()) as views:
            async for view in views:
                yield bytes(view)


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
                async with _open_transfer(call, body) as transfer:
                    reporter = ProgressReporter(progress, transfer.size)
                    async with contextlib.aclosing(transfer.views(sink)) as views:
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
            path=await sink.commit(transfer.filename),
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
            async with _open_transfer(call, body, max_size) as transfer, contextlib.aclosing(transfer.views()) as views:
                return b"".join([bytes(view) async for view in views])
        except MediaError as error:
            await body.recover(error)
