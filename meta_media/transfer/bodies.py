"""
What a source becomes when it is opened: a head, a size, and chunks.

Memory and whatever can seek know their size and can be read again. A stream does not: unless its size was declared, it is
spooled until its size is known. The caller's handle is left open, and where it stood.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

from meta_media.errors import CorruptedMediaError, InvalidMediaError
from meta_media.protocol.media_types import HEAD_SIZE
from meta_media.transfer.threads import await_completion, open_file, prefetch, spooled, storage_errors, submit

__all__ = ["Body", "Buffer", "Memory", "buffers", "make_replayable", "open_handle", "open_path", "open_stream"]

Buffer = bytes | bytearray | memoryview
_SPOOL_IN_MEMORY: Final = 2**20  # bytes of a source of unknown size before a temporary file takes over
_BATCH: Final = 2**18  # bytes gathered from a stream before anything is done with them


class Body(Protocol):
    """
    An opened source.

    Attributes:
        head: The first `media_types.HEAD_SIZE` bytes, or all there are.
        size: Bytes in all; None where only `measure` can tell.
        replayable: Whether `chunks` may be called, for the first try or another.
        fixed: Whether its bytes cannot change any more.
        state: Of the file on disk that it is all of, where it is one.
    """

    head: bytes
    size: int | None
    replayable: bool
    immutable: bool
    stat: os.stat_result | None

    async def measure(self, limit: int) -> int:
        """Return the size; where it is unknown, spool until the end, or until it is clear that it is over the limit."""
        ...

    def chunks(self, chunk_size: int) -> AsyncGenerator[Buffer, None]:
        """Yield all bytes, in chunks of at most so many; `CorruptedMediaError` when they are not `size` bytes."""
        ...


@asynccontextmanager
async def open_path(path: str | os.PathLike[str]) -> AsyncIterator[Body]:
    """Open a file, off the event loop."""
    async with open_file(path, HEAD_SIZE) as known:
        if known.content is not None:
            body = Memory(known.content)
            body.stat = known.stat
            yield body
            return
        async with open_handle(known.file, None) as large:
            large.stat = known.stat
            yield large


@asynccontextmanager
async def open_handle(handle: Any, size: int | None) -> AsyncIterator[Body]:
    """Read from where a handle stands; one that cannot seek, such as a pipe, is a stream."""
    file = handle if inspect.iscoroutinefunction(handle.read) else _Threaded(handle)
    with storage_errors("read the source"):
        start = await _position(file)
    if start is None:
        async with open_stream(_reading(file), size) as body:
            yield body
        return
    try:
        with storage_errors("read the source"):
            await file.seek(0, os.SEEK_END)
            end = await file.tell()
            await file.seek(start)
            head = b""
            while chunk := await await_completion(file.read(max(HEAD_SIZE - len(head), 0))):
                head += _checked(chunk)
        yield _Seekable(file, start, max(end - start, 0), head)
    finally:
        with contextlib.suppress(OSError, ValueError):  # the transfer's own outcome matters more than this courtesy
            await await_completion(file.seek(start))


async def _position(file: Any) -> int | None:
    """Tell where a handle stands; None for a pipe or a socket, which cannot say."""
    try:
        position = await file.tell()
        await file.seek(position)
    except (AttributeError, OSError, TypeError):  # TypeError: awaited what a half-async handle does at once
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

    A cancelled read of a pipe is not waited for: it may stay silent for ever. One of a file is, by `settled`: it would
    move the file's position after that has been restored.
    """

    def __init__(self, file: Any) -> None:
        self._file = file

    async def read(self, size: int) -> Any:
        return await submit(self._file.read, size)

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> Any:
        return await submit(self._file.seek, offset, whence)

    async def tell(self) -> Any:
        return await submit(self._file.tell)


class Memory:
    """Bytes that are there already."""

    replayable = True
    stat: os.stat_result | None = None

    def __init__(self, data: Buffer) -> None:
        view = memoryview(data)
        self._view = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
        self.size: int | None = self._view.nbytes
        self.immutable = isinstance(data, bytes)
        self.head = data if isinstance(data, bytes) and len(data) <= HEAD_SIZE else bytes(self._view[:HEAD_SIZE])

    async def measure(self, limit: int) -> int:
        """See `Body`."""
        return self._view.nbytes

    async def chunks(self, chunk_size: int) -> AsyncGenerator[Buffer, None]:
        """See `Body`."""
        for start in range(0, self._view.nbytes, chunk_size):
            yield self._view[start : start + chunk_size]


class _Seekable:
    replayable = True
    immutable = False
    stat: os.stat_result | None = None

    def __init__(self, file: Any, start: int, size: int, head: bytes) -> None:
        self._file = file
        self._start = start
        self._size = size
        self.size: int | None = size
        self.head = head

    async def measure(self, limit: int) -> int:
        return self._size

    def chunks(self, chunk_size: int) -> AsyncGenerator[Buffer, None]:
        return prefetch(self._read(chunk_size))

    async def _read(self, chunk_size: int) -> AsyncGenerator[Buffer, None]:
        left = self._size
        with storage_errors("read the source"):
            await self._file.seek(self._start)
        while left:
            with storage_errors("read the source"):
                chunk = await await_completion(self._file.read(min(chunk_size, left)))
            if not chunk:
                raise CorruptedMediaError(f"the source became shorter while it was sent: {left} bytes are missing")
            left -= len(chunk)
            if left < 0:
                break
            yield chunk
        with storage_errors("read the source"):
            if left or await await_completion(self._file.read(1)):
                raise CorruptedMediaError(f"the source became longer than {self._size} bytes while it was sent")


class _Spooled:
    """A stream of unknown size, which is kept until its size is known."""

    replayable = True
    immutable = False
    stat: os.stat_result | None = None

    def __init__(self, head: bytes, chunks: AsyncIterator[bytes], stack: contextlib.AsyncExitStack) -> None:
        self._chunks = chunks
        self._stack = stack
        self._kept = _Seekable(None, 0, 0, head)
        self._measured = False
        self.size: int | None = None
        self.head = head[:HEAD_SIZE]

    async def measure(self, limit: int) -> int:
        if self._measured:
            return self._kept.size or 0
        total = 0
        file = await self._stack.enter_async_context(spooled(_SPOOL_IN_MEMORY))
        async for chunk in self._chunks:
            total += len(chunk)
            if total > limit:
                break
            with storage_errors("keep the source in a temporary file"):
                await await_completion(file.write(chunk))
        with storage_errors("keep the source in a temporary file"):
            await await_completion(file.flush())  # a full disk shows now, not when it is read
        self.size = total
        self._kept, self._measured = _Seekable(file, 0, total, self.head), True
        return total

    def chunks(self, chunk_size: int) -> AsyncGenerator[Buffer, None]:
        return self._kept.chunks(chunk_size)


@asynccontextmanager
async def make_replayable(body: Body) -> AsyncIterator[Body]:
    """Make sure that a body can be read more than once: a stream of declared size is spooled like any other."""
    if not isinstance(body, _SizedStream):
        yield body
        return
    async with contextlib.AsyncExitStack() as stack:
        chunks = await stack.enter_async_context(contextlib.aclosing(body.chunks(_BATCH)))
        kept = _Spooled(body.head, _owned(chunks), stack)
        kept.size = body.size
        yield kept


async def _owned(chunks: AsyncIterator[Buffer]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield bytes(chunk)


class _SizedStream:
    """A stream whose size the caller vouches for: it goes straight through, once."""

    immutable = False
    stat: os.stat_result | None = None

    def __init__(self, head: bytes, chunks: AsyncIterator[bytes], size: int) -> None:
        self.replayable = True  # until it has been begun
        self._chunks = chunks
        self._size = size
        self.size: int | None = size
        self.head = head[:HEAD_SIZE]

    async def measure(self, limit: int) -> int:
        return self._size

    async def chunks(self, chunk_size: int) -> AsyncGenerator[Buffer, None]:
        self.replayable = False
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
async def open_stream(stream: AsyncIterator[Buffer], size: int | None) -> AsyncIterator[Body]:
    """Read an iterator once; without a size, only what fits one batch or has been spooled can be sent."""
    async with contextlib.AsyncExitStack() as stack:
        batches = await stack.enter_async_context(contextlib.aclosing(_batched(stream)))
        first = await anext(batches, b"")
        if size is None and len(first) < _BATCH:  # that was all of it
            yield Memory(first)
            return
        chunks = await stack.enter_async_context(contextlib.aclosing(_chained(first, batches)))
        yield _Spooled(first, chunks, stack) if size is None else _SizedStream(first, chunks, size)


async def _batched(stream: AsyncIterator[Buffer]) -> AsyncGenerator[bytes, None]:
    """Gather small buffers, so that a thread or a packet is rarely bothered with a few bytes."""
    batch: list[bytes] = []
    size = 0
    async for buffer in stream:
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


async def buffers(chunks: AsyncIterable[Buffer] | Iterable[Buffer]) -> AsyncIterator[Buffer]:
    """Iterate over an iterable, and off the event loop if it is a plain one."""
    if isinstance(chunks, AsyncIterable):
        async for chunk in chunks:
            yield chunk
        return
    iterator = iter(chunks)
    while batch := await submit(_pull, iterator):
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
