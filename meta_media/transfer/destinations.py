"""
Destinations of a download: a path, a folder or a handle becomes a sink, which takes chunks and is then committed.

A path never holds half a file. The bytes go to a temporary file beside it. When they are complete and verified, that file
replaces the path; otherwise it is removed.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import errno
import functools
import inspect
import io
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from meta_media.errors import ConfigurationError, MediaError, StorageError
from meta_media.protocol.models import DownloadedMedia
from meta_media.protocol.secrets import excerpt
from meta_media.transfer import adapters
from meta_media.transfer.atomic_file import AtomicFile
from meta_media.transfer.threads import FileWork, storage_errors

__all__ = ["Destination", "FileSink", "Sink", "StoredDestination", "TemporaryCopy", "open_file_sink", "open_sink"]

Destination = str | os.PathLike[str] | Any
F = TypeVar("F", bound="FileSink")
_COPY_SIZE: Final = 2**20  # bytes copied at a time


class Sink:
    """The receiver of a download's bytes. A chunk may be reused once the call that writes it has returned."""

    rewindable = False  # whether written bytes can be taken back
    key: str | None = None  # of the object that was written, once it is
    work: Any = None  # the `FileWork` of `put`; None for a handle that belongs to the event loop

    def put(self, chunk: memoryview) -> None:
        """Write the next bytes, on a thread of `work`."""

    async def write(self, chunk: memoryview) -> None:
        """Write the next bytes, on the event loop; does nothing where there is `work`."""

    async def rewind(self) -> None:
        """Take back all written bytes."""

    async def commit(self, name: str, mime_type: str = "", sha256: str = "") -> Path | None:
        """Make the file appear, in a folder under this name or a similar one. Return its path, if it is a local one."""
        return None


class StoredDestination(abc.ABC):
    """A destination in a store elsewhere, which opens its own sink."""

    @property
    @abc.abstractmethod
    def identity(self) -> str:
        """Text that names the store and the place in it."""

    @abc.abstractmethod
    def folder(self) -> StoredDestination:
        """Return the folder of this name, for many downloads."""

    @abc.abstractmethod
    def open(self, *, overwrite: bool) -> AbstractAsyncContextManager[Sink]:
        """Open it for writing. Nothing appears in the store unless the sink is committed."""

    @abc.abstractmethod
    async def holds(self, value: DownloadedMedia) -> bool:
        """Return whether the store still has what was downloaded."""


@asynccontextmanager
async def open_sink(destination: Destination, *, overwrite: bool, fsync: bool) -> AsyncIterator[Sink]:
    """
    Open a destination for writing. Nothing of a path remains unless it is committed.

    It is a path or a folder of this machine; a path of another file system, which is opened by its own `open`; a binary file
    object, which is written on a thread; or anything else with `write`, which is called on the event loop, and awaited or
    drained there. Handles are not closed. A `StoredDestination` opens itself.
    """
    is_path = isinstance(destination, str | os.PathLike)
    if isinstance(destination, StoredDestination):
        async with destination.open(overwrite=overwrite) as stored:
            yield stored
    elif callable(getattr(destination, "write", None)) and (not is_path or hasattr(destination, "close")):
        yield _handle_sink(destination)
    elif is_path and adapters.is_local_path(destination):
        work = FileWork(destination)
        async with open_file_sink(work, functools.partial(_local_file, destination, overwrite, fsync)) as sink:
            yield sink
    elif adapters.opener(destination) is not None and not hasattr(destination, "mode"):
        work = FileWork(destination, limit=None)  # the copy may take as long as an upload
        async with open_file_sink(work, functools.partial(_copied_file, destination, overwrite)) as sink:
            yield sink
    else:
        raise ConfigurationError(
            f"cannot download to a {type(destination).__name__}: pass a path, a folder or something with write(bytes);"
            " to an object that sends or uploads, give the chunks of media.stream(...)"
        )


# Paths


def _local_file(destination: str | os.PathLike[str], overwrite: bool, fsync: bool) -> FileSink:
    path = os.fsdecode(destination)  # once, and on a thread, because it may be slow
    errors = functools.partial(storage_errors, f"write to {excerpt(path)}")
    with errors():
        return FileSink(AtomicFile(path, overwrite=overwrite, fsync=fsync), errors)


def _copied_file(path: Any, overwrite: bool) -> FileSink:
    name = excerpt(str(adapters.attribute(path, "name") or type(path).__name__))
    errors = functools.partial(_library_errors, f"write to {name}")
    with errors():
        return FileSink(_CopiedFile(path, name, overwrite), errors)


@contextlib.contextmanager
def _library_errors(doing: str) -> Iterator[None]:
    try:
        with storage_errors(doing):
            yield
    except MediaError:
        raise
    except Exception as error:  # each library for object storage has its own
        raise StorageError(f"could not {doing}: its library raised {type(error).__name__}") from error


class TemporaryCopy:
    """A private temporary file, in which bytes wait until they are verified. It has no name: a killed process leaves none."""

    name = "of a copy"

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 - `discard` closes it

    def discard(self) -> None:
        """Close the file, which is its end."""
        self.file.close()


class _CopiedFile(TemporaryCopy):
    """A file of another file system, to which the verified bytes are copied."""

    def __init__(self, path: Any, name: str, overwrite: bool) -> None:
        if (is_dir := adapters.attribute(path, "is_dir")) and is_dir():
            raise ConfigurationError(f"{name} is a folder elsewhere: pass the path of a file in it")
        if not overwrite and path.exists():
            raise StorageError(f"{name} exists already, and overwrite is off: choose another name", errno=errno.EEXIST)
        super().__init__()
        self._path = path

    def commit(self, name: str) -> None:
        self.file.seek(0)
        with self._path.open("wb") as target:
            shutil.copyfileobj(self.file, target, _COPY_SIZE)


@asynccontextmanager
async def open_file_sink(work: FileWork, opening: Callable[[], F]) -> AsyncIterator[F]:
    """Open a sink on a thread, and discard its file at the end."""
    sink = await work.run(opening, undo=lambda opened: opened.file.discard())
    sink.work = work
    try:
        yield sink
    except BaseException as error:
        try:
            await work.finish(sink.file.discard)
        except OSError as failed:
            error.add_note(f"the temporary file {sink.file.name} is still there: {failed.strerror}")
        raise
    with contextlib.suppress(OSError):  # the download has succeeded; `clean_stale` removes a leftover
        await work.finish(sink.file.discard)


class FileSink(Sink):
    """A sink whose bytes go to a temporary file, on a thread."""

    rewindable = True
    work: FileWork

    def __init__(self, file: Any, errors: Callable[[], AbstractContextManager[None]]) -> None:
        self.file = file  # an `AtomicFile` or a `TemporaryCopy`
        self._errors = errors

    def put(self, chunk: memoryview) -> None:
        with self._errors():
            self.file.file.write(chunk)

    async def rewind(self) -> None:
        with self._errors():
            await self.work.run(self._truncate)

    def _truncate(self) -> None:
        self.file.file.seek(0)
        self.file.file.truncate()

    async def commit(self, name: str, mime_type: str = "", sha256: str = "") -> Path | None:
        with self._errors():
            path: Path | None = await self.work.run(self.file.commit, name)
            return path


# Handles


def _handle_sink(handle: Any) -> Sink:
    """Return the sink for an open handle; raise if it cannot take bytes in order."""
    kind, mode, inner = type(handle).__name__, getattr(handle, "mode", None), getattr(handle, "wrapped", handle)
    names = adapters.parameters(handle.write)
    if "filename" in names or ("offset" in names and not hasattr(handle, "tell")):
        raise ConfigurationError(
            f"cannot download to a {kind}, whose write takes a name or an offset: open a file with it, and pass that"
        )
    is_text = isinstance(getattr(handle, "encoding", None), str)
    if is_text or isinstance(inner, io.TextIOBase) or isinstance(getattr(handle, "file", None), io.TextIOBase):
        raise ConfigurationError("the destination is open in text mode: open it with mode 'wb', or pass its buffer")
    closed = getattr(handle, "closed", False) is True
    closed |= isinstance(handle, asyncio.StreamWriter) and handle.is_closing()
    read_only = isinstance(mode, str) and not set(mode) & set("wax+")
    if closed or read_only or (isinstance(inner, io.IOBase) and not inner.writable()):
        state = "closed" if closed else "not open for writing"
        raise StorageError(f"could not write to the destination: it is {state}; open it with mode 'wb'")
    if inspect.iscoroutinefunction(handle.write):
        return _LoopSink(handle)
    blocks = isinstance(handle, io.IOBase) or isinstance(getattr(handle, "file", None), io.IOBase)
    return _ThreadSink(handle, asyncio.get_running_loop()) if blocks else _LoopSink(handle)


class _HandleSink(Sink):
    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def _call(self, chunk: memoryview) -> Any:
        try:
            return self._handle.write(bytes(chunk))  # bytes: the handle may keep them
        except TypeError as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
                raise  # of the caller's own code
            kind = type(self._handle).__name__
            raise ConfigurationError(f"cannot download to a {kind}: its write does not take bytes") from error

    def _rest(self, chunk: memoryview, written: object) -> memoryview:
        """Return what is still to be written. A file returns how much it took; anything but a number counts as all."""
        if written is None and isinstance(self._handle, io.RawIOBase):
            raise BlockingIOError(errno.EAGAIN, "it is not blocking")
        if not isinstance(written, int) or isinstance(written, bool):
            return chunk[:0]
        if written <= 0:
            raise OSError(errno.EIO, "it takes nothing")
        return chunk[written:]


class _ThreadSink(_HandleSink):
    """A file whose `write` blocks. Should it return an awaitable, the event loop awaits that."""

    def __init__(self, handle: Any, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(handle)
        self.work = FileWork(handle, limit=None)
        self._loop = loop

    def put(self, chunk: memoryview) -> None:
        with storage_errors("write to the destination"):
            while chunk:
                written = self._call(chunk)
                if inspect.isawaitable(written):
                    written = asyncio.run_coroutine_threadsafe(_result(written), self._loop).result()
                chunk = self._rest(chunk, written)


class _LoopSink(_HandleSink):
    """An object of the event loop's. What its `write` returns is awaited, else its `drain` is, if it has one."""

    async def write(self, chunk: memoryview) -> None:
        with storage_errors("write to the destination"):
            while chunk:
                written = self._call(chunk)
                if not inspect.isawaitable(written) and not isinstance(written, futures.Future):
                    await self._drain()
                chunk = self._rest(chunk, await _result(written))

    async def _drain(self) -> None:
        drain = getattr(self._handle, "drain", None)
        if callable(drain):
            await _result(drain())

    async def commit(self, name: str, mime_type: str = "", sha256: str = "") -> None:
        with storage_errors("write to the destination"):
            await self._drain()  # raises if the peer is gone


async def _result(value: Any) -> Any:
    """Await a value until it is not awaitable."""
    if isinstance(value, futures.Future):
        value = asyncio.wrap_future(value)
    return await value if inspect.isawaitable(value) else value
