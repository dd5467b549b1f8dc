"""Runs over many items, whatever is done with each: what is read when, what is handed out when, and how a run ends."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from meta_media.bulk.outcomes import BulkReport, Done, Outcome
from meta_media.bulk.run import BulkOptions, BulkRun
from meta_media.errors import ConfigurationError, MediaError, NetworkError
from meta_media.transfer.progress import ItemProgress
from tests.support.servers import until
from tests.support.stepping import Stepper, none_added, settled_at

ENDLESS = 10_000  # items after which an input that should not be read on fails


class HopelessError(Exception):
    """What every other item would meet as well."""


class Work:
    """
    A job that does what it is told.

    Attributes:
        begun: The items that it was called for.
        most_at_once: How many of them it worked on at the same time, at most.
        opened: How often it was prepared.
        closed: How often it was cleaned up.
    """

    def __init__(self, do: Callable[[Any, ItemProgress], Awaitable[Any]]) -> None:
        self.begun: list[Any] = []
        self.most_at_once = self.opened = self.closed = 0
        self._at_once = 0
        self._do = do

    async def open(self) -> None:
        """Count."""
        self.opened += 1

    async def __call__(self, item: Any, move: ItemProgress) -> Done[Any]:
        """Do what this job does, and note it."""
        self.begun.append(item)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return Done(value=await self._do(item, move), attempts=1)
        finally:
            self._at_once -= 1

    def is_fatal(self, error: Exception) -> bool:
        """Tell by its class."""
        return isinstance(error, HopelessError)

    async def aclose(self) -> None:
        """Count, and take a moment for it."""
        await asyncio.sleep(0)  # a turn of the loop
        self.closed += 1


async def echoed(item: Any, _: ItemProgress) -> Any:
    """Give back an item after a turn of the loop, or fail with it."""
    await asyncio.sleep(0)  # a turn of the loop
    if isinstance(item, BaseException):
        raise item
    return item


class Gates:
    """Work that ends when a test says so, item by item."""

    def __init__(self) -> None:
        self.open: dict[Any, asyncio.Event] = {}

    async def __call__(self, item: Any, _: ItemProgress) -> Any:
        """Wait for one's own gate."""
        await self.open.setdefault(item, asyncio.Event()).wait()
        if isinstance(item, BaseException):
            raise item
        return item


def running(
    items: Any, do: Callable[[Any, ItemProgress], Awaitable[Any]] = echoed, concurrency: int = 2, **how: Any
) -> tuple[BulkRun[Any], Work]:
    """Make a run, and its job."""
    work = Work(do)
    return BulkRun(items, work, BulkOptions(concurrency, **how)), work


class Source:
    """An async input that says what became of it: how much of it was read, and whether it was closed."""

    def __init__(self, items: Any = None) -> None:
        self.read = self.closed = 0
        self._items = range(ENDLESS) if items is None else items

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            for item in self._items:
                await asyncio.sleep(0)  # a turn of the loop
                self.read += 1
                yield item
            assert len(self._items) < ENDLESS, "it was read to its end, though it is endless"
        finally:
            await asyncio.sleep(0)  # a turn of the loop
            self.closed += 1


async def turns(count: int = 300) -> None:
    """Let everybody do what they can without help."""
    for _ in range(count):
        await asyncio.sleep(0)  # a turn of the loop


async def collected(run: BulkRun[Any]) -> list[Outcome[Any]]:
    """Run to the end."""
    async with run:
        return [outcome async for outcome in run]


# What is handed out


async def test_outcomes_as_they_finish() -> None:
    """Outcomes come as they finish, whatever the order of the input; each says which item it is of."""
    gates = Gates()
    run, work = running(["a", "b", "c"], gates, 3)
    seen = []
    async with run:
        for item in ("b", "c", "a"):
            await until(lambda: len(work.begun) == 3)
            gates.open[item].set()
            seen.append(await anext(run))
        with pytest.raises(StopAsyncIteration):
            await anext(run)
    assert [(outcome.index, outcome.source, outcome.value) for outcome in seen] == [
        (1, "b", "b"),
        (2, "c", "c"),
        (0, "a", "a"),
    ]


async def test_outcomes_in_order() -> None:
    """Outcomes come in the order of the input where that is wished, whichever finishes first."""
    gates = Gates()
    run, work = running(["a", "b", "c"], gates, 3, in_order=True)
    async with run:
        await until(lambda: len(work.begun) == 3)
        for item in ("c", "b"):
            gates.open[item].set()
        waiting = asyncio.ensure_future(anext(run))
        await turns()
        assert run.so_far.succeeded == 0
        assert not waiting.done()
        gates.open["a"].set()
        assert [(await waiting).source, *[outcome.source async for outcome in run]] == ["a", "b", "c"]


@pytest.mark.parametrize("in_order", [False, True])
async def test_none_is_lost(in_order: bool) -> None:
    """Every item has exactly one outcome, failed ones among them, and nobody's failure disturbs another."""
    items = [ValueError(str(number)) if number % 7 == 0 else number for number in range(500)]
    run, _ = running(items, concurrency=5, in_order=in_order)
    outcomes = await collected(run)
    assert len(outcomes) == 500
    assert {outcome.index: outcome.value or outcome.error for outcome in outcomes} == dict(enumerate(items))
    if in_order:
        assert [outcome.index for outcome in outcomes] == list(range(500))


async def test_what_an_outcome_says() -> None:
    """An outcome has what came of its item, the requests that took, and the seconds; a failed one has the error instead."""

    async def slow(item: Any, _: ItemProgress) -> Any:
        await asyncio.sleep(0.02)  # what is measured
        if item == "bad":
            raise NetworkError("cut off")
        return item.upper()

    done, failed = await collected(running(["good", "bad"], slow, 1)[0])
    assert (done.index, done.source, done.value, done.error, done.attempts) == (0, "good", "GOOD", None, 1)
    assert (failed.index, failed.source, failed.value, str(failed.error)) == (1, "bad", None, "cut off")
    assert [(outcome.tried, outcome.skipped) for outcome in (done, failed)] == [(True, False)] * 2
    assert min(done.seconds, failed.seconds) > 0.01
    assert max(done.seconds, failed.seconds) < 60


async def test_attempts_of_what_failed() -> None:
    """The requests of a failed item are those that its error counts; an error of somebody else's counts none."""
    counted = NetworkError("cut off")
    counted.attempts = 3
    outcomes = await collected(running([counted, ValueError("other")], concurrency=1)[0])
    assert [outcome.attempts for outcome in outcomes] == [3, 0]


async def test_several_tasks_share_a_run() -> None:
    """Several tasks may take outcomes from one run: each outcome comes to one of them, and all come to their end."""
    run, _ = running(range(50), concurrency=4)
    taken: list[Any] = []

    async def consumer() -> None:
        async for outcome in run:
            taken.append(outcome.value)
            await asyncio.sleep(0)  # a turn of the loop

    async with asyncio.timeout(20), run:
        await asyncio.gather(*(consumer() for _ in range(3)))
    assert sorted(taken) == list(range(50))


# What is read, and when


@pytest.mark.parametrize("concurrency", [1, 2, 5])
@pytest.mark.parametrize(("in_order", "ahead"), [(False, 2), (True, 16)])
async def test_read_as_there_is_room(concurrency: int, in_order: bool, ahead: int) -> None:
    """An item is read only while few outcomes wait to be taken: twice as many as are worked on, or 16 times in order."""
    source = Source()
    run, _ = running(source, concurrency=concurrency, in_order=in_order)
    async with run:
        for handed_out in range(30):
            await turns(60 * concurrency)
            assert concurrency < source.read - handed_out <= ahead * concurrency
            await anext(run)


async def test_read_ahead_of_a_straggler() -> None:
    """In order, others go on while the first is late, but not for ever."""
    gates = Gates()
    source = Source()
    run, work = running(source, gates, 3, in_order=True)
    async with run:
        for item in range(1, ENDLESS):
            gates.open[item] = asyncio.Event()
            gates.open[item].set()
        await turns(3000)
        assert 24 <= source.read <= 48
        assert len(work.begun) == source.read
        gates.open[0].set()
        assert [(await anext(run)).index for _ in range(200)] == list(range(200))


@pytest.mark.parametrize(("in_order", "ahead"), [(False, 2), (True, 16)])
async def test_generators_are_read_as_there_is_room(in_order: bool, ahead: int) -> None:
    """Nor is a plain iterator read on, although a thread takes its items in batches."""
    for handed_out in range(20):
        items = itertools.count()
        run, _ = running(items, concurrency=2, in_order=in_order)
        async with run:
            for _ in range(handed_out):
                await anext(run)
            await turns()
        assert next(items) - handed_out <= ahead * 2


async def test_nothing_is_read_before_the_block() -> None:
    """A run that nobody has entered has not touched its input."""
    items = itertools.count()
    run, work = running(items)
    await turns()
    assert (next(items), work.opened) == (0, 0)
    assert run.so_far == BulkReport()


@pytest.mark.parametrize("concurrency", [1, 3, 8])
async def test_concurrency(concurrency: int) -> None:
    """So many items are worked on at a time, and never more."""

    async def slow(_: Any, __: ItemProgress) -> None:
        await turns(50)

    run, work = running(range(100), slow, concurrency)
    assert (await run.report()).succeeded == 100
    assert work.most_at_once == concurrency


async def test_fewer_items_than_workers() -> None:
    """Workers without an item do no harm."""
    run, work = running(["one"], concurrency=16)
    assert [outcome.value for outcome in await collected(run)] == ["one"]
    assert (work.opened, work.closed) == (1, 1)


@pytest.mark.parametrize("empty", [[], iter(()), Source([])])
async def test_no_items(empty: Any) -> None:
    """A run over nothing ends at once, and well."""
    report = await running(empty)[0].report()
    assert report.ok
    assert (report.succeeded, report.failed, report.skipped, report.not_tried) == (0, 0, 0, 0)


async def test_an_input_is_read_in_one_task() -> None:
    """An async generator lives in one task from its beginning to its end: its own timeouts and scopes hold."""
    tasks = []

    async def items() -> AsyncIterator[int]:
        async with asyncio.timeout(60):
            for item in range(5):
                tasks.append(asyncio.current_task())
                yield item
        tasks.append(asyncio.current_task())

    run, _ = running(items())
    async with run:
        await anext(run)
        first = asyncio.ensure_future(anext(run))  # another task may well ask for the next
        assert (await first).tried
        assert len([outcome async for outcome in run]) == 3
    assert len(tasks) == 6
    assert len(set(tasks)) == 1


async def test_a_scope_that_stays_open() -> None:
    """An async generator that is left with a timeout of its own open can close it."""
    left = []

    async def items() -> AsyncIterator[int]:
        try:
            async with asyncio.timeout(60):
                for item in itertools.count():
                    yield item
        finally:
            left.append(asyncio.current_task())

    run, _ = running(items())
    async with run:
        await anext(run)
    assert len(left) == 1


# Reports


async def test_a_report_without_a_block() -> None:
    """`report()` runs all by itself, and says what became of it."""
    error = ValueError("bad")
    run, work = running([1, error, 3])
    report = await run.report()
    assert (report.succeeded, report.failed, report.skipped, report.not_tried, report.total) == (2, 1, 0, 0, 3)
    assert [(failure.index, failure.source, failure.error) for failure in report.failures] == [(1, error, error)]
    assert (report.ok, report.ended_by, report.seconds > 0) == (False, None, True)
    assert (work.opened, work.closed) == (1, 1)


async def test_a_report_inside_the_block() -> None:
    """Inside the block, `report()` takes the outcomes that are left, and counts those that were taken before."""
    run, _ = running(range(10), concurrency=2)
    async with run:
        for _ in range(3):
            await anext(run)
        assert run.so_far.succeeded == 3
        report = await run.report()
        assert report.succeeded == 10
        assert (await run.report()).succeeded == 10
    assert report.ok


async def test_a_report_after_the_block() -> None:
    """After the block, `report()` says what has happened, and the clock stands still."""
    run, _ = running(Source(), concurrency=2)
    async with run:
        async for outcome in run:
            if outcome.index == 5:
                break
    report = await run.report()
    assert 1 <= report.succeeded <= 20
    assert report.total is None
    await asyncio.sleep(0.02)  # for the clock
    assert await run.report() == report == run.so_far


async def test_a_report_of_an_input_that_fails() -> None:
    """`report()` raises what the input raised; what was done before can be asked for."""

    def items() -> Iterator[int]:
        yield from range(3)
        raise LookupError("the list is gone")

    run, _ = running(items())
    with pytest.raises(LookupError, match="the list is gone"):
        await run.report()
    assert run.so_far.succeeded == 3


async def test_many_failures_are_not_all_kept() -> None:
    """A report counts every failure and keeps the first hundred."""
    items = [ValueError(str(number)) for number in range(250)]
    report = await running(items, concurrency=1)[0].report()
    assert report.failed == 250
    assert [failure.error for failure in report.failures] == items[:100]


async def test_so_far_while_it_goes_on() -> None:
    """What is known so far counts outcomes that were taken, and its clock goes on."""
    run, _ = running(range(4), concurrency=1)
    async with run:
        before = run.so_far
        await anext(run)
        await asyncio.sleep(0.02)  # for the clock
        after = run.so_far
    assert (before.succeeded, after.succeeded) == (0, 1)
    assert after.seconds > before.seconds


# What a run is not for


async def test_a_run_runs_once() -> None:
    """A run cannot be entered a second time, neither during the first nor after it."""
    run, work = running([1])
    async with run:
        with pytest.raises(ConfigurationError, match="a BulkRun runs once"):
            async with run:
                pytest.fail("it was entered again")
    with pytest.raises(ConfigurationError, match="a BulkRun runs once"):
        await run.__aenter__()
    assert (work.opened, work.closed) == (1, 1)


async def test_a_run_is_iterated_inside_its_block() -> None:
    """Iterating without a block says what to write instead."""
    run, work = running([1])
    with pytest.raises(ConfigurationError, match=r"iterated inside its block: async with media\.upload_many"):
        await anext(run)
    assert work.begun == []


async def test_leaving_what_was_never_entered() -> None:
    """A run that was never entered has nothing to end."""
    run, work = running([1])
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_exit(run)
    assert (work.begun, work.opened, work.closed) == ([], 0, 0)


@pytest.mark.parametrize("ending", [ConfigurationError("no number"), asyncio.CancelledError()])
async def test_a_job_that_cannot_open(ending: BaseException) -> None:
    """What preparing raises comes out of entering, before anything is read; what was prepared is cleaned up."""
    items = itertools.count()

    class Refusing(Work):
        async def open(self) -> None:
            raise ending

    work = Refusing(echoed)
    run = BulkRun(items, work, BulkOptions(2))
    with pytest.raises(type(ending)):
        await run.__aenter__()
    await turns()
    assert (work.closed, work.begun, next(items)) == (1, [], 0)


# How a run ends before its input does


async def test_stop_on_error() -> None:
    """With `stop_on_error`, the first error ends the run: the rest of a list is handed out as not tried."""
    error = ValueError("bad")
    run, work = running([1, error, *range(2, 50)], concurrency=1, stop_on_error=True)
    report = await run.report()
    assert (report.succeeded, report.failed, report.not_tried, report.total) == (1, 1, 48, 50)
    assert (report.ended_by, report.ok) == (error, False)
    assert work.begun == [1, error]


async def test_errors_do_not_end_a_run() -> None:
    """Without it, errors are the items' own."""
    items = [ValueError(str(number)) for number in range(50)]
    report = await running(items)[0].report()
    assert (report.failed, report.not_tried, report.ended_by) == (50, 0, None)


@pytest.mark.parametrize("in_order", [False, True])
async def test_what_was_under_way_comes_to_its_end(in_order: bool) -> None:
    """When a run ends itself, what was under way is finished, and the rest of a list has an outcome that says so."""
    gates, error = Gates(), HopelessError("locked")
    run, work = running(["a", error, "b", *range(20)], gates, 3, in_order=in_order)
    async with run:
        await until(lambda: len(work.begun) == 3)
        gates.open[error].set()
        await turns()
        assert run.so_far.ended_by is error
        for item in "ab":
            gates.open[item].set()
        outcomes = {outcome.index: outcome async for outcome in run}
    assert list(work.begun) == ["a", error, "b"]
    assert [(outcomes[index].value, outcomes[index].tried) for index in (0, 2)] == [("a", True), ("b", True)]
    rest = [outcomes.pop(index) for index in range(3, 23)]
    assert {(outcome.error, outcome.value, outcome.tried, outcome.attempts) for outcome in rest} == {
        (error, None, False, 0)
    }
    assert len(outcomes) == 3


async def test_the_first_error_is_the_one() -> None:
    """When several hopeless errors come together, the first is what ended the run."""
    gates, first, second = Gates(), HopelessError("first"), HopelessError("second")
    run, work = running([first, second, 1], gates, 2)
    async with run:
        await until(lambda: len(work.begun) == 2)
        for error in (first, second):
            gates.open[error].set()
            await turns()
        report = await run.report()
    assert (report.ended_by, report.failed, report.not_tried) == (first, 2, 1)


async def test_an_async_iterator_is_not_read_on() -> None:
    """When a run ends itself, an async input is not read any further, and is closed; what was read has its outcome."""
    error = HopelessError("locked")
    source = Source([1, 2, error, *range(3, ENDLESS)])
    run, _ = running(source)
    outcomes = await collected(run)
    assert (source.closed, run.so_far.ended_by) == (1, error)
    assert source.read == len(outcomes) <= 3 + 2 * 2
    assert sorted(outcome.index for outcome in outcomes) == list(range(source.read))


async def test_an_input_that_waits_is_not_waited_for() -> None:
    """When a run ends itself, an async input that is waiting for its next item is interrupted, and can clean up."""
    closed = []

    async def items() -> AsyncIterator[Any]:
        try:
            yield HopelessError("locked")
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # a turn of the loop
            closed.append(True)

    run, _ = running(items())
    async with asyncio.timeout(20):
        report = await run.report()
    assert (report.failed, type(report.ended_by), closed) == (1, HopelessError, [True])


async def test_a_generator_is_not_read_on() -> None:
    """When a run ends itself, a generator is not read any further; whatever it had given has its outcome all the same."""
    error = HopelessError("locked")
    given: list[Any] = []
    closed: list[bool] = []

    def items() -> Iterator[Any]:
        try:
            for item in [1, 2, error, *range(3, ENDLESS)]:
                given.append(item)
                yield item
            pytest.fail("it was read to its end, though it is endless")
        finally:
            closed.append(True)

    run, work = running(items())
    outcomes = await collected(run)
    assert closed == [True]
    assert len(work.begun) <= 5
    assert len(given) <= 3 + 2 * 2
    assert sorted(outcome.index for outcome in outcomes) == list(range(len(given)))
    assert {outcome.tried for outcome in outcomes if outcome.index > 5} <= {False}


@pytest.mark.parametrize(("concurrency", "most"), [(1, 10), (5, 10), (8, 16)])
async def test_no_way_to_meta(concurrency: int, most: int) -> None:
    """Ten network errors in a row, or twice as many as are worked on, end a run."""
    errors = [NetworkError(f"cut off {number}") for number in range(50)]
    report = await running(errors, concurrency=concurrency)[0].report()
    assert most <= report.failed < most + concurrency
    assert report.failed + report.not_tried == 50
    assert isinstance(report.ended_by, NetworkError)


@pytest.mark.parametrize("between", [0, ValueError("refused")])
async def test_a_way_to_meta_now_and_then(between: Any) -> None:
    """Network errors with anything else between them are the items' own: there is a way."""
    errors: list[Any] = [NetworkError("cut off") for _ in range(99)]
    errors[9::10] = [between] * 9
    report = await running(errors, concurrency=1)[0].report()
    assert (report.ended_by, report.not_tried) == (None, 0)


# What the input raises


@pytest.mark.parametrize("in_order", [False, True])
async def test_the_inputs_own_error(in_order: bool) -> None:
    """What the input raises comes out of the iteration, after the outcomes of what it gave before, and once."""

    async def items() -> AsyncIterator[int]:
        for item in range(7):
            yield item
        raise LookupError("the list is gone")

    run, _ = running(items(), concurrency=3, in_order=in_order)
    async with run:
        with pytest.raises(LookupError, match="the list is gone"):
            await run.report()
        with pytest.raises(StopAsyncIteration):
            await anext(run)
    assert run.so_far.succeeded == 7


async def unclosable() -> AsyncIterator[Any]:
    """Fail when closed while an item is being worked on."""
    try:
        while True:
            yield HopelessError("locked")
    finally:
        raise LookupError("it cannot be closed")


async def unclosable_while_waiting() -> AsyncIterator[Any]:
    """Fail when closed while the next item is waited for."""
    try:
        yield HopelessError("locked")
        await asyncio.Event().wait()
    finally:
        raise LookupError("it cannot be closed")


def unclosable_plainly() -> Iterator[Any]:
    """Fail when closed, off the event loop."""
    try:
        while True:
            yield HopelessError("locked")
    finally:
        raise LookupError("it cannot be closed")


@pytest.mark.parametrize("items", [unclosable, unclosable_while_waiting, unclosable_plainly])
async def test_what_an_inputs_finally_raises(items: Callable[[], Any]) -> None:
    """What a generator raises while it is closed, after the run ended itself, comes out of the iteration as well."""
    run, _ = running(items())
    async with run:
        with pytest.raises(LookupError, match="it cannot be closed"):
            await run.report()
        assert isinstance(run.so_far.ended_by, HopelessError)
        assert run.so_far.failed >= 1
        assert (await run.report()).total is None


async def test_an_input_that_was_cancelled() -> None:
    """An input whose own work was cancelled by somebody else does not look like one that came to its end."""

    async def items() -> AsyncIterator[int]:
        yield 1
        other = asyncio.ensure_future(asyncio.sleep(60))
        other.cancel()
        await other
        yield 2

    run, _ = running(items())
    async with asyncio.timeout(20):
        with pytest.raises(asyncio.CancelledError):
            await run.report()
    assert run.so_far.succeeded == 1


class UltimateError(BaseException):
    """What test frameworks and the like raise, so that nobody catches it."""


def ending_plainly() -> Iterator[int]:
    """Yield an item, and end everything."""
    yield 1
    raise UltimateError


async def ending() -> AsyncIterator[int]:
    """Likewise."""
    yield 1
    raise UltimateError


@pytest.mark.parametrize("items", [ending_plainly, ending])
async def test_what_is_no_exception(items: Callable[[], Any]) -> None:
    """An input that ends by something that is no `Exception` does not look like one that came to its end, either."""
    run, _ = running(items())
    async with asyncio.timeout(20):
        with pytest.raises(UltimateError):
            await run.report()
    assert run.so_far.succeeded == 1


async def test_an_item_that_was_cancelled() -> None:
    """An item whose own work was cancelled by somebody else has failed; all others are done."""

    async def do(item: int, _: ItemProgress) -> int:
        if item == 3:
            other = asyncio.ensure_future(asyncio.sleep(60))
            other.cancel()
            await other
        await asyncio.sleep(0)  # a turn of the loop
        return item

    run, _ = running(range(10), do)
    async with asyncio.timeout(20):
        report = await run.report()
    assert (report.succeeded, report.failed) == (9, 1)
    assert isinstance(report.failures[0].error, MediaError)
    assert isinstance(report.failures[0].error.__cause__, asyncio.CancelledError)


# Progress


async def test_progress_after_each_outcome() -> None:
    """Progress is told after each outcome that is taken: what became of all so far."""
    told: list[BulkReport] = []
    run, _ = running([1, ValueError("bad"), 3], concurrency=1, progress=told.append)
    async with run:
        await turns()
        assert told == []
        async for _outcome in run:
            pass
    assert [(report.succeeded, report.failed, report.total) for report in told] == [(1, 0, 3), (1, 1, 3), (2, 1, 3)]


async def test_progress_as_bytes_move() -> None:
    """Progress is told as bytes move, also of items under way; those of an item that fails are taken back."""
    told: list[int] = []

    async def progress(report: BulkReport) -> None:
        await asyncio.sleep(0)  # a turn of the loop
        told.append(report.bytes)

    async def delta_callback(item: str, move: ItemProgress) -> None:
        for size in (10, 20, -30, 10, 20):  # a new start in between
            await move(size)
        if item == "bad":
            raise ValueError(item)

    run, _ = running(["good", "bad", "good"], delta_callback, 1, progress=progress)
    async with run:
        await turns()
        before = told[:5]
        report = await run.report()
    assert before == [10, 30, 0, 10, 30]
    assert report.bytes == told[-1] == 60
    assert max(told) <= 90


async def test_progress_that_raises_after_an_outcome() -> None:
    """What the progress callback raises comes out of the iteration as it is."""

    def progress(_: BulkReport) -> None:
        raise LookupError("nobody is listening")

    run, work = running(Source(), progress=progress)
    with pytest.raises(LookupError, match="nobody is listening"):
        await run.report()
    assert work.closed == 1


async def test_an_outcome_is_not_lost_with_a_timeout() -> None:
    """Whoever gives up waiting for an outcome, also while progress is told, gets it when they ask again."""
    hold = asyncio.Event()

    async def progress(_: BulkReport) -> None:
        await hold.wait()

    run, _ = running([1, 2], concurrency=1, progress=progress)
    async with run:
        asked = asyncio.ensure_future(anext(run))
        await turns()
        asked.cancel()
        await asyncio.wait((asked,))
        hold.set()
        taken = [outcome.value async for outcome in run]
    assert taken == [1, 2]


# Leaving


class LeftError(Exception):
    """What a block is left by."""


async def left_by_break(run: BulkRun[Any]) -> None:
    """Leave in the middle, as if nothing were."""
    async with run:
        async for outcome in run:
            if outcome.index == 5:
                break


async def left_by_exception(run: BulkRun[Any]) -> None:
    """Leave in the middle, by an error."""
    with contextlib.suppress(LeftError):
        async with run:
            async for outcome in run:
                if outcome.index == 5:
                    raise LeftError


async def left_by_cancellation(run: BulkRun[Any], times: int = 1) -> None:
    """Leave in the middle, because somebody else wants it."""

    async def endless() -> None:
        async with run:
            async for _ in run:
                pass

    task = asyncio.ensure_future(endless())
    await until(lambda: run.so_far.succeeded > 5)
    await turns()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)  # a turn of the loop
    await asyncio.wait((task,))
    assert task.cancelled()


LEAVING = [left_by_break, left_by_exception, left_by_cancellation]


@pytest.mark.parametrize("leaving", LEAVING)
@pytest.mark.parametrize("in_order", [False, True])
async def test_leaving_an_endless_run(leaving: Callable[[BulkRun[Any]], Awaitable[None]], in_order: bool) -> None:
    """However a block is left, all work ends, the input is closed, and nothing goes on behind one's back."""
    before = asyncio.all_tasks()
    source = Source()
    run, work = running(source, concurrency=4, in_order=in_order)
    async with asyncio.timeout(20):
        await leaving(run)
    assert asyncio.all_tasks() <= before, "something is going on still"
    assert (source.closed, work.closed) == (1, 1)
    begun = len(work.begun)
    await turns()
    assert len(work.begun) == begun


@pytest.mark.parametrize("leaving", LEAVING)
async def test_leaving_work_that_does_not_end(leaving: Callable[[BulkRun[Any]], Awaitable[None]]) -> None:
    """Items that would never end are interrupted where they are, and can clean up."""
    cleaned = []

    async def stuck(item: int, _: ItemProgress) -> int:
        if item % 8 != 7:
            return item
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(item)
        return item

    run, work = running(itertools.count(), stuck, concurrency=3)
    async with asyncio.timeout(20):
        await leaving(run)
    assert sorted(cleaned) == [item for item in work.begun if item % 8 == 7]


@pytest.mark.parametrize("leaving", LEAVING)
async def test_leaving_an_input_that_waits(leaving: Callable[[BulkRun[Any]], Awaitable[None]]) -> None:
    """An input that waits for its next item is interrupted where it is, and its `finally` runs with all awaits in it."""
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            for item in range(20):
                yield item
            await asyncio.Event().wait()
        finally:
            for _ in range(3):
                await asyncio.sleep(0)  # a turn of the loop
            closed.append(True)

    run, _ = running(items(), concurrency=1)

    async def late() -> None:
        async with run:
            for _ in range(20):
                await anext(run)
            await turns()  # now it waits
            if leaving is left_by_exception:
                raise LeftError
            if leaving is left_by_cancellation:
                await asyncio.Event().wait()

    task = asyncio.ensure_future(late())
    await until(lambda: run.so_far.succeeded == 20)
    await turns(400)
    if leaving is left_by_cancellation:
        task.cancel()
    async with asyncio.timeout(20):
        await asyncio.gather(task, return_exceptions=True)
    assert closed == [True]


@pytest.mark.parametrize("leaving", [*LEAVING, None])
async def test_leaving_a_generator_that_blocks(leaving: Callable[[BulkRun[Any]], Awaitable[Any]] | None) -> None:
    """A generator that blocks its thread holds nobody up: neither who leaves, nor a run that ends itself."""
    blocked, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def items() -> Iterator[Any]:
        try:
            yield from range(9)
            if leaving is None:
                yield HopelessError("locked")
            blocked.set()
            assert go_on.wait(60)
            yield from range(ENDLESS)
        finally:
            closed.set()

    async def once_it_blocks(item: Any, move: ItemProgress) -> Any:
        await until(blocked.is_set)
        return await echoed(item, move)

    run, _ = running(items(), once_it_blocks, concurrency=6)
    try:
        async with asyncio.timeout(20):
            await (leaving or BulkRun.report)(run)
        assert not closed.is_set()
    finally:
        go_on.set()
    if leaving is None:
        assert (run.so_far.succeeded, type(run.so_far.ended_by)) == (9, HopelessError)
    await until(closed.is_set)


async def test_leaving_while_the_input_cleans_up() -> None:
    """An input that is just running its `finally`, because the run ended itself, is not interrupted there."""
    cleaning, hold = asyncio.Event(), asyncio.Event()
    closed = []

    async def items() -> AsyncIterator[Any]:
        try:
            while True:
                yield HopelessError("locked")
        finally:
            cleaning.set()
            await hold.wait()
            closed.append(True)

    run, work = running(items(), concurrency=1)

    async def leaving() -> None:
        async with run:
            await anext(run)
            await cleaning.wait()

    task = asyncio.ensure_future(leaving())
    await cleaning.wait()
    await turns()
    assert not task.done()
    hold.set()
    async with asyncio.timeout(20):
        await task
    assert (closed, work.closed) == ([True], 1)


@pytest.mark.parametrize("times", [2, 3])
async def test_leaving_by_several_cancellations(times: int) -> None:
    """Somebody impatient does not get out before everything is cleaned up."""
    source = Source()
    run, work = running(source, concurrency=4)
    await left_by_cancellation(run, times)
    assert (source.closed, work.closed) == (1, 1)


async def test_leaving_at_once() -> None:
    """A block that is left before anything has begun ends as well."""
    source = Source()
    run, work = running(source)
    async with run:
        pass
    assert (work.begun, work.closed) == ([], 1)
    assert source.closed == (source.read > 0)


async def cancelled_at(stepper: Stepper) -> bool:
    """Cancel a small run once, and look around; False when it was done before."""
    source = Source()
    run, work = running(source, concurrency=2)
    task = await stepper.run(functools.partial(left_by_break, run))
    await settled_at([], lambda: stepper.alive)
    assert task.cancelled() or task.result() is None
    assert task.cancelled() or stepper._late or not stepper.reached, "the cancellation was lost"
    assert source.closed == (source.read > 0)
    assert work.opened == work.closed
    return stepper.reached


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_cancelled_at_every_await(times: int, late: bool) -> None:
    """Cancelled at any await of the caller's or the run's own, once to three times, nothing is left of a run."""
    before, at = asyncio.all_tasks(), 1
    while await cancelled_at(Stepper(at, times=times, late=late)):
        at += 1
    await none_added(before, asyncio.all_tasks)
    assert at > 40


async def test_a_cancelled_run_does_not_look_well() -> None:
    """A run whose own task was cancelled by somebody else, such as a loop that is shut down, does not end quietly."""
    before = asyncio.all_tasks()
    run, work = running(Source(), Gates())
    async with run:
        waiting = asyncio.ensure_future(anext(run))
        await until(lambda: len(work.begun) == 2)
        for task in asyncio.all_tasks() - before - {waiting}:
            task.cancel()
        async with asyncio.timeout(20):
            await asyncio.wait((waiting,))
        assert waiting.cancelled()
    assert work.closed == 1
