"""Short pieces of blocking work share a visit to a thread, unless they take long."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from meta_media.errors import StorageError
from meta_media.transfer import thread_pool
from meta_media.transfer.files import OpenedFile
from meta_media.transfer.short_work import ShortWork
from meta_media.transfer.thread_pool import ThreadPool
from meta_media.transfer.threads import FileWork, pool
from tests.support.servers import wait_until


class Visits:
    """Pieces of work that note their thread, and when they ran; an event holds back those that ask for it."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.ran: list[int] = []

    def piece(self, number: int, *, waits: bool = False) -> int:
        """Return the number."""
        if waits:
            self.go.wait()
        self.ran.append(number)
        return number


class _CountingPool:
    """The pool, with the number of its visits."""

    def __init__(self) -> None:
        self.visits = 0
        self.progress = pool().progress

    def submit(self, *work: Any) -> Future[Any]:
        """Count, and do it."""
        self.visits += 1
        return pool().submit(*work)


async def test_pieces_share_visits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of many tasks are done in order, and the thread is visited once for sixteen of them."""
    for limit in ("_VISIT_SECONDS", "_LATE_AFTER"):
        monkeypatch.setattr("meta_media.transfer.short_work." + limit, 60.0)
    counted, visits = _CountingPool(), Visits()
    short = ShortWork(counted)  # type: ignore[arg-type]  # it counts
    futures = [Future[int]() for _ in range(64)]
    await asyncio.gather(*(short.start(future, visits.piece, number) for number, future in enumerate(futures)))
    assert [future.result() for future in futures] == visits.ran == list(range(64))
    assert counted.visits == 64 // 16


async def test_stuck_piece_holds_nothing_back() -> None:
    """Pieces before and behind one that is stuck are done all the same, however many there are."""
    visits = Visits()
    pieces = [asyncio.ensure_future(FileWork().run_first(visits.piece, number)) for number in range(3)]
    stuck = asyncio.ensure_future(FileWork().run_first(lambda: visits.piece(-1, waits=True)))
    pieces += [asyncio.ensure_future(FileWork().run_first(visits.piece, number)) for number in range(3, 40)]
    assert await asyncio.gather(*pieces) == list(range(40))
    assert not stuck.done()
    visits.go.set()
    assert await stuck == -1


async def test_long_pieces_run_beside_each_other() -> None:
    """Pieces that all take long are on several threads at a time, each of which goes on with those that wait."""
    met = threading.Barrier(4)
    assert await asyncio.gather(*(FileWork().run_first(met.wait, 10) for _ in range(24))) == pytest.approx(
        [1.5] * 24, abs=1.5
    )


async def test_error_and_cancellation() -> None:
    """The error of a piece is its own, and one that was cancelled before it began is not done."""
    short, visits = ShortWork(pool()), Visits()
    failing, dropped, kept = Future[Any](), Future[Any](), Future[Any]()
    dropped.cancel()
    waiters = [short.start(failing, divmod, 1, 0), short.start(dropped, visits.piece, 1)]
    waiters += [short.start(kept, visits.piece, 2)]
    waiters[0].cancel()
    await asyncio.wait(waiters)
    assert (type(failing.exception()), kept.result(), visits.ran) == (ZeroDivisionError, 2, [2])


async def test_refused_visit(monkeypatch: pytest.MonkeyPatch) -> None:
    """When all threads are stuck, each piece gets the error that says so, and the next one is done when they are back."""
    monkeypatch.setattr("meta_media.transfer.short_work._LATE_AFTER", 60.0)  # a late visit refuses what comes meanwhile
    monkeypatch.setattr(thread_pool, "_PATIENCE", 0.1)
    monkeypatch.setattr(thread_pool, "_SIZE", 2)
    monkeypatch.setattr(thread_pool, "_LIMIT", 2)
    threads, visits = ThreadPool(), Visits()
    stuck = [threads.submit(visits.go.wait) for _ in range(2)]
    short, futures = ShortWork(threads), [Future[int]() for _ in range(20)]
    await asyncio.gather(*(short.start(future, visits.piece, 1) for future in futures))
    assert [type(future.exception()) for future in futures] == [StorageError] * 20
    visits.go.set()
    await asyncio.gather(*map(asyncio.wrap_future, stuck))
    again = Future[int]()
    await short.start(again, visits.piece, 2)
    assert (again.result(), visits.ran) == (2, [2])


def test_loop_that_has_ended(tmp_path: Path) -> None:
    """A file that a stuck thread opens after the event loop was closed is closed, and the loop is not kept alive."""
    visits, begun, opened = Visits(), threading.Event(), list[OpenedFile]()
    path = tmp_path / "file"
    path.write_bytes(b"more than is small")

    class Slow:
        def __fspath__(self) -> str:
            begun.set()
            visits.go.wait()
            return str(path)

    async def leave() -> weakref.ref[asyncio.AbstractEventLoop]:
        opened.append(OpenedFile(Slow(), small=1))
        opening = asyncio.ensure_future(opened[0].__aenter__())
        await wait_until(begun.is_set)
        opening.cancel()
        await asyncio.wait((opening,))
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(leave())
    visits.go.set()

    async def closed() -> None:
        await FileWork().run_first(int)
        await wait_until(lambda: opened[0].file is not None and opened[0].file.closed)
        opened.clear()
        await wait_until(lambda: gc.collect() >= 0 and loop() is None)

    asyncio.run(closed())  # which takes the place of the other loop
