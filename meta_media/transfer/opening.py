"""
How a path, a handle, a stream or a response of an HTTP client becomes an opened source.

The caller's handle stays open, and its position is restored.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from stat import S_ISFIFO, S_ISREG
from typing import Any

from meta_media.protocol.media_types import HEAD_SIZE
from meta_media.transfer.adapters import Buffer, name_in_archive, takes
from meta_media.transfer.bodies import Body, MemoryBody, SeekableBody, StreamBody
from meta_media.transfer.files import OpenedFile, pipe_chunks
from meta_media.transfer.readers import BATCH_SIZE, as_bytes, check_handle, handle_chunks, response_chunks
from meta_media.transfer.threads import FileWork, storage_errors

__all__ = ["PathOpening", "open_handle", "open_response", "open_stream"]


class PathOpening:
    """Opens a file by its path, on a thread: `async with PathOpening(path) as body`. A small file is closed at once."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = OpenedFile(path, HEAD_SIZE)
        self._rest: AbstractAsyncContextManager[Body] | None = None

    async def __aenter__(self) -> Body:
        opened = await self._file.__aenter__()
        if opened.content is None:
            self._rest = _opened(opened)
            return await self._rest.__aenter__()
        body = MemoryBody(opened.content, opened.stat)
        body.name = opened.name
        return body

    async def __aexit__(self, *raised: Any) -> bool | None:
        return None if self._rest is None else await self._rest.__aexit__(*raised)


@asynccontextmanager
async def _opened(opened: OpenedFile) -> AsyncIterator[Body]:
    """Read a file that is not small, a pipe or a device, and close it."""
    async with AsyncExitStack() as stack:
        stack.push_async_exit(opened)
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
        seekable = SeekableBody(handle, work, start, max(end - start, 0), head, stat)
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


@asynccontextmanager
async def open_stream(
    stream: AsyncIterator[Buffer], size: int | None, again: Callable[[], AsyncIterator[Buffer]] | None = None
) -> AsyncIterator[Body]:
    """
    Read an iterator over buffers of any length, once. Without a declared size, more than one batch is spooled.

    `again` returns the iterator anew, and makes the body replayable.
    """
    async with AsyncExitStack() as stack:
        batches = await stack.enter_async_context(contextlib.aclosing(_batched(stream)))
        first = await anext(batches, b"")
        if size is None and len(first) < BATCH_SIZE:  # the stream has ended
            yield MemoryBody(first)
        else:
            yield StreamBody(first, batches, size, stack, again and (lambda: _batched(again())))


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
