"""Waits while a worker's result backend or store is away: until it is back, or the worker stops."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

from taskiq import AsyncResultBackend
from taskiq.acks import AcknowledgeType
from taskiq.result import TaskiqResult

from meta_media.http.limits import backoff_delay
from meta_media.protocol.secrets import excerpt

__all__ = ["LOGGER", "Outages", "PersistentBackend", "on_shutdown"]

T = TypeVar("T")
LOGGER: Final = logging.getLogger("meta_media")
_FIRST_DELAY: Final = 0.1  # seconds, at most, before the second try; doubled for each of the next three
_DOUBLINGS: Final = 3
_LONGEST_CALL: Final = 30.0  # seconds that a call to the result backend may take; it is then repeated
_GRACE: Final = 2.0  # seconds that a call to the result backend may take after the worker was told to stop


class Outages:
    """
    The waits of one worker.

    When the worker stops, a wait ends with `CancelledError`. taskiq then does not acknowledge the task, and the broker
    delivers it again.
    """

    def __init__(self) -> None:
        self._stopped = False
        self._clocks: dict[asyncio.Timeout, float] = {}  # of the waits in progress, and their seconds after a stop

    def stop(self) -> None:
        """End all waits, because the worker stops."""
        if not self._stopped:
            self._stopped = True
            now = asyncio.get_running_loop().time()
            for clock, grace in self._clocks.items():
                if not clock.expired():
                    clock.reschedule(now + grace)

    async def outlast(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call the result backend until it succeeds."""
        nth = 0
        while True:
            try:
                async with self._until_stopped(_LONGEST_CALL, _GRACE):
                    return await call()
            except Exception as error:  # noqa: BLE001 - each backend has its own classes
                nth += 1
                await self.pause(nth, error)

    async def read(self, call: Callable[[], Awaitable[T]], alive: Callable[[], Awaitable[object]], damaged: T) -> T:
        """Call the result backend until it succeeds. If only this call fails, what is stored is damaged: return `damaged`."""

        async def twice() -> T:
            for _ in range(2):  # the first try may meet a connection that was lost
                try:
                    return await call()
                except Exception:  # noqa: BLE001 - each backend, and each serializer, has its own classes
                    await alive()
            LOGGER.warning("what the result backend stored of a task is damaged: the task may have been done before")
            return damaged

        return await self.outlast(twice)

    async def pause(self, nth: int, error: Exception) -> None:
        """Wait after the nth failure in a row."""
        if nth == 1:
            LOGGER.warning("a task waits until its result backend or store is back: %s", excerpt(repr(error)))
        async with self._until_stopped(None, 0.0):
            await asyncio.sleep(backoff_delay(min(nth, 1 + _DOUBLINGS), _FIRST_DELAY, random.random))

    @asynccontextmanager
    async def _until_stopped(self, limit: float | None, grace: float) -> AsyncIterator[None]:
        clock = asyncio.timeout(grace if self._stopped else limit)
        try:
            async with clock:
                self._clocks[clock] = grace
                try:
                    yield
                finally:
                    del self._clocks[clock]
        except TimeoutError:
            if not (clock.expired() and self._stopped):
                raise
            raise asyncio.CancelledError("the worker stops while its result backend or store is away") from None


class PersistentBackend:
    """
    The result backend of a worker, which saves a result however long that takes.

    taskiq's `when_saved` acknowledges a task even if its result could not be saved. The task would then be lost.
    """

    def __init__(self, backend: AsyncResultBackend[Any], outages: Outages) -> None:
        self._backend = backend
        self._outages = outages

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    async def set_result(self, task_id: str, result: TaskiqResult[Any]) -> None:
        """Save a result. That of a task with another `ack_type` is saved as taskiq does it."""
        if result.labels.get("ack_type") == AcknowledgeType.WHEN_SAVED:
            await self._outages.outlast(lambda: self._backend.set_result(task_id, result))
        else:
            await self._backend.set_result(task_id, result)


def on_shutdown(stop: Callable[[], object]) -> Callable[[], None]:
    """
    Call `stop` on the event loop when taskiq tells the worker to shut down. Return a function that undoes this.

    taskiq's own signal handlers stay. They set an event, which does not wake asyncio's loop: an idle worker would shut down
    only after its next task. asyncio wakes for each signal once it knows a handler for one.
    """
    loop = asyncio.get_running_loop()
    known: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        handler = signal.getsignal(number)
        with suppress(NotImplementedError, RuntimeError):  # on Windows, and on other threads than the main one
            if callable(handler):
                loop.add_signal_handler(number, stop)
                signal.signal(number, handler)
                known.append(number)

    def undo() -> None:
        for number in known:
            handler = signal.getsignal(number)
            loop.remove_signal_handler(number)
            signal.signal(number, handler)

    return undo
