"""`RedisStore`: its keys and connections, and what can go wrong with them. No error shows the password."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from meta_media import LibraryEntry, RedisStore
from meta_media.errors import ConfigurationError, StorageError
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
            assert CANARY not in everything(caught.value)
        await store.aclose()


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
            assert CANARY not in everything(caught.value)
        with running_redis(password=CANARY, port=server.port):
            assert await store.get(entry.key) is None
            assert await put_entry(store, entry) == entry
            await store.aclose()


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
    assert done.stdout.decode().splitlines() == ['RedisStore needs a package: pip install "meta-media[redis]"'] * 3
