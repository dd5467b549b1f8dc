"""
The threads that all file work of a process shares.

A thread cannot be stopped: in a file system that does not respond, it is stuck. Such a thread is replaced by another one, so
that other work goes on. All are daemon threads, because a stuck one must not keep the interpreter from exiting.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from meta_media.errors import StorageError

__all__ = ["ThreadPool"]

_SIZE: Final = 16  # threads that are not stuck
_LIMIT: Final = 80  # threads in all
_STUCK_AFTER: Final = 0.25  # seconds that one piece of work has taken
_PATIENCE: Final = 10.0  # seconds without progress on any thread, after which waiting work is refused
_TICK: Final = 0.05  # seconds between two looks at the threads, while work waits for one
_EXIT_TIMEOUT: Final = 1.0  # seconds that the interpreter waits for work at its exit
T = TypeVar("T")


class ThreadPool:
    """Runs work on threads, in order of arrival. It is an executor for `loop.run_in_executor` and aiofiles."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = queue.SimpleQueue()
        self._balance = 0  # idle threads, less the jobs that wait for one
        self._began: dict[int, float | None] = {}  # by thread: when its piece of work began; None while it is idle
        self._moved = 0.0  # when a piece of work began last
        self._watched = False  # whether a thread looks for stuck ones
        self._process = os.getpid()
        atexit.register(self._finish)

    def submit(self, work: Callable[..., T], /, *args: Any) -> Future[T]:
        """Run work on a thread."""
        future: Future[T] = Future()
        self.start(future, work, *args)
        return future

    def start(self, future: Future[T], work: Callable[..., T], *args: Any) -> None:
        """Run work on a thread, and give its result to a future."""
        self._jobs.put((future, work, args))
        with self._lock:
            self._balance -= 1
            if self._balance < 0 and not self._add_thread() and not self._watched:
                self._watched = True
                threading.Thread(target=self._watch, name="meta_media watch", daemon=True).start()

    @property
    def has_idle(self) -> bool:
        """Whether a thread is idle, so that no work waits for one."""
        return self._balance > 0 or len(self._began) < _SIZE

    def progress(self) -> None:
        """Say that the thread that calls this begins the next piece of work, and is not stuck."""
        self._began[threading.get_ident()] = self._moved = time.monotonic()

    def _add_thread(self) -> bool:
        """Start a thread if there is room; the lock is held."""
        late = time.monotonic() - _STUCK_AFTER
        stuck = sum(began is not None and began < late for began in self._began.values())
        if len(self._began) >= min(_SIZE + stuck, _LIMIT):
            return False
        thread = threading.Thread(target=self._run, name=f"meta_media_{len(self._began)}", daemon=True)
        thread.start()
        self._began[thread.ident or 0] = self._moved = time.monotonic()
        self._balance += 1
        return True

    def _run(self) -> None:
        """Work until there are more threads than are needed."""
        surplus = False
        while not surplus:
            future, work, args = self._jobs.get()
            self.progress()
            result, failure = None, None
            if wanted := future.set_running_or_notify_cancel():
                try:
                    result = work(*args)
                except BaseException as error:  # noqa: BLE001 - it is the future's
                    failure = error
            with self._lock:  # before the result is known, so that who waits for it finds an idle thread
                surplus = self._balance >= 0 and len(self._began) > _SIZE
                self._balance += not surplus
                self._began[threading.get_ident()] = None
                if surplus:
                    del self._began[threading.get_ident()]
            if wanted and failure is None:
                future.set_result(result)
            elif wanted:
                future.set_exception(failure)
            del future, work, args, result, failure  # an idle thread keeps nothing alive

    def _watch(self) -> None:
        """Replace stuck threads while work waits. Refuse it if all threads are stuck."""
        while True:
            time.sleep(_TICK)
            with self._lock:
                while self._balance < 0 and self._add_thread():
                    pass
                if self._balance >= 0:
                    self._watched = False
                    return
                stalled = len(self._began) >= _LIMIT and time.monotonic() - self._moved > _PATIENCE
                refused = [self._jobs.get_nowait() for _ in range(-self._balance)] if stalled else []
                self._balance += len(refused)
            for future, *_ in refused:
                if future.set_running_or_notify_cancel():
                    what = (
                        f"all {_LIMIT} threads for files wait for a file system, pipe or handle that does not respond"
                    )
                    future.set_exception(StorageError(f"{what}: look at its mount, or at what is at its other end"))

    def _finish(self) -> None:
        """Wait for work in progress, but not for stuck threads, nor for those that a fork has left in the parent."""
        until = time.monotonic() + _EXIT_TIMEOUT
        while self._process == os.getpid() and (now := time.monotonic()) < until:
            if not any(began is not None and now - began < _EXIT_TIMEOUT for began in [*self._began.values()]):
                return
            time.sleep(_TICK / 10)
