"""
An opened source: its first bytes, its size, and its chunks.

Memory and seekable files know their size and can be read again. A stream can be read once. Unless its size was declared, it
is spooled until its end is seen. The caller's handle stays open, and its position is restored.
"""

from __future__ import annotations

import abc
import contextlib
import io
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from stat import S_ISFIFO, S_ISREG
from typing import Any

from meta_media.errors import CorruptedMediaError, InvalidMediaError
from meta_media.protocol.formats import Signature
from meta_media.protocol.media_types import HEAD_SIZE
from meta_media.protocol.signatures import sniff_steps
from meta_media.transfer.adapters import Buffer, name_in_archive, takes
from meta_media.transfer.files import open_file, pipe_chunks, spooled
from meta_media.transfer.readers import BATCH_SIZE, as_bytes, check_handle, handle_chunks, response_chunks
from meta_media.transfer.threads import FileWork, await_completion, prefetch, storage_errors

__all__ = [
    "Body",
    "ChunkSize",
    "MemoryBody",
    "make_replayable",
    "open_handle",
    "open_path",
    "open_response",
    "open_stream",
]

ChunkSize = Callable[[], int]  # returns the bytes of the next chunk, at most


class Body(abc.ABC):
    """An opened source."""

    head: bytes  # the first `HEAD_SIZE` bytes, or all bytes of a shorter source
    content: Buffer | None = None  # all bytes, if they are in memory
    size: int | None  # in bytes; None until `measure` has found it out
    replayable = True  # whether `chunks` may be called (again)
    immutable = False  # whether the bytes cannot change any more
    stat: os.stat_result | None = None  # of the regular file whose whole content this is; None for anything else
    name: str | None = None  # that was found out by opening it
    mime_type: str | None = None  # likewise
    seekable = True  # whether `at` can read all of it; a stream becomes seekable when `measure` spools it
    sha256: str | None = None  # that the bytes must have
    repackaged_size: int | None = None  # bytes of the file of which this is the Opus in Ogg; None for anything else
    prepared: tuple[str, int] | None = None  # MIME type and size that it is sent with, if it was judged already
    spent: str | None = None  # why there is nothing to read, and what to do; None if there is, or if it is empty

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


@asynccontextmanager
async def open_path(path: str | os.PathLike[str]) -> AsyncIterator[Body]:
    """Open a file by its path, on a thread. A small file is read and closed at once."""
    async with open_file(path, HEAD_SIZE) as opened:
        if opened.content is not None:
            body = MemoryBody(opened.content, opened.stat)
            body.name = opened.name
            yield body
            return
        chunks = pipe_chunks(opened.file, BATCH_SIZE) if S_ISFIFO(opened.stat.st_mode) else None
        seekable = open_handle(opened.file, None, stat=opened.stat, work=opened.work)
        async with seekable if chunks is None else open_stream(_read_errors(chunks), None) as whole:
            whole.name = opened.name
            yield whole


@asynccontextmanager
async def open_handle(
    handle: Any,
    size: int | None,
    *,
    stat: os.stat_result | None = None,
    whole: bool = False,
    name: str | None = None,
    work: FileWork | None = None,
) -> AsyncIterator[Body]:
    """
    Read a handle from its position, or `whole`. A handle that cannot seek, such as a pipe, is read as a stream.

    `name` may be that of the archive that it reads from. `stat` is of a file that was just opened by its path.
    """
    work = work or FileWork(handle, limit=None)
    with storage_errors("read the source"):
        extent = (0, stat.st_size) if stat and stat.st_size > HEAD_SIZE and S_ISREG(stat.st_mode) else None
        if extent is None and check_handle(handle):
            extent = await _extent(handle, work)
    if extent is None:
        async with open_stream(_read_errors(handle_chunks(handle)), size) as body:
            body.name = name_in_archive(name, body.head)
            yield body
        return
    position, end = extent
    start = 0 if whole else position
    try:
        with storage_errors("read the source"):
            await work.call(handle.seek, start)
            head = b""
            while len(head) < HEAD_SIZE and (chunk := await work.call(handle.read, HEAD_SIZE - len(head))):
                head += as_bytes(chunk)
        seekable = _SeekableBody(handle, work, start, max(end - start, 0), head, stat)
        seekable.name = name_in_archive(name, head)
        seekable.spent = "it stands at its end: call seek(0), or pass getvalue()" if 0 < end <= start else None
        yield seekable
    finally:
        with contextlib.suppress(OSError, ValueError):  # a position that cannot be restored must not hide the outcome
            await work.finish(handle.seek, position)


async def _extent(handle: Any, work: FileWork) -> tuple[int, int] | None:
    """Return the position of a handle, and its end, where it then stands; None if it cannot seek, like a pipe or a socket."""
    try:
        position = await work.call(handle.tell)
        await work.call(handle.seek, position)
        if not isinstance(position, int) or not takes(handle.seek, 0, os.SEEK_END):
            return None
        try:
            await work.call(handle.seek, 0, os.SEEK_END)
            return position, int(await work.call(handle.tell))
        except BaseException:
            with contextlib.suppress(OSError, ValueError):
                await work.finish(handle.seek, position)
            raise
    except (AttributeError, OSError, TypeError):  # TypeError: its end is not known, as with s3fs' open_async
        return None


async def _read_errors(chunks: AsyncIterator[Buffer]) -> AsyncIterator[Buffer]:
    with storage_errors("read the source"):
        async for chunk in chunks:
            yield chunk


@asynccontextmanager
async def open_response(response: Any, size: int | None) -> AsyncIterator[Body]:
    """Read the response of an HTTP client, once."""
    async with open_stream(response_chunks(response), size) as body:
        if not body.head:
            body.spent = "it is empty, or was read already: pass what was read"
        yield body


class MemoryBody(Body):
    """Bytes in memory, which are not copied."""

    def __init__(self, data: Buffer, stat: os.stat_result | None = None) -> None:
        self.content = self._view = _octets(data)
        self.size = self._view.nbytes
        self.immutable = isinstance(data, bytes)
        self.head = data if isinstance(data, bytes) and len(data) <= HEAD_SIZE else bytes(self._view[:HEAD_SIZE])
        self.stat = stat

    async def measure(self, limit: int, memory: int) -> int:
        """See `Body`."""
        return self._view.nbytes

    async def at(self, offset: int, size: int) -> bytes:
        """See `Body`."""
        return bytes(self._view[offset : offset + size])

    async def chunks(self, chunk_size: ChunkSize) -> AsyncGenerator[Buffer, None]:
        """See `Body`."""
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
        return view.cast("B") if view.nbytes and view.c_contiguous else memoryview(view.tobytes())
    except ValueError as error:
        raise InvalidMediaError("the memoryview was released: pass it earlier, or pass the bytes") from error


class _SeekableBody(Body):
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


class _StreamBody(_SeekableBody):
    """
    A stream, which is read once.

    Of declared size, it is sent as it comes. Otherwise `measure` spools it: to memory, then to a temporary file, from which
    the chunks are read.
    """

    def __init__(self, first: bytes, rest: AsyncIterator[bytes], size: int | None, stack: AsyncExitStack) -> None:
        super().__init__(None, FileWork("a temporary file"), 0, size or 0, first[:HEAD_SIZE], None)
        self.seekable = False
        self.size = size
        self.spools = size is None
        self._declared = size
        self._first = first
        self._rest = rest
        self._stack = stack  # closes the temporary file

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
        self.replayable = self.spools
        return super().chunks(chunk_size) if self.spools else self._pass_on(chunk_size)

    async def _pass_on(self, chunk_size: ChunkSize) -> AsyncGenerator[Buffer, None]:
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
    if isinstance(body, _StreamBody):
        body.spools = True


@asynccontextmanager
async def open_stream(stream: AsyncIterator[Buffer], size: int | None) -> AsyncIterator[Body]:
    """Read an iterator over buffers of any length, once. Without a declared size, more than one batch is spooled."""
    async with AsyncExitStack() as stack:
        batches = await stack.enter_async_context(contextlib.aclosing(_batched(stream)))
        first = await anext(batches, b"")
        if size is None and len(first) < BATCH_SIZE:  # the stream has ended
            yield MemoryBody(first)
        else:
            yield _StreamBody(first, batches, size, stack)


async def _batched(stream: AsyncIterator[Buffer]) -> AsyncGenerator[bytes, None]:
    """Join small buffers, so that threads and packets are not used for a few bytes each."""
    batch: list[bytes] = []
    size = 0
    async for buffer in stream:
        if chunk := as_bytes(buffer):
            batch.append(chunk)
            size += len(chunk)
        if size >= BATCH_SIZE:
            yield b"".join(batch)
            batch, size = [], 0
    yield b"".join(batch)
