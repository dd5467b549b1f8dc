"""
An opened source: its first bytes, its size, and its chunks.

Memory and seekable files know their size and can be read again. A stream can be read once. Unless its size was declared, it
is spooled until its end is seen.
"""

from __future__ import annotations

import abc
import contextlib
import io
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

from meta_media.errors import CorruptedMediaError, InvalidMediaError
from meta_media.protocol.formats import Signature
from meta_media.protocol.media_types import HEAD_SIZE
from meta_media.protocol.signatures import sniff_steps
from meta_media.transfer.adapters import Buffer
from meta_media.transfer.files import spooled
from meta_media.transfer.readers import as_bytes
from meta_media.transfer.threads import FileWork, await_completion, prefetch, storage_errors

__all__ = ["Body", "ChunkSize", "MemoryBody", "SeekableBody", "StreamBody", "make_replayable"]

ChunkSize = Callable[[], int]  # returns the bytes of the next chunk, at most


class Body(abc.ABC):
    """An opened source."""

    head: bytes  # the first `HEAD_SIZE` bytes, or all bytes of a shorter source
    content: Buffer | None = None  # all bytes, if they are in memory
    size: int | None  # in bytes; None until `measure` has found it out
    replayable = True  # whether `chunks` may be called (again)
    immutable = False  # whether the bytes cannot change any more
    stat: os.stat_result | None = None  # of the regular file whose whole content this is; None for anything else
    stamp: str | None = None  # text that changes with the bytes, for what is no file; None where there is no such text
    name: str | None = None  # that was found out by opening it
    mime_type: str | None = None  # likewise
    seekable = True  # whether `at` can read all of it; a stream becomes seekable when `measure` spools it
    sha256: str | None = None  # that the bytes must have
    repackaged_size: int | None = None  # bytes of the file of which this is the Opus in Ogg; None for anything else
    prepared: tuple[str, int] | None = None  # MIME type and size that it is sent with, if it was judged already
    spent: str | None = None  # why there is nothing to read, and what to do; None if there is, or if it is empty

    def in_memory(self, most: int) -> bool:
        """Return whether it has all its bytes in memory, and `most` of them at most."""
        return self.content is not None and self.size is not None and self.size <= most

    @abc.abstractmethod
    async def measure(self, limit: int, memory: int) -> int:
        """
        Return the size in bytes. A body of unknown size is spooled, until its end or until it exceeds the limit.

        `memory` is the bytes of the spool that are kept in memory, at most.
        """

    @abc.abstractmethod
    async def at(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; none if it is not seekable."""

    async def signature(self) -> tuple[Signature | None, bool]:
        """Return what its bytes are, by the head and the few beyond it that decide, and whether these could be read."""
        steps, seen = sniff_steps(self.head, self.size == len(self.head)), True
        try:
            offset, length = next(steps)
            while True:
                start, seen = offset if offset >= 0 else offset + (self.size or 0), self.seekable
                offset, length = steps.send(await self.at(start, length))
        except StopIteration as stop:
            return stop.value, seen

    @abc.abstractmethod
    def chunks(self, chunk_size: ChunkSize) -> AsyncGenerator[Buffer, None]:
        """Yield all bytes in chunks of at most `chunk_size()`. `CorruptedMediaError`: there are not `size` bytes."""


class MemoryBody(Body):
    """Bytes in memory, which are not copied."""

    def __init__(self, data: Buffer, stat: os.stat_result | None = None) -> None:
        self.content = self._view = _octets(data)
        self.size = self._view.nbytes
        self.immutable = isinstance(data, bytes)
        self.head = data if isinstance(data, bytes) and len(data) <= HEAD_SIZE else bytes(self._view[:HEAD_SIZE])
        self.stat = stat

    async def measure(self, limit: int, memory: int) -> int:
        return self._view.nbytes

    async def at(self, offset: int, size: int) -> bytes:
        return bytes(self._view[offset : offset + size])

    async def chunks(self, chunk_size: ChunkSize) -> AsyncGenerator[Buffer, None]:
        for chunk in _slices(self._view, chunk_size):
            yield chunk


def _slices(view: memoryview, chunk_size: ChunkSize) -> Iterator[memoryview]:
    while view:
        size = chunk_size()
        yield view[:size]
        view = view[size:]


def _octets(data: Buffer) -> memoryview:
    """Return memory as a view of single bytes. It is copied only if it does not lie in one piece, or is empty."""
    try:
        view = memoryview(data)
        if isinstance(data, bytes):
            return view
        return view.cast("B") if view.nbytes and view.c_contiguous else memoryview(view.tobytes())
    except TypeError as error:
        kind = type(data).__name__
        raise InvalidMediaError(f"Source.bytes takes bytes or a buffer, not a {kind}: encode text first") from error
    except ValueError as error:
        raise InvalidMediaError("the memoryview was released: pass it earlier, or pass the bytes") from error


class SeekableBody(Body):
    """A handle from a position to its end. The next chunk is read while the previous one is used."""

    def __init__(
        self, file: Any, work: FileWork, start: int, size: int, head: bytes, stat: os.stat_result | None
    ) -> None:
        self._file = file
        self._work = work
        self._start = start
        self._size = self.size = size
        self.head = head
        self.stat = stat

    async def measure(self, limit: int, memory: int) -> int:
        return self._size

    async def at(self, offset: int, size: int) -> bytes:
        if not self.seekable or not 0 <= offset < self._size:  # a disk may refuse to seek far beyond the end
            return b""
        with storage_errors("read the source"):
            await self._work.call(self._file.seek, self._start + offset)
            return as_bytes(await self._work.call(self._file.read, size))

    def chunks(self, chunk_size: ChunkSize) -> AsyncGenerator[Buffer, None]:
        return self._read_ahead(chunk_size) if type(self._file) is io.FileIO else prefetch(self._read(chunk_size))

    async def _read_ahead(self, chunk_size: ChunkSize) -> AsyncGenerator[Buffer, None]:
        """Read a raw file, whose next chunk needs no task of its own."""
        left, work, read = self._size, self._work, self._file.read
        with storage_errors("read the source"):
            await work.run(self._file.seek, self._start)
        ahead = work.start(read, min(chunk_size(), left) or 1)
        while True:
            with storage_errors("read the source"):
                chunk = await work.result(ahead)
            if not (left and chunk):
                break
            left -= len(chunk)
            ahead = work.start(read, min(chunk_size(), left) or 1)
            try:
                yield chunk
            except GeneratorExit:
                await work.drop(ahead)
                raise
        self._check_end(left, surplus=bool(chunk))

    async def _read(self, chunk_size: ChunkSize) -> AsyncGenerator[Buffer, None]:
        left, surplus = self._size, False
        with storage_errors("read the source"):
            await self._work.call(self._file.seek, self._start)
        while left > 0:
            with storage_errors("read the source"):
                chunk = as_bytes(await self._work.call(self._file.read, min(chunk_size(), left)) or b"")
            if not chunk:
                break
            left -= len(chunk)
            if left >= 0:
                yield chunk
        if not left:
            with storage_errors("read the source"):
                surplus = bool(await self._work.call(self._file.read, 1))
        self._check_end(left, surplus=surplus)

    def _check_end(self, left: int, *, surplus: bool) -> None:
        if left > 0:
            raise CorruptedMediaError(f"the source became shorter while it was sent: {left} bytes are missing")
        if left or surplus:
            raise CorruptedMediaError(f"the source became longer than {self._size} bytes while it was sent")


class StreamBody(SeekableBody):
    """
    A stream, which is read once, unless `again` begins it anew.

    Of declared size, it is sent as it comes. Otherwise `measure` spools it: to memory, then to a temporary file, from which
    the chunks are read.
    """

    def __init__(
        self,
        first: bytes,
        rest: AsyncIterator[bytes],
        size: int | None,
        stack: AsyncExitStack,
        again: Callable[[], AsyncIterator[bytes]] | None = None,
    ) -> None:
        super().__init__(None, FileWork("a temporary file"), 0, size or 0, first[:HEAD_SIZE], None)
        self.seekable = False
        self.size = size
        self.spools = size is None
        self._declared = size
        self._first = first
        self._rest = rest
        self._stack = stack  # closes the temporary file
        self._again = again
        self._begun = False

    async def measure(self, limit: int, memory: int) -> int:
        if self.spools and self._file is None:
            file = await self._stack.enter_async_context(spooled(memory))
            self.size = self._size = await self._spool(file, limit)
            self._file, self.seekable, self._first = file, True, b""
        return self._size

    async def _spool(self, file: Any, limit: int) -> int:
        total = 0
        async with contextlib.aclosing(self._batches()) as batches:
            async for batch in batches:
                total += len(batch)
                if total > limit:
                    break
                with storage_errors("keep the source in a temporary file"):
                    await await_completion(file.write(batch))
        with storage_errors("keep the source in a temporary file"):
            await await_completion(file.flush())  # reports a full disk now, not when the file is read
        return total

    def chunks(self, chunk_size: ChunkSize) -> AsyncGenerator[Buffer, None]:
        self.replayable = self.spools or self._again is not None
        return super().chunks(chunk_size) if self.spools else self._pass_on(chunk_size)

    async def _pass_on(self, chunk_size: ChunkSize) -> AsyncGenerator[Buffer, None]:
        if self._begun and self._again is not None:
            self._rest = self._again()
            self._first = await anext(self._rest, b"")
            if self._first[:HEAD_SIZE] != self.head:
                raise CorruptedMediaError("the source changed while it was sent: upload it again")
        self._begun = True
        async with contextlib.aclosing(self._batches()) as batches:
            async for batch in batches:
                for chunk in _slices(memoryview(batch), chunk_size):
                    yield chunk

    async def _batches(self) -> AsyncGenerator[bytes, None]:
        """Yield the stream. `CorruptedMediaError`: it does not have the declared size."""
        batch, sent = self._first, 0
        while batch:
            sent += len(batch)
            if self._declared is not None and sent > self._declared:
                raise CorruptedMediaError(f"the source yields more than the declared {self._declared} bytes")
            yield batch
            batch = await anext(self._rest, b"")
        if self._declared is not None and sent < self._declared:
            raise CorruptedMediaError(f"the source ended after {sent} of the declared {self._declared} bytes")


def make_replayable(body: Body) -> None:
    """Have `measure` spool a stream of declared size, too, so that it can be read more than once."""
    if isinstance(body, StreamBody):
        body.spools = True
