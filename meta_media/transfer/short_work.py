"""
Short pieces of blocking work, several in one visit to a thread: to open and read small files, above all.

A visit of its own costs a piece ten times what it does: two wake-ups, and a fight for the interpreter's lock at each system
call. Pieces that are asked for at about the same time therefore share a visit. While pieces take long, as on a slow disk or
in a file system that does not respond, further visits begin beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from meta_media.transfer.thread_pool import ThreadPool

__all__ = ["ShortWork", "short_work"]

_VISIT_COUNT: Final = 16  # pieces in one visit, whose results arrive together
_VISIT_SECONDS: Final = 0.001  # after which a visit begins no further piece
_LATE_AFTER: Final = 0.005  # seconds after which the next visit does not wait for this one


class _Visit:
    """A piece of work of the thread pool, which does several of these."""

    late = False  # whether another visit has begun beside it

    def __init__(self, then: Callable[[_Visit], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self.timer = self.loop.call_later(_LATE_AFTER, then, self)


class ShortWork:
    """The short work of one event loop."""

    def __init__(self, pool: ThreadPool) -> None:
        self._pool = pool
        self._waiting: deque[tuple[Future[Any], asyncio.Future[None], Callable[..., Any], tuple[Any, ...]]] = deque()
        self._done: deque[asyncio.Future[None]] = deque()  # waiters whose work is done
        self._visit: _Visit | None = None  # the one that is not late
        self._begins = False  # whether `_begin` is about to be called

    def start(self, future: Future[Any], work: Callable[..., Any], *args: Any) -> asyncio.Future[None]:
        """Run work on a thread, and give its result to a future. Return another one, which is done a moment later."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiting.append((future, waiter, work, args))
        if self._visit is None and not self._begins:
            self._begins = True
            loop.call_soon(self._begin)  # after tasks that are about to ask for work as well
        return waiter

    def _begin(self) -> None:
        self._begins = False
        if self._waiting:
            self._visit = _Visit(self._next)
            visited = self._pool.submit(self._run, self._visit)
            visited.add_done_callback(functools.partial(self._visited, self._visit))

    def _next(self, visit: _Visit) -> None:
        """Say what is done, and begin the next visit, at the end of one or because it is late."""
        if visit is self._visit:
            visit.timer.cancel()
            visit.late, self._visit = True, None
            self._begin()
        while self._done:
            waiter = self._done.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def _run(self, visit: _Visit, refusal: BaseException | None = None) -> None:
        """Do the work that waits, on a thread. A late visit goes on while there is any."""
        while True:
            until = time.monotonic() + _VISIT_SECONDS
            for _ in range(_VISIT_COUNT):
                if not self._run_one(refusal) or time.monotonic() >= until:
                    break
            ends = not (visit.late and self._waiting)
            with contextlib.suppress(RuntimeError):  # the loop is closed
                visit.loop.call_soon_threadsafe(self._next, visit)
            if ends:
                return

    def _visited(self, visit: _Visit, visited: Future[None]) -> None:
        if (refusal := visited.exception()) is not None:  # all threads are stuck
            self._run(visit, refusal)

    def _run_one(self, refusal: BaseException | None) -> bool:
        try:
            future, waiter, work, args = self._waiting.popleft()
        except IndexError:
            return False
        if refusal is None:
            self._pool.progress()
        if future.set_running_or_notify_cancel():
            try:
                if refusal is not None:
                    raise refusal
                future.set_result(work(*args))
            except BaseException as error:  # noqa: BLE001 - it is the future's
                future.set_exception(error)
        self._done.append(waiter)
        return True


_of_loops: Final[dict[asyncio.AbstractEventLoop, ShortWork]] = {}


def short_work(loop: asyncio.AbstractEventLoop, pool: ThreadPool) -> ShortWork:
    """Return the short work of an event loop. That of a closed one is dropped when another loop begins."""
    if (found := _of_loops.get(loop)) is None:
        for closed in [known for known in [*_of_loops] if known.is_closed()]:
            _of_loops.pop(closed, None)
        found = _of_loops[loop] = ShortWork(pool)
    return found
