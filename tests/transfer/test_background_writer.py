"""`BackgroundWriter`: calls in order, one at a time, and all of them returned when its block ends."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time

import pytest

from meta_media.transfer import background_writer
from meta_media.transfer.background_writer import BackgroundWriter
from meta_media.transfer.thread_pool import ThreadPool
from tests.support.servers import wait_until
from tests.support.stepping import Stepper, settled_at


async def test_pieces_are_processed_in_order_on_a_thread() -> None:
    """Each piece is processed once, in order, one at a time, and not on the event loop's thread."""
    done: list[int] = []
    idents: set[int] = set()
    busy = threading.Lock()

    def work(piece: int) -> None:
        assert busy.acquire(blocking=False)
        idents.add(threading.get_ident())
        done.append(piece)
        busy.release()

    async with BackgroundWriter(work) as writer:
        for piece in range(500):
            await writer.put(piece)
    assert done == list(range(500))
    assert threading.get_ident() not in idents


async def test_put_waits_for_the_previous_piece() -> None:
    """A piece is accepted only when the previous one has been processed."""
    go = threading.Semaphore(0)
    accepted = 0

    def work(_: int) -> None:
        go.acquire()

    async def put() -> None:
        nonlocal accepted
        async with BackgroundWriter(work) as writer:
            for piece in range(4):
                await writer.put(piece)
                accepted += 1

    task = asyncio.ensure_future(put())
    for finished in range(4):
        await settled_at(finished + 1, lambda: accepted)
        await asyncio.sleep(0.01)  # time in which one piece too many would be accepted
        assert accepted == finished + 1
        go.release()
    await task


@pytest.mark.parametrize("first", [0, 3], ids=["inside the block", "at its end"])
async def test_an_error_of_the_work_is_raised(first: int) -> None:
    """An error of the work is raised by the next `put`, or at the end of the block; no later piece is processed."""
    done: list[int] = []
    own = ZeroDivisionError("mine")

    def work(piece: int) -> None:
        done.append(piece)
        if piece == 3:
            raise own

    async def put() -> None:
        async with BackgroundWriter(work) as writer:
            for piece in range(first, 4 if first else 100):
                await writer.put(piece)

    with pytest.raises(ZeroDivisionError) as caught:
        await put()
    assert caught.value is own
    assert done == list(range(first, 4))


async def test_an_error_of_the_block_wins() -> None:
    """An error of the block is raised instead of the work's own, after the work has returned; waiting pieces are dropped."""
    started, failed, done = threading.Event(), threading.Event(), list[int]()

    def work(piece: int) -> None:
        started.set()
        failed.wait()
        done.append(piece)
        raise KeyError(piece)

    async def put() -> None:
        async with BackgroundWriter(work, depth=2) as writer:
            await writer.put(0)
            await settled_at(True, started.is_set)
            await writer.put(1)
            asyncio.get_running_loop().call_later(0.05, failed.set)  # time for a block that does not wait
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await put()
    assert done == [0]


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_cancelled_at_every_await(times: int) -> None:
    """Cancelled at any await, no work is in progress afterwards."""
    busy = False

    def work(_: int) -> None:
        nonlocal busy
        busy = True
        time.sleep(0.001)  # the cancellation arrives meanwhile
        busy = False

    async def owner() -> bool:
        async with BackgroundWriter(work) as writer:
            for piece in range(4):
                await writer.put(piece)
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


async def test_a_turn_is_not_waited_for_long() -> None:
    """While other threads hold all turns, a piece is processed without one after a moment, and no turn is given back."""
    turns, taken = background_writer._turns(), 0
    with contextlib.suppress(queue.Empty):
        while True:
            turns.get_nowait()
            taken += 1
    done: list[int] = []
    try:
        async with BackgroundWriter(done.append) as writer:
            await writer.put(1)
        assert (done, turns.empty()) == ([1], True)
    finally:
        for _ in range(taken):
            turns.put(None)


async def test_thread_waits_for_the_next_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece that comes a moment later meets the same thread, which has not left, and the block's end does not wait for it."""
    monkeypatch.setattr(background_writer, "_LINGER", 60.0)
    found: list[int] = []

    def note(_: int) -> None:
        found.append(threading.get_ident())

    async with BackgroundWriter(note) as writer:
        await writer.put(1)
        job = writer._job
        assert job is not None
        await wait_until(lambda: len(found) == 1)
        await writer.put(2)
        assert writer._job is job
    assert (job.done(), len(found), len(set(found))) == (True, 2, 1)


async def test_thread_leaves_while_other_work_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """While all threads are taken, a thread does not wait for a piece, and comes again with the next one."""
    monkeypatch.setattr(ThreadPool, "has_idle", False)
    monkeypatch.setattr(background_writer, "_LINGER", 60.0)
    done: list[int] = []
    async with BackgroundWriter(done.append, depth=2) as writer:
        for number in range(50):
            await writer.put(number)
            await wait_until(lambda: writer._job is None)
    assert done == list(range(50))


@pytest.mark.parametrize("when", ["failed", "left"])
async def test_waiting_thread_is_sent_away(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """A thread that waits for the next piece ends at once when none will come."""
    monkeypatch.setattr(background_writer, "_LINGER", 60.0)
    done: list[int] = []

    async def use() -> None:
        async with BackgroundWriter(done.append) as writer:
            await writer.put(1)
            await wait_until(lambda: done == [1])
            if when == "failed":
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) if when == "failed" else contextlib.nullcontext():
        await asyncio.wait_for(use(), 20)
