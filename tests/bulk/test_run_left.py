"""Runs that are left or cancelled: all work ends, and the input is closed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from meta_media.bulk.run import BulkRun
from meta_media.errors import ConfigurationError
from meta_media.transfer.progress import ItemProgress
from tests.bulk.helpers import (
    ENDLESS,
    LEAVING,
    AsyncInput,
    Gates,
    HopelessError,
    LeftError,
    echoed,
    left_by_break,
    left_by_cancellation,
    left_by_exception,
    running,
    turns,
)
from tests.support.servers import wait_until
from tests.support.stepping import Stepper, none_added, settled_at


@pytest.mark.parametrize("leaving", LEAVING)
@pytest.mark.parametrize("in_order", [False, True])
async def test_leaving_an_endless_run(leaving: Callable[[BulkRun[Any]], Awaitable[None]], in_order: bool) -> None:
    """However a block is left, all work ends, the input is closed, and nothing goes on behind one's back."""
    before = asyncio.all_tasks()
    source = AsyncInput()
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
    await wait_until(lambda: run.so_far.succeeded == 20)
    await turns(400)
    if leaving is left_by_cancellation:
        task.cancel()
    async with asyncio.timeout(20):
        await asyncio.gather(task, return_exceptions=True)
    assert closed == [True]


@pytest.mark.parametrize("leaving", [*LEAVING, None])
async def test_leaving_a_generator_that_blocks(leaving: Callable[[BulkRun[Any]], Awaitable[Any]] | None) -> None:
    """A generator that blocks its thread delays neither leaving a run nor a run that ends itself."""
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
        await wait_until(blocked.is_set)
        return await echoed(item, move)

    run, _ = running(items(), once_it_blocks, concurrency=11)  # one more than items: the input is asked for the next
    try:
        async with asyncio.timeout(20):
            await (leaving or BulkRun.report)(run)
        assert not closed.is_set()
    finally:
        go_on.set()
    if leaving is None:
        assert (run.so_far.succeeded, type(run.so_far.ended_by)) == (9, HopelessError)
    await wait_until(closed.is_set)


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
    """Repeated cancellations do not leave the block before everything is cleaned up."""
    source = AsyncInput()
    run, work = running(source, concurrency=4)
    await left_by_cancellation(run, times)
    assert (source.closed, work.closed) == (1, 1)


async def outcomes_after_5(run: BulkRun[Any]) -> None:
    """Take the outcomes that are left. Those up to the one with the index 5 were taken before."""
    async for outcome in run:
        assert outcome.index > 5


@pytest.mark.parametrize("leaving", [left_by_break, left_by_exception])
async def test_an_iterator_that_outlives_its_block(leaving: Callable[[BulkRun[Any]], Awaitable[None]]) -> None:
    """After its block, a run that was left early has the outcomes that were finished. Then it raises instead of ending."""
    run, _ = running(AsyncInput(), concurrency=2)
    await leaving(run)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="this BulkRun was left before its end"):
            await outcomes_after_5(run)
        assert await run.report() == run.so_far


async def test_a_reader_in_another_task() -> None:
    """A task that waits for an outcome when the block is left gets an error, not the end."""
    run, _ = running(AsyncInput(), Gates())
    async with run:
        waiting = asyncio.ensure_future(anext(run))
        await turns()
    with pytest.raises(ConfigurationError, match="this BulkRun was left before its end"):
        await waiting


async def test_a_run_that_was_read_to_its_end() -> None:
    """A run that was read to its end stays at its end, also after its block."""
    run, _ = running(range(3))
    async with run:
        assert len([outcome async for outcome in run]) == 3
        assert [outcome async for outcome in run] == []
    assert [outcome async for outcome in run] == []
    assert (await run.report()).succeeded == 3


async def test_awaiting_a_run() -> None:
    """`await run` says what to write."""
    run: Any = running(range(3))[0]
    with pytest.raises(ConfigurationError, match=r"use async with run, or await run\.report\(\)"):
        await run


async def test_a_plain_for_over_a_run() -> None:
    """`for outcome in run` says what to write, as a `TypeError`, which Python raises for what cannot be iterated over."""
    run: Any = running(range(3))[0]
    for misuse in (iter, list, set):
        with pytest.raises(TypeError, match=r"^a BulkRun is iterated with async for: async with run, then async for"):
            misuse(run)


async def test_leaving_at_once() -> None:
    """A block that is left before anything has begun ends as well."""
    source = AsyncInput()
    run, work = running(source)
    async with run:
        pass
    assert (work.begun, work.closed) == ([], 1)
    assert source.closed == (source.read > 0)


async def cancelled_at(stepper: Stepper) -> bool:
    """Cancel a small run once, and look around; False when it was done before."""
    source = AsyncInput()
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
    """A run whose tasks were cancelled by other code, such as a loop that shuts down, raises CancelledError."""
    before = asyncio.all_tasks()
    run, work = running(AsyncInput(), Gates())
    async with run:
        waiting = asyncio.ensure_future(anext(run))
        await wait_until(lambda: len(work.begun) == 2)
        for task in asyncio.all_tasks() - before - {waiting}:
            task.cancel()
        async with asyncio.timeout(20):
            await asyncio.wait((waiting,))
        assert waiting.cancelled()
    assert work.closed == 1


async def test_outcomes_after_an_interrupted_item() -> None:
    """In order, the outcomes behind an item that other code interrupted are still handed out, before the CancelledError."""
    gates = Gates()
    run, work = running(["stuck", "done", "later"], gates, in_order=True)
    async with run:
        await wait_until(lambda: len(work.begun) == 2)
        gates.open["done"].set()
        await wait_until(lambda: len(work.begun) == 3)
        assert run._task is not None
        run._task.cancel()
        assert (await anext(run)).value == "done"
        with pytest.raises(asyncio.CancelledError):
            await anext(run)


async def test_a_cancelled_run_whose_input_ends() -> None:
    """If only the run's own task is cancelled, a generator that ends at its cancellation does not look exhausted."""

    async def items() -> AsyncIterator[int]:
        yield 1
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    run, _ = running(items())
    async with run:
        assert (await anext(run)).value == 1
        await turns()
        assert run._task is not None
        run._task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await anext(run)
