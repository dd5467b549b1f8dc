"""How far a transfer is, told to whoever asked."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from meta_media.protocol.models import Progress

if TYPE_CHECKING:
    from meta_media.http.call import Call

__all__ = ["ItemProgress", "ProgressCallback", "ProgressReporter", "delta_callback"]

ProgressCallback = Callable[[Progress], Any]


class ProgressReporter:
    """
    Counts bytes and tells a callback.

    Args:
        callback: Plain or async; whatever it raises ends the transfer and reaches the caller unchanged.
        total: Bytes expected, where known.
    """

    def __init__(self, callback: ProgressCallback | None, total: int | None) -> None:
        self._callback = callback
        self._total = total
        self.transferred = 0

    async def add(self, size: int) -> None:
        """Count so many bytes more."""
        self.transferred += size
        if self._callback is not None:
            told = self._callback(Progress(transferred=self.transferred, total=self._total))
            if inspect.isawaitable(told):
                await told


def delta_callback(move: Callable[[int], Awaitable[None]], callback: ProgressCallback | None) -> ProgressCallback:
    """Make a callback that tells how many bytes have moved since it was called last: fewer than none after a new start."""
    before = 0

    async def progress(now: Progress) -> None:
        nonlocal before
        moved, before = now.transferred - before, now.transferred
        await move(moved)
        if callback is not None and inspect.isawaitable(told := callback(now)):
            await told

    return progress


class ItemProgress:
    """
    What a job tells of an item while it works on it: that so many bytes have moved, of which some may be taken back.

    Attributes:
        size: Bytes so far.
        call: The call that is made for the item, if one was.
    """

    def __init__(self, tell: Callable[[int], Awaitable[None]]) -> None:
        self.size = 0
        self.call: Call | None = None
        self._tell = tell
        self._hurried = False

    def on(self, call: Call) -> Call:
        """Note the call, before it is entered."""
        self.call = call
        if self._hurried:
            call.stop_waiting()
        return call

    def stop_waiting(self) -> None:
        """Let the item wait for nothing any more; see `Call.hurry`."""
        self._hurried = True
        if self.call is not None:
            self.call.stop_waiting()

    async def __call__(self, size: int) -> None:
        """Note that bytes have moved."""
        self.size += size
        await self._tell(size)
