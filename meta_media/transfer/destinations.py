"""
Bytes out: a path, a folder, or whatever can be written to, as one kind of thing that takes chunks and is then committed.

A path never holds half a file: bytes go to a temporary file beside it, which replaces it only when they are complete and
verified, and is removed if they never are.
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
from typing import Any, Protocol

from meta_media.errors import ConfigurationError
from meta_media.transfer.atomic_file import AtomicFile
from meta_media.transfer.threads import await_completion, run_in_thread, storage_errors, submit

__all__ = ["Destination", "Sink", "open_sink"]

Destination = str | os.PathLike[str] | Any


class Sink(Protocol):
    """
    Where a download's bytes go: to `blocking`, which is called on a thread, or where there is none, to `write`.

    A chunk is the sink's until either has ended.

    Attributes:
        rewindable: Whether what was written can be taken back.
    """

    rewindable: bool

    @property
    def blocking(self) -> Callable[[memoryview], None] | None:
        """Take the next bytes."""
        ...

    async def write(self, chunk: memoryview) -> None:
        """Take the next bytes."""
        ...

    async def rewind(self) -> None:
        """Take back what was written."""
        ...

    async def commit(self, name: str) -> Path | None:
        """Make the bytes appear, in a folder under a name like this one; return the path, if there is one."""
        ...


@asynccontextmanager
async def open_sink(destination: Destination, *, overwrite: bool, fsync: bool) -> AsyncIterator[Sink]:
    """
    Prepare to write to a destination; nothing remains of it unless it is committed.

    Args:
        destination: A path; an existing folder, which gets a name that is still free; an async handle, anything with
            `async write(bytes)`, or a binary file object, written off the loop. Handles are not closed.
        overwrite: Whether a path may replace a file.
        fsync: Whether a path waits for the disk before it appears.

    Raises:
        StorageError: It cannot be written to: no such folder, no permission, exists already.
        ConfigurationError: It is none of these.
    """
    if isinstance(destination, str | os.PathLike):
        async with _drafted(Path(os.fsdecode(destination)), overwrite, fsync) as file:
            yield file
    elif inspect.iscoroutinefunction(getattr(destination, "write", None)):
        yield _AsyncHandle(destination)
    elif callable(getattr(destination, "write", None)):
        yield _Handle(destination)
    else:
        raise ConfigurationError(
            f"cannot download to a {type(destination).__name__}: pass a path, a folder, or something with write(bytes)"
        )


@asynccontextmanager
async def _drafted(target: Path, overwrite: bool, fsync: bool) -> AsyncIterator[_File]:
    doing = f"write to {str(target)!r}"
    with storage_errors(doing):
        beginning = submit(functools.partial(AtomicFile, target, overwrite=overwrite, fsync=fsync))
        draft = await await_completion(beginning, undo=lambda begun: run_in_thread(begun.discard))
    try:
        yield _File(draft, doing)
    except BaseException as error:
        try:
            await run_in_thread(draft.discard)
        except OSError as refused:
            error.add_note(f"the temporary file {draft.name} is still there: {refused.strerror}")
        raise
    with contextlib.suppress(OSError):  # the file is where it belongs; `clean_stale` will find what lies beside it
        await run_in_thread(draft.discard)


class _Blocking:
    rewindable = False

    async def rewind(self) -> None:
        """Do nothing: what was written has gone."""

    async def write(self, chunk: memoryview) -> None:
        """Do nothing: there is `blocking`."""


class _File(_Blocking):
    rewindable = True

    def __init__(self, draft: AtomicFile, doing: str) -> None:
        self._draft = draft
        self._doing = doing

    def blocking(self, chunk: memoryview) -> None:
        with storage_errors(self._doing):
            self._draft.file.write(chunk)

    async def rewind(self) -> None:
        with storage_errors(self._doing):
            await run_in_thread(self._draft.truncate)

    async def commit(self, name: str) -> Path:
        with storage_errors(self._doing):
            return await run_in_thread(self._draft.commit, name)


class _Handle(_Blocking):
    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def blocking(self, chunk: memoryview) -> None:
        with storage_errors("write to the destination"):
            while chunk:
                chunk = _left(chunk, self._handle.write(bytes(chunk)))  # which it may keep

    async def commit(self, name: str) -> None:
        """Do nothing: the bytes are where they belong."""


class _AsyncHandle:
    blocking = None
    rewindable = False

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def write(self, chunk: memoryview) -> None:
        with storage_errors("write to the destination"):
            while chunk:
                chunk = _left(chunk, await self._handle.write(bytes(chunk)))

    async def rewind(self) -> None:
        """Do nothing: what was written has gone."""

    async def commit(self, name: str) -> None:
        """Do nothing: the bytes are where they belong."""


def _left(chunk: memoryview, written: object) -> memoryview:
    """Return what is still to be written: an unbuffered file says how much it took, most say nothing useful."""
    if not isinstance(written, int) or isinstance(written, bool):
        return chunk[:0]
    if written <= 0:
        raise OSError(errno.EIO, "it takes nothing")
    return chunk[written:]
