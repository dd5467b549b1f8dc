"""Progress of a transfer, in bytes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from meta_media.errors import ConfigurationError
from meta_media.http.call import Call
from meta_media.protocol.models import Progress

__all__ = ["ItemProgress", "ProgressCallback", "ProgressReporter", "check_callback", "delta_callback"]

ProgressCallback = Callable[[Progress], Any]


def check_callback(callback: object) -> None:
    """Raise `ConfigurationError` for a `progress` that is no function."""
    if callback is not None and not callable(callback):
        raise ConfigurationError(f"progress must be a function, not {type(callback).__name__}")


class ProgressReporter:
    """Counts bytes, and calls the caller's callback, plain or async. Its exception ends the transfer, unchanged."""

    def __init__(self, callback: ProgressCallback | None, total: int | None) -> None:
        check_callback(callback)
        self._callback = callback
        self._total = total
        self.transferred = 0  # bytes so far

    async def add(self, size: int) -> None:
        """Count `size` more bytes."""
        self.transferred += size
        if self._callback is not None:
            result = self._callback(Progress(transferred=self.transferred, total=self._total))
            if inspect.isawaitable(result):
                await result


def delta_callback(item: ItemProgress, callback: ProgressCallback | None) -> ProgressCallback:
    """Make a callback that reports the bytes since its last call, negative after a restart, then calls the caller's own."""
    before = 0

    async def progress(now: Progress) -> None:
        nonlocal before
        delta, before = now.transferred - before, now.transferred
        item.in_callback = True
        await item(delta)
        if callback is not None and inspect.isawaitable(result := callback(now)):
            await result
        item.in_callback = False

    return progress


class ItemProgress:
    """Progress of one item of a bulk run, in byte deltas, negative after a restart; and the call in progress for it."""

    def __init__(self, report: Callable[[int], Awaitable[None]]) -> None:
        self.size = 0  # bytes so far
        self.call: Call | None = None  # the item's latest call
        self.skipped = False  # whether an earlier run had done the item
        self.in_callback = False  # stays True if the caller's callback raises
        self._report = report
        self._stopped = asyncio.Event()

    @property
    def attempts(self) -> int:
        """Requests sent by the item's latest call."""
        return self.call.attempts if self.call is not None else 0

    @property
    def callback_failed(self) -> bool:
        """Whether the caller's progress callback or token callable has failed."""
        return self.in_callback or (self.call is not None and self.call.token_failed)

    def on(self, call: Call) -> Call:
        """Note the call, before it is entered."""
        self.call = call
        if self._stopped.is_set():
            call.stop_waiting()
        return call

    async def wait(self, seconds: float) -> bool:
        """Wait until the seconds are over, or until `stop_waiting`. Return whether the item may go on."""
        with anyio.move_on_after(seconds):
            await self._stopped.wait()
        return not self._stopped.is_set()

    def stop_waiting(self) -> None:
        """Let neither this nor a later call of the item wait; see `Call.stop_waiting`."""
        self._stopped.set()
        if self.call is not None:
            self.call.stop_waiting()

    async def __call__(self, size: int) -> None:
        """Count a delta of `size` bytes, and report it."""
        self.size += size
        await self._report(size)
