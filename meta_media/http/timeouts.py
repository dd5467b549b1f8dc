"""The time that a transfer may take: it ends when it is idle, too slow, or past its deadline."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterable
from typing import Any, Final, Literal

__all__ = ["DeadlineError", "TooSlowError", "TransferTimeouts", "UntimedSource", "Waiter"]

Phase = Literal["connect", "read", "write"]
_LONGEST: Final = 2**63  # bytes; a Content-Length above it is no number that a float can hold


class TooSlowError(Exception):
    """Bytes move, but more slowly than the minimum rate."""


class DeadlineError(Exception):
    """The time for the whole transfer is over."""


class TransferTimeouts:
    """
    The timeouts of one call. Time counts inside `with timeouts` only: while the network is waited for, not the caller.

    `connect` (with TLS), `read` and `write` are the seconds in which no byte of a body moves. Headers, interim responses,
    chunk extensions and trailers do not count: the headers of a response arrive within `read` in all. `rate` is the bytes of
    a body per second that must move on average over such a timeout, 0 for any. `deadline` is the seconds in all. Without one,
    each `extend` begins a part, which may take the three timeouts and the time for its bytes at `rate`.
    """

    timer: Any = None  # an `asyncio.Timeout`, paused whenever the time does not count
    _spent = 0.0  # when the time was last paused
    _began: float | None = None  # when the time was last resumed; None while it is paused
    _idle_since = 0.0  # the time spent when a byte of a body last moved, or something else was begun
    _since, _moved = 0.0, 0  # bytes that moved since the time spent was this

    def __init__(
        self, *, connect: float | None, read: float | None, write: float | None, rate: float, deadline: float | None
    ) -> None:
        connect, read, write = connect or math.inf, read or math.inf, write or math.inf
        self._limits: dict[Phase, float] = {"connect": connect, "read": read, "write": write}
        self._waits = connect + read + write
        self._rate = rate
        self._scales = deadline is None
        self._allowed = deadline or math.inf

    def extend(self, size: int) -> None:
        """Begin a request or response with a body of `size` bytes. What the one before left of its time is lost."""
        spent = self._now()
        if self._scales:
            transfer = min(size, _LONGEST) / self._rate if self._rate else math.inf
            self._allowed = spent + self._waits + (transfer if size else 0.0)
        self._idle_since = self._since = spent
        self._moved = 0

    def restart(self) -> None:
        """Begin a wait for something else than the next byte of a body."""
        self._idle_since = self._now()

    def __enter__(self) -> None:
        self._began = time.monotonic()
        if self.timer is not None and not self.timer.expired():
            self.timer.reschedule(self.ends())

    def __exit__(self, *_: object) -> None:
        self._spent, self._began = self._now(), None
        if self.timer is not None and not self.timer.expired():
            self.timer.reschedule(None)

    def _now(self) -> float:
        """Return the time spent, in seconds."""
        return self._spent if self._began is None else self._spent + time.monotonic() - self._began

    @property
    def left(self) -> float:
        """Seconds that a wait before the next attempt may take: those until the deadline, which `extend` will not move."""
        left = self._allowed - self._now()
        return math.inf if self._scales and left > 0 else left

    @property
    def deadline(self) -> str:
        """The seconds in all, in words."""
        return f"{round(self._allowed, 3)} s"

    def ends(self, phase: Phase | None = None) -> float | None:
        """Return the event loop's time of the deadline, or that of the phase's timeout if it is earlier; None for neither."""
        spent = self._now()
        seconds = self._allowed - spent
        if phase is not None:
            seconds = min(seconds, self._limits[phase] + self._idle_since - spent)
        return None if seconds == math.inf else time.monotonic() + seconds

    def timeouts(self) -> dict[str, float]:
        """Return the timeouts in httpx's form."""
        return {phase: limit for phase, limit in self._limits.items() if limit < math.inf}

    def wait(self, phase: Phase) -> float | None:
        """Return the seconds that the next wait may take; None for no limit."""
        ends = min(self._limits[phase] + self._idle_since, self._allowed)
        return None if ends == math.inf else max(ends - self._now(), 0.0)

    def check_deadline(self) -> None:
        """Raise if the deadline has passed, also where there is nothing to wait for."""
        if self._now() >= self._allowed:
            raise self._deadline_error()

    def check_idle(self, phase: Phase, moved: int) -> None:
        """Raise after a wait that timed out if nothing moved in it, the rate was too low, or the deadline has passed."""
        if moved <= 0 or self._late(phase):
            raise self.error(phase)
        if moved < self._rate * self._limits[phase]:
            raise self._too_slow(moved, self._limits[phase])
        self.restart()

    def record(self, phase: Phase, count: int) -> None:
        """Count bytes of a body that moved, and raise if the rate was too low or the deadline has passed."""
        spent = self._idle_since = self._now()
        if spent >= self._allowed:
            raise self._deadline_error()
        self._moved += count
        seconds = spent - self._since
        if seconds >= self._limits[phase]:
            if self._moved < self._rate * seconds:
                raise self._too_slow(self._moved, seconds)
            self._since, self._moved = spent, 0

    def error(self, phase: Phase | None) -> Exception:
        """Return the exception of a wait in which nothing moved, or of one that only the deadline ends."""
        import httpx

        if phase is None or self._late(phase):
            return self._deadline_error()
        idle = {"connect": httpx.ConnectTimeout, "read": httpx.ReadTimeout, "write": httpx.WriteTimeout}
        return idle[phase]("no progress")

    def _late(self, phase: Phase) -> bool:
        """Return whether the deadline ended a wait. The clock alone does not tell: uvloop's timers end a moment early."""
        return self._allowed <= max(self._limits[phase] + self._idle_since, self._now())

    def _deadline_error(self) -> DeadlineError:
        return DeadlineError(f"it took longer than its deadline of {self.deadline}")

    def _too_slow(self, moved: int, seconds: float) -> TooSlowError:
        return TooSlowError(f"{moved} bytes in {seconds:.1f} seconds")


class Waiter:
    """
    The waits of a connection, one at a time.

    They share a timer, because most of them end early: one that ends before its wait should is set anew.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[bool] | None = None
        self._ends = math.inf  # the loop's time at which the wait ends
        self._timer: asyncio.TimerHandle | None = None  # set for the end of this wait or of an earlier one

    def wait(self, timeout: float | None) -> asyncio.Future[bool]:
        """Return a future of whether `wake` is called within the timeout."""
        self._future = self._loop.create_future()
        self._ends = math.inf if timeout is None else self._loop.time() + timeout
        if timeout is not None and (self._timer is None or self._ends < self._timer.when()):
            self.close()
            self._timer = self._loop.call_at(self._ends, self._check)
        return self._future

    def wake(self) -> None:
        """End the wait."""
        if self._future is not None and not self._future.done():
            self._future.set_result(True)

    def close(self) -> None:
        """Drop the timer, which refers to what waits."""
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        self._timer = None
        if self._future is None or self._future.done() or self._ends == math.inf:
            return
        if self._loop.time() < self._ends:
            self._timer = self._loop.call_at(self._ends, self._check)
        else:
            self._future.set_result(False)


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
        except StopAsyncIteration:
            self._timeouts.extend(0)  # the time for the body is not to be spent on the response's headers
            raise
        finally:
            self._timeouts.__enter__()
        self._piece_size = len(piece)
        return piece
