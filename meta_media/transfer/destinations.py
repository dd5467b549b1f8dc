"""
Destinations of a download: a path, a folder or a handle becomes a sink, which takes chunks and is then committed.

A path never holds half a file. The bytes go to a temporary file beside it. When they are complete and verified, that file
replaces the path; otherwise it is removed.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from meta_media.errors import ConfigurationError
from meta_media.transfer.atomic_file import AtomicFile
from meta_media.transfer.threads import await_completion, run_in_thread, storage_errors, submit

__all__ = ["Destination", "Sink", "open_sink"]

Destination = str | os.PathLike[str] | Any


class Sink:
    """The receiver of a download's bytes. A chunk may be reused once the call that writes it has returned."""

    rewindable = False  # whether written bytes can be taken back

    @property
    def blocking(self) -> Callable[[memoryview], None] | None:
        """Write the next bytes, on a thread; None for an async handle."""
        return None

    async def write(self, chunk: memoryview) -> None:
        """Write the next bytes; does nothing where `blocking` is used."""

    async def rewind(self) -> None:
        """Take back all written bytes."""

    async def commit(self, name: str) -> Path | None:
        """Make the file appear, in a folder under this name or a similar one. Return its path; None for a handle."""
        return None


@asynccontextmanager
async def open_sink(destination: Destination, *, overwrite: bool, fsync: bool) -> AsyncIterator[Sink]:
    """
    Open a destination for writing. Nothing of a path remains unless it is committed.

    It is a path; an existing folder, in which a free name is used; anything with `async write(bytes)`; or a binary file object,
    which is written on a thread. Handles are not closed.
    """
    if isinstance(destination, str | os.PathLike):
        async with _open_file(Path(os.fsdecode(destination)), overwrite, fsync) as file:
            yield file
    elif not callable(getattr(destination, "write", None)):
        raise ConfigurationError(
            f"cannot download to a {type(destination).__name__}: pass a path, a folder, or something with write(bytes)"
        )
    elif isinstance(getattr(destination, "encoding", None), str):
        raise ConfigurationError("the destination is open in text mode: open it with mode 'wb'")
    elif inspect.iscoroutinefunction(destination.write):
        yield _AsyncHandleSink(destination)
    else:
        yield _HandleSink(destination)


@asynccontextmanager
async def _open_file(path: Path, overwrite: bool, fsync: bool) -> AsyncIterator[_FileSink]:
    doing = f"write to {str(path)!r}"
    with storage_errors(doing):
        opening = submit(functools.partial(AtomicFile, path, overwrite=overwrite, fsync=fsync))
        file = await await_completion(opening, undo=lambda opened: run_in_thread(opened.discard))
    try:
        yield _FileSink(file, doing)
    except BaseException as error:
        try:
            await run_in_thread(file.discard)
        except OSError as failed:
            error.add_note(f"the temporary file {file.name} is still there: {failed.strerror}")
        raise
    with contextlib.suppress(OSError):  # the download has succeeded; `clean_stale` removes a leftover
        await run_in_thread(file.discard)


class _FileSink(Sink):
    rewindable = True

    def __init__(self, file: AtomicFile, doing: str) -> None:
        self._file = file
        self._doing = doing

    @property
    def blocking(self) -> Callable[[memoryview], None]:
        return self._write

    def _write(self, chunk: memoryview) -> None:
        with storage_errors(self._doing):
            self._file.file.write(chunk)

    async def rewind(self) -> None:
        with storage_errors(self._doing):
            await run_in_thread(self._file.truncate)

    async def commit(self, name: str) -> Path:
        with storage_errors(self._doing):
            return await run_in_thread(self._file.commit, name)


class _HandleSink(Sink):
    def __init__(self, handle: Any) -> None:
        self._handle = handle

    @property
    def blocking(self) -> Callable[[memoryview], None]:
        return self._write

    def _write(self, chunk: memoryview) -> None:
        with storage_errors("write to the destination"):
            while chunk:
                chunk = _rest(chunk, self._handle.write(bytes(chunk)))  # bytes: the handle may keep them


class _AsyncHandleSink(Sink):
    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def write(self, chunk: memoryview) -> None:
        with storage_errors("write to the destination"):
            while chunk:
                chunk = _rest(chunk, await self._handle.write(bytes(chunk)))


def _rest(chunk: memoryview, written: object) -> memoryview:
    """Return what is still to be written. An unbuffered file returns how much it took; None counts as all."""
    if not isinstance(written, int) or isinstance(written, bool):
        return chunk[:0]
    if written <= 0:
        raise OSError(errno.EIO, "it takes nothing")
    return chunk[written:]
