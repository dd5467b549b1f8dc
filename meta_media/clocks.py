"""How long a transfer may take: idle, too slow, past its deadline, whichever comes first."""

from __future__ import annotations

import math
import time
from typing import Literal

__all__ = ["Clock", "DeadlineExceeded", "TooSlow"]

Phase = Literal["connect", "read", "write"]


class TooSlow(Exception):
    """Bytes move, but fewer than the minimum rate."""


class DeadlineExceeded(Exception):
    """Bytes may move as they like: the time for all of them is over."""


class Clock:
    """
    The clocks of one call. They run inside `with clock`, which is while we wait for the network, not for our caller.

    Args:
        connect: Seconds to connect, TLS included.
        read: Seconds without a byte from the peer.
        write: Seconds in which the peer takes nothing.
        rate: Bytes per second that must move, on average over such a wait; 0 for any.
        deadline: Seconds in all. None: what the waits above add up to for each `expect`, and its bytes at `rate`.
    """

    def __init__(
        self, *, connect: float | None, read: float | None, write: float | None, rate: float, deadline: float | None
    ) -> None:
        self._limits: dict[Phase, float] = {
            "connect": connect or math.inf,
            "read": read or math.inf,
            "write": write or math.inf,
        }
        self._rate = rate
        self._scales = deadline is None
        self._left = 0.0 if deadline is None else deadline  # while stopped
        self._ends = math.inf  # while running
        self._since, self._moved = 0.0, 0

    def expect(self, size: int) -> None:
        """Allow for one more request and reply, of so many bytes together."""
        if self._scales:
            self._left += sum(self._limits.values()) + (size / self._rate if self._rate else math.inf)

    def __enter__(self) -> None:
        self._since, self._moved = time.monotonic(), 0
        self._ends = self._since + self._left

    def __exit__(self, *_: object) -> None:
        self._left = self._ends - time.monotonic()

    def wait(self, phase: Phase) -> float | None:
        """Return the seconds that the next wait may take; None for ever."""
        seconds = min(self._limits[phase], max(self._ends - time.monotonic(), 0.0))
        return None if seconds == math.inf else seconds

    def timeouts(self) -> dict[str, float]:
        """Return the waits as httpx takes them."""
        return {phase: limit for phase, limit in self._limits.items() if limit < math.inf}

    def left(self) -> float | None:
        """Return the seconds until the deadline; None for ever."""
        return None if self._ends == math.inf else max(self._ends - time.monotonic(), 0.0)

    def moved(self, count: int) -> None:
        """Judge bytes that came from somebody who minds the idle waits alone."""
        self._moved += count
        now = time.monotonic()
        if now - self._since >= self._limits["read"]:
            self.waited("read", self._moved)
            self._since, self._moved = now, 0

    def waited(self, phase: Phase, moved: int) -> None:
        """Judge a wait that took all of its time, in which so many bytes moved; return if it may go on."""
        if moved <= 0 or time.monotonic() >= self._ends:
            raise self.over(phase)
        if moved < self._rate * self._limits[phase]:
            raise TooSlow(f"{moved} bytes in {self._limits[phase]:g} seconds")

    def over(self, phase: Phase) -> Exception:
        """Say what a wait for nothing has run into."""
        import httpx

        if time.monotonic() >= self._ends:
            return DeadlineExceeded("the time for the whole transfer is over")
        idle = {"connect": httpx.ConnectTimeout, "read": httpx.ReadTimeout, "write": httpx.WriteTimeout}
        return idle[phase]("no progress")
