"""
Clocks of a test's own.

A module that uses the fixture has `pytest_plugins = ["tests.support.clock"]`. Others import this module before pytest loads it as
a plugin: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

_BEAT = 0.05  # seconds from one look at the clock to the next, at most, on a machine that is not busy
_LONGEST = 2 * _BEAT  # what passes between two looks at a steady clock


class Slept(list[float]):
    """A clock that advances only when something sleeps by it, and the seconds of each sleep."""

    def now(self) -> float:
        """Return the time."""
        return 1000.0 + sum(self)

    async def __call__(self, seconds: float) -> None:
        """Sleep."""
        self.append(seconds)
        await asyncio.sleep(0)  # a turn of the loop


@pytest.fixture
async def steady_clock(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """
    `time.monotonic` and the event loop's time, without the moments in which the machine does not run this process.

    For a client and a server on one loop, of which the client would time out before the server can go on.
    """
    real, loop = time.monotonic, asyncio.get_running_loop()
    last, lost = real(), 0.0

    def monotonic() -> float:
        nonlocal last, lost
        now = real()
        lost += max(0.0, now - last - _LONGEST)
        last = now
        return now - lost

    async def beat() -> None:
        while True:  # noqa: ASYNC110 - it waits for nothing
            await asyncio.sleep(_BEAT)  # so that a long wait is none of those moments

    if isinstance(loop, asyncio.BaseEventLoop):  # uvloop's has a clock of its own
        monkeypatch.setattr(time, "monotonic", monotonic)
    heart = asyncio.ensure_future(beat())
    yield
    heart.cancel()
