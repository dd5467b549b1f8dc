"""How long a transfer may take: idle, too slow, past its deadline, whichever comes first."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterable
from typing import Any, Literal

__all__ = ["DeadlineError", "TooSlowError", "TransferTimeouts", "UntimedSource"]

Phase = Literal["connect", "read", "write"]


class TooSlowError(Exception):
    """Bytes move, but fewer than the minimum rate."""


class DeadlineError(Exception):
    """Bytes may move as they like: the time for all of them is over."""


class TransferTimeouts:
    """
    The clocks of one call. They run inside `with clock`, which is while we wait for the network, not for our caller.

    Args:
        connect: Seconds to connect, TLS included.
        read: Seconds without a byte from the peer.
        write: Seconds in which the peer takes nothing.
        rate: Bytes per second that must move, on average over such a wait; 0 for any.
        deadline: Seconds in all. None: what the waits above add up to for each `expect`, and its bytes at `rate`.

    Attributes:
        timer: An `asyncio.Timeout` that is to stand still whenever the clocks do.
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
        self._allowed = deadline or 0.0
        self._spent = 0.0
        self._began = math.inf  # when they were last set going
        self._since, self._moved = 0.0, 0  # since when, by `_spent`, so many bytes moved
        self.timer: Any = None

    def extend(self, size: int) -> None:
        """Allow for one more request or reply, of so many bytes."""
        if self._scales:
            self._allowed += sum(self._limits.values()) + (size / self._rate if self._rate else math.inf)
        self._since, self._moved = self._spent, 0

    def __enter__(self) -> None:
        self._began = time.monotonic()
        self._reschedule(self.ends())

    def __exit__(self, *_: object) -> None:
        self._spent += time.monotonic() - self._began
        self._reschedule(None)

    def _reschedule(self, when: float | None) -> None:
        if self.timer is not None and not self.timer.expired():
            self.timer.reschedule(when)

    @property
    def left(self) -> float:
        """Seconds until the deadline, while they stand still."""
        return self._allowed - self._spent

    def ends(self) -> float | None:
        """Return when the deadline is, by the event loop's time, if they go on until then; None for never."""
        ends = self._began + self._allowed - self._spent
        return None if ends == math.inf else ends

    def timeouts(self) -> dict[str, float]:
        """Return the waits as httpx takes them."""
        return {phase: limit for phase, limit in self._limits.items() if limit < math.inf}

    def wait(self, phase: Phase) -> float | None:
        """Return the seconds that the next wait may take; None for ever."""
        left = self._began + self._allowed - self._spent - time.monotonic()
        seconds = min(self._limits[phase], max(left, 0.0))
        return None if seconds == math.inf else seconds

    def check_idle(self, phase: Phase, moved: int) -> None:
        """Judge a wait that took all of its time, in which so many bytes moved; return if it may go on."""
        if moved <= 0 or self._late():
            raise self.error(phase)
        if moved < self._rate * self._limits[phase]:
            raise self._too_slow(moved, self._limits[phase])

    def record(self, phase: Phase, count: int) -> None:
        """Judge bytes of a body that moved in any number of waits."""
        self._moved += count
        spent = self._spent + time.monotonic() - self._began
        seconds = spent - self._since
        if seconds >= self._limits[phase]:
            if self._moved < self._rate * seconds:
                raise self._too_slow(self._moved, seconds)
            self._since, self._moved = spent, 0

    def error(self, phase: Phase) -> Exception:
        """Say what a wait for nothing has run into."""
        import httpx

        if self._late():
            return DeadlineError("the time for the whole transfer is over")
        idle = {"connect": httpx.ConnectTimeout, "read": httpx.ReadTimeout, "write": httpx.WriteTimeout}
        return idle[phase]("no progress")

    def _late(self) -> bool:
        return time.monotonic() >= self._began + self._allowed - self._spent

    def _too_slow(self, moved: int, seconds: float) -> TooSlowError:
        return TooSlowError(f"{moved} bytes in {seconds:.1f} seconds")


class UntimedSource:
    """The caller's source, with the clocks standing still while it has its turn; judged is how fast its pieces leave."""

    def __init__(self, content: AsyncIterable[Any], timeouts: TransferTimeouts) -> None:
        self._pieces = aiter(content)
        self._clock = timeouts
        self._leaving = 0

    def __aiter__(self) -> UntimedSource:
        return self

    async def __anext__(self) -> Any:
        self._clock.record("write", self._leaving)
        self._clock.__exit__()
        try:
            piece = await anext(self._pieces)
        finally:
            self._clock.__enter__()
        self._leaving = len(piece)
        return piece
