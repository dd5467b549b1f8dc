"""The items of a run, one at a time, from whatever a caller has them in; nothing is read before somebody asks."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    Set,
    Sized,
    ValuesView,
)
from typing import TYPE_CHECKING, Any, Final

import anyio

from meta_media.bulk.caught import Caught
from meta_media.errors import ConfigurationError
from meta_media.transfer.threads import run_in_thread, submit

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

__all__ = ["ItemReader"]

_IN_MEMORY: Final = Sequence | Set | Mapping | ValuesView | deque
_BATCH: Final = 64  # items taken from a plain iterator on a thread, if they come at once
_AT_ONCE: Final = 0.005  # seconds
_BLOCKED: Final = 0.5  # seconds after which a generator that should be closed is left to itself


class ItemReader:
    """
    An iterable or async iterable of items. What may block, such as a generator, is advanced off the event loop.

    Attributes:
        total: How many there are, where that is known.
        in_memory: Whether they are all there.
    """

    def __init__(self, items: AsyncIterable[Any] | Iterable[Any]) -> None:
        if isinstance(items, str | bytes | bytearray | memoryview | os.PathLike):
            raise ConfigurationError(f"many are expected: pass a list or an iterator, not one {type(items).__name__}")
        if not isinstance(items, AsyncIterable | Iterable):
            raise ConfigurationError(
                f"cannot iterate over a {type(items).__name__}: pass a list or an iterator of items"
            )
        self._async = aiter(items) if isinstance(items, AsyncIterable) else None
        self._plain = iter(items) if isinstance(items, Iterable) else iter(())
        self.in_memory = isinstance(items, _IN_MEMORY)
        self.total = len(items) if isinstance(items, Sized) and self.in_memory else None
        self._pulled: deque[Any] = deque()
        self._pulling: Future[None] | None = None
        self._news = anyio.Event()
        self._over = self._stopped = False
        self._failure: BaseException | None = None

    def stop(self) -> bool:
        """
        Read nothing more of what may block; what has been read already is handed out.

        Returns:
            Whether `next` ends by itself. Whoever asks an async iterator has to be cancelled.
        """
        self._stopped = True
        self._news.set()
        return self._async is None

    async def next(self, room: int = 1) -> tuple[Any] | None:
        """
        Return the next item in a tuple of its own, or None at the end; what the iterator raises comes as it is.

        Args:
            room: How many items may be read, of which all but the first are kept for the next calls.
        """
        if self._async is not None:
            async for item in self._async:
                return (item,)
            return None
        if self.in_memory:
            return _next(self._plain)
        while not self._pulled:
            if self._stopped and self._pulling is not None:
                await self._let_go(self._pulling)
            if (self._pulling is None and self._over) or (self._stopped and not self._pulled):
                self._raise_failure()
                return None
            if self._pulled:
                break
            self._news = anyio.Event()
            if self._pulling is None:
                self._begin(room)
            await self._news.wait()
        return (self._pulled.popleft(),)

    async def aclose(self) -> None:
        """Let a generator run what it has in `finally`; one that blocks just now does so when it goes on."""
        self._stopped = True
        if isinstance(self._async, AsyncGenerator):
            await self._async.aclose()
        if isinstance(self._plain, Generator):
            if self._pulling is not None:
                await self._let_go(self._pulling)
            if self._pulling is None or self._pulling.done():
                await run_in_thread(self._plain.close)
            else:
                generator = self._plain
                self._pulling.add_done_callback(lambda _: submit(_close_late, generator))

    async def _let_go(self, pulling: Future[None]) -> None:
        """Wait for the thread to come back with what it is just reading, unless that blocks."""
        import asyncio

        await asyncio.wait((pulling,), timeout=_BLOCKED)

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _begin(self, room: int) -> None:
        import asyncio

        self._pulling = submit(self._pull, asyncio.get_running_loop(), min(room, _BATCH))
        self._pulling.add_done_callback(self._end)

    def _pull(self, loop: AbstractEventLoop, room: int) -> None:
        """Take what comes at once, on a thread; each item can be had as soon as it is there."""
        until = time.monotonic() + _AT_ONCE
        with Caught() as caught:
            while room and (item := _next(self._plain)) is not None:
                self._pulled += item
                loop.call_soon_threadsafe(self._wake)
                room = room - 1 if time.monotonic() < until and not self._stopped else 0
            self._over = room > 0
        if caught.error is not None:  # it is raised when its turn has come: after what came before it
            self._failure, self._over = caught.error, True

    def _end(self, pulling: Future[None]) -> None:
        self._pulling = None
        if (ended := pulling.exception()) is not None:  # which no `Exception` is
            self._failure, self._over = ended, True
        self._wake()

    def _wake(self) -> None:
        self._news.set()


def _next(items: Iterator[Any]) -> tuple[Any] | None:
    for item in items:
        return (item,)
    return None


def _close_late(generator: Generator[Any, Any, Any]) -> None:
    with Caught():  # nobody is there any more to hear of it
        generator.close()
