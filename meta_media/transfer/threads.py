"""
Blocking work, which is file work, on a thread pool of the library's own.

The event loop's default pool also resolves host names, so that a file read there can wait behind a slow DNS server. A thread
cannot be stopped. A cancelled caller therefore waits for its thread: else it would close or delete a file that the thread
still writes.

aiofiles is imported at first need, because it is slow to import. `http` has it loaded on a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import io
import os
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from stat import S_ISREG
from typing import IO, Any, Final, Generic, TypeVar

import anyio
import attrs

from meta_media.errors import StorageError
from meta_media.http.loop_bound import running_loop
from meta_media.transfer.adapters import path_in_words

__all__ = [
    "BackgroundWriter",
    "OpenedFile",
    "await_completion",
    "call",
    "closing",
    "open_file",
    "prefetch",
    "run_in_thread",
    "spooled",
    "storage_errors",
    "submit",
]

_THREAD_COUNT: Final = 16
_LOOP_ONLY: Final = ("event loop", "same thread")  # what an object says that cannot be used on another thread
_TURN_TIMEOUT: Final = 0.1  # seconds to wait for a turn: the thread that has it may be waiting for a slow disk
T = TypeVar("T")


@functools.cache
def _executor() -> ThreadPoolExecutor:
    """Return the thread pool that all file work of this process shares."""
    return ThreadPoolExecutor(_THREAD_COUNT, thread_name_prefix="meta_media")


@functools.cache
def _turns() -> threading.Semaphore:
    """Return the turns of background writers: one processor fewer than there are, which stays with the event loop."""
    return threading.Semaphore(max((os.cpu_count() or 1) - 1, 1))


def _forget_threads() -> None:
    """Start anew in a child process, which has none of the threads."""
    _executor.cache_clear()
    _turns.cache_clear()


with contextlib.suppress(AttributeError):  # Windows cannot fork
    os.register_at_fork(after_in_child=_forget_threads)


def submit(work: Callable[..., T], *args: Any) -> asyncio.Future[T]:
    """Start blocking work on a thread. The thread goes on when a caller that awaits it is cancelled."""
    return running_loop().run_in_executor(_executor(), work, *args)


async def run_in_thread(work: Callable[..., T], *args: Any) -> T:
    """Run blocking work on a thread, to its end; see `await_completion`."""
    return await await_completion(submit(work, *args))


async def call(method: Callable[..., Any], *args: Any) -> Any:
    """
    Call a method of an object that the caller has passed. Await its result if it is awaitable.

    A coroutine function is called on the event loop, and any other on a thread, because it may block. A method that refuses
    to run on a thread is called on the event loop. A cancelled call returns at once: a pipe may never answer.
    """
    if inspect.iscoroutinefunction(method):
        return await method(*args)
    try:
        result = await submit(method, *args)
    except Exception as error:
        if not any(words in str(error) for words in _LOOP_ONLY):
            raise
        result = method(*args)
    return await result if inspect.isawaitable(result) else result


async def await_completion(work: Awaitable[T], *, undo: Callable[[T], Awaitable[object] | None] | None = None) -> T:
    """Await short work to its end, and raise a cancellation only then, after `undo(result)`."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):  # holds back anyio's cancellations; asyncio's still arrive
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
    """Yield the values of a generator, which computes the next one while the current one is used."""
    async with contextlib.aclosing(steps):
        step: asyncio.Future[T | None] = asyncio.ensure_future(anext(steps, None))
        try:
            while (value := await await_completion(step)) is not None:
                step = asyncio.ensure_future(anext(steps, None))
                yield value
        finally:
            with contextlib.suppress(Exception):  # of a step that the consumer did not ask for
                await await_completion(step)


class BackgroundWriter(Generic[T]):
    """
    Call `work` on a thread with one piece at a time, in order, while the event loop prepares the next pieces.

    All calls have returned when the block ends. The thread goes on by itself while pieces are waiting: waking the event loop
    between two pieces would take half as long as a piece. `depth` is how many pieces may wait or be in progress.
    """

    def __init__(self, work: Callable[[T], object], *, depth: int = 1) -> None:
        self._work = work
        self._depth = depth
        self._pieces: deque[T] = deque()
        self._put_count = 0
        self._done_count = 0  # written by the thread only
        self._job: asyncio.Future[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._failure: BaseException | None = None

    async def __aenter__(self) -> BackgroundWriter[T]:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            self._pieces.clear()
        await await_completion(self._finish())
        if error is None:  # else the block's own error is raised
            self._raise_failure()

    async def put(self, piece: T) -> None:
        """Wait for room, raise the error of an earlier piece if one failed, and hand over this one."""
        self._loop = asyncio.get_running_loop()
        while self._job is not None and self._put_count - self._done_count >= self._depth:
            self._waiter = self._loop.create_future()
            await self._waiter
        self._raise_failure()
        self._put_count += 1
        self._pieces.append(piece)
        if self._job is None:
            self._start()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _finish(self) -> None:
        while self._job is not None:
            await asyncio.wait((self._job,))

    def _start(self) -> None:
        self._job = submit(self._run)
        self._job.add_done_callback(self._ended)

    def _run(self) -> None:
        while self._pieces:
            turns = _turns()
            in_turn = turns.acquire(timeout=_TURN_TIMEOUT)
            try:
                self._work(self._pieces.popleft())
            finally:
                if in_turn:
                    turns.release()
            self._done_count += 1
            self._loop.call_soon_threadsafe(self._wake)

    def _ended(self, job: asyncio.Future[None]) -> None:
        self._job, self._failure = None, job.exception()
        if self._failure is not None:
            self._pieces.clear()
        elif self._pieces:  # put just when the thread had left
            self._start()
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


@contextlib.contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Turn an error of the system into a `StorageError` that says what could not be done."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a closed file, a NUL in a path
        raise _storage_error(doing, error) from error


def _storage_error(doing: str, error: OSError | ValueError, advice: str = "") -> StorageError:
    why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    if isinstance(error, io.UnsupportedOperation):
        why = "the handle is not open for that: use mode 'rb' to upload and 'wb' to download"
    return StorageError(f"could not {doing}: {why}{advice}", errno=getattr(error, "errno", None))


@attrs.frozen
class OpenedFile:
    """A file that was opened to read."""

    name: str  # the last part of its path
    file: IO[bytes]  # closed if `content` has all of it
    content: bytes | None  # all bytes of a small file; None for a larger one
    stat: os.stat_result  # when the file was opened


def open_file(path: str | os.PathLike[str], small: int) -> AbstractAsyncContextManager[OpenedFile]:
    """
    Open a file to read, and close it at the end of the block, both on a thread.

    A file of up to `small` bytes is read and closed at once: one hop to a thread costs as much as reading it.
    """

    def opening() -> OpenedFile:
        local = os.fsdecode(path)  # calls `__fspath__`, once: it may fetch the file
        try:
            return _opened_file(Path(local), small)
        except (OSError, ValueError) as error:
            words, advice = path_in_words(path, local, error)
            failure = _storage_error(f"open {words}", error, advice)
            failure.__cause__ = None if advice else error  # it shows the text, which may be a signed URL, uncut
        raise failure

    def close(opened: OpenedFile) -> Awaitable[None] | None:
        return None if opened.file.closed else submit(opened.file.close)

    return closing(submit(opening), close, "the path")


def _opened_file(path: Path, small: int) -> OpenedFile:
    with contextlib.ExitStack() as stack:  # unbuffered: closing a buffered pipe waits for a cancelled read
        file = stack.enter_context(path.open("rb", buffering=0))
        stat = os.fstat(file.fileno())
        is_small = S_ISREG(stat.st_mode) and 0 < stat.st_size <= small
        content = _read_all(file, stat.st_size, small) if is_small else None
        if content is None:
            stack.pop_all()  # the file stays open
        return OpenedFile(path.name, file, content, stat)


def _read_all(file: IO[bytes], size: int, small: int) -> bytes | None:
    content = b""
    while len(content) < size and (chunk := file.read(small + 1 - len(content))):
        content += chunk
    if len(content) <= small:
        return content
    file.seek(0)  # the file has grown
    return None


def spooled(memory_size: int) -> AbstractAsyncContextManager[Any]:
    """Open an async handle on memory, which moves to a private temporary file when it exceeds `memory_size` bytes."""
    import aiofiles.tempfile

    spool = aiofiles.tempfile.SpooledTemporaryFile(max_size=memory_size, executor=_executor())
    return closing(spool, lambda handle: handle.close(), "a temporary file")


@asynccontextmanager
async def closing(opening: Awaitable[T], close: Callable[[T], Awaitable[object] | None], name: str) -> AsyncIterator[T]:
    """Await an object, and close it at the end of the block. If the opening was cancelled, it is closed as well."""
    with storage_errors(f"open {name}"):
        handle = await await_completion(opening, undo=close)
    try:
        yield handle
    finally:
        with contextlib.suppress(OSError, ValueError):  # nothing is lost: the file was only read, or has no name
            if (closing := close(handle)) is not None:
                await await_completion(closing)
