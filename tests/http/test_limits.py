"""Budget, back-off and the throttle of a phone number, by a clock and a dice of the test's own."""

from __future__ import annotations

import asyncio
import math

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_media.errors import RateLimitError
from meta_media.http.limits import MAX_RETRY_AFTER, Limits, RetryBudget, Slot, Throttle, backoff_delay


class Time:
    """A clock that goes on only while somebody sleeps by it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        """Tell the time."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)  # a turn of the loop


@pytest.fixture
def time() -> Time:
    """A clock."""
    return Time()


@pytest.fixture
def throttle(time: Time) -> Throttle:
    """A throttle whose jitter is always 1."""
    return Throttle(now=time, sleep=time.sleep, jitter=lambda: 1.0)


async def passed(throttle: Throttle) -> int:
    """Wait at a throttle, and go through."""
    await throttle.opened()
    return throttle.enter()


@given(st.integers(1, 10_000), st.floats(0, 1e6), st.floats(0, 1))
def test_backoff_is_bounded(nth: int, first: float, jitter: float) -> None:
    """Whatever is thrown, a wait is between nothing and eight seconds, and at most twice that of the one before."""
    delay = backoff_delay(nth, first, lambda: jitter)
    assert 0 <= delay <= min(8.0, first * 2.0 ** min(nth, 1000))


def test_backoff_doubles() -> None:
    """The most that a wait takes doubles up to eight seconds; the dice says how much of it is waited."""
    assert [backoff_delay(nth, 0.5, lambda: 1.0) for nth in range(1, 7)] == [0.5, 1, 2, 4, 8, 8]
    assert backoff_delay(3, 0.5, lambda: 0.25) == 0.5


def test_budget() -> None:
    """A hundred retries are there at first; then every five successes earn another, and never more than the hundred."""
    budget = RetryBudget()
    assert [budget.afford(5) for _ in range(101)] == [True] * 100 + [False]
    for _ in range(4):
        budget.earn(0)
    assert not budget.afford(5)
    budget.earn(0)
    assert budget.afford(5)
    budget.earn(10)
    assert [budget.afford(5) for _ in range(3)] == [True, True, False]
    for _ in range(10_000):
        budget.earn(1)
    assert [budget.afford(10) for _ in range(51)] == [True] * 50 + [False]


async def test_throttle_is_open(throttle: Throttle, time: Time) -> None:
    """Nobody waits at a throttle that was never shut, however many go through."""
    for _ in range(1000):
        await passed(throttle)
    assert (throttle.left, throttle.open, time.slept) == (0, True, [])


async def test_throttle_is_free_after_slow_start(throttle: Throttle, time: Time) -> None:
    """Slow start ends after 64 successes in a row; until then, the number of requests under way is looked at."""
    assert throttle.free
    throttle.shut(throttle.enter(), 2.0, first=0.5)
    time.now += 2.0
    for count in range(64):
        assert (throttle.free, throttle.open) == (False, True), count
        throttle.leave(throttle.enter(), succeeded=True)
    assert throttle.free
    throttle.shut(throttle.enter(), 2.0, first=0.5)
    assert not throttle.free


async def test_throttle_opens_gradually(throttle: Throttle, time: Time) -> None:
    """After the pause that Meta asked for one goes first; each that is answered well lets one more be under way."""
    throttle.shut(throttle.enter(), 2.0, first=0.5)
    assert (throttle.open, throttle.left) == (False, 2.0)
    under_way: list[int] = []
    waiting = [asyncio.ensure_future(passed(throttle)) for _ in range(20)]
    counts = []
    for _ in range(4):
        for _ in range(30):
            await asyncio.sleep(0)  # a turn of the loop
        under_way = [task.result() for task in waiting if task.done()]
        waiting = [task for task in waiting if not task.done()]
        counts.append(len(under_way))
        for ticket in under_way:
            throttle.leave(ticket, succeeded=True)
    assert (counts, time.slept) == ([1, 2, 4, 8], [2.0])
    for task in waiting:
        task.cancel()


async def test_throttle_forgets(throttle: Throttle, time: Time) -> None:
    """Once enough was answered well, nobody counts any longer."""
    throttle.shut(throttle.enter(), 1.0, first=0.5)
    states = [throttle.idle]
    time.now += 1
    for _ in range(100):
        throttle.leave(await passed(throttle), succeeded=True)
    assert [*states, throttle.idle] == [False, True]
    for _ in range(1000):
        throttle.enter()
    assert throttle.open


async def test_throttle_stays_narrow_after_failures(throttle: Throttle, time: Time) -> None:
    """What is answered badly makes room for the next, but for no more than there was."""
    throttle.shut(throttle.enter(), 1.0, first=0.5)
    time.now += 1
    states = []
    for _ in range(10):
        ticket = throttle.enter()
        states.append(throttle.open)
        throttle.leave(ticket, succeeded=False)
        states.append(throttle.open)
    assert states == [False, True] * 10


async def test_throttle_clamps(throttle: Throttle) -> None:
    """However long a server asks for, after a minute somebody tries."""
    throttle.shut(throttle.enter(), 1e9, first=0.5)
    assert throttle.left == MAX_RETRY_AFTER == 60


async def test_throttle_backs_off(throttle: Throttle, time: Time) -> None:
    """Where nobody says how long, each throttled request in a row doubles the pause; one that is answered well ends the row."""
    waits = []
    for _ in range(3):
        throttle.shut(await passed(throttle), None, first=0.5)
        waits.append(throttle.left)
        time.now += throttle.left
    throttle.leave(await passed(throttle), succeeded=True)
    throttle.shut(await passed(throttle), None, first=0.5)
    assert [*waits, throttle.left] == [0.5, 1.0, 2.0, 0.5]


async def test_throttled_together(throttle: Throttle) -> None:
    """Of requests that were under way together, one shuts the throttle; a longer pause that another is told counts, too."""
    tickets = [throttle.enter() for _ in range(10)]
    for ticket in tickets:
        throttle.shut(ticket, None, first=0.5)
    assert throttle.left == 0.5
    throttle.shut(tickets[0], 7.0, first=0.5)
    throttle.shut(tickets[1], 3.0, first=0.5)
    assert throttle.left == 7.0


async def test_late_answers(throttle: Throttle, time: Time) -> None:
    """Requests from before the pause, which end after it, neither open the throttle further nor take a place."""
    early = [throttle.enter() for _ in range(10)]
    throttle.shut(throttle.enter(), 1.0, first=0.5)
    time.now += 1
    ticket = throttle.enter()
    for old in early:
        throttle.leave(old, succeeded=True)
    states = [throttle.open]
    throttle.leave(ticket, succeeded=True)
    assert [*states, throttle.open] == [False, True]


async def test_shut_again_while_waiting(time: Time) -> None:
    """Who waits for the end of a pause waits for that of the next, too."""

    async def sleep(seconds: float) -> None:
        await time.sleep(seconds)
        if len(time.slept) == 1:
            throttle.shut(ticket, 5.0, first=0.5)

    throttle = Throttle(now=time, sleep=sleep)
    ticket = throttle.enter()
    throttle.shut(ticket, 1.0, first=0.5)
    await throttle.opened()
    assert time.slept == [1.0, 5.0]


async def test_cancelled_at_the_gate(throttle: Throttle, time: Time) -> None:
    """Who stops waiting holds nobody up."""
    throttle.shut(throttle.enter(), 1.0, first=0.5)
    time.now += 1
    ticket = throttle.enter()
    waiting = [asyncio.ensure_future(passed(throttle)) for _ in range(3)]
    await asyncio.sleep(0)
    for task in waiting[:2]:
        task.cancel()
    await asyncio.gather(*waiting[:2], return_exceptions=True)
    throttle.leave(ticket, succeeded=False)
    assert await waiting[2] >= 0


@pytest.mark.parametrize(
    ("rate", "slots"),
    [(25.0, [0.0, 0.04, 0.08, 0.12]), (2.0, [0.0, 0.5, 1.0]), (1.0, [0.0, 1.0]), (0.5, [0.0, 2.0, 4.0])],
)
async def test_uploads_per_second(time: Time, rate: float, slots: list[float]) -> None:
    """Uploads are evenly spaced: a provider counts those of any second."""
    started = time.now
    asked: list[float] = []

    async def sleep(seconds: float) -> None:
        asked.append(seconds)

    throttle = Throttle(now=time, sleep=sleep)
    for _ in slots:
        await throttle.upload_slot(rate)
    assert asked == pytest.approx([slot for slot in slots if slot])
    time.now = started + slots[-1] + 1  # a second later there is room again
    asked.clear()
    await throttle.upload_slot(rate)
    assert sum(asked) == pytest.approx(max(1 / rate - 1, 0))


def test_lookups(throttle: Throttle, time: Time) -> None:
    """So many refused lookups within an hour are the last ones, until the first of them is an hour old."""
    for _ in range(3):
        throttle.check_lookups(3)
        throttle.lookup_refused()
        time.now += 600
    with pytest.raises(RateLimitError) as caught:
        throttle.check_lookups(3)
    assert (caught.value.retry_after, caught.value.retryable) == (1800.0, False)
    throttle.check_lookups(4)
    time.now += 1800
    throttle.check_lookups(3)
    assert not throttle.idle
    time.now += math.inf
    throttle.check_lookups(1)
    assert throttle.idle


def test_refused_lookups_are_not_counted_for_ever(throttle: Throttle) -> None:
    """Memory is flat, however many lookups are refused."""
    for _ in range(2000):
        throttle.lookup_refused()
    assert len(throttle._refused_lookups) == 500


async def test_throttles_of_many_numbers(time: Time) -> None:
    """Each number has a throttle of its own; those that remember nothing are forgotten when there are many."""
    limits = Limits(now=time, sleep=time.sleep)
    kept = limits.throttle("1")
    kept.shut(kept.enter(), 9.0, first=0.5)
    used = limits.throttle("3")
    ticket = used.enter()
    for number in range(5000):
        limits.throttle(f"n{number}")
    assert limits.throttle("1") is kept is not limits.throttle("2")
    assert limits.throttle("3") is used
    used.leave(ticket, succeeded=True)
    assert (kept.idle, used.idle) == (False, True)
    assert len(limits._throttles.get()) <= 1001


async def test_throttle_of_a_number_at_rest(time: Time) -> None:
    """Up to a thousand numbers keep their gates, also where there is nothing to remember; then those are forgotten."""
    limits = Limits(now=time, sleep=time.sleep)
    first = limits.throttle("0")
    for number in range(1000):
        limits.throttle(f"{number}")
    assert limits.throttle("0") is first
    limits.throttle("1000")
    assert limits.throttle("0") is not first


async def test_idle_once_the_bucket_is_full(throttle: Throttle, time: Time) -> None:
    """A throttle remembers an upload for as long as it may hold up another one, and no longer."""
    await throttle.upload_slot(1.0)
    assert not throttle.idle
    time.now += 1
    assert throttle.idle


async def test_waiting_is_no_work(time: Time) -> None:
    """Who waits for another's answer sleeps: the clock is not asked until there is one."""
    asked: list[float] = []

    def now() -> float:
        asked.append(time.now)
        return time.now

    throttle = Throttle(now=now, sleep=time.sleep)
    throttle.shut(throttle.enter(), 1.0, first=0.5)
    time.now += 1
    ticket = throttle.enter()
    waiting = asyncio.ensure_future(passed(throttle))
    counts = []
    for _ in range(2):
        for _ in range(50):
            await asyncio.sleep(0)  # a turn of the loop
        counts.append(len(asked))
    assert (counts[0], waiting.done()) == (counts[1], False)
    throttle.leave(ticket, succeeded=True)
    await waiting


async def test_shut_while_others_wait_for_an_answer(throttle: Throttle, time: Time) -> None:
    """Who waits for another's answer, which then is a refusal, goes on after the pause that it brings."""
    throttle.shut(throttle.enter(), 1.0, first=0.5)
    time.now += 1
    ticket = throttle.enter()
    waiting = asyncio.ensure_future(passed(throttle))
    for _ in range(10):
        await asyncio.sleep(0)  # a turn of the loop
    throttle.shut(ticket, 2.0, first=0.5)
    await waiting
    assert time.slept == [2.0]


@pytest.mark.parametrize("kept", [True, False])
async def test_a_slot_is_kept_through_a_pause(throttle: Throttle, time: Time, kept: bool) -> None:
    """A slot that must not be given up waits for its throttles with the limiter's only place; any other gives it back."""
    limiter = anyio.Semaphore(1)
    slot = Slot(limiter, {"number": throttle})
    await slot.acquire()
    slot.kept = kept
    throttle.shut(throttle.enter(), 2.0, first=0.5)
    again = asyncio.ensure_future(slot.acquire())
    await asyncio.sleep(0)  # until it waits
    assert limiter.value == (not kept)
    await again
    assert (limiter.value, time.slept) == (0, [2.0])
    slot.release()
    assert limiter.value == 1


async def test_a_throttle_that_opens_while_it_is_looked_at() -> None:
    """A timer may end a moment early, as uvloop's do. A caller that then sees the time run out waits for nothing else."""
    times, sleeps = iter([0.0, 0.0, 0.5, *[1.0] * 9]), list[float]()

    async def sleep(seconds: float) -> None:
        sleeps.append(seconds)

    throttle = Throttle(lambda: next(times), sleep)
    throttle.shut(throttle.enter(), 1.0, 1.0)
    with anyio.fail_after(60):
        await throttle.opened()
    assert sleeps == [0.0]
