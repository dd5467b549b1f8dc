"""Runs over many items: what is read when, and what is handed out when."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from meta_media import MediaApi
from meta_media.bulk.outcomes import BulkReport
from meta_media.bulk.run import BulkOptions, BulkRun
from meta_media.errors import ConfigurationError, NetworkError
from meta_media.transfer.progress import ItemProgress
from tests.bulk.helpers import ENDLESS, AsyncInput, Gates, Work, collected, echoed, running, turns
from tests.support.servers import wait_until

# What is handed out


async def test_outcomes_as_they_finish() -> None:
    """Outcomes come as they finish, whatever the order of the input; each says which item it is of."""
    gates = Gates()
    run, work = running(["a", "b", "c"], gates, 3)
    seen = []
    async with run:
        for item in ("b", "c", "a"):
            await wait_until(lambda: len(work.begun) == 3)
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
        await wait_until(lambda: len(work.begun) == 3)
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
    """Every item has exactly one outcome, also a failed one, and no failure disturbs another item."""
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
    assert (done.index, done.source, done.value, done.error, done.attempts) == (0, "good", "GOOD", None, 0)
    assert (failed.index, failed.source, failed.value, str(failed.error)) == (1, "bad", None, "cut off")
    assert [(outcome.tried, outcome.skipped) for outcome in (done, failed)] == [(True, False)] * 2
    assert min(done.seconds, failed.seconds) > 0.01
    assert max(done.seconds, failed.seconds) < 60


async def test_attempts_of_what_failed() -> None:
    """The requests of a failed item are those that its error counts; a foreign error counts none."""
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
    source = AsyncInput()
    run, _ = running(source, concurrency=concurrency, in_order=in_order)
    async with run:
        for handed_out in range(30):
            await turns(60 * concurrency)
            assert concurrency < source.read - handed_out <= ahead * concurrency
            await anext(run)


async def test_read_ahead_of_a_straggler() -> None:
    """In order, others go on while the first is late, but not for ever."""
    gates = Gates()
    source = AsyncInput()
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
    """A run that was not entered has not touched its input."""
    items = itertools.count()
    run, work = running(items)
    await turns()
    assert (next(items), work.opened) == (0, 0)
    assert run.so_far == BulkReport()


@pytest.mark.parametrize("concurrency", [1, 3, 8])
async def test_concurrency(concurrency: int) -> None:
    """Exactly `concurrency` items are worked on at a time."""

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


@pytest.mark.parametrize("empty", [[], iter(()), AsyncInput([])])
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


async def test_the_result_of_an_outcome() -> None:
    """`result()` returns the value, also if that is None, or raises the error."""
    run, _ = running(["a", ValueError("bad"), None], in_order=True)
    good, bad, nothing = await collected(run)
    assert (good.result(), nothing.result()) == ("a", None)
    with pytest.raises(ValueError, match="bad"):
        bad.result()


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
    run, _ = running(AsyncInput(), concurrency=2)
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


# Progress


async def test_progress_after_each_outcome() -> None:
    """`progress` gets a report after each outcome that is taken."""
    told: list[BulkReport] = []
    run, _ = running([1, ValueError("bad"), 3], concurrency=1, progress=told.append)
    async with run:
        await turns()
        assert told == []
        async for _outcome in run:
            pass
    assert [(report.succeeded, report.failed, report.total) for report in told] == [(1, 0, 3), (1, 1, 3), (2, 1, 3)]


async def test_progress_as_bytes_move() -> None:
    """`progress` gets a report as bytes move; those of an item that fails are subtracted again."""
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
    """An error of the progress callback is raised by the iteration unchanged."""

    def progress(_: BulkReport) -> None:
        raise LookupError("no listener")

    run, work = running(AsyncInput(), progress=progress)
    with pytest.raises(LookupError, match="no listener"):
        await run.report()
    assert work.closed == 1


async def test_an_outcome_is_not_lost_with_a_timeout() -> None:
    """An outcome whose taker was cancelled, also during `progress`, is handed out at the next step."""
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


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda api: type(api)(retries=3), "__init__"),
        (lambda api: api.upload_many(), "upload_many"),
        (lambda api: api.download_many([], "inbox", retries=3), "download_many"),
        (lambda api: api.delete_many([], retries=3), "delete_many"),
        (lambda api: api.send_many([]), "send_many"),
        (lambda api: api.with_options(1), "with_options"),
    ],
)
async def test_pythons_errors_name_what_was_called(call: Callable[[Any], Any], name: str) -> None:
    """A keyword that does not exist, or one that is missing, is an error of `MediaApi`, whatever class has the method."""
    with pytest.raises(TypeError, match=rf"^MediaApi\.{name}\(\) "):
        call(MediaApi("a-token", "1"))
