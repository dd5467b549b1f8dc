"""
Blocking work, which is file work, on threads of our own.

The event loop's default threads also resolve host names, so a file read there can wait behind a slow DNS server. And a
thread cannot be stopped, only waited for: were a cancelled caller to go on at once, it would close or delete a file that
the thread is still writing.

What is slow to import is imported where it is used: asyncio is there by then, and `http` has aiofiles loaded on a thread.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from stat import S_ISREG
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

import anyio
import attrs

from meta_media.errors import StorageError

if TYPE_CHECKING:
    from asyncio import CancelledError, Future
    from concurrent.futures import ThreadPoolExecutor

__all__ = [
    "OpenedFile",
    "await_completion",
    "open_file",
    "prefetch",
    "run_in_thread",
    "spooled",
    "storage_errors",
    "submit",
]

_WORKERS: Final = 16
T = TypeVar("T")
_threads: list[ThreadPoolExecutor] = []


def _executor() -> ThreadPoolExecutor:
    """Return the threads that all file work of this process shares."""
    from concurrent.futures import ThreadPoolExecutor

    if not _threads:
        _threads.append(ThreadPoolExecutor(_WORKERS, thread_name_prefix="meta_media"))
    return _threads[0]


with contextlib.suppress(AttributeError):  # Windows cannot fork
    os.register_at_fork(after_in_child=_threads.clear)  # threads do not survive it, and waiting for them would hang


def submit(work: Callable[..., T], *args: Any) -> Future[T]:
    """Start blocking work on our threads; a caller who is cancelled while awaiting it leaves it behind, at work."""
    import asyncio

    return asyncio.get_running_loop().run_in_executor(_executor(), work, *args)


async def run_in_thread(work: Callable[..., T], *args: Any) -> T:
    """Run blocking work on our threads, to its end; see `settled`."""
    return await await_completion(submit(work, *args))


async def await_completion(work: Awaitable[T], *, undo: Callable[[T], Awaitable[object] | None] | None = None) -> T:
    """
    Await work to its end, and only then let a cancellation through.

    Args:
        work: Something short, such as one write to a file.
        undo: What to do with a result that its cancelled caller will never see.
    """
    import asyncio

    task = asyncio.ensure_future(work)
    cancelled: CancelledError | None = None
    with anyio.CancelScope(shield=True):  # keeps anyio's cancellations away; asyncio's arrive all the same
        while not task.done():
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is None:
        return task.result()
    if task.exception() is None and undo is not None and (undoing := undo(task.result())) is not None:
        await await_completion(undoing)
    raise cancelled


async def prefetch(steps: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """Iterate, with the next step under way while this one is being used."""
    import asyncio

    async with contextlib.aclosing(steps):
        step: asyncio.Future[T | None] = asyncio.ensure_future(anext(steps, None))
        try:
            while (value := await await_completion(step)) is not None:
                step = asyncio.ensure_future(anext(steps, None))
                yield value
        finally:
            with contextlib.suppress(Exception):
                await await_completion(step)


@contextlib.contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Turn the system's refusal into a `StorageError` that says what could not be done."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a closed file, a NUL in a path
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise StorageError(f"could not {doing}: {why}", errno=getattr(error, "errno", None)) from error


@attrs.frozen
class OpenedFile:
    """
    A file that was opened to read.

    Attributes:
        file: Closed already if it was read whole.
        content: All of it, if it is small.
        state: As it was found.
    """

    file: IO[bytes]
    content: bytes | None
    stat: os.stat_result


def open_file(path: str | os.PathLike[str], small: int) -> AbstractAsyncContextManager[OpenedFile]:
    """
    Open a file to read on our threads, and close it there too, whatever happens.

    Args:
        path: Its name.
        small: Bytes up to which it is read and closed at once: each time that a thread is asked costs as much as the reading.
    """

    def opening() -> OpenedFile:
        with contextlib.ExitStack() as stack:  # closing a buffered pipe would wait for a cancelled read of it
            file = stack.enter_context(Path(path).open("rb", buffering=0))
            stat = os.fstat(file.fileno())
            known = S_ISREG(stat.st_mode) and 0 < stat.st_size <= small
            content = _whole(file, stat.st_size, small) if known else None
            if content is None:
                stack.pop_all()  # it stays open
            return OpenedFile(file, content, stat)

    def close(known: OpenedFile) -> Awaitable[None] | None:
        return None if known.file.closed else submit(known.file.close)

    return _closing(submit(opening), close, repr(os.fspath(path)))


def _whole(file: IO[bytes], size: int, small: int) -> bytes | None:
    content = b""
    while len(content) < size and (chunk := file.read(small + 1 - len(content))):
        content += chunk
    if len(content) <= small:
        return content
    file.seek(0)  # it has grown meanwhile
    return None


def spooled(in_memory: int) -> AbstractAsyncContextManager[Any]:
    """Make an async handle on memory and, beyond so many bytes, on a private temporary file that nobody else can open."""
    import aiofiles.tempfile

    spool = aiofiles.tempfile.SpooledTemporaryFile(max_size=in_memory, executor=_executor())
    return _closing(spool, lambda handle: handle.close(), "a temporary file")


@asynccontextmanager
async def _closing(
    opening: Awaitable[T], close: Callable[[T], Awaitable[object] | None], name: str
) -> AsyncIterator[T]:
    with storage_errors(f"open {name}"):
        handle = await await_completion(opening, undo=close)
    try:
        yield handle
    finally:
        with contextlib.suppress(OSError, ValueError):  # what was only read, or has no name, loses nothing by it
            if (closing := close(handle)) is not None:
                await await_completion(closing)
