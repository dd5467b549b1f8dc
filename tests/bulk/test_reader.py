"""The items of a run, from whatever holds them: in order, no sooner than asked for, and never on the event loop."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any, Self, cast

import pytest

from meta_media.bulk.reader import ItemReader
from meta_media.errors import ConfigurationError
from tests.support.servers import wait_until

BATCH = 64  # items that may be taken from a plain iterator at once, at most


class Plain:
    """An iterator that is no generator, with a `close` that is not ours to call."""

    def __init__(self, *items: Any) -> None:
        self.left = deque(items)
        self.closed = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if not self.left:
            raise StopIteration
        return self.left.popleft()

    def close(self) -> None:
        """Note it."""
        self.closed += 1


class Asynchronous:
    """An async iterator that is no generator."""

    def __init__(self, *items: Any) -> None:
        self.left = deque(items)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        await asyncio.sleep(0)  # a turn of the loop
        if not self.left:
            raise StopAsyncIteration
        return self.left.popleft()


class Closable(Asynchronous):
    """An async iterator with an `aclose` that only its owner calls."""

    closed = 0

    async def aclose(self) -> None:
        """Note it."""
        self.closed += 1


class Iterable:
    """Something that can be iterated over, and does not know its length."""

    def __iter__(self) -> Iterator[Any]:
        yield from (1, 2, 3)


class AsyncIterable:
    """Likewise, asynchronously."""

    async def __aiter__(self) -> AsyncIterator[Any]:
        for item in (1, 2, 3):
            yield item


class UltimateError(BaseException):
    """An error that is no `Exception`, as test frameworks raise."""


def counting() -> Iterator[int]:
    """Yield three items."""
    yield from (1, 2, 3)


async def counting_slowly() -> AsyncIterator[int]:
    """Yield three items, with awaits in between."""
    for item in (1, 2, 3):
        await asyncio.sleep(0)  # a turn of the loop
        yield item


async def rest(feed: ItemReader) -> list[Any]:
    """Take what is left."""
    taken: list[Any] = []
    while (item := await feed.next()) is not None:
        taken += item
    return taken


IN_MEMORY: dict[str, Any] = {
    "list": [1, 2, 3],
    "tuple": (1, 2, 3),
    "range": range(1, 4),
    "set": {1, 2, 3},
    "frozenset": frozenset((1, 2, 3)),
    "dict": dict.fromkeys((1, 2, 3)),
    "keys": dict.fromkeys((1, 2, 3)).keys(),
    "values": {"a": 1, "b": 2, "c": 3}.values(),
    "deque": deque((1, 2, 3)),
}
STREAMED: dict[str, Callable[[], Any]] = {
    "generator": counting,
    "generator expression": lambda: (item for item in (1, 2, 3)),
    "async generator": counting_slowly,
    "list iterator": lambda: iter([1, 2, 3]),
    "map": lambda: map(int, "123"),
    "slice of an endless one": lambda: itertools.islice(itertools.count(1), 3),
    "iterator": lambda: Plain(1, 2, 3),
    "iterable": Iterable,
    "async iterator": lambda: Asynchronous(1, 2, 3),
    "async iterator with aclose": lambda: Closable(1, 2, 3),
    "async iterable": AsyncIterable,
}


@pytest.mark.parametrize("kind", IN_MEMORY)
async def test_collections(kind: str) -> None:
    """A collection gives its items in its own order, and says beforehand how many they are."""
    feed = ItemReader.of(IN_MEMORY[kind])
    assert feed.total == 3
    assert await rest(feed) == [1, 2, 3]
    assert await feed.next() is None
    await feed.aclose()


@pytest.mark.parametrize("kind", STREAMED)
async def test_iterators(kind: str) -> None:
    """Other iterables give their items in order; their number is unknown."""
    feed = ItemReader.of(STREAMED[kind]())
    assert feed.total is None
    assert await rest(feed) == [1, 2, 3]
    assert await feed.next() is None
    await feed.aclose()


async def test_pairs_of_a_mapping() -> None:
    """The items of a dict are pairs, as `upload_many` takes them."""
    feed = ItemReader.of({"a": {"filename": "b"}}.items())
    assert (feed.total, await rest(feed)) == (1, [("a", {"filename": "b"})])


@pytest.mark.parametrize("empty", [[], (), range(0), iter(()), {}, Asynchronous(), Plain()])
async def test_nothing(empty: Any) -> None:
    """Nothing at all is at its end."""
    assert await ItemReader.of(empty).next() is None


@pytest.mark.parametrize("item", [None, False, 0, "", (), (None,)])
@pytest.mark.parametrize("holding", [lambda item: [item], lambda item: iter([item]), Asynchronous])
async def test_items_that_look_like_nothing(item: Any, holding: Callable[[Any], Any]) -> None:
    """An item may be anything: none of them is taken for the end."""
    assert await rest(ItemReader.of(holding(item))) == [item]


@pytest.mark.parametrize(
    ("one", "named"),
    [
        ("photo.jpg", "str"),
        (b"bytes", "bytes"),
        (bytearray(b"bytes"), "bytearray"),
        (memoryview(b"bytes"), "memoryview"),
        (Path("photo.jpg"), "PosixPath"),
    ],
)
def test_one_by_mistake(one: Any, named: str) -> None:
    """One item where many belong would be taken apart into letters or numbers: it is refused, by name."""
    with pytest.raises(ConfigurationError, match=f"^pass a list or an iterator of items, not one {named}$"):
        ItemReader.of(one)


@pytest.mark.parametrize("thing", [7, None, object(), 1.5, counting])
def test_what_cannot_be_iterated_over(thing: Any) -> None:
    """What gives no items is refused at once, by name."""
    sentence = f"^cannot iterate over a {type(thing).__name__}: pass a list or an iterator of items$"
    with pytest.raises(ConfigurationError, match=sentence):
        ItemReader.of(thing)


async def test_nothing_is_read_beforehand() -> None:
    """An async iterator is asked for an item only when `next` is called."""
    items = Asynchronous(*range(10))
    feed = ItemReader.of(items)
    assert len(items.left) == 10
    assert await feed.next() == (0,)
    assert len(items.left) == 9


@pytest.mark.parametrize("room", [1, 5, BATCH, 1000])
async def test_a_plain_iterator_is_read_in_batches(room: int) -> None:
    """What comes at once is taken from a plain iterator in one go, but never more than there is room for, or a batch."""
    items = Plain(*range(1000))
    feed = ItemReader.of(items)
    assert len(items.left) == 1000
    assert await feed.next(room) == (0,)
    await wait_until(cast("Any", feed)._reading.done)
    read = 1000 - len(items.left)
    assert 1 <= read <= min(room, BATCH)
    for item in range(1, read):
        assert await feed.next() == (item,)
    assert len(items.left) == 1000 - read, "it was read on before what had been read was used"
    assert await rest(feed) == list(range(read, 1000))


async def test_a_slow_generator_is_not_waited_for() -> None:
    """An item is handed on before the next one is there: it may be what that one waits for."""
    handed_on = threading.Event()
    in_time = []

    def items() -> Iterator[int]:
        for item in range(3):
            yield item
            in_time.append(handed_on.wait(10))
            handed_on.clear()

    feed = ItemReader.of(items())
    for item in range(3):
        assert await feed.next() == (item,)
        handed_on.set()
    assert await feed.next() is None
    assert in_time == [True] * 3


async def test_generators_run_off_the_event_loop() -> None:
    """A generator is begun, advanced, ended and closed on other threads than the event loop's."""
    seen: list[int] = []

    def items() -> Iterator[int]:
        try:
            for item in range(2 * BATCH):
                seen.append(threading.get_ident())
                yield item
        finally:
            seen.append(threading.get_ident())

    assert await rest(ItemReader.of(items())) == list(range(2 * BATCH))
    stopped = ItemReader.of(items())
    await stopped.next()
    await stopped.aclose()
    assert len(seen) > 2 * BATCH + 2
    assert threading.get_ident() not in seen


async def test_what_was_read_is_handed_out_after_a_stop() -> None:
    """A plain iterator that is stopped is not read on, and what was taken from it beforehand is not lost."""
    given = itertools.count()
    feed = ItemReader.of(given)
    assert await feed.next(5) == (0,)
    assert feed.stop()
    left = await rest(feed)
    assert left == list(range(1, next(given)))
    assert len(left) <= 4


async def test_a_collection_goes_on_after_a_stop() -> None:
    """A collection that is stopped is read to its end, which costs nothing."""
    feed = ItemReader.of([1, 2, 3])
    assert feed.stop()
    assert await rest(feed) == [1, 2, 3]


async def test_a_stop_while_an_item_is_awaited() -> None:
    """A pending `next` on a plain iterator ends after `stop`; an item that comes at that moment is returned."""
    asked, go_on = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield 1
        asked.set()
        go_on.wait(60)
        yield 2

    feed = ItemReader.of(items())
    assert await feed.next() == (1,)
    waiting = asyncio.ensure_future(feed.next())
    await wait_until(asked.is_set)
    feed.stop()
    for _ in range(3):
        await asyncio.sleep(0)  # a turn of the loop, in which it hears of the stop
    go_on.set()
    assert await waiting == (2,)
    assert await feed.next() is None
    await feed.aclose()


async def test_a_blocked_generator_is_left_behind() -> None:
    """A blocked generator is not waited for. Its `finally` runs when it goes on, and an error of it is suppressed."""
    blocked, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        try:
            yield 1
            blocked.set()
            assert go_on.wait(60)
            yield 2
        finally:
            closed.set()
            raise LookupError("no listener")

    feed = ItemReader.of(items())
    await feed.next()
    second = asyncio.ensure_future(feed.next())
    await wait_until(blocked.is_set)
    second.cancel()
    await feed.aclose()
    assert [blocked.is_set(), closed.is_set()] == [True, False]
    go_on.set()
    await wait_until(closed.is_set)
    await wait_until(cast("Any", feed)._reading.done)


def after_two(error: BaseException) -> Iterator[int]:
    """Yield two items, and fail."""
    yield 1
    yield 2
    raise error


async def after_two_slowly(error: BaseException) -> AsyncIterator[int]:
    """Likewise."""
    yield 1
    yield 2
    raise error


@pytest.mark.parametrize("failing", [after_two, after_two_slowly])
async def test_own_failures(failing: Callable[[BaseException], Any]) -> None:
    """What an input raises comes as it is, in its place: after the items before it."""
    error = LookupError("unknown")
    feed = ItemReader.of(failing(error))
    assert [await feed.next(), await feed.next()] == [(1,), (2,)]
    with pytest.raises(LookupError) as raised:
        await feed.next()
    assert raised.value is error
    await feed.aclose()


async def test_what_is_no_exception() -> None:
    """An error of a plain iterator that is no `Exception` is raised unchanged."""
    feed = ItemReader.of(after_two(UltimateError()))
    assert [await feed.next(), await feed.next()] == [(1,), (2,)]
    async with asyncio.timeout(20):
        with pytest.raises(UltimateError):
            await feed.next()


async def test_a_failure_is_the_end() -> None:
    """A plain iterator that has failed is not asked again, for it might go on where it should not."""

    class Flaky(Plain):
        def __next__(self) -> Any:
            item = super().__next__()
            if item is None:
                raise LookupError("unknown")
            return item

    items = Flaky(1, None, 2)
    feed = ItemReader.of(items)
    assert await feed.next() == (1,)
    with pytest.raises(LookupError, match="unknown"):
        await feed.next()
    assert await feed.next() is None
    assert list(items.left) == [2]


async def test_async_generators_are_closed() -> None:
    """An async generator that is left early runs its `finally`, with all awaits in it."""
    closed = []

    async def items() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            for _ in range(3):
                await asyncio.sleep(0)  # a turn of the loop
            closed.append(True)

    feed = ItemReader.of(items())
    await feed.next()
    await feed.aclose()
    assert closed == [True]


async def test_generators_are_closed() -> None:
    """A generator that is left early runs its `finally`; one that was not started does not."""
    closed = []

    def items(name: str) -> Generator[int, None, None]:
        try:
            while True:
                yield 1
        finally:
            closed.append(name)

    begun, idle = ItemReader.of(items("begun")), ItemReader.of(items("idle"))
    await begun.next()
    await begun.aclose()
    await idle.aclose()
    assert closed == ["begun"]


async def test_others_are_their_owners_to_close() -> None:
    """An iterator that is no generator stays open for its owner."""
    plain, asynchronous = Plain(1, 2), Closable(1, 2)
    for items in (plain, asynchronous):
        feed = ItemReader.of(items)
        await feed.next()
        await feed.aclose()
    assert (plain.closed, asynchronous.closed) == (0, 0)
    assert await rest(ItemReader.of(asynchronous)) == [2]


async def test_what_closing_raises() -> None:
    """`aclose` raises an error of the generator's `finally`."""

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            raise LookupError("the list is gone")

    feed = ItemReader.of(items())
    await feed.next()
    with pytest.raises(LookupError, match="the list is gone"):
        await feed.aclose()
