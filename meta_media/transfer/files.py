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

from meta_media.transfer.adapters import path_in_words
from meta_media.transfer.threads import FileWork, await_completion, pool, storage_error, storage_errors

__all__ = ["OpenedFile", "pipe_chunks", "spooled"]

_NON_BLOCKING: Final = getattr(os, "O_NONBLOCK", 0)  # else a named pipe is not opened before its writer comes
_FLAGS: Final = os.O_RDONLY | _NON_BLOCKING | getattr(os, "O_BINARY", 0)  # Windows would translate ends of lines


class OpenedFile:
    """
    A file to read, which is opened and closed on a thread: `async with OpenedFile(path, small) as opened`.

    A file of up to `small` bytes is read and closed at once, in one visit to a thread with others.
    """

    name: str  # the last part of its path
    file: Any = None  # a binary one; None if `content` has all of it
    content: bytes | None = None  # all bytes of a small file; None for a larger one
    stat: os.stat_result  # when the file was opened

    def __init__(self, path: str | os.PathLike[str], small: int) -> None:
        self._path = path
        self._small = small
        self.work = FileWork(path)  # in which it is read

    async def __aenter__(self) -> OpenedFile:
        await self.work.run_first(self._open, undo=lambda _: self._close())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.file is not None:
            with contextlib.suppress(OSError, ValueError):  # nothing is lost: the file was only read
                await self.work.finish(self.file.close)

    def _close(self) -> None:
        if self.file is not None:
            self.file.close()

    def _open(self) -> None:
        local = None
        try:
            path = self._path if isinstance(self._path, Path) else None
            # `__fspath__` is called once: it may fetch the file.
            local = os.fsdecode(self._path) if path is None else str(path)
            self._read_or_open(path or Path(local))
        except (OSError, ValueError) as error:
            words, advice = ("the path", "") if local is None else path_in_words(self._path, local, error)
            failure = storage_error(f"open {words}", error, advice)
            failure.__cause__ = None if advice else error  # it shows the text, which may be a signed URL, uncut
        else:
            return
        raise failure

    def _read_or_open(self, path: Path) -> None:
        descriptor = os.open(path, _FLAGS)
        try:
            self.name, self.stat = path.name, os.fstat(descriptor)
            is_file, size = S_ISREG(self.stat.st_mode), self.stat.st_size
            self.content = _read_all(descriptor, size, self._small) if is_file and 0 < size <= self._small else None
            if self.content is None:
                if _NON_BLOCKING and not S_ISFIFO(self.stat.st_mode):
                    os.set_blocking(descriptor, True)
                self.file = os.fdopen(descriptor, "rb", buffering=0)
                return
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


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
