"""A job that does what a test asks, and other helpers that the tests of runs share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from meta_media import MediaApi, Settings
from meta_media.bulk.outcomes import Outcome
from meta_media.bulk.run import BulkOptions, BulkRun
from meta_media.transfer.progress import ItemProgress
from tests.support.servers import Server, json_response, wait_until
from tests.support.stepping import LeanServer

ENDLESS = 10_000  # items after which an input that should not be read on fails


class HopelessError(Exception):
    """What every other item would meet as well."""


class Work:
    """A job that runs a function of the test, and notes the items in `begun`."""

    def __init__(self, do: Callable[[Any, ItemProgress], Awaitable[Any]]) -> None:
        self.begun: list[Any] = []
        self.most_at_once = self.opened = self.closed = 0
        self._at_once = 0
        self._do = do

    async def open(self) -> None:
        """Count."""
        self.opened += 1

    async def __call__(self, item: Any, move: ItemProgress) -> Any:
        """Do what this job does, and note it."""
        self.begun.append(item)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return await self._do(item, move)
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


class AsyncInput:
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
    """Let all tasks go on until they wait."""
    for _ in range(count):
        await asyncio.sleep(0)  # a turn of the loop


async def collected(run: BulkRun[Any]) -> list[Outcome[Any]]:
    """Run to the end."""
    async with run:
        return [outcome async for outcome in run]


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
    """Leave in the middle, by a cancellation from another task."""

    async def endless() -> None:
        async with run:
            async for _ in run:
                pass

    task = asyncio.ensure_future(endless())
    await wait_until(lambda: run.so_far.succeeded > 5)
    await turns()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)  # a turn of the loop
    await asyncio.wait((task,))
    assert task.cancelled()


LEAVING = [left_by_break, left_by_exception, left_by_cancellation]


def client(server: Server | LeanServer, **settings: Any) -> MediaApi:
    """Make a client that tries once."""
    settings = {"max_retries": 0, "concurrency": 2} | settings
    return MediaApi("a-token", "1", settings=Settings(base_url=server.base_url, **settings))


def refusal(code: int, status: int = 400, message: str = "no", **more: str) -> bytes:
    """Write one of Meta's refusals."""
    return json_response({"error": {"message": message, "code": code}}, status, **more)


async def outcomes(run: BulkRun[Any]) -> list[Any]:
    """Carry out a run, and return its outcomes in the order of the input."""
    async with run:
        return sorted([outcome async for outcome in run], key=lambda outcome: outcome.index)


def listing(folder: Path) -> list[str]:
    """List a folder."""
    return sorted(path.name for path in folder.iterdir())
