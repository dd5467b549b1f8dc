"""SQLite files: what is on the disk when work returns, and files of another kind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import itertools
import os
import re
import sqlite3
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from meta_media import UploadedMedia
from meta_media.bulk.journal import Journal, Record
from meta_media.bulk.sqlite_file import SQLiteFile
from meta_media.errors import ConfigurationError, StorageError
from meta_media.transfer.threads import submit
from tests.bulk.helpers import listing
from tests.bulk.journal_helpers import (
    PHOTO,
    THREADS,
    added,
    adding,
    asking,
    changed,
    closed_to_writers,
    database,
    names,
    opened,
)
from tests.support.servers import open_files, wait_until
from tests.support.system import unshared


async def test_what_has_returned_is_on_the_disk(tmp_path: Path) -> None:
    """Whatever was asked for together comes back with its own result, and another program finds it in the file."""
    path = tmp_path / "names.sqlite"
    async with database(path) as made:
        assert not path.exists(), "it was made before anybody needed it"
        counts = await asyncio.gather(*(made.run(adding(f"{number:03}")) for number in range(200)))
        assert sorted(counts) == list(range(1, 201))
        assert names(path) == [f"{number:03}" for number in range(200)]


async def test_it_survives_a_power_cut(tmp_path: Path) -> None:
    """Each transaction is written to a log, and the log to the disk, before `run` returns."""
    async with database(tmp_path / "names.sqlite") as made:
        pragmas = ("journal_mode", "synchronous", "application_id")
        asked = [await made.run(asking(f"PRAGMA {name}")) for name in pragmas]
    assert asked == ["wal", 2, 7]


async def test_work_of_one_turn_is_committed_together(tmp_path: Path) -> None:
    """Tasks that run work in the same turn of the event loop share one transaction, on one thread."""
    statements: list[str] = []
    async with database(tmp_path / "names") as file:
        await file.run(lambda connection: connection.set_trace_callback(statements.append))
        statements.clear()
        await asyncio.gather(*(file.run(adding(f"name {number}")) for number in range(50)))
    assert statements.count("BEGIN IMMEDIATE") == 1
    assert statements.count("RELEASE piece") == 50


def test_work_that_an_ended_loop_has_left(tmp_path: Path) -> None:
    """A loop that ends before it has called a thread leaves the file of use to the next loop."""
    file = SQLiteFile(tmp_path / "names", purpose=("list of names", 7), schema=("CREATE TABLE names (name TEXT)",))

    async def use(name: str) -> None:
        await file.run(adding(name))
        await file.aclose()

    first, begun = asyncio.new_event_loop(), file.run(adding("early"))
    first.call_soon(begun.send, None)
    first.call_soon(first.stop)
    first.run_forever()  # one turn
    begun.close()
    first.close()
    asyncio.run(use("late"))
    with contextlib.closing(sqlite3.connect(tmp_path / "names")) as connection:
        assert ("late",) in connection.execute("SELECT name FROM names").fetchall()


async def test_work_that_fails_is_undone_alone(tmp_path: Path) -> None:
    """What fails raises as it is and leaves nothing behind; what was asked for together with it is done."""

    def failing(connection: sqlite3.Connection) -> None:
        added(connection, "never")
        raise LookupError("on second thoughts")

    path = tmp_path / "names.sqlite"
    async with database(path) as made:
        works: list[Any] = [adding("a"), failing, adding("a"), adding("b")]
        came = await asyncio.gather(*map(made.run, works), return_exceptions=True)
    assert [type(result) for result in came] == [int, LookupError, StorageError, int]
    assert str(came[1]) == "on second thoughts"
    assert str(came[2]) == f"the list of names {str(path)!r} failed: UNIQUE constraint failed: names.name"
    assert isinstance(came[2].__cause__ if isinstance(came[2], Exception) else None, sqlite3.IntegrityError)
    assert names(path) == ["a", "b"]


async def test_a_transaction_that_cannot_be_committed(tmp_path: Path) -> None:
    """If all of a transaction fails, everybody in it hears of it, nothing of it stays, and the next one works."""

    def orphan(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA defer_foreign_keys = ON")
        connection.execute("INSERT INTO ages VALUES ('unknown', 7)")

    path = tmp_path / "names.sqlite"
    async with database(path) as made:
        await made.run(asking("CREATE TABLE ages (name TEXT REFERENCES names, age INTEGER)"))
        made._connection.execute("PRAGMA foreign_keys = ON") if made._connection else pytest.fail("it is not open")
        with pytest.raises(StorageError, match="FOREIGN KEY constraint failed"):
            await made.run(orphan)
        assert await made.run(adding("a")) == 1
        assert await made.run(asking("SELECT count(*) FROM ages")) == 0


async def test_closed(tmp_path: Path) -> None:
    """After closing, which may be done twice, work is refused, and the file is whole without its log."""
    async with database(tmp_path / "names.sqlite") as made:
        await made.run(adding("a"))
        await made.aclose()
        with pytest.raises(ConfigurationError, match=r"^the list of names '.*names\.sqlite' is closed: make another$"):
            await made.run(adding("b"))
        await made.aclose()
    assert listing(tmp_path) == ["names.sqlite"]
    assert names(tmp_path / "names.sqlite") == ["a"]


async def test_closed_at_once(tmp_path: Path) -> None:
    """Work that was asked for before closing is done or refused, and the file does not stay open."""
    for _ in range(50):
        made = SQLiteFile(tmp_path / "names.sqlite", purpose=("list of names", 7), schema=("SELECT 1",), exclusive=True)
        work = [asyncio.ensure_future(made.run(lambda _: None)) for _ in range(3)]
        await asyncio.sleep(0)  # a turn of the loop
        await made.aclose()
        try:
            _, forgotten = await asyncio.wait(work, timeout=20)
            assert not forgotten, "a task waits for ever"
        finally:
            made._drain()  # waiting tasks cannot be cancelled
        assert {type(task.exception()) for task in work} <= {type(None), ConfigurationError}
        assert made._connection is None


async def test_closed_before_its_turn(tmp_path: Path) -> None:
    """Work that is pending when the file is closed is done first."""
    path = tmp_path / "names.sqlite"
    async with database(path) as made:
        await made.run(adding("a"))
        with made._lock:  # as if another thread were at work just now
            work = asyncio.ensure_future(made.run(adding("b")))
            await wait_until(lambda: bool(made._pending))
            everybody = threading.Barrier(THREADS)
            await asyncio.gather(
                *(submit(everybody.wait, 60) for _ in range(THREADS))
            )  # who is here has given up its turn
            assert not work.done()
        await made.aclose()
        assert await work == 2
    assert names(path) == ["a", "b"]


async def test_a_cancelled_caller(tmp_path: Path) -> None:
    """A cancelled caller goes on only after the work is done, so that it does not happen later."""
    cancelled = threading.Event()

    def slowly(connection: sqlite3.Connection) -> int:
        cancelled.wait()
        return added(connection, "b")

    path = tmp_path / "names.sqlite"
    async with database(path) as made:
        await made.run(adding("a"))
        task = asyncio.ensure_future(made.run(slowly))
        await asyncio.sleep(0)  # a turn of the loop
        task.cancel()
        asyncio.get_running_loop().call_later(0.05, cancelled.set)  # time for a caller that does not wait
        await asyncio.wait((task,))
        assert task.cancelled()
        assert names(path) == ["a", "b"]


async def test_two_share_a_file(tmp_path: Path) -> None:
    """A file that is not exclusive may be open twice: each waits for the other's transaction."""
    path = tmp_path / "names.sqlite"
    async with database(path) as one, database(path) as other:
        both = (made.run(adding(f"{number} {id(made)}")) for number in range(30) for made in (one, other))
        await asyncio.gather(*both)
    assert len(names(path)) == 60


@pytest.mark.parametrize("at", range(1, 10))
async def test_two_open_a_new_file_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Another process may create the file while it is opened, between any two statements; both can use it."""
    path, connect = tmp_path / "names.sqlite", sqlite3.connect
    statements = []

    def other_process() -> None:
        with contextlib.closing(connect(path, timeout=0, isolation_level=None)) as other:
            for statement in (
                "PRAGMA journal_mode = WAL",
                "BEGIN IMMEDIATE",
                "CREATE TABLE names (name TEXT PRIMARY KEY)",
            ):
                other.execute(statement)
            other.execute("PRAGMA application_id = 7")
            other.execute("COMMIT")

    class Watched(sqlite3.Connection):
        def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
            statements.append(statement)
            if len(statements) == at:
                with contextlib.suppress(sqlite3.OperationalError):  # it is locked, or was made before
                    other_process()
            return super().execute(statement, *arguments)

    monkeypatch.setattr(sqlite3, "connect", functools.partial(connect, factory=Watched))
    async with database(path) as made:
        assert await made.run(adding("a")) == 1
    assert len(statements) >= 10
    assert names(path) == ["a"]


async def test_the_same_process_twice(tmp_path: Path) -> None:
    """A second run on an open journal is refused in one sentence; after the first run it is accepted."""
    path = tmp_path / "run.sqlite"
    async with opened(path):
        with pytest.raises(ConfigurationError) as caught:
            async with opened(path):
                pytest.fail("it was opened twice")
        assert (
            str(caught.value)
            == f"the journal {str(path)!r} is in use by another run: wait for its end, or use another file"
        )
    async with opened(path):
        pass


async def test_two_open_an_exclusive_file_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that have read the file before either locks it refuse each other: both try again, and one gets it."""
    path, connect = tmp_path / "names.sqlite", sqlite3.connect
    meetings, both = itertools.count(), threading.Barrier(2)

    def meet() -> None:
        if next(meetings) < 4:
            both.wait(timeout=10)

    class Watched(sqlite3.Connection):
        def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
            cursor = super().execute(statement, *arguments)
            if "sqlite_master" in statement:
                meet()
            return cursor

        def close(self) -> None:
            meet()
            super().close()

    monkeypatch.setattr(sqlite3, "connect", functools.partial(connect, factory=Watched))
    async with database(path, exclusive=True) as one, database(path, exclusive=True) as other:
        outcomes = await asyncio.gather(one.run(adding("a")), other.run(adding("b")), return_exceptions=True)
    assert sorted(map(str, outcomes), key=len) == [
        "1",
        f"the list of names {str(path)!r} is in use by another run: wait for its end, or use another file",
    ]
    assert len(names(path)) == 1


SECOND = """
import asyncio, sys
from meta_media import MediaApi

async def main():
    async with MediaApi("a-token", "1") as api:
        try:
            await api.delete_many(["1"], journal=sys.argv[1]).report()
        except Exception as error:
            print(type(error).__name__, error, sep=": ")

asyncio.run(main())
"""


async def test_a_second_process(tmp_path: Path) -> None:
    """A second process is refused in the same way, before a request is sent."""
    path = tmp_path / "run.sqlite"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    async with opened(path):
        done = await anyio.run_process([sys.executable, "-c", SECOND, str(path)], env=environment, stderr=None)
    sentence = f"the journal {str(path)!r} is in use by another run: wait for its end, or use another file"
    assert done.stdout.decode() == f"ConfigurationError: {sentence}\n"


def foreign_database(path: Path) -> None:
    """Make a database that is not ours."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
        connection.commit()


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: path.write_text("photo.jpg\n" * 100), "file"),
        (lambda path: path.write_bytes(PHOTO), "file"),
        (foreign_database, "database"),
    ],
)
async def test_other_files(tmp_path: Path, make: Any, what: str) -> None:
    """A file that is no journal, such as one whose name was a slip, is refused and stays as it was, to the byte."""
    path = tmp_path / "customers.sqlite"
    make(path)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError) as caught:
        async with opened(path):
            pytest.fail("it was opened")
    assert str(caught.value) == f"{str(path)!r} is no journal, but some other {what}: use another path"
    assert not [name for name in open_files(tmp_path) if str(tmp_path) in name], "the file stays open after the error"
    assert path.read_bytes() == before
    assert listing(tmp_path) == [path.name]


async def test_another_file_of_ours(tmp_path: Path) -> None:
    """A library's file is no journal, and the other way round."""
    path = tmp_path / "names.sqlite"
    async with database(path) as made:
        await made.run(adding("a"))
    with pytest.raises(ConfigurationError, match=r"is no journal, but some other database: use another path$"):
        await Journal(path).open()


async def test_a_file_of_a_later_version(tmp_path: Path) -> None:
    """A file whose format is later than what is known is refused in one sentence, and stays as it was."""
    path = tmp_path / "names.sqlite"
    async with database(path) as made:
        await made.run(adding("a"))
    changed(path, "PRAGMA user_version = 9")
    before = path.read_bytes()
    sentence = f"the list of names {str(path)!r} has format 9, and this version of meta_media knows 1"
    async with database(path) as made:
        with pytest.raises(ConfigurationError) as caught:
            await made.run(adding("b"))
    assert str(caught.value) == f"{sentence}: update meta_media, or use another file"
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", [0, 1])
async def test_a_file_of_an_earlier_version(tmp_path: Path, version: int) -> None:
    """A file of an earlier version, the first of which had no number, is brought up to date once. What it has stays."""
    path = tmp_path / "names.sqlite"
    async with database(path) as made:
        await made.run(adding("a"))
    changed(path, f"PRAGMA user_version = {version}")
    schema = ("nothing of this is executed", "CREATE TABLE ages (age INTEGER)")
    for count in (2, 3):
        made = SQLiteFile(path, ("list of names", 7), schema)
        assert await made.run(adding(str(count))) == count
        assert [await made.run(asking(f"SELECT count(*) FROM {table}")) for table in ("ages", "names")] == [0, count]
        assert await made.run(asking("PRAGMA user_version")) == 2
        await made.aclose()


@pytest.mark.parametrize("statement", ["DROP TABLE names", "ALTER TABLE names RENAME COLUMN name TO title"])
async def test_a_file_without_its_tables(tmp_path: Path, statement: str) -> None:
    """A file that is ours and has lost a table is damaged; it is not taken for a new one."""
    path = tmp_path / "names.sqlite"
    async with database(path) as made:
        await made.run(adding("a"))
    changed(path, statement)
    async with database(path) as made:
        with pytest.raises(
            StorageError, match=r"^the list of names '.*' is damaged \(.*\): put back a copy of it, or use"
        ):
            await made.run(asking("SELECT name FROM names"))


async def test_a_full_disk_has_its_number(tmp_path: Path) -> None:
    """SQLite's error for a full disk has the system's number, by which a run knows that nothing else can be written."""
    async with database(tmp_path / "names.sqlite") as made:
        await made.run(asking("PRAGMA max_page_count = 3"))
        with pytest.raises(StorageError, match="database or disk is full") as caught:
            await asyncio.gather(*(made.run(adding(f"{number} " * 1000)) for number in range(10)))
    assert (caught.value.errno, caught.value.retryable) == (errno.ENOSPC, False)


async def test_a_file_that_others_lock(tmp_path: Path) -> None:
    """A file that another program locks for longer than it is waited for may be free later."""
    path = tmp_path / "names.sqlite"
    async with database(path) as made:
        await made.run(adding("a"))
        assert made._connection is not None
        made._connection.execute("PRAGMA busy_timeout = 0")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageError, match="database is locked") as caught:
                await made.run(adding("b"))
    assert (caught.value.errno, caught.value.retryable) == (None, True)


@pytest.mark.parametrize("empty", [True, False])
async def test_a_file_that_is_empty_or_missing(tmp_path: Path, empty: bool) -> None:
    """An empty file becomes a journal, and a missing one is made."""
    path = tmp_path / "run.sqlite"
    if empty:
        path.touch()
    async with opened(path) as journal, journal.item("delete 1", UploadedMedia) as record:
        assert record == Record(None)


async def test_a_folder_is_no_journal(tmp_path: Path) -> None:
    """A folder in its place is a StorageError that names it."""
    with pytest.raises(StorageError, match=f"^the journal {re.escape(repr(str(tmp_path)))} failed: unable to open"):
        await Journal(tmp_path).open()


@pytest.mark.parametrize("folder", ["file", "file/folder", "missing"])
async def test_a_folder_that_is_none(tmp_path: Path, folder: str) -> None:
    """A folder that may be misspelt is not made: one sentence, before anything is asked of Meta."""
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"run\.sqlite' cannot be opened: its folder does not exist: make it"):
        await Journal(tmp_path / folder / "run.sqlite").open()
    assert not (tmp_path / "missing").exists()


async def test_a_default_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A folder that is made, and cannot be, is a StorageError as well."""
    (tmp_path / "file").touch()
    made = SQLiteFile(tmp_path / "file" / "names.sqlite", ("list of names", 7), ("SELECT 1",), makes_folder=True)
    with pytest.raises(StorageError, match="exists") as caught:
        await made.run(asking("SELECT 1"))
    assert isinstance(caught.value.__cause__, OSError)
    await made.aclose()


@pytest.mark.parametrize("existing", [False, True])
async def test_a_read_only_folder(tmp_path: Path, existing: bool) -> None:
    """Where one may not write, a run with a journal does not begin: a StorageError, before anything is asked of Meta."""
    path = tmp_path / "run.sqlite"
    if existing:
        async with opened(path):
            pass
        path.chmod(0o400)
    command = [] if os.geteuid() else unshared(("-U", "--map-user=1000", "--map-group=1000"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with closed_to_writers(tmp_path):
        work = [*command, sys.executable, "-B", "-c", SECOND, str(path)]
        done = await anyio.run_process(work, env=environment, stderr=None)
    assert done.stdout.decode().startswith(f"StorageError: the journal {str(path)!r} failed: ")


FORK = """
import asyncio, os, sys, threading
from meta_media.bulk.sqlite_file import SQLiteFile
from meta_media.errors import StorageError

file = SQLiteFile(sys.argv[1], ("test", 7), ("CREATE TABLE names (name TEXT)",))
file._busy_timeout = 0.1
started, over = threading.Event(), threading.Event()

def added(connection):
    connection.execute("INSERT INTO names VALUES ('x')")

def slow(_):
    started.set()
    over.wait()

async def use():
    async with asyncio.timeout(20):
        await file.run(added)
        await file.aclose()

async def main(in_progress):
    await file.run(added)
    holding = asyncio.ensure_future(file.run(slow))
    if in_progress:
        await asyncio.to_thread(started.wait)
    else:
        over.set()
        await holding
    child = os.fork()
    if not child:
        try:
            asyncio.run(use())
        except StorageError as error:  # SQLite has copied the locks of the transaction, which nothing in the child ends
            os._exit(3 if in_progress and "locked" in str(error) else 1)
        os._exit(0)
    assert (await asyncio.to_thread(os.waitpid, child, 0))[1] == (3 << 8 if in_progress else 0)
    over.set()
    await holding
    await use()

asyncio.run(main(sys.argv[2] == "True"))
"""


@pytest.mark.parametrize("in_progress", [False, True])
async def test_a_fork(tmp_path: Path, in_progress: bool) -> None:
    """A child opens the file anew, and leaves its parent's connection alone; after a fork in a transaction, it has an end."""
    path = tmp_path / "names.sqlite"
    child = await asyncio.create_subprocess_exec(sys.executable, "-W", "ignore", "-c", FORK, path, str(in_progress))
    assert await asyncio.wait_for(child.wait(), 60) == 0
    assert names(path) == ["x"] * (2 if in_progress else 3)
