"""A lane: in order, bounded, and over when its block is, whatever happens."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from meta_media.transfer import lanes
from meta_media.transfer.lanes import BackgroundWriter
from tests.support.stepping import Stepper, settled_at

Work = Callable[[int], object]


async def test_in_order_on_a_thread() -> None:
    """Every piece is worked on once, in order, one at a time, and never on the event loop's own thread."""
    done: list[int] = []
    threads: set[int] = set()
    busy = threading.Lock()

    def work(piece: int) -> None:
        with busy:
            threads.add(threading.get_ident())
            done.append(piece)

    async with BackgroundWriter(work, depth=2) as lane:
        for piece in range(500):
            await lane.put(piece)
            if piece % 50 == 0:
                await settled_at(piece + 1, lambda: len(done))  # then the thread has gone, or is about to
    assert done == list(range(500))
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("depth", [1, 2, 5])
async def test_no_more_than_so_many_wait(depth: int) -> None:
    """A piece is taken only while fewer than `depth` are unfinished."""
    go = threading.Semaphore(0)
    taken = 0
    done: list[int] = []

    def work(piece: int) -> None:
        go.acquire()
        done.append(piece)

    async def put() -> None:
        nonlocal taken
        async with BackgroundWriter(work, depth=depth) as lane:
            for piece in range(8):
                await lane.put(piece)
                taken += 1

    task = asyncio.ensure_future(put())
    for finished in range(8):
        await settled_at(min(finished + depth, 8), lambda: taken)
        await asyncio.sleep(0.01)  # so that one too many would be taken
        assert taken == min(finished + depth, 8)
        go.release()
    await task
    assert done == list(range(8))


async def test_what_the_work_raises() -> None:
    """What a piece raises arrives as it was, at the next call; nothing is worked on after it."""
    done: list[int] = []
    own = ZeroDivisionError("mine")

    def work(piece: int) -> None:
        done.append(piece)
        if piece == 3:
            raise own

    async def fail(first: int) -> None:
        async with BackgroundWriter(work, depth=2) as lane:
            for piece in range(first, 4 if first else 100):
                await lane.put(piece)

    for first in (0, 3):  # while the block goes on, and at its end
        done.clear()
        with pytest.raises(ZeroDivisionError) as caught:
            await fail(first)
        assert caught.value is own
        assert done == list(range(first, 4))


async def test_error_of_the_owner() -> None:
    """An error in the block is the one that arrives; what is under way ends, what waits is dropped."""
    submit, done = threading.Event(), []

    def work(piece: int) -> None:
        submit.set()
        time.sleep(0.05)  # so that the block fails meanwhile
        done.append(piece)
        raise KeyError(piece)

    async def fail() -> None:
        async with BackgroundWriter(work, depth=3) as lane:
            for piece in range(3):
                await lane.put(piece)
            while not submit.is_set():  # noqa: ASYNC110 - the thread sets it
                await asyncio.sleep(0.001)  # polling
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert done == [0]


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_cancelled_at_every_await(times: int) -> None:
    """Cancelled at any await, nothing is under way afterwards."""
    busy = False

    def work(_: int) -> None:
        nonlocal busy
        busy = True
        time.sleep(0.001)  # so that something is under way
        busy = False

    async def owner() -> bool:
        async with BackgroundWriter(work, depth=1) as lane:
            for piece in range(4):
                await lane.put(piece)
        return True

    at = 0
    while True:
        at += 1
        stepper = Stepper(at, times=times)
        task = await stepper.run(owner)
        assert not busy
        if not stepper.reached:
            assert task.result()
            break
        assert task.cancelled()
        await settled_at([], lambda stepper=stepper: stepper.alive)  # type: ignore[misc]  # a default argument
    assert at > 4


async def test_nobody_waits_long_for_a_turn() -> None:
    """While all turns are taken, by threads that wait for a slow disk, a lane works without one, and gives none back."""
    turns = lanes._turns[0]
    taken = 0
    while turns.acquire(blocking=False):
        taken += 1
    done: list[int] = []
    try:
        async with BackgroundWriter(done.append, depth=1) as lane:
            await lane.put(1)
        assert (done, turns.acquire(blocking=False)) == ([1], False)
    finally:
        turns.release(taken)
