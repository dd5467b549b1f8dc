"""
Opening a path to read, or a temporary file, and closing it again.

aiofiles is imported at first need, because it is slow to import. `http` has it loaded on a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from stat import S_ISFIFO, S_ISREG
from typing import IO, Any, Final

import attrs

from meta_media.transfer.adapters import path_in_words
from meta_media.transfer.threads import FileWork, await_completion, pool, storage_error, storage_errors

__all__ = ["OpenedFile", "open_file", "pipe_chunks", "spooled"]

_NON_BLOCKING: Final = getattr(os, "O_NONBLOCK", 0)  # else a named pipe is not opened before its writer comes
_FLAGS: Final = os.O_RDONLY | _NON_BLOCKING | getattr(os, "O_BINARY", 0)  # Windows would translate ends of lines


@attrs.frozen
class OpenedFile:
    """A file that was opened to read."""

    name: str  # the last part of its path
    file: Any  # a binary one; None if `content` has all of it
    content: bytes | None  # all bytes of a small file; None for a larger one
    stat: os.stat_result  # when the file was opened
    work: FileWork  # in which it is read


@asynccontextmanager
async def open_file(path: str | os.PathLike[str], small: int) -> AsyncIterator[OpenedFile]:
    """
    Open a file to read, and close it at the end of the block, both on a thread.

    A file of up to `small` bytes is read and closed at once: one hop to a thread costs as much as reading it.
    """
    work = FileWork(path)

    def opening() -> OpenedFile:
        local = os.fsdecode(path)  # calls `__fspath__`, once: it may fetch the file
        try:
            return _opened_file(Path(local), small, work)
        except (OSError, ValueError) as error:
            words, advice = path_in_words(path, local, error)
            failure = storage_error(f"open {words}", error, advice)
            failure.__cause__ = None if advice else error  # it shows the text, which may be a signed URL, uncut
        raise failure

    with storage_errors("open the path"):
        opened = await work.run(opening, undo=_close)
    try:
        yield opened
    finally:
        if opened.file is not None:
            with contextlib.suppress(OSError, ValueError):  # nothing is lost: the file was only read
                await work.finish(opened.file.close)


def _close(opened: OpenedFile) -> None:
    if opened.file is not None:
        opened.file.close()


def _opened_file(path: Path, small: int, work: FileWork) -> OpenedFile:
    descriptor = os.open(path, _FLAGS)
    try:
        stat = os.fstat(descriptor)
        is_small = S_ISREG(stat.st_mode) and 0 < stat.st_size <= small
        content = _read_all(descriptor, stat.st_size, small) if is_small else None
        if content is None:
            if _NON_BLOCKING and not S_ISFIFO(stat.st_mode):
                os.set_blocking(descriptor, True)
            return OpenedFile(path.name, os.fdopen(descriptor, "rb", buffering=0), None, stat, work)
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return OpenedFile(path.name, None, content, stat, work)


def _read_all(descriptor: int, size: int, small: int) -> bytes | None:
    content = b""
    while len(content) < size and (chunk := os.read(descriptor, small + 1 - len(content))):
        content += chunk
    if len(content) <= small:
        return content
    os.lseek(descriptor, 0, os.SEEK_SET)  # the file has grown
    return None


async def pipe_chunks(file: IO[bytes], size: int) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of a named pipe, up to `size` at a time, until its last writer closes it. No thread waits for it."""
    loop, work = asyncio.get_running_loop(), FileWork("a named pipe", limit=None, grace=0)
    while True:
        ready = loop.create_future()
        loop.add_reader(file, _set, ready)
        try:
            await work.settled(ready)
        finally:
            loop.remove_reader(file)
        chunk = file.read(size)
        if chunk == b"":
            return
        if chunk is not None:  # another reader was faster
            yield chunk


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


@asynccontextmanager
async def spooled(memory_size: int) -> AsyncIterator[Any]:
    """Open an async handle on memory, which moves to a private temporary file when it exceeds `memory_size` bytes."""
    import aiofiles.tempfile

    executor: Any = pool()
    spool = aiofiles.tempfile.SpooledTemporaryFile(max_size=memory_size, executor=executor)
    with storage_errors("open a temporary file"):
        handle = await await_completion(spool, undo=lambda handle: handle.close())
    try:
        yield handle
    finally:
        with contextlib.suppress(OSError, ValueError):  # nothing is lost: the file has no name
            await await_completion(handle.close())
