"""
Bytes in: whatever a caller may hand to `upload`, as one kind of thing with a name, a size, a beginning and chunks.

A `Source` says what the bytes are. Opening it gives a `Body`, which has read its head, knows its size or can measure it
(spooling what cannot be known otherwise), and yields its bytes. The caller's handle is left open, and where it stood.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import PurePath
from typing import Any, Final, Protocol
from urllib.parse import unquote, urlsplit

import attrs

from .errors import CorruptedMediaError, InvalidMediaError
from .files import opened, settled, spooled, started, storage_errors
from .http import network_error
from .media_types import HEAD_SIZE

__all__ = ["Body", "Source"]

Buffer = bytes | bytearray | memoryview
_SPOOL_IN_MEMORY: Final = 2**20  # bytes of a source of unknown size before a temporary file takes over
_BATCH: Final = 2**18  # bytes gathered from a plain iterable in one go on a thread


class Body(Protocol):
    """
    An opened source.

    Attributes:
        head: The first `media_types.HEAD_SIZE` bytes, or all there are.
        size: Bytes in all; None where only `measure` can tell.
        replayable: Whether `chunks` may be called again, for another attempt.
    """

    head: bytes
    size: int | None
    replayable: bool

    async def measure(self, limit: int) -> int:
        """Return the size; where it is unknown, spool until the end, or until it is clear that it is over the limit."""
        ...

    def chunks(self, chunk_size: int) -> AsyncGenerator[Buffer, None]:
        """Yield all bytes, in chunks of at most so many; `CorruptedMediaError` when they are not `size` bytes."""
        ...


@attrs.frozen(kw_only=True)
class Source:
    """
    Something to upload.

    `upload` makes one of whatever it is given; the constructors `path`, `bytes`, `handle` and `stream` say it outright.

    Attributes:
        name: The file's name, where there is one.
        mime_type: What came with it (a browser's word, a header); weaker than the bytes' own signature.
    """

    open: Callable[[], AbstractAsyncContextManager[Body]] = attrs.field(repr=False)
    name: str | None = None
    mime_type: str | None = None

    @classmethod
    def of(cls, source: object, *, size: int | None = None) -> Source:
        """Make a source of anything that `upload` takes; a `str` is always a path."""
        if isinstance(source, Source):
            return source
        if isinstance(source, str | os.PathLike):
            return cls.path(source)
        if isinstance(source, Buffer):
            return cls.bytes(source)
        if hasattr(source, "aiter_bytes") and hasattr(source, "headers"):
            return _response(source, size)
        if hasattr(source, "read"):
            return cls.handle(source, size=size)
        if isinstance(source, AsyncIterable | Iterable):
            return cls.stream(source, size=size)
        raise InvalidMediaError(
            f"cannot upload a {type(source).__name__}: pass a path, bytes, an async file handle, a binary file object,"
            " an iterable of bytes, or an httpx.Response being streamed"
        )

    @classmethod
    def path(cls, path: str | os.PathLike[str]) -> Source:
        """Read a file, off the event loop."""
        return cls(open=lambda: _open_path(path), name=PurePath(os.fsdecode(path)).name)

    @classmethod
    def bytes(cls, data: Buffer, *, name: str | None = None) -> Source:
        """Send bytes from memory, without copying them."""
        return cls(open=lambda: contextlib.nullcontext(_Memory(data)), name=name)

    @classmethod
    def handle(cls, handle: Any, *, name: str | None = None, size: int | None = None) -> Source:
        """
        Read from where an open handle stands to its end, and put it back there afterwards.

        Args:
            handle: Anything with `async read(n)` (aiofiles, `anyio.AsyncFile`), a binary file object, or an upload as
                Starlette and FastAPI give it (`UploadFile`). Plain `read` is called off the event loop.
            name: The file's name; default the handle's own.
            size: Bytes, for a handle that cannot seek. Without it such a handle is spooled.
        """
        own = getattr(handle, "filename", None) or getattr(handle, "name", None)
        claimed = getattr(handle, "content_type", None)
        inner = getattr(handle, "file", None)  # UploadFile: its async face cannot tell where it stands
        return cls(
            open=lambda: _open_handle(inner if hasattr(inner, "tell") else handle, size),
            name=name or (PurePath(own).name if isinstance(own, str) else None),
            mime_type=claimed if isinstance(claimed, str) else None,
        )

    @classmethod
    def stream(
        cls, chunks: AsyncIterable[Buffer] | Iterable[Buffer], *, name: str | None = None, size: int | None = None
    ) -> Source:
        """
        Send what an iterable yields, once.

        Args:
            chunks: Async, or plain, which is advanced off the event loop.
            name: The file's name.
            size: Bytes in all. Without it they are spooled: in memory, then in a private temporary file.
        """
        return cls(open=lambda: _open_stream(_buffers(chunks), size), name=name)


def _response(response: Any, size: int | None) -> Source:
    """Read what another server sends; its length counts only if it is the length of what we read."""
    length = response.headers.get("content-length", "")
    if size is None and length.isdecimal() and not response.headers.get("content-encoding"):
        size = int(length)
    return Source(
        open=lambda: _open_stream(_received(response), size),
        name=unquote(PurePath(urlsplit(str(response.url)).path).name) or None,  # never its query: it may be a signature
        mime_type=response.headers.get("content-type"),
    )


async def _received(response: Any) -> AsyncIterator[bytes]:
    if not response.is_success:
        raise InvalidMediaError(f"the response to upload is an error itself: HTTP {response.status_code}")
    try:
        async for chunk in response.aiter_bytes():
            yield chunk
    except Exception as error:
        raise network_error(error, "the source broke off") from error


@asynccontextmanager
async def _open_path(path: str | os.PathLike[str]) -> AsyncIterator[Body]:
    async with opened(path, "rb") as handle, _open_handle(handle, None) as body:
        yield body


@asynccontextmanager
async def _open_handle(handle: Any, size: int | None) -> AsyncIterator[Body]:
    file = handle if inspect.iscoroutinefunction(handle.read) else _Threaded(handle)
    with storage_errors("read the source"):
        start = await _position(file)
    if start is None:
        async with _open_stream(_reading(file), size) as body:
            yield body
        return
    try:
        with storage_errors("read the source"):
            await file.seek(0, os.SEEK_END)
            end = await file.tell()
            await file.seek(start)
            head = b""
            while chunk := await file.read(HEAD_SIZE - len(head)):
                head += _checked(chunk)
        yield _Seekable(file, start, max(end - start, 0), head)
    finally:
        with contextlib.suppress(OSError, ValueError):  # the transfer's own outcome matters more than this courtesy
            await settled(file.seek(start))


async def _position(file: Any) -> int | None:
    """Tell where a handle stands; None for a pipe or a socket, which cannot say."""
    try:
        position = await file.tell()
        await file.seek(position)
    except (AttributeError, OSError):
        return None
    return int(position)


async def _reading(file: Any) -> AsyncIterator[Buffer]:
    while True:
        with storage_errors("read the source"):
            chunk = await file.read(_BATCH)
        if not chunk:
            return
        yield _checked(chunk)


class _Threaded:
    """
    A plain binary file object with an async face.

    A cancelled read is not waited for: it may be of a pipe that stays silent, and a file object locks itself.
    """

    def __init__(self, file: Any) -> None:
        self._file = file

    async def read(self, size: int) -> Any:
        return await started(self._file.read, size)

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> Any:
        return await started(self._file.seek, offset, whence)

    async def tell(self) -> Any:
        return await started(self._file.tell)


class _Memory:
    replayable = True

    def __init__(self, data: Buffer) -> None:
        view = memoryview(data)
        self._view = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
        self.size: int | None = self._view.nbytes
        self.head = bytes(self._view[:HEAD_SIZE])

    async def measure(self, limit: int) -> int:
        return self._view.nbytes

    async def chunks(self, chunk_size: int) -> AsyncGenerator[Buffer, None]:
        for start in range(0, self._view.nbytes, chunk_size):
            yield self._view[start : start + chunk_size]


class _Seekable:
    replayable = True

    def __init__(self, file: Any, start: int, size: int, head: bytes) -> None:
        self._file = file
        self._start = start
        self._size = size
        self.size: int | None = size
        self.head = head

    async def measure(self, limit: int) -> int:
        return self._size

    async def chunks(self, chunk_size: int) -> AsyncGenerator[Buffer, None]:
        left = self._size
        with storage_errors("read the source"):
            await self._file.seek(self._start)
        while left:
            with storage_errors("read the source"):
                chunk = await self._file.read(min(chunk_size, left))
            if not chunk:
                raise CorruptedMediaError(f"the source became shorter while it was sent: {left} bytes are missing")
            left -= len(chunk)
            yield chunk
        with storage_errors("read the source"):
            if await self._file.read(1):
                raise CorruptedMediaError(f"the source became longer than {self._size} bytes while it was sent")


class _Spooled:
    """A stream of unknown size, which is kept until its size is known."""

    replayable = True

    def __init__(self, head: bytes, chunks: AsyncIterator[bytes], stack: contextlib.AsyncExitStack) -> None:
        self._chunks = chunks
        self._stack = stack
        self._kept = _Seekable(None, 0, 0, head)
        self.size: int | None = None
        self.head = head[:HEAD_SIZE]

    async def measure(self, limit: int) -> int:
        total = 0
        file = await self._stack.enter_async_context(spooled(_SPOOL_IN_MEMORY))
        async for chunk in self._chunks:
            total += len(chunk)
            if total > limit:
                break
            with storage_errors("keep the source in a temporary file"):
                await settled(file.write(chunk))
        self.size = total
        self._kept = _Seekable(file, 0, total, self.head)
        return total

    def chunks(self, chunk_size: int) -> AsyncGenerator[Buffer, None]:
        return self._kept.chunks(chunk_size)


class _Declared:
    """A stream whose size the caller vouches for: it goes straight through, once."""

    replayable = False

    def __init__(self, head: bytes, chunks: AsyncIterator[bytes], size: int) -> None:
        self._chunks = chunks
        self._size = size
        self.size: int | None = size
        self.head = head[:HEAD_SIZE]

    async def measure(self, limit: int) -> int:
        return self._size

    async def chunks(self, chunk_size: int) -> AsyncGenerator[Buffer, None]:
        sent = 0
        async for chunk in self._chunks:
            sent += len(chunk)
            if sent > self._size:
                raise CorruptedMediaError(f"the source yields more than the {self._size} bytes it was declared to have")
            for start in range(0, len(chunk), chunk_size):
                yield memoryview(chunk)[start : start + chunk_size]
        if sent < self._size:
            raise CorruptedMediaError(
                f"the source ended after {sent} of the {self._size} bytes it was declared to have"
            )


@asynccontextmanager
async def _open_stream(buffers: AsyncIterator[Buffer], size: int | None) -> AsyncIterator[Body]:
    async with contextlib.AsyncExitStack() as stack:
        batches = await stack.enter_async_context(contextlib.aclosing(_batched(buffers)))
        first = await anext(batches, b"")
        chunks = await stack.enter_async_context(contextlib.aclosing(_chained(first, batches)))
        yield _Spooled(first, chunks, stack) if size is None else _Declared(first, chunks, size)


async def _batched(buffers: AsyncIterator[Buffer]) -> AsyncGenerator[bytes, None]:
    """Gather small buffers, so that a thread or a packet is rarely bothered with a few bytes."""
    batch: list[bytes] = []
    size = 0
    async for buffer in buffers:
        if chunk := _checked(buffer):
            batch.append(chunk)
            size += len(chunk)
        if size >= _BATCH:
            yield b"".join(batch)
            batch, size = [], 0
    yield b"".join(batch)


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    yield first
    async for chunk in rest:
        yield chunk


async def _buffers(chunks: AsyncIterable[Buffer] | Iterable[Buffer]) -> AsyncIterator[Buffer]:
    if isinstance(chunks, AsyncIterable):
        async for chunk in chunks:
            yield chunk
        return
    iterator = iter(chunks)
    while batch := await started(_pull, iterator):
        yield batch


def _pull(iterator: Iterator[Buffer]) -> bytes:
    batch = bytearray()
    for chunk in iterator:
        batch += _checked(chunk)
        if len(batch) >= _BATCH:
            break
    return bytes(batch)


def _checked(chunk: object) -> bytes:
    if not isinstance(chunk, Buffer):
        raise InvalidMediaError(f"the source gave {type(chunk).__name__} where bytes belong (is it open in text mode?)")
    return chunk if isinstance(chunk, bytes) else bytes(chunk)
