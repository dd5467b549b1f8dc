"""Blocking work, piece after piece, beside an event loop that goes on meanwhile."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from meta_media.transfer.threads import await_completion, submit

if TYPE_CHECKING:
    from asyncio import Future

__all__ = ["BackgroundWriter"]

T = TypeVar("T")
_PATIENCE: Final = 0.1  # seconds to wait for a turn: whoever has it may be waiting for a slow disk


def _renew() -> None:
    """Let as many threads work as leave the event loop a processor: with more it would wait for one, too."""
    _turns[:] = [threading.Semaphore(max((os.cpu_count() or 1) - 1, 1))]


_turns: list[threading.Semaphore] = []
_renew()
with contextlib.suppress(AttributeError):  # Windows cannot fork
    os.register_at_fork(after_in_child=_renew)  # whoever had a turn does not survive it


class BackgroundWriter(Generic[T]):
    """
    Work on one of our threads, in order; all of it is over when the block ends.

    A thread that has more to do does it without asking the event loop: being woken for each piece would take half as long
    as the piece itself.

    Args:
        work: Called with each piece.
        depth: How many pieces may be waiting or under way.
    """

    def __init__(self, work: Callable[[T], object], *, depth: int) -> None:
        self._work = work
        self._depth = depth
        self._pieces: deque[T] = deque()
        self._unfinished = 0
        self._finished = 0  # counted by the thread
        self._job: Future[None] | None = None
        self._waiter: Future[None] | None = None
        self._failure: BaseException | None = None

    async def __aenter__(self) -> BackgroundWriter[T]:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            self._pieces.clear()
        await await_completion(self._rest())
        if error is None:  # else that is the one to tell
            self._check()

    async def put(self, piece: T) -> None:
        """Hand over a piece, once there is room for it; raise what the work on an earlier one raised."""
        import asyncio

        self._loop = asyncio.get_running_loop()
        while self._full():
            self._waiter = self._loop.create_future()
            await self._waiter
        self._check()
        self._unfinished += 1
        self._pieces.append(piece)
        if self._job is None:
            self._begin()

    def _full(self) -> bool:
        return self._unfinished - self._finished >= self._depth and self._job is not None

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _rest(self) -> None:
        import asyncio

        while self._job is not None:
            await asyncio.wait((self._job,))

    def _begin(self) -> None:
        self._job = submit(self._run)
        self._job.add_done_callback(self._over)

    def _run(self) -> None:
        """Work, on the thread, for as long as there is anything to do."""
        while self._pieces:
            turns = _turns[0]
            in_turn = turns.acquire(timeout=_PATIENCE)
            try:
                self._work(self._pieces.popleft())
            finally:
                if in_turn:
                    turns.release()
            self._finished += 1
            self._loop.call_soon_threadsafe(self._wake)

    def _over(self, job: Future[None]) -> None:
        """Begin again if something was handed over just when the thread had left."""
        self._job = None
        self._failure = job.exception()
        if self._failure is not None:
            self._pieces.clear()
        elif self._pieces:
            self._begin()
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
