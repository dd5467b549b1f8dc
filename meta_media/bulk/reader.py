"""Reads items on demand from any iterable or async iterable; code that may block runs on a thread."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import abc, deque
from collections.abc import AsyncIterable, Iterable
from typing import Any, Final

from meta_media.errors import ConfigurationError
from meta_media.transfer.threads import run_in_thread, submit

__all__ = ["ItemReader"]

_BATCH_SIZE: Final = 64  # items read from a plain iterator in one visit to a thread
_BATCH_SECONDS: Final = 0.005  # after which a visit ends
_BLOCKED_TIMEOUT: Final = 0.5  # seconds to wait for a generator that blocks its thread, before it is abandoned


class ItemReader:
    """Reads the items of one input. This class reads a collection in memory, whose total is known."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._iterator: abc.Iterator[Any] = iter(items)
        self.total = len(items) if isinstance(items, abc.Sized) else None

    @staticmethod
    def of(items: AsyncIterable[Any] | Iterable[Any]) -> ItemReader:
        """Return the reader for an input. One item, and anything that cannot be iterated over, is a `ConfigurationError`."""
        if isinstance(items, str | bytes | bytearray | memoryview | os.PathLike):
            raise ConfigurationError(f"pass a list or an iterator of items, not one {type(items).__name__}")
        if isinstance(items, AsyncIterable):
            return _AsyncReader(items)
        if isinstance(items, abc.Sequence | abc.Set | abc.Mapping | abc.ValuesView | deque):
            return ItemReader(items)
        if isinstance(items, Iterable):
            return _ThreadReader(items)
        raise ConfigurationError(f"cannot iterate over a {type(items).__name__}: pass a list or an iterator of items")

    async def next(self, room: int = 1) -> tuple[Any] | None:
        """
        Return the next item in a tuple of its own; None at the end. An error of the iterator is raised unchanged.

        Up to `room` items may be read. All but the first are kept for later calls.
        """
        for item in self._iterator:
            return (item,)
        return None

    def stop(self) -> bool:
        """
        Read no further from an iterator. `next` still returns the items of a collection, and items that were read already.

        Return whether `next` ends by itself. If not, its task has to be cancelled.
        """
        return True

    async def aclose(self) -> None:
        """Close a generator, so that its `finally` runs. Other iterators stay open for their owners."""


class _AsyncReader(ItemReader):
    total = None

    def __init__(self, items: AsyncIterable[Any]) -> None:
        self._steps = aiter(items)

    async def next(self, room: int = 1) -> tuple[Any] | None:
        async for item in self._steps:
            return (item,)
        return None

    def stop(self) -> bool:
        return False

    async def aclose(self) -> None:
        if isinstance(self._steps, abc.AsyncGenerator):
            await self._steps.aclose()


class _ThreadReader(ItemReader):
    """Reads a plain iterator on a thread, in batches of the items that come at once."""

    total = None

    def __init__(self, items: Iterable[Any]) -> None:
        self._iterator = iter(items)
        self._items: deque[Any] = deque()  # read, and not returned yet
        self._changed = asyncio.Event()
        self._reading: asyncio.Future[None] | None = None  # a batch
        self._ended = self._stopped = False
        self._error: BaseException | None = None

    async def next(self, room: int = 1) -> tuple[Any] | None:
        while not (self._items or self._ended or self._stopped):
            self._changed.clear()
            if self._reading is None or self._reading.done():
                self._reading = submit(self._read, asyncio.get_running_loop(), min(room, _BATCH_SIZE))
                self._reading.add_done_callback(lambda _: self._changed.set())
            await self._changed.wait()
        if not self._items and self._stopped:
            await self._blocked_thread()
        if self._items:
            return (self._items.popleft(),)
        error, self._error = self._error, None
        if error is not None:
            raise error
        return None

    def stop(self) -> bool:
        self._stopped = True
        self._changed.set()
        return True

    async def aclose(self) -> None:
        self.stop()
        if not isinstance(self._iterator, abc.Generator):
            return
        if (blocked := await self._blocked_thread()) is None:
            await run_in_thread(self._iterator.close)
        else:
            generator = self._iterator
            blocked.add_done_callback(lambda _: submit(_close_quietly, generator))

    async def _blocked_thread(self) -> asyncio.Future[None] | None:
        """Wait for the end of a batch; return its future if the iterator blocks its thread."""
        if self._reading is None:
            return None
        _, pending = await asyncio.wait((self._reading,), timeout=_BLOCKED_TIMEOUT)
        return self._reading if pending else None

    def _read(self, loop: asyncio.AbstractEventLoop, room: int) -> None:
        """Read a batch, on a thread. Each item can be returned as soon as it is there."""
        until = time.monotonic() + _BATCH_SECONDS
        try:
            for item in self._iterator:
                self._items.append(item)
                loop.call_soon_threadsafe(self._changed.set)
                room -= 1
                if not room or self._stopped or time.monotonic() >= until:
                    return
        except BaseException as error:  # noqa: BLE001 - it is raised by `next`, after the items before it
            self._error = error
        self._ended = True


def _close_quietly(generator: abc.Generator[Any, Any, Any]) -> None:
    with contextlib.suppress(Exception):  # the run that could raise it has ended
        generator.close()
