"""How a run ends before its input does, and what the input raises."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from meta_media.errors import MediaError, NetworkError, StorageError
from meta_media.transfer.progress import ItemProgress
from tests.bulk.helpers import ENDLESS, AsyncInput, Gates, HopelessError, collected, echoed, running, turns
from tests.support.servers import wait_until

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
    """When a run ends itself, items in progress are finished, and the rest of a list is reported as not tried."""
    gates, error = Gates(), HopelessError("locked")
    run, work = running(["a", error, "b", *range(20)], gates, 3, in_order=in_order)
    async with run:
        await wait_until(lambda: len(work.begun) == 3)
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
        await wait_until(lambda: len(work.begun) == 2)
        for error in (first, second):
            gates.open[error].set()
            await turns()
        report = await run.report()
    assert (report.ended_by, report.failed, report.not_tried) == (first, 2, 1)


async def test_an_async_iterator_is_not_read_on() -> None:
    """When a run ends itself, an async input is not read any further, and is closed; what was read has its outcome."""
    error = HopelessError("locked")
    source = AsyncInput([1, 2, error, *range(3, ENDLESS)])
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


async def test_an_input_that_suppresses_its_cancellation() -> None:
    """When a run ends itself, an async generator that suppresses its cancellation can yield one item more, not two."""
    waiting = asyncio.Event()
    closed = []

    async def items() -> AsyncIterator[Any]:
        try:
            yield HopelessError("locked")
            with contextlib.suppress(asyncio.CancelledError):
                waiting.set()
                await asyncio.Event().wait()
            yield "late"
            pytest.fail("it was read on")
        finally:
            closed.append(True)

    async def once_it_waits(item: Any, move: ItemProgress) -> Any:
        await waiting.wait()
        return await echoed(item, move)

    run, _ = running(items(), once_it_waits)
    async with asyncio.timeout(20):
        report = await run.report()
    assert (report.failed, report.not_tried, closed) == (1, 1, [True])


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


@pytest.mark.parametrize(("retryable", "failed"), [(True, 10), (False, 50)])
async def test_a_store_that_is_away(retryable: bool, failed: int) -> None:
    """A store that is away ends a run as the network does. Files that cannot be read are each item's own."""
    errors = [StorageError(f"away {number}", retryable=retryable) for number in range(50)]
    report = await running(errors, concurrency=1)[0].report()
    assert (report.failed, report.not_tried) == (failed, 50 - failed)


@pytest.mark.parametrize(("number", "failed"), [(errno.EIO, 10), (errno.ESTALE, 10), (errno.EACCES, 50), (None, 50)])
async def test_a_disk_that_is_away(number: int | None, failed: int) -> None:
    """A disk or a mount that does not respond ends a run likewise. A file that may not be read is the item's own."""
    errors = [StorageError(f"could not read {item}", errno=number) for item in range(50)]
    report = await running(errors, concurrency=1)[0].report()
    assert (report.failed, report.not_tried) == (failed, 50 - failed)


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
    """A foreign cancellation inside the input is raised; the run does not end as if the input were exhausted."""

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
    """An error that is no `Exception`, as test frameworks raise."""


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
    """A foreign cancellation inside an item fails that item; all others are done."""

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
