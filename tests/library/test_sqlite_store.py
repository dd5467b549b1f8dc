"""`SQLiteStore`: its file, and what can go wrong with it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import attrs
import pytest
import time_machine

from meta_media import LibraryEntry, MemoryStore, SQLiteStore
from meta_media.errors import ConfigurationError, StorageError
from meta_media.library import Store
from tests.library.helpers import OLD_ENTRY, entry_of, put_entry

OLD_SCHEMA = """
CREATE TABLE entries (key TEXT PRIMARY KEY, id TEXT NOT NULL, entry TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE claims (number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT UNIQUE NOT NULL, until REAL NOT NULL);
PRAGMA application_id = 0x6D6D6C31
"""


async def test_default_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a path, the file is in the user's cache folder."""
    for variable, value, folder in (
        ("XDG_CACHE_HOME", str(tmp_path / "cache"), tmp_path / "cache"),
        ("XDG_CACHE_HOME", "", tmp_path / ".cache"),
    ):
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv(variable, value)
        store = SQLiteStore()
        await put_entry(store, entry_of("1"))
        await store.aclose()
        assert (folder / "meta_media" / "library.sqlite").is_file()


async def test_opened_again(tmp_path: Path) -> None:
    """Entries and claims are there when the file is opened again, and claim numbers go on rising."""
    path = tmp_path / "library.sqlite"
    first = SQLiteStore(path)
    entry = await put_entry(first, entry_of("1"))
    claim = await first.claim("another key", 600)
    await first.aclose()
    second = SQLiteStore(path)
    assert await second.get(entry.key) == entry
    assert await second.claim("another key", 600) is None
    assert claim is not None
    await second.release("another key", claim)
    assert (await second.claim("another key", 600) or 0) > claim
    await second.aclose()


async def test_file_of_an_older_version(tmp_path: Path) -> None:
    """A file that an older version wrote can be read, and its entries can be changed."""
    path = tmp_path / "library.sqlite"
    entry = LibraryEntry.from_json(OLD_ENTRY)
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript(OLD_SCHEMA)
        old.execute("INSERT INTO entries VALUES (?, ?, ?)", (entry.key, entry.id, OLD_ENTRY))
        old.execute("INSERT INTO claims (key, until) VALUES (?, ?)", (entry.key, 1.5))
        old.commit()
    async with SQLiteStore(path) as store:
        assert [found async for found in store.entries()] == [await store.get(entry.key)] == [entry]
        assert await store.claim(entry.key, 600) == 2
        used = attrs.evolve(entry, used_at=datetime.now(UTC))
        await store.touch(used)
        assert await store.get(entry.key) == used
        assert await store.remove(entry)


async def test_closed_by_async_with(tmp_path: Path) -> None:
    """The end of an `async with` block closes the file."""
    async with SQLiteStore(tmp_path / "library.sqlite") as store:
        await put_entry(store, entry_of("1"))
    with pytest.raises(ConfigurationError, match="is closed"):
        await store.get("key")


JUMPS = [timedelta(hours=1), timedelta(days=1), timedelta(days=366)]


@pytest.mark.parametrize("jump", [*JUMPS, *(-jump for jump in JUMPS)], ids=str)
@pytest.mark.parametrize("made", [SQLiteStore, lambda _: MemoryStore()], ids=["SQLite", "memory"])
async def test_clock_set(made: Callable[[Path], SQLiteStore | MemoryStore], tmp_path: Path, jump: timedelta) -> None:
    """A claim lasts as long as it was made for, and no longer, if the wall clock is put back or forward meanwhile."""
    async with made(tmp_path / "library.sqlite") as store:
        for number, seconds in enumerate((600, 0.2)):
            first = await store.claim(f"{number}", seconds)
            assert first is not None
            with time_machine.travel(datetime.now(UTC) + jump):
                if seconds == 600:
                    assert await store.claim(f"{number}", 0.1) is None
                    assert await store.renew(f"{number}", first, 0.2)
                    assert await store.claim(f"{number}", 600) is None
                async with asyncio.timeout(60):
                    while await store.claim(f"{number}", 600) is None:  # noqa: ASYNC110 - a claim has no event
                        await anyio.sleep(0.05)  # until it has run out


@pytest.mark.parametrize(
    ("until", "seconds"), [(30.0, 30.0), (1e9, 30.0), (1e300, 30.0), (1e9, None), ("text", 30.0), (b"", 30.0)], ids=str
)
async def test_impossible_claim(tmp_path: Path, until: object, seconds: object) -> None:
    """A claim that would last for more than its seconds is ignored: of before a restart of the machine, or damaged."""
    path = tmp_path / "library.sqlite"
    async with SQLiteStore(path) as store:
        assert await store.claim("key", 600) == 1
        with contextlib.closing(sqlite3.connect(path)) as other, other:
            shift = time.monotonic() if isinstance(until, float) else 0
            value = until + shift + 1 if isinstance(until, float) else until
            other.execute("UPDATE claims SET until = ?, seconds = ?", (value, seconds))
        assert await store.claim("key", 600) == 2
        assert await store.claim("key", 600) is None


async def test_claim_of_an_older_version(tmp_path: Path) -> None:
    """A claim of the first version, which is until a time by the wall clock, is not waited for."""
    path = tmp_path / "library.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript(OLD_SCHEMA)
        old.execute("INSERT INTO claims (key, until) VALUES (?, ?)", ("key", time.time() + 86_000))
        old.commit()
    async with SQLiteStore(path) as store:
        assert await store.claim("key", 600) == 2
        assert await store.claim("key", 600) is None


async def test_later_version(tmp_path: Path) -> None:
    """A file of a later version is refused in one sentence, and not changed."""
    path = tmp_path / "library.sqlite"
    async with SQLiteStore(path) as store:
        entry = await put_entry(store, entry_of("1"))
    with contextlib.closing(sqlite3.connect(path)) as later:
        later.execute("PRAGMA user_version = 99")
    async with SQLiteStore(path) as store:
        with pytest.raises(ConfigurationError, match=r"has format 99, .*: update meta_media, or use another file$"):
            await store.get(entry.key)
    with contextlib.closing(sqlite3.connect(path)) as later:
        later.execute("PRAGMA user_version = 3")
    async with SQLiteStore(path) as store:
        assert await store.get(entry.key) == entry


async def test_closed(tmp_path: Path) -> None:
    """A call after `aclose` is a ConfigurationError."""
    store = SQLiteStore(tmp_path / "library.sqlite")
    await store.aclose()
    with pytest.raises(ConfigurationError, match=r"the library '.*library\.sqlite' is closed"):
        await store.get("key")


@contextlib.contextmanager
def written_to(path: Path) -> Iterator[None]:
    """Write to a database in another connection."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("COMMIT")


async def test_set_up_by_another_process(tmp_path: Path) -> None:
    """While one process sets the file up, others wait."""
    store = SQLiteStore(tmp_path / "library.sqlite")
    with written_to(tmp_path / "library.sqlite"):
        looking = asyncio.ensure_future(store.get("key"))
        done, _ = await asyncio.wait({looking}, timeout=0.5)
        assert not done
    assert await looking is None
    await store.aclose()


async def test_set_up_too_slowly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait for another process has a limit."""
    monkeypatch.setattr("meta_media.bulk.sqlite_file._BUSY_TIMEOUT", 0.1)
    with written_to(tmp_path / "library.sqlite"), pytest.raises(StorageError, match="database is locked"):
        await SQLiteStore(tmp_path / "library.sqlite").get("key")


async def test_another_file(tmp_path: Path) -> None:
    """Another file is refused, and not changed."""
    path = tmp_path / "notes.txt"
    path.write_bytes(b"my notes, by no means to be lost\n" * 100)
    store = SQLiteStore(path)
    with pytest.raises(ConfigurationError, match=r"notes\.txt' is no library, but some other file"):
        await store.get("key")
    await store.aclose()
    assert path.read_bytes() == b"my notes, by no means to be lost\n" * 100


async def test_another_database(tmp_path: Path) -> None:
    """Another program's database is refused, and gets no tables."""
    path = tmp_path / "theirs.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as theirs:
        theirs.execute("CREATE TABLE entries (anything)")
    store = SQLiteStore(path)
    with pytest.raises(ConfigurationError, match=r"theirs\.sqlite' is no library, but some other database"):
        await store.get("key")
    await store.aclose()
    with contextlib.closing(sqlite3.connect(path)) as theirs:
        assert [name for (name,) in theirs.execute("SELECT name FROM sqlite_master")] == ["entries"]


async def test_not_writable(tmp_path: Path) -> None:
    """A file that cannot be created is a StorageError with its name."""
    (tmp_path / "file").touch()
    store = SQLiteStore(tmp_path / "file" / "library.sqlite")
    with pytest.raises(StorageError, match=r"the library '.*file/library\.sqlite' cannot be opened"):
        await store.claim("key", 1)
    await store.aclose()


async def test_missing_folder(tmp_path: Path) -> None:
    """A folder that does not exist may be misspelt: it is a StorageError, and is not made."""
    async with SQLiteStore(tmp_path / "libary" / "library.sqlite") as store:
        with pytest.raises(
            StorageError, match=r"libary/library\.sqlite' cannot be opened: its folder does not"
        ) as caught:
            await store.get("key")
    assert caught.value.errno == errno.ENOENT
    assert not (tmp_path / "libary").exists()


async def test_full_disk(tmp_path: Path) -> None:
    """A full disk has the system's error number, as everywhere, so that it ends a run. All that waited together is told."""
    async with SQLiteStore(tmp_path / "library.sqlite") as store:
        await store._file.run(lambda db: db.execute("PRAGMA max_page_count = 1"))  # SQLite's own limit of the file
        puts = (put_entry(store, entry_of(str(number))) for number in range(50))
        failures = [
            error for error in await asyncio.gather(*puts, return_exceptions=True) if isinstance(error, Exception)
        ]
        assert {(type(error), getattr(error, "errno", None)) for error in failures} == {(StorageError, errno.ENOSPC)}
        assert str(failures[0]).endswith("failed: database or disk is full")
        assert len([entry async for entry in store.entries()]) == 50 - len(failures)


async def test_threads(tmp_path: Path) -> None:
    """Event loops in several threads may share one store, or one file through several stores."""
    path, shared = tmp_path / "library.sqlite", SQLiteStore(tmp_path / "library.sqlite")
    claims: list[int | None] = []

    async def work(number: int, store: Store) -> None:
        claims.append(await store.claim("wanted by all", 600))
        for turn in range(50):
            await put_entry(store, entry_of(f"{number}-{turn}"))

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
