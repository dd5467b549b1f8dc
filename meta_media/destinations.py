"""
Bytes out: a path, a folder, or whatever can be written to, as one kind of thing that takes chunks and is then committed.

A path never holds half a file: bytes go to a temporary file beside it, which replaces it only when they are complete and
verified, and is removed if they never are.
"""

from __future__ import annotations

import errno
import functools
import inspect
import os
import re
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Final, Protocol

from .errors import ConfigurationError, StorageError
from .files import in_thread, opened, storage_errors

__all__ = ["Destination", "Sink", "clean_stale", "open_sink"]

Destination = str | os.PathLike[str] | Any
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_SUFFIX: Final = ".meta-media.part"
_TEMPORARY: Final = re.compile(r"\.[0-9a-f]{16}" + re.escape(_SUFFIX))


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
async def open_sink(destination: Destination, *, overwrite: bool = True, fsync: bool = False) -> AsyncIterator[Sink]:
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
        target = Path(os.fsdecode(destination))
        with storage_errors(f"write to {str(target)!r}"):
            folder, name = await in_thread(_preflight, target, overwrite)
        temporary = folder / f".{os.urandom(8).hex()}{_SUFFIX}"
        try:
            async with opened(temporary, "wb", opener=_create) as file:
                yield _File(file, temporary, folder, name, overwrite=overwrite, fsync=fsync)
        finally:
            with storage_errors(f"remove {str(temporary)!r}"):
                await in_thread(functools.partial(temporary.unlink, missing_ok=True))
    elif inspect.iscoroutinefunction(getattr(destination, "write", None)):
        yield _AsyncHandle(destination)
    elif callable(getattr(destination, "write", None)):
        yield _Handle(destination)
    else:
        raise ConfigurationError(
            f"cannot download to a {type(destination).__name__}: pass a path, a folder, or something with write(bytes)"
        )


def _preflight(target: Path, overwrite: bool) -> tuple[Path, str | None]:
    if target.is_dir():
        return target, None
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        if not target.parent.is_dir():
            raise
        return target.parent, target.name
    if not overwrite:
        raise StorageError(f"{str(target)!r} exists already, and overwrite is off", errno=errno.EEXIST)
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):  # replacing /dev/null would harm everybody
        raise StorageError(f"{str(target)!r} is not a file; open it and pass the handle to write to it")
    return target.parent, target.name


def _create(path: str, _: int) -> int:
    return os.open(path, _CREATE, 0o600)


class _Blocking:
    rewindable = False

    async def rewind(self) -> None:
        """Do nothing: what was written has gone."""

    async def write(self, chunk: memoryview) -> None:
        """Do nothing: there is `blocking`."""


class _File(_Blocking):
    rewindable = True

    def __init__(
        self, file: IO[bytes], temporary: Path, folder: Path, name: str | None, *, overwrite: bool, fsync: bool
    ) -> None:
        self._fsync = fsync
        self._file = file
        self._temporary = temporary
        self._folder = folder
        self._name = name
        self._overwrite = overwrite

    def blocking(self, chunk: memoryview) -> None:
        with storage_errors(f"write to {str(self._folder)!r}"):
            self._file.write(chunk)

    async def rewind(self) -> None:
        with storage_errors(f"write to {str(self._folder)!r}"):
            await in_thread(self._empty)

    def _empty(self) -> None:
        self._file.seek(0)
        self._file.truncate()

    async def commit(self, name: str) -> Path:
        with storage_errors(f"write to {str(self._folder)!r}"):
            return await in_thread(self._place, name)

    def _place(self, name: str) -> Path:
        if self._fsync:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()  # a full disk may show only now
        target = self._place_beside_others(Path(name)) if self._name is None else self._place_at(self._name)
        if self._fsync:
            _sync_folder(self._folder)
        return target

    def _place_at(self, name: str) -> Path:
        target = self._folder / name
        self._temporary.chmod(_mode(target))
        if self._overwrite:
            self._temporary.replace(target)
        else:
            _claim(self._temporary, target)
        return target

    def _place_beside_others(self, name: Path) -> Path:
        self._temporary.chmod(_mode(None))
        number = 1
        while True:
            target = self._folder / (name if number == 1 else f"{name.stem} ({number}){name.suffix}")
            try:
                _claim(self._temporary, target)
            except FileExistsError:
                number += 1
            else:
                return target


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


def _claim(temporary: Path, target: Path) -> None:
    """Move to a name that nobody has; a hard link fails where one exists, and is never seen half done."""
    try:
        os.link(temporary, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: claim the name with an empty file instead
        os.close(os.open(target, _CREATE, 0o600))
        try:
            temporary.replace(target)
        except OSError:
            target.unlink()
            raise


def _sync_folder(folder: Path) -> None:
    """Let a name survive a power cut, too; systems that cannot open a folder keep names by other means."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


async def clean_stale(folder: str | os.PathLike[str], *, older_than: timedelta = timedelta(hours=1)) -> list[Path]:
    """
    Remove what downloads into a folder left when their process was killed, or the power was cut.

    Args:
        folder: Not searched below.
        older_than: How long nothing must have been written to a temporary file: a download under way writes to its own.

    Returns:
        What was removed.

    Raises:
        StorageError: It cannot be looked into, or something in it cannot be removed.
    """
    with storage_errors(f"clean {os.fsdecode(folder)!r}"):
        return await in_thread(_clean, Path(os.fsdecode(folder)), older_than.total_seconds())


def _clean(folder: Path, seconds: float) -> list[Path]:
    removed = []
    for path in sorted(folder.iterdir()):
        if _TEMPORARY.fullmatch(path.name) and time.time() - path.lstat().st_mtime >= seconds:
            path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def _mode(target: Path | None) -> int:
    """Keep the permissions of the file that is replaced; a new one gets what any new file gets."""
    if target is not None and target.is_file():
        return target.stat().st_mode & 0o777
    return 0o666 & ~_umask()


@functools.cache
def _umask() -> int:
    mask = os.umask(0o077)  # it can only be read by setting it; strict meanwhile, for other threads' sake
    os.umask(mask)
    return mask
