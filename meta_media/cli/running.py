"""From a coroutine to an exit status: signals end it cleanly, and many items run side by side but report in order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

import anyio

__all__ = ["FAILED", "FINE", "USAGE", "InterruptedBySignalError", "each", "run_until_signal"]

FINE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
_AT_ONCE: Final = 4
_SIGNALS: Final = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
T = TypeVar("T")
R = TypeVar("R")


class InterruptedBySignalError(Exception):
    """
    A signal ended the command, which has cleaned up.

    Attributes:
        status: The exit status of a process that ends so: 128 and the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.status = 128 + number


def run_until_signal(work: Coroutine[Any, Any, int]) -> int:
    """
    Run a command to its exit status.

    Raises:
        InterruptedBySignalError: Ctrl-C, or a request to terminate. A second one does not wait for the clean-up.
    """
    received: list[int] = []
    try:
        return asyncio.run(_cancelled_by_signals(work, received))
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise InterruptedBySignalError(received[0] if received else signal.SIGINT) from None


async def _cancelled_by_signals(work: Coroutine[Any, Any, int], received: list[int]) -> int:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    # A shell or nohup may have chosen that a signal is ignored; that stays so.
    handled = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]

    def leave() -> None:
        for number in handled:
            loop.remove_signal_handler(number)

    def stop(number: int) -> None:
        received.append(number)
        leave()
        task.cancel()

    with contextlib.suppress(NotImplementedError):  # Windows; there, asyncio cancels us at Ctrl-C
        for number in handled:
            loop.add_signal_handler(number, stop, number)
    try:
        return await task
    finally:
        with contextlib.suppress(NotImplementedError):
            leave()


async def each(items: Sequence[T], work: Callable[[T], Awaitable[R]], show: Callable[[T, R], Awaitable[None]]) -> None:
    """
    Work on a few items at a time, and show each result in the order of the items.

    When it is cancelled, what was finished is shown all the same: an id that is never told is media that is never deleted.
    """
    finished: dict[int, R] = {}
    places = anyio.Semaphore(_AT_ONCE)
    showing = anyio.Lock()
    following = 0

    async def one(index: int, item: T) -> None:
        nonlocal following
        async with places:
            finished[index] = await work(item)
        async with showing:
            while following in finished:
                await show(items[following], finished.pop(following))
                following += 1

    try:
        async with anyio.create_task_group() as group:
            for index, item in enumerate(items):
                group.start_soon(one, index, item)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        with anyio.CancelScope(shield=True):
            for index in sorted(finished):
                await show(items[index], finished[index])
