"""
Blocking work, which is file work, on threads of the library's own.

The event loop's default pool also resolves host names, so that a file read there can wait behind a slow DNS server. A thread
cannot be stopped. A cancelled caller therefore waits for its thread for a moment: else it would close or delete a file that
the thread still writes. A thread that is stuck in a file system that does not respond is left behind. What is still to be
done with its file is done when the thread is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import inspect
import io
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from pathlib import PurePath
from typing import Any, Final, TypeVar

from meta_media.errors import MediaError, StorageError, TransferTimeoutError
from meta_media.http.loop_bound import outwait, running_loop
from meta_media.protocol.secrets import excerpt
from meta_media.transfer.short_work import short_work
from meta_media.transfer.thread_pool import ThreadPool

__all__ = [
    "GRACE",
    "FileWork",
    "await_completion",
    "call",
    "file_deadline",
    "pool",
    "prefetch",
    "run_in_thread",
    "storage_error",
    "storage_errors",
    "submit",
]

_PATH_TIMEOUT: Final = 60.0  # seconds that one piece of work on a path may take, such as opening it or writing a chunk
GRACE: Final = 1.0  # seconds that a cancelled caller waits for its thread
_CLEANUP_TIMEOUT: Final = 5.0  # seconds that a caller waits for the clean-up of a file
_LOOP_ONLY: Final = ("event loop", "same thread")  # what an object says that cannot be used on another thread
_deadline: Final[ContextVar[float | None]] = ContextVar("deadline", default=None)
T = TypeVar("T")
AnyFuture = Future[T] | asyncio.Future[T]


@functools.cache
def pool() -> ThreadPool:
    """Return the threads that all file work of this process shares."""
    return ThreadPool()


with contextlib.suppress(AttributeError):  # Windows cannot fork
    os.register_at_fork(after_in_child=pool.cache_clear)  # a child process has none of the threads


def submit(work: Callable[..., T], *args: Any) -> asyncio.Future[T]:
    """Start blocking work on a thread. The thread goes on when a caller that awaits it is cancelled."""
    executor: Any = pool()
    return running_loop().run_in_executor(executor, work, *args)


async def run_in_thread(work: Callable[..., T], *args: Any) -> T:
    """Run blocking work on a thread, to its end; see `FileWork.run`."""
    return await FileWork(limit=None).run(work, *args)


async def call(method: Callable[..., Any], *args: Any) -> Any:
    """Call a method of an object that the caller has passed, see `FileWork.call`. A cancelled call returns at once."""
    return await FileWork(limit=None, grace=0.0).call(method, *args)


def file_deadline(seconds: float | None) -> AbstractAsyncContextManager[None]:
    """Limit each piece of file work in the block, and in tasks that are started there, to `Settings.deadline`."""
    return contextlib.nullcontext() if seconds == _deadline.get() else _file_deadline(seconds)


@contextlib.asynccontextmanager
async def _file_deadline(seconds: float | None) -> AsyncIterator[None]:
    token = _deadline.set(seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def _ignored(future: AnyFuture[T]) -> asyncio.Future[T]:
    """Look at the exception of a future, which asyncio would log otherwise."""
    seen = asyncio.wrap_future(future)
    seen.add_done_callback(_ignore)
    return seen


def _ignore(future: asyncio.Future[Any]) -> None:
    _ = future.cancelled() or future.exception()


class FileWork:
    """
    The blocking work on one file or handle: on threads, one piece after another.

    `what` is the path or handle, for messages. `limit` is the seconds that a piece may take unless a deadline is set, and
    `grace` those that a cancelled caller waits for it.
    """

    cure = "look at the mount of its file system, or at the other end of the pipe"  # for messages

    def __init__(self, what: object = "a file", *, limit: float | None = _PATH_TIMEOUT, grace: float = GRACE) -> None:
        self._what = what
        self._limit = limit
        self._grace = grace
        self._last: Future[Any] | None = None
        self._left_behind = False  # an awaitable of the handle's
        self._last_work = False  # has begun: it is never dropped, whatever the deadline

    @property
    def limit(self) -> float | None:
        """The seconds that a piece of work may take; None for any."""
        seconds = _deadline.get()
        return None if self._last_work else self._limit if seconds is None else seconds

    def start(self, work: Callable[..., T], *args: Any) -> Future[T]:
        """Run work on a thread, after all earlier work on the file."""
        last, future = self._last, Future[T]()
        self._last = future
        if last is None or last.done():
            pool().start(future, work, *args)
        else:
            last.add_done_callback(lambda _: pool().start(future, work, *args))
        return future

    async def run(self, work: Callable[..., T], *args: Any, undo: Callable[[T], object] | None = None) -> T:
        """Run work on a thread. A cancelled caller leaves a stuck thread behind; then `undo(result)` follows."""
        running_loop()
        return await self.result(self.start(work, *args), undo=undo)

    async def run_first(self, work: Callable[..., T], *args: Any, undo: Callable[[T], object] | None = None) -> T:
        """Run short work that is the first on the file, in one visit to a thread with that of other files; see `run`."""
        short = short_work(running_loop(), pool())
        self._last = started = Future[T]()
        return await self.result(started, short.start(started, work, *args), undo=undo)

    async def result(
        self,
        started: AnyFuture[T],
        waiter: asyncio.Future[None] | None = None,
        *,
        undo: Callable[[T], object] | None = None,
    ) -> T:
        """Wait for work that was started; see `run`. `waiter` is done when it is, by default at a callback of its future."""
        if started.done():
            self._last = None
            return started.result()
        try:
            await self.settled(started, waiter=waiter)
        except BaseException:
            ended = self._last_work or started.done()
            started.cancel()  # what still waits for a thread is dropped
            if undo is not None:
                undoing = self.start(lambda: undo(started.result()))
                if ended:
                    await outwait(asyncio.wrap_future(undoing), _CLEANUP_TIMEOUT)
            raise
        self._last = None  # it has the result
        return started.result()

    async def drop(self, started: Future[Any]) -> None:
        """Wait until work whose result is not wanted is done. A cancellation arrives then, or after the grace."""
        if not started.cancel():
            cancelled = await outwait(_ignored(started), self._grace)
            if cancelled is not None:
                raise cancelled

    async def settled(
        self, future: AnyFuture[Any], grace: float | None = None, waiter: asyncio.Future[None] | None = None
    ) -> None:
        """
        Wait until a future of the work is done. A cancellation arrives when it is, or after the grace in seconds.

        If that takes too long, a missed deadline of the caller's is a `TransferTimeoutError`, and any other a `StorageError`.
        """
        loop, limit = asyncio.get_running_loop(), self.limit
        given, waiter = waiter, waiter or loop.create_future()  # `asyncio.wait` and `wrap_future` take twice as long

        def wake(_: object = None) -> None:
            if not waiter.done():
                waiter.set_result(None)

        def wake_from_thread(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(wake)

        timer = None if limit is None else loop.call_later(limit, wake)
        if given is None:
            future.add_done_callback(wake_from_thread if isinstance(future, Future) else wake)
        try:
            await waiter
        except asyncio.CancelledError:
            await outwait(_ignored(future), self._grace if grace is None else grace)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if not future.done():
            _ignored(future)
            raise self._too_late(limit or 0.0)

    def _too_late(self, seconds: float) -> MediaError:
        what = self._what
        name = excerpt(str(what)) if isinstance(what, str | PurePath) else f"a {type(what).__name__}"
        if _deadline.get() is None:
            return StorageError(f"{name} has not responded for {seconds:g} s: {self.cure}", errno=errno.ETIMEDOUT)
        sentence = f"{name} has not responded within the deadline of {seconds:g} s: {self.cure}"
        return TransferTimeoutError(sentence, phase="deadline", retryable=False)

    async def call(self, method: Callable[..., Any], *args: Any, undo: Callable[[Any], object] | None = None) -> Any:
        """
        Call a method of the handle, see `run`. Await its result if it is awaitable.

        A coroutine function is called on the event loop, and any other on a thread, because it may block. A method that
        refuses to run on a thread is called on the event loop.
        """
        return await self._outcome(self._started(method, args), method, args, undo)

    def _started(self, method: Callable[..., Any], args: tuple[Any, ...]) -> Future[Any] | None:
        """Start a method on a thread; None for a coroutine function."""
        return None if inspect.iscoroutinefunction(method) else self.start(method, *args)

    async def _outcome(
        self,
        started: Future[Any] | None,
        method: Callable[..., Any],
        args: tuple[Any, ...],
        undo: Callable[[Any], object] | None = None,
    ) -> Any:
        if started is None:
            return await self._awaited(method(*args))
        try:
            result = await self.result(started, undo=undo)
        except Exception as error:  # of the caller's object
            if not any(words in str(error) for words in _LOOP_ONLY):
                raise
            result = method(*args)
        return await self._awaited(result) if inspect.isawaitable(result) else result

    async def _awaited(self, result: Awaitable[Any]) -> Any:
        if not self._grace:
            return await result
        task = asyncio.ensure_future(result)
        try:
            await self.settled(task)
        except BaseException:
            self._left_behind = task.cancel()
            task.add_done_callback(_ignore)
            raise
        return task.result()

    async def finish(self, work: Callable[..., object], *args: Any) -> None:
        """Do the last work on the file. If a thread was left behind, it is done when that thread is back, unattended."""
        if self._left_behind:
            return
        unattended = self._last is not None and not self._last.done()
        self._last_work = True
        started = self._started(work, args)  # at once: a loop that ends cancels tasks that have not begun
        if unattended:
            return
        task = asyncio.ensure_future(self._outcome(started, work, args))
        cancelled = await outwait(task, _CLEANUP_TIMEOUT)
        if task.done():
            task.result()
        else:
            task.cancel()
        if cancelled is not None:
            raise cancelled


async def await_completion(work: Awaitable[T], *, undo: Callable[[T], Awaitable[object] | None] | None = None) -> T:
    """Await short work to its end, and raise a cancellation only then, after `undo(result)`."""
    begun = False

    async def begin() -> T:
        nonlocal begun
        begun = True
        return await work

    task, cancelled = asyncio.ensure_future(begin()), None
    while not task.done():
        cancelled = await outwait(task) or cancelled
        task = task if begun else asyncio.ensure_future(begin())  # a loop that ends cancels tasks that have not begun
    if cancelled is None:
        return task.result()
    if task.exception() is None and undo is not None and (undoing := undo(task.result())) is not None:
        await await_completion(undoing)
    raise cancelled


async def prefetch(steps: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """Yield the values of a generator, which computes the next one while the current one is used."""
    async with contextlib.aclosing(steps):
        step: asyncio.Future[T | None] = asyncio.ensure_future(anext(steps, None))
        try:
            while True:
                await asyncio.wait((step,))
                if (value := step.result()) is None:
                    break
                step = asyncio.ensure_future(anext(steps, None))
                yield value
        finally:
            await _drop(step)


async def _drop(step: asyncio.Future[Any]) -> None:
    """End a step that the consumer did not ask for. A cancellation arrives when it has ended."""
    step.cancel()
    cancelled = await outwait(step)
    _ignore(step)
    if cancelled is not None:
        raise cancelled


@contextlib.contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Turn an error of the system into a `StorageError` that says what could not be done."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a closed file, a NUL in a path
        raise storage_error(doing, error) from error


def storage_error(doing: str, error: OSError | ValueError, advice: str = "") -> StorageError:
    """Return the `StorageError` for an error of the system."""
    why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    if isinstance(error, io.UnsupportedOperation):
        why = "the handle is not open for that: use mode 'rb' to upload and 'wb' to download"
    return StorageError(f"could not {doing}: {why}{advice}", errno=getattr(error, "errno", None))
