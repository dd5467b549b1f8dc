"""Stores: what `check_store` finds in ours and in broken ones, and how each of ours fails."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sqlite3
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import attrs
import pytest

from meta_media import LibraryEntry, MemoryStore, RedisStore, SQLiteStore
from meta_media.errors import ConfigurationError, StorageError
from meta_media.library import Store
from meta_media.testing import check_store
from tests.support.redis_server import RedisServer, running_redis

pytest_plugins = ["tests.support.redis_server"]

CANARY = "Pa55-canary"
_prefixes = (f"stores{number}" for number in itertools.count())


def entry_of(number: str, media_id: str = "7", *, expires_in: timedelta = timedelta(days=1)) -> LibraryEntry:
    """Make an entry of nothing in particular."""
    now = datetime.now(UTC)
    return LibraryEntry(
        id=media_id,
        sha256="0" * 64,
        mime_type="text/plain",
        phone_number_id=number,
        uploaded_at=now,
        expires_at=now + expires_in,
        used_at=now,
    )


async def kept(store: Store, entry: LibraryEntry) -> LibraryEntry:
    """Keep an entry, as a library does."""
    claim = await store.claim(entry.key, 60)
    assert claim is not None
    assert await store.put(entry, claim)
    return entry


# The promises


async def test_memory() -> None:
    """A store in memory keeps every promise."""
    store = MemoryStore()
    await check_store(lambda: store)


async def test_sqlite(tmp_path: Path) -> None:
    """A store in a file keeps every promise, between two of them too."""
    await check_store(lambda: SQLiteStore(tmp_path / "new" / "library.sqlite"))


async def test_redis(redis_server: RedisServer) -> None:
    """A store in Redis keeps every promise, between two of them too; the factory may be async."""
    prefix = next(_prefixes)

    async def make() -> Store:
        return RedisStore(redis_server.url, prefix=prefix)

    await check_store(make)


class _Forgets(MemoryStore):
    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        await self.release(entry.key, claim)
        return True


class _KeepsLittle(MemoryStore):
    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        return await super().put(attrs.evolve(entry, maybe_duplicate=False), claim)


class _RefusesToPut(MemoryStore):
    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        return await super().put(entry, claim) and False


class _KeepsTheFirst(MemoryStore):
    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        kept = self._entries.get(entry.key, entry)
        return await super().put(kept, claim)


class _PutsAnyway(MemoryStore):
    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        if not await super().put(entry, claim):
            self._entries[entry.key] = entry
        return True


class _PutsUnnoticed(MemoryStore):
    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        done = await super().put(entry, claim)
        self._entries[entry.key] = entry
        return done


class _PutsWhereNobodyClaims(MemoryStore):
    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        if entry.key in self._claims and not self._is_claim(entry.key, claim):
            return False
        self._entries[entry.key] = entry
        await self.release(entry.key, claim)
        return True


class _PutsInTimeOnly(MemoryStore):
    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        if self._claims.get(entry.key, (0, 0.0))[1] < asyncio.get_running_loop().time():
            return False
        return await super().put(entry, claim)


class _PutKeepsTheClaim(MemoryStore):
    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        self._entries[entry.key] = entry
        return self._is_claim(entry.key, claim)


class _ClaimsNothing(MemoryStore):
    async def claim(self, key: str, seconds: float) -> int | None:
        return None


class _ClaimsAlways(MemoryStore):
    async def claim(self, key: str, seconds: float) -> int | None:
        self._claims.pop(key, None)
        return await super().claim(key, seconds)


class _OneClaimForAll(MemoryStore):
    async def claim(self, key: str, seconds: float) -> int | None:
        return None if set(self._claims) - {key} else await super().claim(key, seconds)


class _ClaimsForEver(MemoryStore):
    async def claim(self, key: str, seconds: float) -> int | None:
        return await super().claim(key, 1e9)


class _ClaimsInTwoSteps(MemoryStore):
    async def claim(self, key: str, seconds: float) -> int | None:
        if time.monotonic() < self._claims.get(key, (0, 0.0))[1]:
            return None
        await asyncio.sleep(0)
        self._claims.pop(key, None)
        return await super().claim(key, seconds)


class _ClaimsByTheSameNumber(MemoryStore):
    async def claim(self, key: str, seconds: float) -> int | None:
        self._last_claim = 0
        return await super().claim(key, seconds)


class _RenewsNothing(MemoryStore):
    async def renew(self, key: str, claim: int, seconds: float) -> bool:
        return self._is_claim(key, claim)


class _RenewsNever(MemoryStore):
    async def renew(self, key: str, claim: int, seconds: float) -> bool:
        return False


class _RenewsAnything(MemoryStore):
    async def renew(self, key: str, claim: int, seconds: float) -> bool:
        return True


class _RenewsAnybodys(MemoryStore):
    async def renew(self, key: str, claim: int, seconds: float) -> bool:
        return key in self._claims


class _RenewsLonger(MemoryStore):
    async def renew(self, key: str, claim: int, seconds: float) -> bool:
        return await super().renew(key, claim, max(seconds, 60))


class _ReleasesNothing(MemoryStore):
    async def release(self, key: str, claim: int) -> None:
        pass


class _ReleasesAnybodys(MemoryStore):
    async def release(self, key: str, claim: int) -> None:
        self._claims.pop(key, None)


class _TouchesNothing(MemoryStore):
    async def touch(self, entry: LibraryEntry) -> None:
        pass


class _TouchesAnything(MemoryStore):
    async def touch(self, entry: LibraryEntry) -> None:
        self._entries[entry.key] = entry


class _TouchesByKey(MemoryStore):
    async def touch(self, entry: LibraryEntry) -> None:
        if entry.key in self._entries:
            self._entries[entry.key] = entry


class _RemovesByKey(MemoryStore):
    async def remove(self, entry: LibraryEntry) -> bool:
        return self._entries.pop(entry.key, None) is not None


class _RemovesUnnoticed(MemoryStore):
    async def remove(self, entry: LibraryEntry) -> bool:
        self._entries.pop(entry.key, None)
        return await super().remove(entry)


class _RemovesNothing(MemoryStore):
    async def remove(self, entry: LibraryEntry) -> bool:
        return self._is_stored(entry)


class _RemovesAlways(MemoryStore):
    async def remove(self, entry: LibraryEntry) -> bool:
        await super().remove(entry)
        return True


class _FindsByNumber(MemoryStore):
    async def get(self, key: str) -> LibraryEntry | None:
        if key in self._entries:
            return self._entries[key]
        return next((entry for known, entry in self._entries.items() if known[:9] == key[:9]), None)


class _ListsSome(MemoryStore):
    async def entries(self) -> AsyncIterator[LibraryEntry]:
        for entry in tuple(self._entries.values())[:500]:
            yield entry


class _ListsByNumber(MemoryStore):
    async def entries(self) -> AsyncIterator[LibraryEntry]:
        page = 0
        while found := list(self._entries.values())[page : page + 100]:
            for entry in found:
                yield entry
            page += 100


class _ListsTwice(MemoryStore):
    async def entries(self) -> AsyncIterator[LibraryEntry]:
        for entry in (*self._entries.values(), *self._entries.values()):
            yield entry


BROKEN: dict[type[MemoryStore], str] = {
    _Forgets: "get must return all fields of the stored entry",
    _KeepsLittle: "get must return all fields of the stored entry",
    _RefusesToPut: "put with the current claim must return True",
    _KeepsTheFirst: "put must replace the earlier entry of the key",
    _PutsAnyway: "put must return False after a later claim of the key",
    _PutsUnnoticed: "put must store nothing after a later claim of the key",
    _PutsWhereNobodyClaims: "put must return False after a later claim of the key, even if that one has ended",
    _PutsInTimeOnly: "put must store an entry whose claim has run out, if no later claim was made",
    _PutKeepsTheClaim: "claim of a key without a claim must return a number, not None",
    _ClaimsNothing: "claim of a key without a claim must return a number, not None",
    _ClaimsAlways: "claim must return None while another claim holds",
    _OneClaimForAll: "claims of other keys must not matter",
    _ClaimsForEver: "a claim must run out after its seconds",
    _ClaimsInTwoSteps: "one of 40 concurrent claims must succeed, not ",
    _ClaimsByTheSameNumber: "claim must return a larger number than every earlier claim of the key",
    _RenewsNothing: "renew must extend the claim by its seconds from now",
    _RenewsNever: "renew of a claim that has not run out must return True",
    _RenewsAnything: "renew of a claim that was never made must return False",
    _RenewsAnybodys: "renew must return False if another claim holds the key",
    _RenewsLonger: "a claim must run out after its seconds",
    _ReleasesNothing: "renew of a released claim must return False",
    _ReleasesAnybodys: "release must not end another claim of the key",
    _TouchesNothing: "touch must update used_at of the stored entry",
    _TouchesAnything: "touch must not store a new entry",
    _TouchesByKey: "touch must change nothing if the key has another entry",
    _RemovesByKey: "remove must return False if the key has another entry",
    _RemovesUnnoticed: "remove must not remove another entry of the key",
    _RemovesNothing: "remove must remove the entry",
    _RemovesAlways: "remove of an entry that is not stored must return False",
    _FindsByNumber: "get must return the entry of exactly this key",
    _ListsSome: "entries must yield each of 600 entries once",
    _ListsByNumber: "entries must yield every entry, also if those it has yielded are removed meanwhile",
    _ListsTwice: "entries must yield one entry per key: the last one that was put",
}


async def test_broken_promises() -> None:
    """Whatever promise a store breaks, the check says in one sentence which; and it closes both stores all the same."""
    told: dict[type[MemoryStore], str] = {}

    async def check(kind: type[MemoryStore]) -> None:
        store = kind()
        try:
            await check_store(lambda: store)
        except AssertionError as error:
            told[kind] = str(error)

    async with anyio.create_task_group() as group:
        for kind in BROKEN:
            group.start_soon(check, kind)
    assert {kind: told.get(kind, "nothing")[: len(f"Store: {BROKEN[kind]}")] for kind in BROKEN} == {
        kind: f"Store: {sentence}" for kind, sentence in BROKEN.items()
    }


async def test_busy_machine() -> None:
    """On a machine that is so busy that a claim runs out before it can be renewed, the check tries longer ones."""

    class Busy(MemoryStore):
        async def renew(self, key: str, claim: int, seconds: float) -> bool:
            if key.startswith("10/") and claim < self._numbers_of_busy:
                await asyncio.sleep(self._claims[key][1] - time.monotonic())  # until it has run out
                return False
            return await super().renew(key, claim, seconds)

        async def claim(self, key: str, seconds: float) -> int | None:
            claim = await super().claim(key, seconds)
            if key.startswith("10/") and self._numbers_of_busy == 0:
                self._numbers_of_busy = self._last_claim + 1
            return claim

        _numbers_of_busy = 0

    store = Busy()
    await check_store(lambda: store)
    assert store._numbers_of_busy > 0


async def test_separate_stores() -> None:
    """Two stores that do not share their data are told of."""
    with pytest.raises(AssertionError, match="also from another store over the same data"):
        await check_store(MemoryStore)


async def test_stores_are_closed() -> None:
    """Both stores are closed, twice, also when a promise is broken."""
    closed = []

    class Closing(_RenewsAnything):
        async def aclose(self) -> None:
            closed.append(self)

    with pytest.raises(AssertionError):
        await check_store(Closing)
    assert len(closed) == 4
    assert len(set(closed)) == 2


# SQLite


async def test_sqlite_default_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a path, a store in a file is in the user's cache folder, wherever the system has that."""
    for variable, value, folder in (
        ("XDG_CACHE_HOME", str(tmp_path / "cache"), tmp_path / "cache"),
        ("XDG_CACHE_HOME", "", tmp_path / ".cache"),
    ):
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv(variable, value)
        store = SQLiteStore()
        await kept(store, entry_of("1"))
        await store.aclose()
        assert (folder / "meta_media" / "library.sqlite").is_file()


async def test_sqlite_survives_being_closed(tmp_path: Path) -> None:
    """What one store kept is there when its file is opened again, claims included; numbers of claims go on."""
    path = tmp_path / "library.sqlite"
    first = SQLiteStore(path)
    entry = await kept(first, entry_of("1"))
    claim = await first.claim("another key", 600)
    await first.aclose()
    second = SQLiteStore(path)
    assert await second.get(entry.key) == entry
    assert await second.claim("another key", 600) is None
    assert claim is not None
    await second.release("another key", claim)
    assert (await second.claim("another key", 600) or 0) > claim
    await second.aclose()


async def test_sqlite_after_the_clock_was_put_back(tmp_path: Path) -> None:
    """A claim that would hold for longer than a day was made before the clock was put back, and holds nobody up."""
    store = SQLiteStore(tmp_path / "library.sqlite")
    assert await store.claim("key", 86_400 * 1.5) == 1
    assert await store.claim("key", 600) == 2
    assert await store.claim("key", 600) is None
    await store.aclose()


async def test_sqlite_closed(tmp_path: Path) -> None:
    """A store that was closed says so."""
    store = SQLiteStore(tmp_path / "library.sqlite")
    await store.aclose()
    with pytest.raises(ConfigurationError, match=r"the library '.*library\.sqlite' is closed"):
        await store.get("key")


@contextlib.contextmanager
def written_to(path: Path) -> Iterator[None]:
    """Write to a database, as another process does."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("COMMIT")


async def test_sqlite_begun_together(tmp_path: Path) -> None:
    """Of processes that begin together, one sets the file up, and the others wait for it."""
    store = SQLiteStore(tmp_path / "library.sqlite")
    with written_to(tmp_path / "library.sqlite"):
        looking = asyncio.ensure_future(store.get("key"))
        done, _ = await asyncio.wait({looking}, timeout=0.5)
        assert not done
    assert await looking is None
    await store.aclose()


async def test_sqlite_set_up_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for without end."""
    monkeypatch.setattr("meta_media.bulk.sqlite_file._BUSY_TIMEOUT", 0.1)
    with written_to(tmp_path / "library.sqlite"), pytest.raises(StorageError, match="database is locked"):
        await SQLiteStore(tmp_path / "library.sqlite").get("key")


async def test_sqlite_somebody_elses_file(tmp_path: Path) -> None:
    """A file that is no library is refused, and stays as it was."""
    path = tmp_path / "notes.txt"
    path.write_bytes(b"my notes, by no means to be lost\n" * 100)
    store = SQLiteStore(path)
    with pytest.raises(ConfigurationError, match=r"notes\.txt' is no library, but some other file"):
        await store.get("key")
    await store.aclose()
    assert path.read_bytes() == b"my notes, by no means to be lost\n" * 100


async def test_sqlite_somebody_elses_database(tmp_path: Path) -> None:
    """A database of something else is refused, and gets no table of ours."""
    path = tmp_path / "theirs.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as theirs:
        theirs.execute("CREATE TABLE entries (anything)")
    store = SQLiteStore(path)
    with pytest.raises(ConfigurationError, match=r"theirs\.sqlite' is no library, but some other database"):
        await store.get("key")
    await store.aclose()
    with contextlib.closing(sqlite3.connect(path)) as theirs:
        assert [name for (name,) in theirs.execute("SELECT name FROM sqlite_master")] == ["entries"]


async def test_sqlite_where_nothing_can_be_written(tmp_path: Path) -> None:
    """A file that cannot be made is a StorageError with the file's name."""
    (tmp_path / "file").touch()
    store = SQLiteStore(tmp_path / "file" / "library.sqlite")
    with pytest.raises(StorageError, match=r"the library '.*file/library\.sqlite' failed: "):
        await store.claim("key", 1)
    await store.aclose()


async def test_sqlite_in_two_threads(tmp_path: Path) -> None:
    """Event loops in several threads may share one store, and one file by a store for each."""
    path, shared = tmp_path / "library.sqlite", SQLiteStore(tmp_path / "library.sqlite")
    claims: list[int | None] = []

    async def work(number: int, store: Store) -> None:
        claims.append(await store.claim("wanted by all", 600))
        for turn in range(50):
            await kept(store, entry_of(f"{number}-{turn}"))

    def thread(number: int, store: Store) -> None:
        asyncio.run(work(number, store))

    own = [SQLiteStore(path) for _ in range(2)]
    threads = [threading.Thread(target=thread, args=(n, store)) for n, store in enumerate((shared, shared, *own))]
    for one in threads:
        one.start()
    for one in threads:
        await anyio.to_thread.run_sync(one.join)
    found = [entry.phone_number_id async for entry in shared.entries()]
    assert sorted(found) == sorted(f"{number}-{turn}" for number in range(4) for turn in range(50))
    assert [claim for claim in claims if claim is not None] == [1]
    for store in (shared, *own):
        await store.aclose()


# Redis


async def test_redis_somebody_elses_key(redis_server: RedisServer) -> None:
    """A key below the prefix that holds no entry, or none any more, is passed over."""
    prefix = next(_prefixes)
    store = RedisStore(redis_server.url, prefix=prefix)
    assert redis_server.command("LPUSH", f"{prefix}:entry:x", "1") == b":1\r\n"
    entry = await kept(store, entry_of("1"))
    assert [found async for found in store.entries()] == [entry]
    await store.aclose()


async def test_redis_forgets_what_has_expired(redis_server: RedisServer) -> None:
    """An entry leaves Redis by itself when it expires, also after it was touched."""
    store = RedisStore(redis_server.url, prefix=next(_prefixes))
    entry = await kept(store, entry_of("1", expires_in=timedelta(seconds=0.5)))
    other = await kept(store, entry_of("2"))
    await store.touch(entry)
    async with asyncio.timeout(30):
        while await store.get(entry.key) is not None:  # noqa: ASYNC110 - it goes by Redis' own clock
            await anyio.sleep(0.05)  # polling
    assert datetime.now(UTC) > entry.expires_at - timedelta(seconds=0.1)
    assert [found async for found in store.entries()] == [other]
    await store.aclose()


async def test_redis_prefixes(redis_server: RedisServer) -> None:
    """Stores of different prefixes in one Redis know nothing of each other, even if one begins like the other."""
    prefix = next(_prefixes)
    one, longer = RedisStore(redis_server.url, prefix=prefix), RedisStore(redis_server.url, prefix=f"{prefix}x")
    entry = await kept(one, entry_of("1"))
    assert await longer.get(entry.key) is None
    assert [found async for found in longer.entries()] == []
    assert [found async for found in one.entries()] == [entry]
    await one.aclose()
    await longer.aclose()


async def test_redis_many_at_once(redis_server: RedisServer) -> None:
    """Any number of tasks may use one store at once, over few connections."""
    store = RedisStore(redis_server.url, prefix=next(_prefixes))
    before = redis_server.command("INFO", "clients")
    entries = [entry_of(str(number)) for number in range(500)]
    async with anyio.create_task_group() as group:
        for entry in entries:
            group.start_soon(kept, store, entry)
    assert {entry.phone_number_id async for entry in store.entries()} == {entry.phone_number_id for entry in entries}
    assert connected(redis_server.command("INFO", "clients")) - connected(before) <= 32
    await store.aclose()


def connected(told: bytes) -> int:
    """Read how many connections Redis has."""
    return int(told.partition(b"connected_clients:")[2].split()[0])


async def test_redis_works_again_after_being_closed(redis_server: RedisServer) -> None:
    """A store that was closed before, or never opened, opens again when it is used."""
    store = RedisStore(redis_server.url, prefix=next(_prefixes))
    await store.aclose()
    entry = await kept(store, entry_of("1"))
    await store.aclose()
    assert await store.get(entry.key) == entry
    await store.aclose()


@pytest.mark.parametrize("url", ["", "localhost", "http://localhost", f"redis://u:{CANARY}@localhost:port/0"])
async def test_redis_wrong_url(url: str) -> None:
    """What is no URL of a Redis is a ConfigurationError that does not repeat it, for it may hold a password."""
    store = RedisStore(url)
    with pytest.raises(ConfigurationError, match='like "redis://host:6379/0"') as caught:
        await store.get("key")
    assert CANARY not in shown(caught.value)
    await store.aclose()


def shown(error: BaseException) -> str:
    """Show an error with all that it came from, also what is suppressed, and all local variables on the way."""
    frames = (step for step in traceback.walk_tb(error.__traceback__) if step[0].f_code.co_filename != __file__)
    told = [str(error), repr(error), *traceback.StackSummary.extract(frames, capture_locals=True).format()]
    link = error.__cause__ or error.__context__
    while link is not None:
        told += traceback.TracebackException.from_exception(link, capture_locals=True).format()
        link = link.__cause__ or link.__context__
    return "\n".join(told)


async def test_redis_is_not_there() -> None:
    """Where no Redis listens, the first call is a StorageError that can be told from others."""
    with running_redis(password=CANARY) as server:
        server.kill()
        store = RedisStore(server.url)
        with pytest.raises(StorageError, match="Redis failed: ") as caught:
            await store.get("key")
    assert CANARY not in shown(caught.value)
    assert CANARY not in repr(store)
    assert CANARY not in repr(vars(store))
    await store.aclose()


@pytest.mark.parametrize("password", [f"x{CANARY}", None])
async def test_redis_wrong_password(password: str | None) -> None:
    """A password that Redis refuses, or wants to have, is never shown, also not in a traceback with local variables."""
    with running_redis(password=CANARY) as server:
        url = server.url.replace(f":{CANARY}@", f":{password}@" if password else "")
        store = RedisStore(url)
        for call in (lambda: store.claim("key", 1), lambda: store.get("key")):
            with pytest.raises(StorageError, match=r"Redis failed: .*(password|[Aa]uth)") as caught:
                await call()
            assert CANARY not in shown(caught.value)
        await store.aclose()


async def test_redis_dies() -> None:
    """When Redis dies, each call is a StorageError without the password; when it is back, the same store works again."""
    with running_redis(password=CANARY) as server:
        store = RedisStore(server.url)
        entry = await kept(store, entry_of("1"))
        server.kill()
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: store.get(entry.key),
            lambda: store.claim(entry.key, 1),
            lambda: anext(store.entries()),
        ]
        for call in calls:
            with pytest.raises(StorageError, match="Redis failed: ") as caught:
                await call()
            assert CANARY not in shown(caught.value)
        with running_redis(password=CANARY, port=server.port):
            assert await store.get(entry.key) is None
            assert await kept(store, entry) == entry
            await store.aclose()


async def test_redis_cancelled(redis_server: RedisServer) -> None:
    """A call that is cancelled at any moment spoils no later one: nobody is given an answer to somebody else's command."""
    store = RedisStore(redis_server.url, prefix=next(_prefixes))
    entries = [await kept(store, entry_of(str(number))) for number in range(5)]
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
    """Without redis-py, the first use says in one sentence what to install."""
    store = RedisStore("redis://localhost")
    with pytest.MonkeyPatch.context() as world:
        world.setitem(sys.modules, "redis", None)
        with pytest.raises(ConfigurationError, match="RedisStore needs a package"):
            await store.get("key")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = await anyio.run_process([sys.executable, "-W", "error", "-c", WITHOUT], env=environment)
    assert done.stdout.decode().splitlines() == ['RedisStore needs a package: pip install "meta-media[redis]"'] * 3
