"""`MediaStream`: a download whose bytes are read as they arrive."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, Self

import attrs

from meta_media.errors import ConfigurationError
from meta_media.http.call import Call
from meta_media.http.loop_bound import LoopBound
from meta_media.protocol.models import MediaInfo
from meta_media.transfer.bodies import Body
from meta_media.transfer.download import Transfer, open_transfer
from meta_media.transfer.opening import open_stream
from meta_media.transfer.resume import ResumableBody, checked_count
from meta_media.transfer.sources import Source
from meta_media.transfer.threads import await_completion

__all__ = ["MediaStream", "MediaStreamSource"]

_NOT_OPEN: Final = "the stream is not open yet: use `async with media.stream(...) as stream` first"
_OVER: Final = "a MediaStream can be read once, inside its block: call media.stream again"


class MediaStream:
    """
    A download in progress, in chunks of bytes that can be read once: `async with media.stream(what) as stream`.

    It is an async iterator over chunks of `Settings.chunk_size` bytes, and has `read`. Without a block, it opens at the first
    step and closes at its end. When it ends without an error, the length of the bytes that it returned has been verified, and
    their SHA-256 where Meta gave one. The attributes are known once it is open.
    """

    def __init__(self, make_call: Callable[[], Call], what: object, start: int, end: int | None) -> None:
        self._make = functools.partial(MediaStream, make_call, what, start, end)  # another one of the same bytes
        self._opened: list[Transfer] = []
        # It refers to no `MediaStream`, so that no cycle keeps it.
        self._chunks = _chunks(make_call, what, start, end, self._opened)
        self._rest = memoryview(b"")  # of a chunk of which `read` returned the beginning
        self._reader: asyncio.Task[object] | None = None  # the task that waits for a chunk
        self._idle = asyncio.Event()  # set when none does any more
        self._bound = LoopBound("MediaStream", lambda _: None)
        self._ended = False  # after the last byte, verified
        self._over = False  # after an error, a cancellation or the end of the block
        self._left = False  # closed without an error
        self._received = 0  # bytes of all chunks

    @property
    def _transfer(self) -> Transfer:
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
        return MediaStreamSource(download=self, make=self._make)

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
    make: Callable[[], MediaStream] = attrs.field(repr=False)  # returns another download of the same bytes
    size: int | None = attrs.field(default=None, repr=False)  # that they must have

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Body]:
        """See `Source`."""
        opening = contextlib.nullcontext() if self.download.opened else self.download
        async with opening, open_stream(aiter(self.download), self.size or self.download.size) as body:
            body.name, body.mime_type = self.download.filename, self.download.mime_type
            yield body

    @property
    def again(self) -> Callable[[int], Awaitable[Source]]:
        """See `Source`. The download that ends gives its slot back."""
        return self._again

    async def _again(self, size: int) -> Source:
        await self.download.aclose()
        return attrs.evolve(self, download=self.make(), size=size)


async def _chunks(
    make_call: Callable[[], Call], what: object, start: int, end: int | None, opened: list[Transfer]
) -> AsyncGenerator[bytes, None]:
    """Open a download, add it to `opened`, and yield nothing; then yield its chunks. Dropped half way, it closes itself."""
    async with make_call() as call, open_transfer(call, ResumableBody(call, what, start, end)) as transfer:
        opened.append(transfer)
        call.keep_slot()  # an upload may read from this download
        call.leave_context()
        yield b""
        async with contextlib.aclosing(transfer.chunks(bytes)) as chunks:
            async for chunk in chunks:
                yield chunk
