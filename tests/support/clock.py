"""A clock of a test's own."""

from __future__ import annotations

import asyncio


class Slept(list[float]):
    """A clock that advances only when something sleeps by it, and the seconds of each sleep."""

    def now(self) -> float:
        """Return the time."""
        return 1000.0 + sum(self)

    async def __call__(self, seconds: float) -> None:
        """Sleep."""
        self.append(seconds)
        await asyncio.sleep(0)  # a turn of the loop
