"""`RedisStore`: its keys and connections, and what can go wrong with them. No error shows the password."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import cast

import anyio
import pytest
import redis
from anyio.from_thread import start_blocking_portal

from meta_media import LibraryEntry, RedisStore
from meta_media.errors import ConfigurationError, StorageError
from meta_media.library.redis_store import _is_lost
from tests.library.helpers import OLD_ENTRY, entry_of, put_entry
from tests.support.redis_server import RedisServer, running_redis

pytest_plugins = ["tests.support.redis_server"]

CANARY = "Pa55-canary"
PREFIXES = (f"stores{number}" for number in itertools.count())


async def test_another_key(redis_server: RedisServer) -> None:
    """A key with the prefix that holds no string is skipped."""
    prefix = next(PREFIXES)
    store = RedisStore(redis_server.url, prefix=prefix)
    assert redis_server.command("LPUSH", f"{prefix}:entry:x", "1") == b":1\r\n"
    entry = await put_entry(store, entry_of("1"))
    assert [found async for found in store.entries()] == [entry]
    await store.aclose()


async def test_expiry(redis_server: RedisServer) -> None:
    """Redis deletes an expired entry, also one that was touched."""
    store = RedisStore(redis_server.url, prefix=next(PREFIXES))
    entry = await put_entry(store, entry_of("1", expires_in=timedelta(seconds=0.5)))
    other = await put_entry(store, entry_of("2"))
    await store.touch(entry)
    async with asyncio.timeout(30):
        while await store.get(entry.key) is not None:  # noqa: ASYNC110 - it goes by Redis' own clock
            await anyio.sleep(0.05)  # until it has expired
    assert datetime.now(UTC) > entry.expires_at - timedelta(seconds=0.1)
    assert [found async for found in store.entries()] == [other]
    await store.aclose()


async def test_prefixes(redis_server: RedisServer) -> None:
    """Stores with different prefixes in one Redis are separate, even if one prefix begins with the other."""
    prefix = next(PREFIXES)
    one, longer = RedisStore(redis_server.url, prefix=prefix), RedisStore(redis_server.url, prefix=f"{prefix}x")
    entry = await put_entry(one, entry_of("1"))
    assert await longer.get(entry.key) is None
    assert [found async for found in longer.entries()] == []
    assert [found async for found in one.entries()] == [entry]
    await one.aclose()
    await longer.aclose()


async def test_many_calls_at_once(redis_server: RedisServer) -> None:
    """Any number of tasks may use one store at the same time, over at most 32 connections."""
    store = RedisStore(redis_server.url, prefix=next(PREFIXES))
    before = redis_server.command("INFO", "clients")
    entries = [entry_of(str(number)) for number in range(200)]
    async with anyio.create_task_group() as group:
        for entry in entries:
            group.start_soon(put_entry, store, entry)
    assert {entry.phone_number_id async for entry in store.entries()} == {entry.phone_number_id for entry in entries}
    assert connected(redis_server.command("INFO", "clients")) - connected(before) <= 32
    await store.aclose()


async def test_a_cancellation_arrives(redis_server: RedisServer) -> None:
    """A command that is cancelled after any turn of the event loop ends by that, and the store goes on."""
    store = RedisStore(redis_server.url, prefix=next(PREFIXES))
    assert await store.get("x") is None
    cancelled = 0
    for turns in range(30):
        reading = asyncio.create_task(store.get("x"))
        for _ in range(turns):
            await asyncio.sleep(0)  # a turn
        if reading.cancel():
            cancelled += 1
            with pytest.raises(asyncio.CancelledError):
                await reading
    assert cancelled > 3
    assert await store.get("x") is None
    await store.aclose()


def connected(info: bytes) -> int:
    """Return the number of connections that Redis reports."""
    return int(info.partition(b"connected_clients:")[2].split()[0])


async def test_used_after_close(redis_server: RedisServer) -> None:
    """A closed store opens again at its next call."""
    store = RedisStore(redis_server.url, prefix=next(PREFIXES))
    await store.aclose()
    entry = await put_entry(store, entry_of("1"))
    await store.aclose()
    assert await store.get(entry.key) == entry
    await store.aclose()


async def test_entry_of_an_older_version(redis_server: RedisServer) -> None:
    """An entry that an older version wrote can be read and removed."""
    prefix, entry = next(PREFIXES), LibraryEntry.from_json(OLD_ENTRY)
    redis_server.command("SET", f"{prefix}:entry:{{{entry.key}}}", OLD_ENTRY)
    async with RedisStore(redis_server.url, prefix=prefix) as store:
        assert [found async for found in store.entries()] == [await store.get(entry.key)] == [entry]
        assert await store.remove(entry)


@pytest.mark.parametrize("url", ["", "localhost", "http://localhost", f"redis://u:{CANARY}@localhost:port/0"])
async def test_wrong_url(url: str) -> None:
    """A URL that is not of Redis is a ConfigurationError. It is not repeated, because it may hold a password."""
    store = RedisStore(url)
    with pytest.raises(ConfigurationError, match='like "redis://host:6379/0"') as caught:
        await store.get("key")
    assert CANARY not in everything(caught.value)
    await store.aclose()


def everything(error: BaseException) -> str:
    """Return everything that a traceback may show of an error: causes, contexts and local variables."""
    frames = (step for step in traceback.walk_tb(error.__traceback__) if step[0].f_code.co_filename != __file__)
    shown = [str(error), repr(error), *traceback.StackSummary.extract(frames, capture_locals=True).format()]
    link = error.__cause__ or error.__context__
    while link is not None:
        shown += traceback.TracebackException.from_exception(link, capture_locals=True).format()
        link = link.__cause__ or link.__context__
    return "\n".join(shown)


async def test_no_server() -> None:
    """If no Redis listens, the first call is a StorageError without the password."""
    with running_redis(password=CANARY) as server:
        server.kill()
        store = RedisStore(server.url)
        with pytest.raises(StorageError, match="Redis failed: ") as caught:
            await store.get("key")
    assert caught.value.retryable
    assert CANARY not in everything(caught.value)
    assert CANARY not in repr(store)
    assert CANARY not in repr(vars(store))
    await store.aclose()


@pytest.mark.parametrize("password", [f"x{CANARY}", None])
async def test_wrong_password(password: str | None) -> None:
    """A wrong or missing password is a StorageError. Not even a traceback with local variables shows it."""
    with running_redis(password=CANARY) as server:
        url = server.url.replace(f":{CANARY}@", f":{password}@" if password else "")
        store = RedisStore(url)
        for call in (lambda: store.claim("key", 1), lambda: store.get("key")):
            with pytest.raises(StorageError, match=r"Redis failed: .*(password|[Aa]uth)") as caught:
                await call()
            assert not caught.value.retryable
            assert CANARY not in everything(caught.value)
        await store.aclose()


@pytest.mark.parametrize(
    ("name", "retryable"),
    [
        ("ConnectionError", True),
        ("TimeoutError", True),
        ("BusyLoadingError", True),
        ("ReadOnlyError", True),
        ("ClusterDownError", True),
        ("MasterDownError", True),
        ("TryAgainError", True),
        ("ResponseError BUSY Redis is busy running a script", True),
        ("ResponseError NOREPLICAS Not enough good replicas to write", True),
        ("OutOfMemoryError", False),
        ("AuthenticationError", False),
        ("AuthorizationError", False),
        ("NoPermissionError", False),
        ("ResponseError MISCONF Redis is configured to save RDB snapshots", False),
    ],
)
def test_which_errors_are_retryable(name: str, retryable: bool) -> None:
    """A Redis that is away, starts, fails over or is busy may answer later. One that refuses or is full will not by itself."""
    name, _, text = name.partition(" ")
    assert _is_lost(getattr(redis.exceptions, name)(text or "TRYAGAIN")) is retryable


async def test_a_full_redis() -> None:
    """A Redis that is out of memory is a StorageError that a retry cannot help. What it has can still be read."""
    with running_redis() as server:
        async with RedisStore(server.url) as store:
            entry = await put_entry(store, entry_of("1"))
            server.command("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(StorageError, match=r"^Redis failed: .*maxmemory") as caught:
                await store.claim("key", 60)
            assert not caught.value.retryable
            assert await store.get(entry.key) == entry


async def test_server_dies() -> None:
    """If Redis dies, each call is a StorageError. When it is back, the same store works again."""
    with running_redis(password=CANARY) as server:
        store = RedisStore(server.url)
        entry = await put_entry(store, entry_of("1"))
        server.kill()
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: store.get(entry.key),
            lambda: store.claim(entry.key, 1),
            lambda: anext(store.entries()),
        ]
        for call in calls:
            with pytest.raises(StorageError, match="Redis failed: ") as caught:
                await call()
            assert caught.value.retryable
            assert CANARY not in everything(caught.value)
        with running_redis(password=CANARY, port=server.port):
            assert await store.get(entry.key) is None
            assert await put_entry(store, entry) == entry
            await store.aclose()


class Cable:
    """A connection to Redis that a test can cut: after a command with `cut_at` in it, its reply is lost."""

    def __init__(self, redis: RedisServer) -> None:
        self.cut_at = b""
        self._port = redis.port
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Cable:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.gather(*self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(cast("asyncio.Task[None]", asyncio.current_task()))
        redis_reader, redis_writer = await asyncio.open_connection("127.0.0.1", self._port)
        with contextlib.closing(writer), contextlib.closing(redis_writer):
            while sent := await reader.read(65536):
                redis_writer.write(sent)
                reply = await redis_reader.read(65536)
                if self.cut_at and self.cut_at in sent:
                    self.cut_at = b""
                    return
                writer.write(reply)


async def stored(store: RedisStore) -> tuple[LibraryEntry, int]:
    """Store an entry, and claim its key again."""
    entry = await put_entry(store, entry_of("1"))
    await store.put_message("wamid.0", entry)
    claim = await store.claim(entry.key, 60)
    assert claim is not None
    return entry, claim


Command = Callable[[RedisStore, LibraryEntry, int], Awaitable[object]]
REPEATED: dict[str, tuple[bytes, Command, object]] = {
    "get": (b"GET", lambda store, entry, _: store.get(entry.key), "entry"),
    "find": (b":id:", lambda store, entry, _: store.find(entry.id), "entry"),
    "put_message": (b":message:", lambda store, entry, _: store.put_message("wamid.1", entry), None),
    "get_message": (b":message:", lambda store, *_: store.get_message("wamid.0"), "entry"),
    "renew": (b"EVAL", lambda store, entry, claim: store.renew(entry.key, claim, 60), True),
    "put": (b"EVAL", lambda store, entry, claim: store.put(entry, claim), True),
    "touch": (b"EVAL", lambda store, entry, _: store.touch(entry), None),
    "release": (b"EVAL", lambda store, entry, claim: store.release(entry.key, claim), None),
    "entries": (b"SCAN", lambda store, _, __: anext(store.entries()), "entry"),
}


@pytest.mark.parametrize("name", REPEATED)
async def test_a_lost_reply(redis_server: RedisServer, name: str) -> None:
    """A command whose reply is lost is repeated once over a new connection, and has the result that it would have had."""
    cut_at, command, expected = REPEATED[name]
    async with Cable(redis_server) as cable, RedisStore(cable.url, prefix=next(PREFIXES)) as store:
        entry, claim = await stored(store)
        cable.cut_at = cut_at
        assert await command(store, entry, claim) == (entry if expected == "entry" else expected)
        assert not cable.cut_at
        assert await store.get(entry.key) == entry


async def test_a_lost_reply_to_a_claim(redis_server: RedisServer) -> None:
    """A claim whose reply is lost is asked for again, and is the one that the first try made: its token shows that."""
    async with Cable(redis_server) as cable, RedisStore(cable.url, prefix=next(PREFIXES)) as store:
        cable.cut_at = b"EVAL"
        claim = await store.claim("key", 60)
        assert not cable.cut_at
        assert claim is not None
        assert await store.claim("key", 60) is None
        assert await store.renew("key", claim, 60)
        await store.release("key", claim)
        later = await store.claim("key", 60)
        assert later is not None
        assert later > claim


async def test_a_lost_reply_to_what_is_not_repeated(redis_server: RedisServer) -> None:
    """A remove is not repeated: the error can be retried, and the first try has had its effect."""
    async with Cable(redis_server) as cable, RedisStore(cable.url, prefix=next(PREFIXES)) as store:
        entry, _ = await stored(store)
        cable.cut_at = b"EVAL"
        with pytest.raises(StorageError, match="Redis failed: ") as caught:
            await store.remove(entry)
        assert caught.value.retryable
        assert await store.get(entry.key) is None


# Claims


def forget_all(server: RedisServer, prefix: str) -> None:
    """Delete all data of a store, as Redis does that restarts without its file."""
    with redis.Redis(port=server.port) as other:
        other.delete(*other.keys(f"{prefix}:*"))


async def test_claims_after_redis_has_lost_its_data(redis_server: RedisServer) -> None:
    """A claim of before cannot end, renew or store over a later one that has the same count."""
    prefix = next(PREFIXES)
    async with RedisStore(redis_server.url, prefix=prefix) as store:
        entry = entry_of("1")
        first = await store.claim(entry.key, 60)
        forget_all(redis_server, prefix)
        second = await store.claim(entry.key, 60)
        assert first is not None
        assert second is not None
        assert first != second
        assert not await store.put(entry, first)
        assert not await store.renew(entry.key, first, 60)
        await store.release(entry.key, first)
        assert await store.claim(entry.key, 60) is None
        assert await store.put(entry, second)
        assert not await store.put(entry_of("1", "8"), first)
        assert await store.get(entry.key) == entry


async def test_the_only_claim_is_good_after_redis_has_lost_its_data(redis_server: RedisServer) -> None:
    """An upload of before is stored if nothing was claimed or stored since, so that it is not made again."""
    prefix = next(PREFIXES)
    async with RedisStore(redis_server.url, prefix=prefix) as store:
        entry = entry_of("1")
        claim = await store.claim(entry.key, 60)
        assert claim is not None
        forget_all(redis_server, prefix)
        assert await store.put(entry, claim)
        assert await store.get(entry.key) == entry
        redis_server.command("DEL", f"{prefix}:count:{{{entry.key}}}")  # it runs out after a day
        assert not await store.put(entry_of("1", "8"), claim)


@pytest.mark.parametrize("left", ["PEXPIRE 3600000", "PERSIST", "SET x", "SET 5"])
async def test_a_claim_that_cannot_end(redis_server: RedisServer, left: str) -> None:
    """A claim that would last for more than its length is ignored: the clock of Redis was put back, or it is damaged."""
    prefix = next(PREFIXES)
    async with RedisStore(redis_server.url, prefix=prefix) as store:
        first = await store.claim("key", 60)
        assert first is not None
        name, _, value = left.partition(" ")
        redis_server.command(name, f"{prefix}:claim:{{key}}", *value.split())
        second = await store.claim("key", 60)
        assert second is not None
        assert second > first
        assert await store.claim("key", 60) is None


async def test_a_claim_of_an_older_version(redis_server: RedisServer) -> None:
    """A claim of the first version, a number alone, holds until it runs out. The next one has a larger number."""
    prefix = next(PREFIXES)
    async with RedisStore(redis_server.url, prefix=prefix) as store:
        redis_server.command("SET", f"{prefix}:claim:{{key}}", "5", "PX", "60000")
        redis_server.command("SET", f"{prefix}:count:{{key}}", "5")
        assert await store.claim("key", 60) is None
        redis_server.command("DEL", f"{prefix}:claim:{{key}}")
        assert (await store.claim("key", 60) or 0) > 5


@pytest.mark.parametrize("count", ["", "x", "-1", "1e300", "9" * 40])
async def test_a_damaged_count(redis_server: RedisServer, count: str) -> None:
    """A count that is damaged does not keep a key from being claimed."""
    prefix = next(PREFIXES)
    async with RedisStore(redis_server.url, prefix=prefix) as store:
        redis_server.command("SET", f"{prefix}:count:{{key}}", count)
        claim = await store.claim("key", 60)
        assert claim is not None
        assert await store.renew("key", claim, 60)
        await store.release("key", claim)
        assert await store.claim("key", 60) is not None


@pytest.mark.parametrize("count", [1, 40])
async def test_idle_connections_that_redis_closed(redis_server: RedisServer, count: int) -> None:
    """After Redis has closed all idle connections, as it does after its `timeout`, every next command works."""
    async with RedisStore(redis_server.url, prefix=next(PREFIXES)) as store:
        entry = await put_entry(store, entry_of("1"))

        async def closed() -> None:
            assert await asyncio.gather(*(store.get(entry.key) for _ in range(count))) == [entry] * count
            redis_server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        await closed()
        assert await asyncio.gather(*(store.get(entry.key) for _ in range(count))) == [entry] * count
        await closed()
        await anyio.sleep(0.05)  # until the loop has read the ends of the connections: a claim is not repeated
        assert all(await asyncio.gather(*(store.claim(f"{number}", 60) for number in range(count))))


@pytest.mark.slow
async def test_idle_for_longer_than_the_timeout_of_redis() -> None:
    """A store that is idle for longer than Redis' `timeout` works on, each time."""
    with running_redis() as server:
        server.command("CONFIG", "SET", "timeout", "1")
        async with RedisStore(server.url) as store:
            entry = await put_entry(store, entry_of("1"))
            for _ in range(2):
                await anyio.sleep(3)  # Redis closes connections that are idle for a second, at its next look
                assert await store.get(entry.key) == entry
                claim = await store.claim(entry.key, 60)
                assert claim is not None
                await store.release(entry.key, claim)


async def test_redis_restarts() -> None:
    """After a restart of Redis, the first call works."""
    with running_redis() as server:
        store = RedisStore(server.url)
        entry = await put_entry(store, entry_of("1"))
        server.kill()
        with running_redis(port=server.port):
            assert await store.get(entry.key) is None  # it was never on a disk
            assert await put_entry(store, entry) == entry
        await store.aclose()


async def test_find(redis_server: RedisServer) -> None:
    """An entry is found by its id, until it is replaced or removed."""
    async with RedisStore(redis_server.url, prefix=next(PREFIXES)) as store:
        entry = await put_entry(store, entry_of("1", "7"))
        assert await store.find("7") == entry
        assert await store.find("8") is None
        newer = await put_entry(store, entry_of("1", "8"))
        assert (await store.find("7"), await store.find("8")) == (None, newer)
        assert await store.remove(newer)
        assert await store.find("8") is None


async def test_cancelled(redis_server: RedisServer) -> None:
    """A cancelled call never leaves its answer to another call."""
    store = RedisStore(redis_server.url, prefix=next(PREFIXES))
    entries = [await put_entry(store, entry_of(str(number))) for number in range(5)]
    cancelled = 0
    for turns in range(40):
        tasks = [asyncio.create_task(store.get(entry.key)) for entry in entries]
        for _ in range(turns % 20):
            await asyncio.sleep(0)  # a turn of the loop
        for task in tasks[::2]:
            task.cancel()
        await asyncio.wait(tasks)
        cancelled += sum(task.cancelled() for task in tasks)
        for task, entry in zip(tasks, entries, strict=True):
            assert task.cancelled() or task.result() == entry
    assert cancelled >= 6, "those that had not even begun"
    assert [await store.get(entry.key) for entry in entries] == entries
    await store.aclose()


WITHOUT = """
import asyncio, sys
sys.modules["redis"] = None
from meta_media import RedisStore
from meta_media.errors import ConfigurationError
store = RedisStore("redis://localhost")
for call in (lambda: store.get("key"), lambda: anext(store.entries()), lambda: store.claim("key", 1)):
    try:
        asyncio.run(call())
    except ConfigurationError as error:
        print(error)
asyncio.run(store.aclose())
"""


async def test_redis_py_is_missing() -> None:
    """Without redis-py, the first call says which package to install."""
    store = RedisStore("redis://localhost")
    with pytest.MonkeyPatch.context() as world:
        world.setitem(sys.modules, "redis", None)
        with pytest.raises(ConfigurationError, match="RedisStore needs a package"):
            await store.get("key")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = await anyio.run_process([sys.executable, "-W", "error", "-c", WITHOUT], env=environment)
    assert done.stdout.decode().splitlines() == ["RedisStore needs a package: pip install '.[redis]' in a checkout"] * 3


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_event_loops(redis_server: RedisServer) -> None:
    """Loops in turn have connections of their own; a second loop at the same time is refused at once."""
    store = RedisStore(redis_server.url)
    assert [asyncio.run(store.get("unknown")) for _ in range(2)] == [None, None]
    with start_blocking_portal() as first, start_blocking_portal() as second:
        assert first.call(store.get, "unknown") is None
        with pytest.raises(
            ConfigurationError, match=r"^this RedisStore is in use by another event loop: make one for each$"
        ):
            second.call(store.get, "unknown")
        first.call(store.aclose)
    gc.collect()  # asyncio warns of what died with its loop; now, and not in another test
