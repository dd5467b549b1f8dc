"""Work on a thread, piece by piece, while the event loop prepares the next pieces: hashing, and writing a download."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from meta_media.http.loop_bound import outwait
from meta_media.transfer.threads import GRACE, FileWork, pool

__all__ = ["BackgroundWriter"]

_TURN_TIMEOUT: Final = 0.1  # seconds to wait for a turn: the thread that has it may be waiting for a slow disk
T = TypeVar("T")


@functools.cache
def _turns() -> threading.Semaphore:
    """Return the turns of background writers: one processor fewer than there are, which stays with the event loop."""
    return threading.Semaphore(max((os.cpu_count() or 1) - 1, 1))


with contextlib.suppress(AttributeError):  # Windows cannot fork
    os.register_at_fork(after_in_child=_turns.cache_clear)


class BackgroundWriter(Generic[T]):
    """
    Call `work` on a thread with one piece at a time, in order, while the event loop prepares the next pieces.

    All calls have returned when the block ends, except one that is stuck; see `FileWork`. The thread goes on by itself while
    pieces are waiting: waking the event loop between two pieces would take half as long as a piece. `depth` is how many
    pieces may wait or be in progress, and `files` the work on the file that the pieces are written to.
    """

    def __init__(self, work: Callable[[T], object], *, depth: int = 1, files: FileWork | None = None) -> None:
        self._work = work
        self._files = files or FileWork(limit=None)
        self._turn: list[threading.Semaphore] = []  # that the thread has
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
        if error is None:
            try:
                while self._job is not None:
                    await self._files.settled(self._job)
            except BaseException:
                self._leave()
                raise
            self._raise_failure()
        elif self._job is not None:  # the block's own error is raised
            self._pieces.clear()
            cancelled = await outwait(self._job, GRACE)
            self._leave()
            if cancelled is not None:
                raise cancelled

    async def put(self, piece: T) -> None:
        """Wait for room, raise the error of an earlier piece if one failed, and hand over this one."""
        self._loop = asyncio.get_running_loop()
        while True:
            self._waiter = waiter = self._loop.create_future()  # before the look, so that the thread wakes it
            if self._job is None or self._put_count - self._done_count < self._depth:
                break
            await self._files.settled(waiter, grace=0)
        self._waiter = None
        self._raise_failure()
        self._put_count += 1
        self._pieces.append(piece)
        if self._job is None:
            self._start()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _leave(self) -> None:
        """Leave a stuck thread behind, without the turn that others wait for."""
        if self._job is not None:
            self._pieces.clear()
            self._job.cancel()
            self._end_turn()

    def _end_turn(self) -> None:
        with contextlib.suppress(IndexError):  # the thread and who leaves it behind both call it
            self._turn.pop().release()

    def _start(self) -> None:
        self._job = asyncio.wrap_future(self._files.start(self._run))
        self._job.add_done_callback(self._ended)

    def _run(self) -> None:
        while self._pieces:
            pool().progress()
            if (turns := _turns()).acquire(timeout=_TURN_TIMEOUT):
                self._turn.append(turns)
            try:
                self._work(self._pieces.popleft())
            finally:
                self._end_turn()
            self._done_count += 1
            if self._waiter is not None:  # waking the event loop takes as long as writing 100 KiB
                self._loop.call_soon_threadsafe(self._wake)

    def _ended(self, job: asyncio.Future[None]) -> None:
        if job.cancelled():  # it was left behind
            return
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
