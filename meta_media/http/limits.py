"""
How fast requests may follow each other: the retries that a client can afford, and the pace that Meta's limits set.

Time, sleep and randomness are passed in, so that tests are deterministic.
"""

from __future__ import annotations

import contextlib
import copy
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterator
from typing import Final

import anyio

from meta_media.errors import ApiError, MediaError, RateLimitError, Scope
from meta_media.http.loop_bound import LoopBound

__all__ = ["MAX_RETRY_AFTER", "Limits", "RetryBudget", "Slot", "Throttle", "backoff_delay"]

Number = Callable[[], float]  # returns seconds of a monotonic clock, or as jitter a number from 0 to 1
Sleep = Callable[[float], Awaitable[object]]  # waits for a number of seconds

MAX_RETRY_AFTER: Final = 60.0  # seconds; if Meta asks for a longer wait, the error is raised at once
_MAX_BACKOFF: Final = 8.0  # seconds, as in the SDKs of OpenAI and Stripe
_CAPACITY: Final = 500  # with the costs below: botocore's "standard" retry quota
_SLOW_START_END: Final = 64  # requests in flight at which slow start ends
_HOUR: Final = 3600.0  # seconds
_MAX_THROTTLES: Final = 1000  # above which throttles without any state are dropped


def backoff_delay(nth: int, first: float, jitter: Number) -> float:
    """Return the seconds before the nth retry: a random part of `first` seconds, doubled with each retry up to 8."""
    return jitter() * min(_MAX_BACKOFF, first * 2.0 ** min(nth - 1, 60))


class RetryBudget:
    """
    The retries that a client can afford, so that retries do not triple the load of a service in trouble.

    It starts with 500 units, and never has more. A retry costs 5 units, one after a timeout 10. A success gives back the
    cost of the retry before it; a success at the first attempt earns 1.
    """

    def __init__(self) -> None:
        self._left = _CAPACITY

    def afford(self, cost: int) -> bool:
        """Pay for a retry; False if there is not enough left."""
        if cost > self._left:
            return False
        self._left -= cost
        return True

    def earn(self, cost: int) -> None:
        """Count a success, and give back what the retry before it cost."""
        if self._left < _CAPACITY:
            self._left = min(self._left + max(cost, 1), _CAPACITY)


class Throttle:
    """
    The pace of the requests that one limit of Meta's is about.

    A throttled request shuts it for a while. Then slow start begins: one request is sent, and each success allows one more
    in flight, until 64 are. With `by_fours`, the waits are Meta's own for a pair of numbers: 4^X seconds, X from 0.
    """

    def __init__(self, now: Number, sleep: Sleep, jitter: Number = random.random, *, by_fours: bool = False) -> None:
        self._now = now
        self._by_fours = by_fours
        self._sleep = sleep
        self._jitter = jitter
        self._queue = anyio.Lock()
        self._changed: anyio.Event | None = None  # of the one that waits at the head of the queue
        self._shut_until = -math.inf
        self.free = True  # whether it was never shut, or slow start has ended since
        self._shut_count = 0  # in a row
        self._generation = 0  # of requests; a response to one sent before the last `shut` changes nothing
        self._in_flight = 0
        self._allowed = math.inf
        self._next_upload = -math.inf
        self._refused_lookups: deque[float] = deque()

    @property
    def left(self) -> float:
        """Seconds until it opens; 0 if it is not shut."""
        return max(self._shut_until - self._now(), 0.0)

    @property
    def open(self) -> bool:
        """Whether a request may be sent now."""
        return self._in_flight < self._allowed and (self._shut_until == -math.inf or not self.left)

    @property
    def idle(self) -> bool:
        """Whether it is not in use and has no state worth keeping."""
        waits = self._in_flight or self._refused_lookups or self._next_upload > self._now()
        return self._allowed == math.inf and not waits

    async def opened(self) -> None:
        """Wait until it is open, first come, first served."""
        if self.open:
            return
        async with self._queue:
            while not self.open:
                if self._in_flight < self._allowed:  # only time is missing, of which none may be left by now
                    await self._sleep(self.left)
                else:
                    self._changed = anyio.Event()
                    await self._changed.wait()

    def enter(self) -> int:
        """Count a request that is sent now; return its ticket."""
        self._in_flight += 1
        return self._generation

    def leave(self, ticket: int, *, succeeded: bool) -> None:
        """Count the end of a request, which allows one more in flight if it succeeded."""
        if ticket != self._generation:
            return
        self._in_flight -= 1
        if succeeded and self._allowed < math.inf:
            self._shut_count = 0
            self._allowed = self._allowed + 1 if self._allowed < _SLOW_START_END else math.inf
            self.free = self._allowed == math.inf and not self.left
        if self._changed is not None:
            self._changed.set()

    def shut(self, ticket: int, retry_after: float | None, first: float) -> None:
        """
        Hold back all requests for the seconds that Meta asks for, at most a minute, because one was throttled.

        `first` is the longest first wait in seconds where Meta asks for none; see `backoff_delay`.
        """
        if ticket == self._generation:  # of several requests in flight together, one counts
            self._generation += 1
            self._shut_count += 1
            self._in_flight, self._allowed = 0, 1
        elif retry_after is None:
            return
        if retry_after is None and self._by_fours:
            retry_after = 4.0 ** min(self._shut_count - 1, 9)
        delay = backoff_delay(self._shut_count, first, self._jitter) if retry_after is None else retry_after
        self._shut_until = max(self._shut_until, self._now() + min(delay, MAX_RETRY_AFTER))
        self.free = False
        if self._changed is not None:
            self._changed.set()

    def renewed(self) -> Throttle:
        """Return one for another event loop: as shut as this one, and without its requests in flight."""
        twin = copy.copy(self)
        vars(twin).update(_queue=anyio.Lock(), _changed=None, _in_flight=0)
        return twin

    async def upload_slot(self, per_second: float) -> None:
        """Wait until another upload may start: they are evenly spaced, so that no second has more of them."""
        now = self._now()
        self._next_upload = max(self._next_upload, now) + 1 / per_second
        if (wait := self._next_upload - 1 / per_second - now) > 0:
            await self._sleep(wait)

    def check_lookups(self, limit: int) -> None:
        """Raise `RateLimitError` if `limit` lookups were refused within the last hour, before the provider blocks more."""
        now = self._now()
        while self._refused_lookups and self._refused_lookups[0] <= now - _HOUR:
            self._refused_lookups.popleft()
        if len(self._refused_lookups) >= limit:
            raise RateLimitError(
                f"{limit} lookups were refused within an hour, which is all that Settings.info_errors_per_hour allows",
                retry_after=self._refused_lookups[-limit] + _HOUR - now,
            )

    def lookup_refused(self) -> None:
        """Count a lookup whose response was an error."""
        self._refused_lookups.append(self._now())
        if len(self._refused_lookups) > _CAPACITY:
            self._refused_lookups.popleft()


class Limits:
    """The retry budget of a client and its copies, and a throttle for whatever Meta limits: app, accounts, numbers, pairs."""

    def __init__(
        self, *, now: Number = time.monotonic, sleep: Sleep = anyio.sleep, jitter: Number = random.random
    ) -> None:
        self._now = now
        self._throttles = LoopBound[dict[Hashable, Throttle]](
            "MediaApi", lambda before: {key: throttle.renewed() for key, throttle in (before or {}).items()}
        )
        self.budget = RetryBudget()
        self.sleep = sleep
        self.jitter = jitter

    def throttle(self, key: Hashable, *, by_fours: bool = False) -> Throttle:
        """Return the throttle of a number, or of another key. Idle ones are dropped when there are many."""
        throttles = self._throttles.get()
        throttle = throttles.get(key)
        if throttle is None:
            if len(throttles) >= _MAX_THROTTLES:
                for idle in [known for known, kept in throttles.items() if kept.idle]:
                    del throttles[idle]
            throttle = throttles[key] = Throttle(self._now, self.sleep, self.jitter, by_fours=by_fours)
        return throttle

    def of_call(self, account: Hashable, number: str | None) -> dict[Scope, Throttle]:
        """Return the throttles of a call. Without a number, its limits are those of its account's calls without one."""
        known, of_account, of_number = self._throttles.get(), (account,), number or ("no number", account)
        return {
            "app": known.get(()) or self.throttle(()),
            "account": known.get(of_account) or self.throttle(of_account),
            "number": known.get(of_number) or self.throttle(of_number),
        }


class Slot:
    """
    A call's slot of the concurrency limiter, held only while none of its throttles is shut: it blocks no other number.

    The throttles are known by what they are about: the call's app, its account, its number, the recipient of a message.
    """

    failure: MediaError | None = None  # of the last attempt, raised if `stop_waiting` ends a wait
    interrupted = False  # whether `stop_waiting` has ended a wait
    kept = False  # whether it is held even while the call waits
    _held = _stopped = False
    _scope: anyio.CancelScope | None = None  # of the latest wait

    def __init__(self, limiter: anyio.Semaphore, throttles: dict[Scope, Throttle]) -> None:
        self.throttles = throttles
        self._limiter = limiter

    @property
    def open(self) -> bool:
        """Whether a request may be sent now."""
        for throttle in self.throttles.values():  # noqa: SIM110 - a generator takes twice as long
            if not (throttle.free or throttle.open):
                return False
        return True

    async def acquire(self) -> None:
        """Hold the slot while the throttles are open; it is given up while one of them is shut."""
        while not self.take():
            self.pause()
            with self.waiting():
                while not self.open:
                    for throttle in self.throttles.values():
                        await throttle.opened()
                if not self._held:
                    await self._limiter.acquire()
            self._held = True

    def take(self) -> bool:
        """Hold the slot if that needs no wait; return whether it is held."""
        if not self.open:
            return False
        if not self._held and self._limiter.value and not self._stopped:
            self._limiter.acquire_nowait()
            self._held = True
        return self._held

    def pause(self) -> None:
        """Give the slot back, unless it is kept, because the call has to wait."""
        if not self.kept:
            self.release()

    def release(self) -> None:
        """Give the slot back, if it is held."""
        if self._held:
            self._held = False
            self._limiter.release()

    def enter(self) -> dict[Throttle, int]:
        """Count a request that is sent now; return its tickets."""
        return {throttle: throttle.enter() for throttle in self.throttles.values()}

    def leave(self, tickets: dict[Throttle, int], *, succeeded: bool) -> None:
        """Count the end of a request."""
        for throttle, ticket in tickets.items():
            throttle.leave(ticket, succeeded=succeeded)

    def shut(self, tickets: dict[Throttle, int], error: ApiError, first: float) -> None:
        """Shut the throttle that an error is about."""
        throttle = self.throttles[error.scope if error.scope in self.throttles else "number"]
        throttle.shut(tickets[throttle], error.retry_after, first)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Make the waits of a block end with a `MediaError` after `stop_waiting`."""
        if not self._stopped:
            with anyio.CancelScope() as scope:
                self._scope = scope
                yield
            if not scope.cancelled_caught:
                return
        self.interrupted = True
        ended = "the run ended while this item waited for a connection: try it again"
        raise self.failure or MediaError(ended, retryable=True)

    def stop_waiting(self) -> None:
        """End the present wait and every later one."""
        self._stopped = True
        if self._scope is not None:
            self._scope.cancel()
