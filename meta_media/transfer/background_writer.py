"""Work on a thread, piece by piece, while the event loop prepares the next pieces: hashing, and writing a download."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import queue
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from meta_media.http.loop_bound import outwait
from meta_media.transfer.threads import GRACE, FileWork, pool

__all__ = ["BackgroundWriter"]

# Seconds that the thread waits for the next piece: to leave and come again costs as much as 200 KiB.
_LINGER: Final = 0.01
_TURN_TIMEOUT: Final = 0.1  # seconds to wait for a turn: the thread that has it may be waiting for a slow disk
T = TypeVar("T")


@functools.cache
def _turns() -> queue.SimpleQueue[None]:
    """Return the turns of background writers: one processor fewer than there are, which stays with the event loop."""
    turns = queue.SimpleQueue[None]()
    for _ in range(max((os.cpu_count() or 1) - 1, 1)):
        turns.put(None)
    return turns


with contextlib.suppress(AttributeError):  # Windows cannot fork
    os.register_at_fork(after_in_child=_turns.cache_clear)


def _next(pieces: queue.SimpleQueue[tuple[T] | None]) -> tuple[T] | None:
    """Return the next piece, waiting for it unless other work waits for the thread; None if there is none."""
    with contextlib.suppress(queue.Empty):
        return pieces.get(timeout=_LINGER if pool().has_idle else 0.0)
    return None


class BackgroundWriter(Generic[T]):
    """
    Call `work` on a thread with one piece at a time, in order, while the event loop prepares the next pieces.

    All calls have returned when the block ends, except one that is stuck; see `FileWork`. The thread goes on by itself, and
    waits a moment for the next piece unless other work waits for a thread: waking the event loop between two pieces would
    take half as long as a piece. `depth` is how many pieces may wait or be in progress, and `files` the work on the file that
    the pieces are written to.
    """

    def __init__(self, work: Callable[[T], object], *, depth: int = 1, files: FileWork | None = None) -> None:
        self._work = work
        self._files = files or FileWork(limit=None)
        self._turn: list[queue.SimpleQueue[None]] = []  # that the thread has
        self._depth = depth
        self._pieces: queue.SimpleQueue[tuple[T] | None] = queue.SimpleQueue()  # None: no more will come
        self._put_count = 0
        self._done_count = 0  # written by the thread only
        self._job: asyncio.Future[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._failure: BaseException | None = None

    async def __aenter__(self) -> BackgroundWriter[T]:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            self._pieces.put(None)
            try:
                while self._job is not None:
                    await self._files.settled(self._job)
            except BaseException:
                self._leave()
                raise
            self._raise_failure()
        elif self._job is not None:  # the block's own error is raised
            self._drop_pieces()
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
        self._pieces.put((piece,))
        if self._job is None:
            self._start()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _leave(self) -> None:
        """Leave a stuck thread behind, without the turn that others wait for."""
        if self._job is not None:
            self._drop_pieces()
            self._job.cancel()
            self._end_turn()

    def _drop_pieces(self) -> None:
        self._pieces, dropped = queue.SimpleQueue(), self._pieces
        with contextlib.suppress(queue.Empty):
            while True:
                dropped.get_nowait()
        dropped.put(None)  # for the thread that waits

    def _end_turn(self) -> None:
        with contextlib.suppress(IndexError):  # the thread and who leaves it behind both call it
            self._turn.pop().put(None)

    def _start(self) -> None:
        self._job = asyncio.wrap_future(self._files.start(self._run))
        self._job.add_done_callback(self._ended)

    def _run(self) -> None:
        pieces = self._pieces
        while (piece := _next(pieces)) is not None:
            pool().progress()
            with contextlib.suppress(queue.Empty):
                (turns := _turns()).get(timeout=_TURN_TIMEOUT)
                self._turn.append(turns)
            try:
                self._work(*piece)
            finally:
                self._end_turn()
            del piece  # a thread that waits keeps nothing alive
            self._done_count += 1
            if self._waiter is not None:  # waking the event loop takes as long as writing 100 KiB
                self._loop.call_soon_threadsafe(self._wake)

    def _ended(self, job: asyncio.Future[None]) -> None:
        if job.cancelled():  # it was left behind
            return
        self._job, self._failure = None, job.exception()
        if self._failure is not None:
            self._drop_pieces()
        elif not self._pieces.empty():  # put just when the thread had left
            self._start()
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
