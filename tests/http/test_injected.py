"""The guard: what is cancelled has ended before its caller hears of it, and leaves nothing to nobody."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import anyio
import httpx
import pytest

from meta_media.http import injected
from meta_media.http.injected import InjectedClient, shield_native_cancel
from meta_media.http.timeouts import TransferTimeouts
from tests.support.servers import Server, page, silence, wait_until
from tests.support.stepping import Stepper


class Work:
    """Something to guard, which notes what happens to it."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.ended: list[str] = []
        self.undone: list[str] = []

    async def forever(self) -> None:
        """Wait until cancelled."""
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await anyio.lowlevel.cancel_shielded_checkpoint()
            self.ended.append("cancelled")

    async def stubborn(self) -> str:
        """Finish although cancelled."""
        self.started.set()
        with anyio.CancelScope(shield=True):
            await asyncio.sleep(0.05)  # longer than it takes to be cancelled
        self.ended.append("finished")
        return "result"

    async def failing(self) -> str:
        """Fail while being cancelled."""
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise ZeroDivisionError

    async def undo(self, result: str) -> None:
        """Note what is undone."""
        await asyncio.sleep(0)  # a turn, as closing something takes
        self.undone.append(result)


async def cancelled(task: asyncio.Future[Any], times: int = 1) -> None:
    """Cancel on successive turns of the loop, and see that it was."""
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)  # so that each finds the clean-up of the one before
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_result_and_exception_pass() -> None:
    """What the work gives or raises arrives as it was."""
    own = ZeroDivisionError("mine")

    async def give() -> int:
        return 7

    async def fail() -> None:
        raise own

    assert await shield_native_cancel(give) == 7
    with pytest.raises(ZeroDivisionError) as caught:
        await shield_native_cancel(fail)
    assert caught.value is own


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_work_has_ended_when_the_cancellation_arrives(times: int) -> None:
    """However often the caller is cancelled, the work's own clean-up is over first."""
    work = Work()
    task = asyncio.ensure_future(shield_native_cancel(work.forever))
    await work.started.wait()
    await cancelled(task, times)
    assert work.ended == ["cancelled"]


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_late_result_is_undone(times: int) -> None:
    """A result that came although its caller was cancelled is undone, completely."""
    work = Work()
    task = asyncio.ensure_future(shield_native_cancel(work.stubborn, undo=work.undo))
    await work.started.wait()
    await cancelled(task, times)
    assert (work.ended, work.undone) == (["finished"], ["result"])


async def test_late_result_without_undo() -> None:
    """A late result that needs no undoing is dropped."""
    work = Work()
    task = asyncio.ensure_future(shield_native_cancel(work.stubborn))
    await work.started.wait()
    await cancelled(task)
    assert work.ended == ["finished"]


async def test_late_failure() -> None:
    """Work that fails while it is cancelled: the cancellation is what arrives, and there is nothing to undo."""
    work = Work()
    task = asyncio.ensure_future(shield_native_cancel(work.failing, undo=work.undo))
    await work.started.wait()
    await cancelled(task)
    assert work.undone == []


async def test_cancelled_at_every_await_of_the_undoing() -> None:
    """Wherever the cancellation lands, the result arrives or is undone."""

    async def once(work: Work) -> str:
        return await shield_native_cancel(work.stubborn, undo=work.undo)

    at = 0
    while True:
        at += 1
        work = Work()
        stepper = Stepper(at, times=3, late=at % 2 == 0)
        task = await stepper.run(functools.partial(once, work))
        if not stepper.reached:
            break
        assert task.cancelled()
        assert work.undone == (["result"] if work.ended else [])
    assert task.result() == "result"
    assert at >= 3


async def test_scopes_and_timeouts_of_the_caller() -> None:
    """Cancel scopes and timeouts around the guard end the work, and are the caller's to report."""
    work = Work()
    with anyio.move_on_after(0.05) as scope:
        await shield_native_cancel(work.forever)
    assert scope.cancelled_caught
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await shield_native_cancel(work.forever)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(shield_native_cancel(work.forever), 0.05)
    assert work.ended == ["cancelled"] * 3


class AlwaysDone(asyncio.Future[None]):
    """
    A future that is done whenever a scope looks at it, and never wakes its task.

    Under uvloop, a task that reads what never stops arriving looks like this to anyio.
    """

    def done(self) -> bool:
        """Say that it is."""
        return True


async def test_work_that_a_scope_cannot_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where anyio finds no moment for its cancellation, the work is cancelled all the same."""
    monkeypatch.setattr(injected, "_CANCEL_TIMEOUT", 0.1)
    started, ended = asyncio.Event(), asyncio.Event()

    async def reading() -> None:
        started.set()
        try:
            await AlwaysDone()
        finally:
            ended.set()

    task = asyncio.ensure_future(shield_native_cancel(reading))
    await started.wait()
    await cancelled(task)
    assert ended.is_set()


@pytest.mark.slow
async def test_work_that_refuses_to_end() -> None:
    """Work that ignores its cancellation delays the caller for seconds, not for ever."""
    started, release = asyncio.Event(), asyncio.Event()

    async def refusing() -> None:
        started.set()
        with anyio.CancelScope(shield=True):
            await release.wait()

    task = asyncio.ensure_future(shield_native_cancel(refusing))
    await started.wait()
    async with asyncio.timeout(60):
        await cancelled(task)
    release.set()


async def test_cancelled_exchange_leaves_its_place() -> None:
    """A client with one place answers after any number of cancelled requests."""
    async with Server(silence) as server, httpx.AsyncClient(limits=httpx.Limits(max_connections=1)) as client:
        wire = InjectedClient(client)
        timeouts = TransferTimeouts(connect=20, read=20, write=20, rate=0, deadline=None)
        for number in range(5):
            task = asyncio.ensure_future(wire.send("GET", f"{server.base_url}/", {}, None, timeouts))
            await wait_until(lambda number=number: len(server.requests) > number)  # type: ignore[misc]
            await cancelled(task, 2)
        server.script[:] = [page("text")]
        async with asyncio.timeout(20):
            answer = await wire.send("GET", f"{server.base_url}/", {}, None, timeouts)
        received = bytearray(5)
        assert await answer.readinto(memoryview(received)) == 4
        assert received == b"text\0"
        await answer.aclose()
