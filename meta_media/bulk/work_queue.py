"""Hands the items of an input to workers. An item is read when a worker waits for it and its outcome has room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable
from typing import Any, Final

from meta_media.bulk.reader import ItemReader

__all__ = ["WorkQueue"]

_CLOSE_TIMEOUT: Final = 10.0  # seconds for the `finally` of an input, before it is cancelled again


class WorkQueue:
    """
    The queue between an input and its workers.

    The input is read in a task that does nothing else and is cancelled once. An async generator may hold scopes and timeouts
    of its own, and may await in its `finally`. In a cancelled scope of anyio each such await would be cancelled again.
    """

    def __init__(self, items: AsyncIterable[Any] | Iterable[Any], *, workers: int, room: int) -> None:
        self._reader = ItemReader.of(items)
        self.total = self._reader.total
        self.read_count = 0  # items handed to workers so far
        self.error: BaseException | None = None  # that ended the input, once the queue is closed
        self._workers = workers  # number of tasks that call `get`
        self._waiting_count = 0  # workers that wait for an item
        self._room = room  # number of items that may be read before another outcome is taken
        self._demand = asyncio.Event()  # set when one of these two has grown
        self._items: asyncio.Queue[tuple[int, Any] | None] = asyncio.Queue()
        self._task: asyncio.Task[None]
        self._closing = False

    def start(self) -> None:
        """Start to read."""
        self._task = asyncio.create_task(self._read())

    async def get(self) -> tuple[int, Any] | None:
        """Return the next item with its index; None after the last one."""
        self._waiting_count += 1
        self._demand.set()
        return await self._items.get()

    def release(self) -> None:
        """Make room for another item, because an outcome was taken."""
        self._room += 1
        self._demand.set()

    def stop(self) -> None:
        """Read no further from an iterator. Items of a list, and items that were read already, are still handed out."""
        if not self._reader.stop():
            self._cancel()

    async def aclose(self) -> None:
        """Stop reading, and wait until the input is closed."""
        self._cancel()
        while not self._task.done():
            await asyncio.wait((self._task,), timeout=_CLOSE_TIMEOUT)
            self._task.cancel()
        cancelled = self._task.cancelled()
        self.error = asyncio.CancelledError("the input was cancelled") if cancelled else self._task.exception()

    def _cancel(self) -> None:
        if not self._closing:
            self._closing = True
            self._task.cancel()

    async def _read(self) -> None:
        try:
            while not self._closing and (item := await self._next()) is not None:
                self._items.put_nowait((self.read_count, *item))
                self.read_count += 1
        finally:
            self._closing = True
            try:
                await self._reader.aclose()
            finally:
                for _ in range(self._workers):
                    self._items.put_nowait(None)

    async def _next(self) -> tuple[Any] | None:
        while not (self._waiting_count and self._room):
            self._demand.clear()
            await self._demand.wait()
        room = self._room
        self._waiting_count, self._room = self._waiting_count - 1, self._room - 1
        return await self._reader.next(room)
