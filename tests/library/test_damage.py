"""What stores read back is input: a damaged entry counts as missing, is made anew and flagged, and hides no other one."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import anyio
import attrs
import pytest
import redis

from meta_media import LibraryEntry, MediaApi, MediaLibrary, RedisStore, SQLiteStore
from meta_media.emulator import Emulator
from meta_media.errors import MediaError, StorageError
from meta_media.library import Store
from tests.library.helpers import CONTENT, OLD_ENTRY, SMALL, entry_of, list_entries, put_entry, upload_count
from tests.support.redis_server import RedisServer

pytest_plugins = ["tests.support.redis_server"]

FLIPS: Final = 150
prefixes: Final = (f"damage{number}" for number in itertools.count())


@attrs.frozen
class Place:
    """A store, and a way to change the stored text of all its entries behind its back."""

    store: SQLiteStore | RedisStore
    change: Callable[[Callable[[bytes], bytes]], None]


@pytest.fixture(params=["sqlite", "redis"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """An empty store, and access to its data."""
    if request.param == "sqlite":
        path = tmp_path / "library.sqlite"

        def change(damage: Callable[[bytes], bytes]) -> None:
            with contextlib.closing(sqlite3.connect(path)) as other, other:
                rows = other.execute("SELECT key, CAST(entry AS BLOB) FROM entries").fetchall()
                for key, entry in rows:
                    other.execute("UPDATE entries SET entry = CAST(? AS TEXT) WHERE key = ?", (damage(entry), key))

        async with SQLiteStore(path) as store:
            yield Place(store, change)
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    prefix = next(prefixes)

    def change_values(damage: Callable[[bytes], bytes]) -> None:
        with redis.Redis(port=server.port) as other:
            for name in other.keys(f"{prefix}:entry:*"):
                other.set(name, damage(other.get(name)), keepttl=True)

    async with RedisStore(server.url, prefix=prefix) as redis_store:
        yield Place(redis_store, change_values)


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """Make a damage that replaces some bytes."""
    return lambda text: text.replace(old, new)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "another id": replaced(b'"id": "', b'"id": "1'),
    "no text": replaced(b'"id"', b'"\xff\xfe"'),
    "cut": lambda text: text[: len(text) // 2],
    "empty": lambda _: b"",
    "no JSON": lambda _: b"\x00\x01",
    "no object": lambda _: b"[]",
    "nested without end": lambda _: b"[" * 100_000,
    "another key": replaced(b'"sha256": "', b'"sha256": "0'),
    "a flag": replaced(b"false", b"true"),
    "a date": replaced(b'"expires_at": 1', b'"expires_at": 2'),
    "no checksum": replaced(b'"checksum"', b'"checksun"'),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
async def test_a_damaged_entry_is_made_anew(
    emulator: Emulator,
    media: MediaApi,
    place: Place,
    damage: Callable[[bytes], bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A damaged entry counts as missing. The content is uploaded again and flagged; the log names store and key."""
    library = MediaLibrary(media, place.store)
    first = await library.ensure(SMALL)
    place.change(damage)
    assert await library.get(SMALL) is None
    with pytest.raises(StorageError, match=r"has a damaged entry, .*: ensure its source again$") as caught:
        await place.store.get(first.key)
    assert not caught.value.retryable
    assert await place.store.find(first.id) is None
    assert not await library.forget(first.id)
    await library.ensure(CONTENT)  # beside it
    again = await library.ensure(SMALL)
    assert (again.reused, again.maybe_duplicate, again.id == first.id) == (False, True, False)
    assert upload_count(emulator) == 3
    assert (await library.ensure(SMALL)) == again
    assert {entry.id for entry in await list_entries(library)} >= {again.id}
    assert all(first.key in message and "damaged entry" in message for message in caplog.messages)
    assert caplog.messages


async def test_an_intact_entry_is_not_flagged(media: MediaApi, place: Place) -> None:
    """An upload after an entry that was forgotten is no duplicate."""
    library = MediaLibrary(media, place.store)
    assert await library.forget(await library.ensure(SMALL))
    assert not (await library.ensure(SMALL)).maybe_duplicate


async def test_a_damaged_entry_hides_no_other(emulator: Emulator, media: MediaApi, place: Place) -> None:
    """Damaged entries stop neither an iteration nor `purge`."""
    library = MediaLibrary(media, place.store)
    entries = [await library.ensure(f"{number}".encode()) for number in range(6)]
    bad = {entry.id for entry in entries[::2]}
    place.change(lambda text: text.replace(b"text", b"t\xffxt") if json.loads(text)["id"] in bad else text)
    assert {entry.id for entry in await list_entries(library)} == {entry.id for entry in entries} - bad
    report = await library.purge()
    assert (report.succeeded, report.failed) == (3, 0)
    assert await list_entries(library) == []


async def test_many_damaged_rows(tmp_path: Path) -> None:
    """More damaged rows than a store reads at a time hide none that follow, whatever their keys have become."""
    path = tmp_path / "library.sqlite"
    async with SQLiteStore(path) as store:
        first, last = [await put_entry(store, entry_of(number)) for number in ("1", "9")]
        with contextlib.closing(sqlite3.connect(path)) as other, other:
            rows: list[tuple[Any, str, str]] = [(f"5/{number:04}", "7", "{}") for number in range(1200)]
            rows += [(key, "7", "{}") for key in (b"blob", "\U0010ffff")]
            other.executemany("INSERT INTO entries VALUES (?, ?, ?)", rows)
        assert [entry async for entry in store.entries()] == [first, last]
        with contextlib.closing(sqlite3.connect(path)) as other, other:
            other.execute("DELETE FROM entries WHERE typeof(key) = 'text'")
        assert [entry async for entry in store.entries()] == []


async def test_a_row_of_another_id(tmp_path: Path) -> None:
    """In a file, the id stands a second time. If they differ, the entry is damaged; so one of the first version is seen, too."""
    path, entry = tmp_path / "library.sqlite", LibraryEntry.from_json(OLD_ENTRY)
    async with SQLiteStore(path) as store:
        await put_entry(store, entry)
        for column, value in (("id", "8"), ("entry", OLD_ENTRY.replace('"7"', '"8"'))):
            with contextlib.closing(sqlite3.connect(path)) as other, other:
                other.execute("UPDATE entries SET id = '7', entry = ?", (OLD_ENTRY,))
                other.execute(f"UPDATE entries SET {column} = ?", (value,))
            with pytest.raises(StorageError, match="damaged entry"):
                await store.get(entry.key)
            assert (await store.find("7"), await store.find("8")) == (None, None)


# Flipped bytes

ENTRIES: Final = [entry_of(f"{number}", f"{number + 100}") for number in range(12)]
IDS: Final = {entry.key: entry.id for entry in ENTRIES}


def flipped(data: bytes, source: random.Random) -> bytes:
    """Change one to three bytes."""
    damaged = bytearray(data)
    for _ in range(source.randint(1, 3)):
        damaged[source.randrange(len(damaged))] ^= source.randint(1, 255)
    return bytes(damaged)


async def right_or_typed(call: Awaitable[Any]) -> Any:
    """Wait for a call that may fail, with an error of this library."""
    with contextlib.suppress(MediaError):
        return await call
    return None


async def check_all(store: Store, source: random.Random) -> int:
    """Use every method of a store over damaged data. Return how many entries could still be read."""
    found: list[LibraryEntry] = []

    async def listed() -> None:
        async for entry in store.entries():
            found.append(entry)

    intact = 0
    for entry in ENTRIES:
        got = await right_or_typed(store.get(entry.key))
        assert got is None or (got.id, got.key) == (entry.id, entry.key)
        intact += got is not None
    await right_or_typed(listed())
    one = source.choice(ENTRIES)
    found += filter(None, [await right_or_typed(store.find(one.id))])  # type: ignore[attr-defined]  # ours have it
    claim = await right_or_typed(store.claim(one.key, 60))
    await right_or_typed(store.renew(one.key, claim or 1, 60))
    await right_or_typed(store.touch(one))
    await right_or_typed(store.put(one, claim or 1))
    await right_or_typed(store.release(one.key, claim or 1))
    await right_or_typed(store.remove(one))
    assert all(IDS.get(entry.key) == entry.id for entry in found)
    return intact


def rewrite(path: Path, data: bytes) -> None:
    """Write a database without the files that SQLite keeps beside it."""
    for beside in ("-wal", "-shm"):
        path.with_name(path.name + beside).unlink(missing_ok=True)
    path.write_bytes(data)


async def flip_files(path: Path, seed: int, count: int) -> int:
    """Flip bytes of a store's file, `count` times. Return how many entries could still be read."""
    source, intact = random.Random(seed), 0
    async with SQLiteStore(path) as store:
        for entry in ENTRIES:
            await put_entry(store, entry)
        await store.claim(ENTRIES[0].key, 60)
    whole = await anyio.Path(path).read_bytes()
    for _ in range(count):
        rewrite(path, flipped(whole, source))
        async with SQLiteStore(path) as store:
            intact += await check_all(store, source)
    return intact


async def flip_values(server: RedisServer, prefix: str, seed: int, count: int) -> int:
    """Flip bytes of a value in Redis, `count` times. Return how many entries could still be read."""
    source, intact = random.Random(seed), 0
    async with RedisStore(server.url, prefix=prefix) as store:
        with redis.Redis(port=server.port) as other:
            for entry in ENTRIES:
                await put_entry(store, entry)
            await store.claim(ENTRIES[0].key, 60)
            names = sorted(other.keys(f"{prefix}:*"))
            values = {name: other.get(name) for name in names}
            for _ in range(count):
                for name in set(other.keys(f"{prefix}:*")) - values.keys():
                    other.delete(name)
                other.mset(values)
                for name in source.sample(names, 3):
                    other.set(name, flipped(values[name], source))
                intact += await check_all(store, source)
    return intact


async def test_flipped_bytes_of_a_file(tmp_path: Path) -> None:
    """Whatever byte of a file is flipped: no id of another item, and no other error than those of this library."""
    assert 0 < await flip_files(tmp_path / "library.sqlite", 12, FLIPS) < FLIPS * len(ENTRIES)


@pytest.mark.slow
async def test_flipped_bytes_in_redis(redis_server: RedisServer) -> None:
    """Whatever byte of a value is flipped: no id of another item, and no other error than those of this library."""
    assert 0 < await flip_values(redis_server, next(prefixes), 12, FLIPS) < FLIPS * len(ENTRIES)
