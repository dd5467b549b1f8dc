"""
Blocking work, which is file work, on threads of our own.

The event loop's default threads also resolve host names, so a file read there can wait behind a slow DNS server. And a
thread cannot be stopped, only waited for: were a cancelled caller to go on at once, it would close or delete a file that
the thread is still writing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, TypeVar

import aiofiles
import anyio

from .errors import StorageError

__all__ = ["executor", "in_thread", "opened", "settled", "storage_errors"]

_WORKERS: Final = 16
T = TypeVar("T")
_threads: list[ThreadPoolExecutor] = []


def executor() -> ThreadPoolExecutor:
    """Return the threads that all file work of this process shares."""
    if not _threads:
        _threads.append(ThreadPoolExecutor(_WORKERS, thread_name_prefix="meta_media"))
    return _threads[0]


if hasattr(os, "register_at_fork"):  # threads do not survive a fork, and waiting for them would hang
    os.register_at_fork(after_in_child=_threads.clear)


async def in_thread(work: Callable[..., T], *args: Any) -> T:
    """Run blocking work on our threads, to its end; see `settled`."""
    return await settled(asyncio.get_running_loop().run_in_executor(executor(), work, *args))


async def settled(work: Awaitable[T], *, undo: Callable[[T], Awaitable[object]] | None = None) -> T:
    """
    Await work to its end, and only then let a cancellation through.

    Args:
        work: Something short, such as one write to a file.
        undo: What to do with a result that its cancelled caller will never see.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):  # keeps anyio's cancellations away; asyncio's arrive all the same
        while not task.done():
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is None:
        return task.result()
    if task.exception() is None and undo is not None:
        await settled(undo(task.result()))
    raise cancelled


@contextlib.contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Turn the system's refusal into a `StorageError` that says what could not be done."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a closed file, a NUL in a path
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise StorageError(f"could not {doing}: {why}", errno=getattr(error, "errno", None)) from error


@asynccontextmanager
async def opened(
    path: str | os.PathLike[str], mode: Literal["rb", "wb"], *, opener: Callable[[str, int], int] | None = None
) -> AsyncIterator[Any]:
    """Open a file as an async handle on our threads, and close it there too, whatever happens."""
    with storage_errors(f"open {os.fspath(path)!r}"):
        opening = aiofiles.open(path, mode, opener=opener, executor=executor())
        handle = await settled(opening, undo=lambda late: late.close())
    try:
        yield handle
    finally:
        with storage_errors(f"close {os.fspath(path)!r}"):
            await settled(handle.close())
