"""
How fast requests may follow each other: what a client can afford to repeat, and what Meta lets one phone number do.

Everything here decides by a clock and a dice that are handed in.
"""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from meta_media.errors import RateLimitError

__all__ = ["MAX_RETRY_AFTER", "Limits", "RetryBudget", "Throttle", "backoff_delay"]

MAX_RETRY_AFTER: Final = 60.0  # seconds that a server may ask us to wait; for longer, the caller is told instead
_LONGEST_BACKOFF: Final = 8.0  # seconds, as in the SDKs of OpenAI and Stripe
_CAPACITY: Final = 500  # with the costs below: botocore's "standard" retry quota
_WIDE_OPEN: Final = 64  # unanswered requests at a time, from which on nobody counts
_HOUR: Final = 3600.0
_GATES: Final = 1000  # phone numbers that are remembered, if there is nothing to remember of them


def backoff_delay(nth: int, first: float, jitter: Callable[[], float] = random.random) -> float:
    """
    Return the seconds before the nth retry: exponential, with full jitter.

    Args:
        nth: From 1.
        first: The most that the first one waits, in seconds; twice that the second, and so on.
        jitter: Gives a number from 0 to 1.
    """
    return jitter() * min(_LONGEST_BACKOFF, first * 2.0 ** min(nth - 1, 60))


class RetryBudget:
    """
    Retries that a client can afford, so that a service in trouble is not sent three times what it cannot bear already.

    A retry costs 5, one after a timeout 10; the last one before a success gives that back, and a success at once earns 1.
    There are 500 to begin with, and never more.
    """

    def __init__(self) -> None:
        self._left = _CAPACITY

    def afford(self, cost: int) -> bool:
        """Pay, if there is enough left."""
        if cost > self._left:
            return False
        self._left -= cost
        return True

    def earn(self, cost: int) -> None:
        """Note a success, and what the last retry before it cost."""
        self._left = min(self._left + max(cost, 1), _CAPACITY)


class Throttle:
    """
    Lets the requests of one phone number through, at the pace that Meta allows.

    A throttled request shuts it. Afterwards one request goes first, and each that is answered well lets one more be under
    way, until there is no reason to count any longer.

    Args:
        now: Seconds that only go forward.
        sleep: Waits for so many of them.
        jitter: Gives a number from 0 to 1.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = anyio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._now = now
        self._sleep = sleep
        self._dice = jitter
        self._queue = anyio.Lock()
        self._changed = anyio.Event()
        self._shut_until = -math.inf
        self._times = 0  # that it was shut in a row
        self._generation = 0  # since it was shut last; answers of an earlier one say nothing about this
        self._under_way = 0
        self._allowed = math.inf
        self._next_upload = -math.inf
        self._refused_lookups: deque[float] = deque()

    @property
    def left(self) -> float:
        """Seconds until it opens again; 0 when it is not shut."""
        return max(self._shut_until - self._now(), 0.0)

    @property
    def open(self) -> bool:
        """Whether a request may go now."""
        return self._under_way < self._allowed and not self.left

    @property
    def idle(self) -> bool:
        """Whether nobody uses it, and it remembers nothing that matters."""
        waits = self._under_way or self._refused_lookups or self._next_upload > self._now()
        return self._allowed == math.inf and not waits

    async def opened(self) -> None:
        """Wait until it is open, first come, first served."""
        if self.open:
            return
        async with self._queue:
            while not self.open:
                if self.left:
                    await self._sleep(self.left)
                else:
                    self._changed = anyio.Event()
                    await self._changed.wait()

    def enter(self) -> int:
        """Count a request that goes now; return its ticket."""
        self._under_way += 1
        return self._generation

    def leave(self, ticket: int, *, well: bool) -> None:
        """Note that a request is over, and whether it was answered as it should be."""
        if ticket != self._generation:
            return
        self._under_way -= 1
        if well and self._allowed < math.inf:
            self._times = 0
            self._allowed = self._allowed + 1 if self._allowed < _WIDE_OPEN else math.inf
        self._changed.set()

    def shut(self, ticket: int, asked: float | None, first: float) -> None:
        """
        Let nobody through for a while, because a request was throttled.

        Args:
            ticket: Its ticket.
            asked: Seconds that Meta asks for, where it does; no more than a minute of them, then somebody tries.
            first: The most that the first wait takes where Meta does not say, in seconds; see `backoff_delay`.
        """
        if ticket == self._generation:  # of all that were under way together, one counts
            self._generation += 1
            self._times += 1
            self._under_way, self._allowed = 0, 1
        elif asked is None:
            return
        seconds = backoff_delay(self._times, first, self._dice) if asked is None else min(asked, MAX_RETRY_AFTER)
        self._shut_until = max(self._shut_until, self._now() + seconds)
        self._changed.set()

    async def upload_slot(self, per_second: float) -> None:
        """Wait for an upload's turn: a bucket of so many tokens a second, which holds those of one second."""
        now = self._now()
        self._next_upload = max(self._next_upload, now - max(per_second - 1, 0) / per_second) + 1 / per_second
        if (wait := self._next_upload - 1 / per_second - now) > 0:
            await self._sleep(wait)

    def check_lookups(self, limit: int) -> None:
        """Raise `RateLimitError` where the last hour's lookups have been refused so often that a provider would block them."""
        now = self._now()
        while self._refused_lookups and self._refused_lookups[0] <= now - _HOUR:
            self._refused_lookups.popleft()
        if len(self._refused_lookups) >= limit:
            raise RateLimitError(
                f"{limit} lookups were refused within an hour, so info_errors_per_hour allows no more for now",
                retry_after=self._refused_lookups[-limit] + _HOUR - now,
            )

    def lookup_refused(self) -> None:
        """Note that a lookup was answered with an error."""
        self._refused_lookups.append(self._now())
        if len(self._refused_lookups) > _CAPACITY:
            self._refused_lookups.popleft()


class Limits:
    """
    What all copies of a client share: the budget, and a gate for each phone number.

    Args:
        now: Seconds that only go forward.
        sleep: Waits for so many of them.
        jitter: Gives a number from 0 to 1.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = anyio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._now = now
        self._gates: dict[str | None, Throttle] = {}
        self.budget = RetryBudget()
        self.sleep = sleep
        self.jitter = jitter

    def gate(self, number: str | None) -> Throttle:
        """Return the gate of a number; those that remember nothing are forgotten when there are many."""
        gate = self._gates.get(number)
        if gate is None:
            if len(self._gates) >= _GATES:
                self._gates = {known: gate for known, gate in self._gates.items() if not gate.idle}
            gate = self._gates[number] = Throttle(now=self._now, sleep=self.sleep, jitter=self.jitter)
        return gate
