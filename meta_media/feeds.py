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
    ValuesView,
)
from typing import Any, Final

from .caught import Caught
from .errors import ConfigurationError
from .files import in_thread

__all__ = ["Feed"]

_IN_MEMORY: Final = Sequence | Set | Mapping | ValuesView | deque
_BATCH: Final = 64  # items taken from a plain iterator on a thread, if they come at once
_AT_ONCE: Final = 0.005  # seconds


class Feed:
    """
    An iterable or async iterable of items. What may block, such as a generator, is advanced off the event loop.

    Attributes:
        total: How many there are, where that is known.
        in_memory: Whether they are all there, so that reading on costs nothing and comes to an end.
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
        self.total = len(items) if isinstance(items, _IN_MEMORY) else None
        self.in_memory = self.total is not None
        self._batch: deque[Any] = deque()
        self._failure: Exception | None = None

    async def next(self) -> tuple[Any] | None:
        """Return the next item in a tuple of its own, or None at the end; what the iterator raises comes as it is."""
        if self._async is not None:
            async for item in self._async:
                return (item,)
            return None
        if self.in_memory:
            return _next(self._plain)
        if not self._batch and self._failure is None:
            self._batch, self._failure = await in_thread(_pulled, self._plain)
        if not self._batch and self._failure is not None:
            raise self._failure
        return (self._batch.popleft(),) if self._batch else None

    async def aclose(self) -> None:
        """Let a generator run what it has in `finally`."""
        if isinstance(self._async, AsyncGenerator):
            await self._async.aclose()
        if isinstance(self._plain, Generator):
            await in_thread(self._plain.close)


def _next(items: Iterator[Any]) -> tuple[Any] | None:
    for item in items:
        return (item,)
    return None


def _pulled(items: Iterator[Any]) -> tuple[deque[Any], Exception | None]:
    """Take what comes at once, on a thread: not item by item, and without waiting for a second if the first is there."""
    batch: deque[Any] = deque()
    until = time.monotonic() + _AT_ONCE
    with Caught() as caught:  # it is raised when its turn has come: after what came before it
        while len(batch) < _BATCH and (not batch or time.monotonic() < until) and (found := _next(items)):
            batch += found
    return batch, caught.error
