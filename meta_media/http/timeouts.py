"""The time that a transfer may take: it ends when it is idle, too slow, or past its deadline."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterable
from typing import Any, Literal

__all__ = ["DeadlineError", "TooSlowError", "TransferTimeouts", "UntimedSource"]

Phase = Literal["connect", "read", "write"]


class TooSlowError(Exception):
    """Bytes move, but more slowly than the minimum rate."""


class DeadlineError(Exception):
    """The time for the whole transfer is over."""


class TransferTimeouts:
    """
    The timeouts of one call. Time counts inside `with timeouts` only: while the network is waited for, not the caller.

    `connect` (with TLS), `read` and `write` are the seconds in which nothing moves. `rate` is the bytes per second that must
    move on average over such a timeout, 0 for any. `deadline` is the seconds in all. Without one, each `extend` allows the
    three timeouts and the time for its bytes at `rate`.
    """

    def __init__(
        self, *, connect: float | None, read: float | None, write: float | None, rate: float, deadline: float | None
    ) -> None:
        limits: dict[Phase, float | None] = {"connect": connect, "read": read, "write": write}
        self._limits = {phase: limit or math.inf for phase, limit in limits.items()}
        self._rate = rate
        self._scales = deadline is None
        self._allowed = deadline or 0.0
        self._spent = 0.0
        self._began = math.inf  # when the time was last resumed
        self._since, self._moved = 0.0, 0  # bytes that moved since `_spent` had this value
        self.timer: Any = None  # an `asyncio.Timeout`, paused whenever the time does not count

    def extend(self, size: int) -> None:
        """Allow time for one more request or response of `size` bytes."""
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
        """Seconds until the deadline, while the time is paused."""
        return self._allowed - self._spent

    @property
    def deadline(self) -> str:
        """The seconds in all, in words."""
        return f"{round(self._allowed, 3)} s"

    def ends(self) -> float | None:
        """Return the event loop's time of the deadline, if the time counts until then; None if there is none."""
        ends = self._began + self._allowed - self._spent
        return None if ends == math.inf else ends

    def timeouts(self) -> dict[str, float]:
        """Return the timeouts in httpx's form."""
        return {phase: limit for phase, limit in self._limits.items() if limit < math.inf}

    def wait(self, phase: Phase) -> float | None:
        """Return the seconds that the next wait may take; None for no limit."""
        left = self._began + self._allowed - self._spent - time.monotonic()
        seconds = min(self._limits[phase], max(left, 0.0))
        return None if seconds == math.inf else seconds

    def check_idle(self, phase: Phase, moved: int) -> None:
        """Raise after a wait that timed out if nothing moved in it, the rate was too low, or the deadline has passed."""
        if moved <= 0 or self._late():
            raise self.error(phase)
        if moved < self._rate * self._limits[phase]:
            raise self._too_slow(moved, self._limits[phase])

    def record(self, phase: Phase, count: int) -> None:
        """Count bytes of a body that moved, and raise if the rate was too low."""
        self._moved += count
        spent = self._spent + time.monotonic() - self._began
        seconds = spent - self._since
        if seconds >= self._limits[phase]:
            if self._moved < self._rate * seconds:
                raise self._too_slow(self._moved, seconds)
            self._since, self._moved = spent, 0

    def error(self, phase: Phase) -> Exception:
        """Return the exception of a wait in which nothing moved."""
        import httpx

        if self._late():
            return DeadlineError(f"it took longer than its deadline of {self.deadline}")
        idle = {"connect": httpx.ConnectTimeout, "read": httpx.ReadTimeout, "write": httpx.WriteTimeout}
        return idle[phase]("no progress")

    def _late(self) -> bool:
        return time.monotonic() >= self._began + self._allowed - self._spent

    def _too_slow(self, moved: int, seconds: float) -> TooSlowError:
        return TooSlowError(f"{moved} bytes in {seconds:.1f} seconds")


class UntimedSource:
    """The body of a request. The time that the caller's source takes for a piece does not count; that to send it does."""

    def __init__(self, content: AsyncIterable[Any], timeouts: TransferTimeouts) -> None:
        self._pieces = aiter(content)
        self._timeouts = timeouts
        self._piece_size = 0

    def __aiter__(self) -> UntimedSource:
        return self

    async def __anext__(self) -> Any:
        self._timeouts.record("write", self._piece_size)
        self._timeouts.__exit__()
        try:
            piece = await anext(self._pieces)
        finally:
            self._timeouts.__enter__()
        self._piece_size = len(piece)
        return piece
