"""From a coroutine to an exit status: signals end it cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any, Final

__all__ = ["FAILED", "FINE", "USAGE", "InterruptedBySignalError", "LeftReadingError", "run_until_signal"]

FINE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
_SIGNALS: Final = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class InterruptedBySignalError(Exception):
    """
    A signal ended the command, which has cleaned up.

    Attributes:
        status: The exit status of a process that ends so: 128 and the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.status = 128 + number


class LeftReadingError(Exception):
    """
    The command has come to its end, but a thread still waits for a pipe that may stay silent for ever.

    Attributes:
        status: The exit status.
    """

    def __init__(self, status: int) -> None:
        super().__init__("a list was not read to its end")
        self.status = status


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
