"""Journals: what is on the disk before anybody is told, what the next run makes of it, and files that are none."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from meta_media import BulkRun, InboundMedia, MediaApi, Settings, UploadedMedia
from meta_media.bulk.journal import Journal, Record
from meta_media.bulk.sqlite_file import SQLiteFile
from meta_media.errors import (
    ConfigurationError,
    CorruptedMediaError,
    InvalidRequestError,
    MediaNotFoundError,
    NetworkError,
    StorageError,
)
from meta_media.transfer.threads import submit
from tests.support.servers import Received, Server, cut, info, open_files, page, silence, told, until

FULL: Final = Path(__file__).parents[1] / "scripts" / "bulk_full.py"
THREADS: Final = 16  # that all file work shares
REFUSED: Final = told({"error": {"message": "no", "code": 100}}, 400)
GONE: Final = told({"error": {"message": "gone", "code": 100, "error_subcode": 33}}, 400)
PHOTO: Final = b"\xff\xd8\xff\xe0" + b"a photo" * 100


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Journal]:
    """Open a journal."""
    journal = Journal(path)
    try:
        await journal.open()
        yield journal
    finally:
        await journal.aclose()


@contextlib.asynccontextmanager
async def database(path: Path, *, exclusive: bool = False) -> AsyncIterator[SQLiteFile]:
    """Open a database with a table of names."""
    schema = "CREATE TABLE IF NOT EXISTS names (name TEXT PRIMARY KEY)"
    made = SQLiteFile(path, purpose=("list of names", 7), schema=schema, exclusive=exclusive)
    try:
        yield made
    finally:
        await made.aclose()


def added(connection: sqlite3.Connection, name: str) -> int:
    """Add a name, and count them."""
    connection.execute("INSERT INTO names VALUES (?)", (name,))
    return int(connection.execute("SELECT count(*) FROM names").fetchone()[0])


def adding(name: str) -> Callable[[sqlite3.Connection], int]:
    """Make work that adds a name."""
    return lambda connection: added(connection, name)


def asking(statement: str) -> Callable[[sqlite3.Connection], Any]:
    """Make work that executes a statement, and gives the first value that comes back."""
    return lambda connection: next(iter(connection.execute(statement)), (None,))[0]


def names(path: Path) -> list[str]:
    """List the names on the disk, as another program sees them."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM names ORDER BY name")]


def listing(folder: Path) -> list[str]:
    """List a folder."""
    return sorted(path.name for path in folder.iterdir())


@contextlib.contextmanager
def closed_to_writers(folder: Path) -> Iterator[None]:
    """Let nobody write in a folder, root excepted."""
    folder.chmod(0o500)
    try:
        yield
    finally:
        folder.chmod(0o700)


@contextlib.asynccontextmanager
async def serving(*script: Any, **settings: Any) -> AsyncIterator[tuple[Server, MediaApi]]:
    """Run a scripted server, and a client for it that tries once."""
    async with (
        Server(*script) as server,
        MediaApi(
            "a-token", "1", settings=Settings(base_url=server.base_url, max_retries=0, concurrency=4, **settings)
        ) as api,
    ):
        yield server, api


def numbered() -> Any:
    """Make a step that gives each upload another id."""
    given = iter(range(100, 10_000))

    async def step(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(told({"id": str(next(given))}))

    return step


async def outcomes(run: BulkRun[Any]) -> list[Any]:
    """Carry out a run, and return its outcomes in the order of the input."""
    async with run:
        return sorted([outcome async for outcome in run], key=lambda outcome: outcome.index)


def old(path: Path, text: str) -> Path:
    """Write a file that has not just been changed."""
    path.write_text(text)
    os.utime(path, (time.time() - 60,) * 2)
    return path


# The file


async def test_what_has_returned_is_on_the_disk(tmp_path: Path) -> None:
    """Whatever was asked for together comes back with its own result, and another program finds it in the file."""
    path = tmp_path / "new folder" / "names.sqlite"
    async with database(path) as made:
        assert not path.exists(), "it was made before anybody needed it"
        counts = await asyncio.gather(*(made.run(adding(f"{number:03}")) for number in range(200)))
        assert sorted(counts) == list(range(1, 201))
        assert names(path) == [f"{number:03}" for number in range(200)]


async def test_it_survives_a_power_cut(tmp_path: Path) -> None:
    """Each transaction is written to a log, and that to the disk, before anybody is told."""
    async with database(tmp_path / "names.sqlite") as made:
        pragmas = ("journal_mode", "synchronous", "application_id")
        asked = [await made.run(asking(f"PRAGMA {name}")) for name in pragmas]
    assert asked == ["wal", 2, 7]


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
        connection.execute("INSERT INTO ages VALUES ('nobody', 7)")

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
        made = SQLiteFile(tmp_path / "names.sqlite", purpose=("list of names", 7), schema="SELECT 1", exclusive=True)
        work = [asyncio.ensure_future(made.run(lambda _: None)) for _ in range(3)]
        await asyncio.sleep(0)  # a turn of the loop
        await made.aclose()
        try:
            _, forgotten = await asyncio.wait(work, timeout=20)
            assert not forgotten, "somebody waits for ever"
        finally:
            made._drain()  # nobody who waits can be cancelled
        assert {type(task.exception()) for task in work} <= {type(None), ConfigurationError}
        assert made._connection is None


async def test_closed_before_its_turn(tmp_path: Path) -> None:
    """Work that had no turn yet when the file is closed is done first: whoever asked for it is not forgotten."""
    path = tmp_path / "names.sqlite"
    async with database(path) as made:
        await made.run(adding("a"))
        with made._lock:  # as if another thread were at work just now
            work = asyncio.ensure_future(made.run(adding("b")))
            await until(lambda: bool(made._pending))
            everybody = threading.Barrier(THREADS)
            await asyncio.gather(
                *(submit(everybody.wait, 60) for _ in range(THREADS))
            )  # who is here has given up its turn
            assert not work.done()
        await made.aclose()
        assert await work == 2
    assert names(path) == ["a", "b"]


async def test_a_cancelled_caller(tmp_path: Path) -> None:
    """A caller who is cancelled goes on only once the work is over, so that nobody meets it later."""

    def slowly(connection: sqlite3.Connection) -> int:
        time.sleep(0.05)  # so that the cancellation comes first
        return added(connection, "b")

    path = tmp_path / "names.sqlite"
    async with database(path) as made:
        await made.run(adding("a"))
        task = asyncio.ensure_future(made.run(slowly))
        await asyncio.sleep(0)  # a turn of the loop
        task.cancel()
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
    """Somebody else may make the file just while it is opened, between any two statements: it is good for both."""
    path, connect = tmp_path / "names.sqlite", sqlite3.connect
    statements = []

    def somebody_else() -> None:
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
                    somebody_else()
            return super().execute(statement, *arguments)

    monkeypatch.setattr(sqlite3, "connect", functools.partial(connect, factory=Watched))
    async with database(path) as made:
        assert await made.run(adding("a")) == 1
    assert len(statements) >= 10
    assert names(path) == ["a"]


async def test_the_same_process_twice(tmp_path: Path) -> None:
    """A second run on a journal is told, in one sentence, that it is in use; afterwards it is free."""
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
    """A second process on a journal is told the same, before anything is asked of Meta."""
    path = tmp_path / "run.sqlite"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    async with opened(path):
        done = await anyio.run_process([sys.executable, "-c", SECOND, str(path)], env=environment, stderr=None)
    sentence = f"the journal {str(path)!r} is in use by another run: wait for its end, or use another file"
    assert done.stdout.decode() == f"ConfigurationError: {sentence}\n"


def somebody_elses(path: Path) -> None:
    """Make a database that is not ours."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
        connection.commit()


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: path.write_text("photo.jpg\n" * 100), "file"),
        (lambda path: path.write_bytes(PHOTO), "file"),
        (somebody_elses, "database"),
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
    assert not [name for name in open_files(tmp_path) if str(tmp_path) in name], (
        "it stays open while somebody looks at the error"
    )
    assert path.read_bytes() == before
    assert listing(tmp_path) == [path.name]


async def test_another_file_of_ours(tmp_path: Path) -> None:
    """A library's file is no journal, and the other way round."""
    path = tmp_path / "names.sqlite"
    async with database(path) as made:
        await made.run(adding("a"))
    with pytest.raises(ConfigurationError, match=r"is no journal, but some other database: use another path$"):
        await Journal(path).open()


@pytest.mark.parametrize("empty", [True, False])
async def test_a_file_that_is_empty_or_missing(tmp_path: Path, empty: bool) -> None:
    """An empty file becomes a journal, and a missing one is made, with its folder."""
    path = tmp_path / "run.sqlite" if empty else tmp_path / "a" / "b" / "run.sqlite"
    if empty:
        path.touch()
    async with opened(path) as journal, journal.item("delete 1", UploadedMedia) as record:
        assert record == Record(None, started=False)


async def test_a_folder_is_no_journal(tmp_path: Path) -> None:
    """A folder in its place is a StorageError that names it."""
    with pytest.raises(StorageError, match=f"^the journal {re.escape(repr(str(tmp_path)))} failed: unable to open"):
        await Journal(tmp_path).open()


async def test_a_file_in_the_way_of_its_folder(tmp_path: Path) -> None:
    """Where the folder cannot be made, that is a StorageError as well."""
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Not a directory") as caught:
        await Journal(tmp_path / "file" / "folder" / "run.sqlite").open()
    assert isinstance(caught.value.__cause__, NotADirectoryError)


def unshared(*wanted: tuple[str, ...]) -> list[str]:
    """Return the first of these ways into a namespace of one's own that this system allows."""
    for options in wanted:
        command = ["unshare", *options]
        with contextlib.suppress(FileNotFoundError):
            if subprocess.run([*command, "true"], check=False, capture_output=True).returncode == 0:
                return command
    reason = f"this system allows no unshare {' or '.join(' '.join(options) for options in wanted)}"
    if os.environ.get("CI"):  # where everything must be checked
        pytest.fail(reason)
    pytest.skip(reason)


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


# Items


async def test_an_item_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    """An item is new, then begun, then done; undone, it is new again."""
    path = tmp_path / "run.sqlite"
    async with opened(path) as journal:
        async with journal.item("a", UploadedMedia) as record:
            assert record == Record(None, started=False)
        async with journal.item("a", UploadedMedia) as record:
            assert record == Record(None, started=True)
        await journal.undo("a")
        async with journal.item("a", UploadedMedia) as record:
            assert record == Record(None, started=False)
        await journal.done("a", UploadedMedia(id="7"))
    async with opened(path) as journal:
        await journal.undo("a")  # what is done stays
        async with journal.item("a", UploadedMedia) as record:
            assert record == Record(UploadedMedia(id="7"), started=True)
        async with journal.item("b", UploadedMedia) as record:
            assert record == Record(None, started=False)


async def test_the_same_item_twice_at_once(tmp_path: Path) -> None:
    """Whoever begins an item that somebody is at waits for them, and sees what came of it; others do not wait."""
    seen: list[tuple[str, bool]] = []

    async def work(key: str) -> None:
        async with journal.item(key, UploadedMedia) as record:
            seen.append((key, record.value is None))
            await asyncio.sleep(0)  # a turn of the loop
            if record.value is None:
                await held.wait()
                await journal.done(key, UploadedMedia(id=key))

    async with opened(tmp_path / "run.sqlite") as journal:
        held = asyncio.Event()
        tasks = [asyncio.ensure_future(work(key)) for key in "aaab"]
        await until(lambda: len(seen) == 2)
        assert sorted(seen) == [("a", True), ("b", True)]
        tasks[1].cancel()
        held.set()
        await asyncio.wait(tasks)
        assert sorted(seen) == [("a", False), ("a", True), ("b", True)]
        assert not journal._locks


async def test_one_after_the_other(tmp_path: Path) -> None:
    """However many want the same item, and whenever they come, one at a time has it."""
    at_once, most = 0, 0
    inside: asyncio.Queue[asyncio.Event] = asyncio.Queue()

    async def work() -> None:
        nonlocal at_once, most
        async with journal.item("a", UploadedMedia):
            at_once += 1
            most = max(most, at_once)
            leave = asyncio.Event()
            inside.put_nowait(leave)
            await leave.wait()
            at_once -= 1

    async with opened(tmp_path / "run.sqlite") as journal:
        tasks = [asyncio.ensure_future(work()) for _ in range(2)]
        (await inside.get()).set()
        second = await inside.get()
        tasks.append(asyncio.ensure_future(work()))  # it comes when the first has left, and the second has not
        for _ in range(50):
            await journal.find("1:2:3")  # which takes a while: enough for the third to get in, if it could
        second.set()
        (await inside.get()).set()
        await asyncio.gather(*tasks)
    assert most == 1


async def test_hashes_are_remembered(tmp_path: Path) -> None:
    """The hash of a file is kept with the next item, and found by the state that the file was in."""
    path = tmp_path / "run.sqlite"
    async with opened(path) as journal:
        assert await journal.find("1:2:3") is None
        await journal.remember("1:2:3", "abc")
        await journal.remember("4:5:6", "def")
        async with journal.item("a", UploadedMedia):
            pass
        await journal.remember("1:2:3", "ghi")
        async with journal.item("b", UploadedMedia):
            pass
    async with opened(path) as journal:
        assert [await journal.find(stamp) for stamp in ("1:2:3", "4:5:6", "7:8:9")] == ["ghi", "def", None]


def journal_of_the_first_version(path: Path, folder: Path) -> None:
    """Write a journal as the first version did: an upload, a download and a delete that were done."""
    sha256 = hashlib.sha256(b"text").hexdigest()
    upload = f'{{"id": "7", "mime_type": "text/plain", "file_size": 4, "sha256": "{sha256}", "maybe_duplicate": true'
    saved = f'{{"path": "{folder}/7.txt", "size": 4, "sha256": "{sha256}", "mime_type": "text/plain", "media_id": "7"'
    rows = [
        (f"upload 1 {sha256} text/plain None None", f'{upload}, "attempts": 2}}'),
        (f"download 7 {folder}", f'{saved}, "attempts": 2}}'),
        ("delete 7", '{"success": true, "attempts": 1}'),
    ]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 1835887153")  # "mmj1"
        connection.execute("CREATE TABLE items (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
        connection.execute("CREATE TABLE files (stamp TEXT PRIMARY KEY, sha256 TEXT NOT NULL) WITHOUT ROWID")
        connection.executemany("INSERT INTO items VALUES (?, ?)", rows)
        connection.commit()


async def test_a_journal_of_the_first_version(tmp_path: Path) -> None:
    """Journals of earlier versions stay readable: all that is done is skipped, with its result."""
    journal, folder = tmp_path / "run.sqlite", tmp_path / "inbox"
    folder.mkdir()
    (folder / "7.txt").write_bytes(b"text")
    journal_of_the_first_version(journal, folder)
    async with serving(REFUSED) as (server, api):
        runs: list[BulkRun[Any]] = [
            api.upload_many([b"text"], journal=journal),
            api.download_many(["7"], folder, journal=journal),
            api.delete_many(["7"], journal=journal),
        ]
        (uploaded,), (saved,), (deleted,) = [await outcomes(run) for run in runs]
    assert server.requests == []
    assert (uploaded.value.id, uploaded.value.maybe_duplicate, uploaded.value.attempts) == ("7", True, 2)
    assert (saved.value.path, saved.value.media_id, deleted.value.success) == (folder / "7.txt", "7", True)


@pytest.mark.parametrize("damaged", ["{", "7", "{}", '{"id": null}'])
async def test_a_damaged_result(tmp_path: Path, damaged: str) -> None:
    """A result that cannot be read is done again, and flagged; a field of a later version does no harm."""
    journal = tmp_path / "run.sqlite"
    async with serving(numbered()) as (_, api):
        await api.upload_many([b"text", b"other"], journal=journal, concurrency=1).report()
        with contextlib.closing(sqlite3.connect(journal)) as connection:
            connection.execute("UPDATE items SET value = ? WHERE value LIKE '%\"100\"%'", (damaged,))
            connection.execute("UPDATE items SET value = json_insert(value, '$.later', 1) WHERE value LIKE '%\"101\"%'")
            connection.commit()
        again, known = await outcomes(api.upload_many([b"text", b"other"], journal=journal))
    assert (again.skipped, again.value.id, again.value.maybe_duplicate) == (False, "102", True)
    assert (known.skipped, known.value.id) == (True, "101")


# Uploads


async def test_uploads_are_skipped_the_second_time(tmp_path: Path) -> None:
    """What a journal has as done is not sent again: its outcome is the old one, and says that it was skipped."""
    paths = [old(tmp_path / f"{number}.txt", f"file {number}") for number in range(20)]
    async with serving(numbered()) as (server, api):
        first = await outcomes(api.upload_many(paths, journal=tmp_path / "run.sqlite"))
        again = await outcomes(api.upload_many(paths, journal=tmp_path / "run.sqlite"))
        report = await api.upload_many([*paths, b"another"], journal=str(tmp_path / "run.sqlite")).report()
    assert len(server.requests) == 21
    assert [outcome.value for outcome in again] == [outcome.value for outcome in first]
    assert {outcome.value.maybe_duplicate for outcome in first} == {False}
    assert {(outcome.skipped, outcome.attempts) for outcome in first} == {(False, 1)}
    assert {(outcome.skipped, outcome.attempts, outcome.tried) for outcome in again} == {(True, 0, True)}
    assert (report.succeeded, report.skipped, report.failed, report.ok, report.bytes) == (1, 20, 0, True, 7)


async def test_the_same_bytes_are_uploaded_once(tmp_path: Path) -> None:
    """Content is what an item is: the same bytes under two names, or from memory, at once or later, are one upload."""
    text = "the same text"
    same = [old(tmp_path / "a.txt", text), old(tmp_path / "b.txt", text), (text.encode(), {"filename": "c.txt"})]
    async with serving(numbered()) as (server, api):
        first = await outcomes(api.upload_many(same, journal=tmp_path / "run.sqlite"))
        again = await outcomes(api.upload_many(reversed(same), journal=tmp_path / "run.sqlite"))
    assert len(server.requests) == 1
    assert {outcome.value.id for outcome in first + again} == {"100"}
    assert sorted(outcome.skipped for outcome in first) == [False, True, True]


@pytest.mark.parametrize(
    ("keywords", "number"),
    [
        ({"mime_type": "text/plain"}, 1),  # which it is anyway
        ({"mime_type": "application/octet-stream", "validate": False}, 2),
        ({"ttl": timedelta(hours=2)}, 2),
        ({"use_case": "greeting"}, 2),
        ({"phone_number_id": "2"}, 2),
        ({"filename": "b.txt"}, 1),  # Meta does not remember names
        ({"verify": False}, 1),
    ],
)
async def test_another_upload_of_the_same_bytes(tmp_path: Path, keywords: dict[str, Any], number: int) -> None:
    """The same bytes as another type, for another number, time or purpose are another upload."""
    path = old(tmp_path / "a.txt", "some text")
    async with serving(numbered()) as (server, api):
        await api.upload_many([path], journal=tmp_path / "run.sqlite").report()
        await api.upload_many([(path, keywords)], journal=tmp_path / "run.sqlite").report()
    assert len(server.requests) == number


async def test_a_changed_file_is_uploaded_again(tmp_path: Path) -> None:
    """A file whose bytes have changed is another item, even if its size and times are the same; one that only moved is not."""
    path = old(tmp_path / "a.txt", "some text")
    state = path.stat()
    async with serving(numbered()) as (server, api):
        await api.upload_many([path], journal=tmp_path / "run.sqlite").report()
        path.write_text("same size")
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        changed = await outcomes(api.upload_many([path], journal=tmp_path / "run.sqlite"))
        moved = await outcomes(api.upload_many([path.rename(tmp_path / "b.txt")], journal=tmp_path / "run.sqlite"))
    assert len(server.requests) == 2
    assert [(outcome.skipped, outcome.value.id) for outcome in changed + moved] == [(False, "101"), (True, "101")]


def hashes(path: Path) -> Iterator[tuple[str, str]]:
    """List the hashes in a journal."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        yield from connection.execute("SELECT stamp, sha256 FROM files")


async def test_a_file_is_hashed_once(tmp_path: Path) -> None:
    """An unchanged file is known by the hash in the journal; were that wrong, its bytes would still not be sent as others."""
    path, journal = old(tmp_path / "a.txt", "some text"), tmp_path / "run.sqlite"
    async with serving(numbered()) as (server, api):
        await api.upload_many([path], journal=journal).report()
        ((stamp, sha256),) = hashes(journal)
        assert len(sha256) == 64
        with contextlib.closing(sqlite3.connect(journal)) as connection:
            connection.execute("UPDATE files SET sha256 = ?", ("0" * 64,))
            connection.commit()
        (outcome,) = await outcomes(api.upload_many([path], journal=journal))
    assert isinstance(outcome.error, CorruptedMediaError)
    assert (outcome.error.limit, outcome.error.actual) == ("0" * 64, sha256)
    assert len(server.requests) == 1
    assert [known for known, _ in hashes(journal)] == [stamp]


@pytest.mark.parametrize(("age", "kept"), [(-60, False), (0, False), (1.9, False), (2.1, True)])
async def test_a_file_that_has_just_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float, kept: bool
) -> None:
    """The hash of a file that changed less than two seconds ago is not kept: the next change might look the same."""
    path, journal = old(tmp_path / "a.txt", "some text"), tmp_path / "run.sqlite"
    now = path.stat().st_mtime + age
    monkeypatch.setattr(time, "time", lambda: now)
    async with serving(numbered()) as (server, api):
        for _ in range(2):
            await api.upload_many([path], journal=journal).report()
    assert (len(list(hashes(journal))), len(server.requests)) == (int(kept), 1)


async def test_what_was_under_way_may_be_a_duplicate(tmp_path: Path) -> None:
    """What was begun and never ended is done again and flagged, and stays so; what had not been begun is not flagged."""
    journal = tmp_path / "run.sqlite"
    async with serving(silence) as (server, api):
        async with api.upload_many([b"begun", b"not begun"], concurrency=1, journal=journal):
            await until(lambda: len(server.requests) == 1)
        server.script = [numbered()]
        runs = [await outcomes(api.upload_many([b"begun", b"not begun"], journal=journal)) for _ in range(2)]
    assert len(server.requests) == 3
    for outcome in (run[0] for run in runs):
        assert outcome.value.maybe_duplicate
    assert [run[1].value.maybe_duplicate for run in runs] == [False, False]
    assert [[outcome.skipped for outcome in run] for run in runs] == [[False, False], [True, True]]


async def test_a_second_crash_is_flagged_too(tmp_path: Path) -> None:
    """What may have been done once stays so, however certainly a later try failed."""
    journal = tmp_path / "run.sqlite"
    async with serving(silence) as (server, api):
        async with api.upload_many([b"begun"], journal=journal):
            await until(lambda: len(server.requests) == 1)
        server.script = [REFUSED]
        (refused,) = await outcomes(api.upload_many([b"begun"], journal=journal))
        server.script = [numbered()]
        (done,) = await outcomes(api.upload_many([b"begun"], journal=journal))
    assert isinstance(refused.error, InvalidRequestError)
    assert done.value.maybe_duplicate


@pytest.mark.parametrize(
    ("failing", "error", "flagged"),
    [
        (REFUSED, InvalidRequestError, False),
        (cut(b""), NetworkError, True),  # after it had all bytes
    ],
)
async def test_failures_that_may_have_been_none(tmp_path: Path, failing: Any, error: type, flagged: bool) -> None:
    """After a failure an item is flagged the next time only if the failed try may have been applied."""
    journal = tmp_path / "run.sqlite"
    async with serving(failing) as (server, api):
        (failed,) = await outcomes(api.upload_many([b"text"], journal=journal))
        server.script = [numbered()]
        (done,) = await outcomes(api.upload_many([b"text"], journal=journal))
    assert isinstance(failed.error, error)
    assert failed.attempts == 1
    assert (done.skipped, done.value.maybe_duplicate) == (False, flagged)


async def test_what_never_left(tmp_path: Path) -> None:
    """A file that WhatsApp is known to refuse leaves no trace; one that met no server is not flagged the next time."""
    journal = tmp_path / "run.sqlite"
    async with Server(silence) as server:
        port = server.port
    async with MediaApi("a-token", "1", settings=Settings(base_url=f"http://127.0.0.1:{port}", max_retries=0)) as api:
        failed = await outcomes(api.upload_many([b"", b"text"], journal=journal))
    assert [type(outcome.error) for outcome in failed] == [CorruptedMediaError, NetworkError]
    async with serving(numbered()) as (_, api):
        (done,) = await outcomes(api.upload_many([b"text"], journal=journal))
    assert not done.value.maybe_duplicate


async def test_what_a_callback_raises(tmp_path: Path) -> None:
    """If somebody else's code fails in the middle of an upload, nobody knows whether it was applied: flagged."""
    journal = tmp_path / "run.sqlite"

    def progress(_: object) -> None:
        raise LookupError("nobody is listening")

    async with serving(numbered()) as (_, api):
        (failed,) = await outcomes(api.upload_many([(b"text", {"progress": progress})], journal=journal))
        (done,) = await outcomes(api.upload_many([b"text"], journal=journal))
    assert isinstance(failed.error, LookupError)
    assert done.value.maybe_duplicate


# Downloads and deletes


def library(server: Server, content: bytes = PHOTO) -> Any:
    """Make a step that has a photo under every id."""

    async def step(request: Received, writer: asyncio.StreamWriter) -> None:
        media_id = request.target.split("?")[0].rpartition("/")[2]
        if request.target.startswith("/file"):
            writer.write(page(content, content_type="image/jpeg"))
        else:
            writer.write(info(f"{server.base_url}/file/{media_id}?hash=s", content, media_id=media_id))

    return step


async def test_downloads_are_skipped_while_the_file_is_there(tmp_path: Path) -> None:
    """A download is skipped while its file is there as it was; one that is gone, or has another size, is made again."""
    folder, journal = tmp_path / "copies", tmp_path / "run.sqlite"
    folder.mkdir()
    async with serving() as (server, api):
        server.script = [library(server)]
        first = await outcomes(api.download_many(["1", "2", "3", "4"], folder, journal=journal))
        first[1].value.path.unlink()
        first[2].value.path.write_bytes(b"half")
        again = await outcomes(api.download_many(["1", "2", "3", "4"], folder, journal=journal))
        third = await outcomes(api.download_many(["1", "2", "3", "4"], folder, journal=journal))
    assert [outcome.skipped for outcome in again] == [True, False, False, True]
    assert [outcome.skipped for outcome in third] == [True] * 4
    assert again[0].value == first[0].value
    assert isinstance(again[0].value.path, Path)
    assert [outcome.value.path for outcome in third] == [outcome.value.path for outcome in again]
    assert all(outcome.value.path.read_bytes() == PHOTO for outcome in again)


async def test_downloads_are_known_by_their_media_id(tmp_path: Path) -> None:
    """The id, an info and a webhook's message of one media are one item; a bare URL is an item of its own."""
    journal = tmp_path / "run.sqlite"
    async with serving() as (server, api):
        server.script = [library(server)]
        about = await api.get_info("1")
        inbound = InboundMedia(id="1", kind="image", mime_type="image/jpeg", url=about.url)
        found = await outcomes(
            api.download_many(["1", about, inbound, about.url, about.url], tmp_path, concurrency=1, journal=journal)
        )
    assert [outcome.error for outcome in found] == [None] * 5
    assert [outcome.skipped for outcome in found] == [False, True, True, False, True]
    secret = str(about.url).partition("?")[2].encode()
    assert secret not in journal.read_bytes(), "a signed URL is a secret"


async def test_deletes_are_skipped_the_second_time(tmp_path: Path) -> None:
    """What was deleted is not asked for again."""
    journal = tmp_path / "run.sqlite"
    async with serving(told({"success": True})) as (server, api):
        first = await outcomes(api.delete_many(["1", "2"], journal=journal))
        again = await outcomes(api.delete_many(["2", "1", "2"], journal=journal))
    assert len(server.requests) == 2
    assert [(outcome.value.success, outcome.skipped) for outcome in first + again] == [
        *[(True, False)] * 2,
        *[(True, True)] * 3,
    ]


async def test_a_delete_that_was_under_way(tmp_path: Path) -> None:
    """A delete that finds nothing is an error, but not if an earlier run had begun it: then it was that run's doing."""
    journal = tmp_path / "run.sqlite"
    async with serving(silence) as (server, api):
        async with api.delete_many(["1"], journal=journal):
            await until(lambda: len(server.requests) == 1)
        server.script = [GONE]
        started, new = await outcomes(api.delete_many(["1", "2"], journal=journal))
        again, _ = await outcomes(api.delete_many(["1", "2"], journal=journal))
    assert (started.value.success, started.skipped, again.skipped) == (True, False, True)
    assert isinstance(new.error, MediaNotFoundError)
    assert again.value == started.value


async def test_verbs_share_a_journal(tmp_path: Path) -> None:
    """Uploads, downloads and deletes may note their items in one file, one run after another."""
    journal = tmp_path / "run.sqlite"
    async with serving() as (server, api):
        server.script = [library(server)]
        await api.download_many(["7"], tmp_path, journal=journal).report()
        server.script = [told({"success": True, "id": "7"})]
        reports = [await api.upload_many([b"7"], journal=journal).report()]
        reports.append(await api.delete_many(["7"], journal=journal).report())
    assert [(report.succeeded, report.skipped) for report in reports] == [(1, 0), (1, 0)]


# Disks that become full


def item(body: bytes) -> int:
    """Tell which item an upload is of."""
    found = re.search(rb"This is item ([0-9]+)\.", body)
    assert found
    return int(found[1])


async def full_at(moment: str, folder: Path, *script: Any) -> tuple[list[dict[str, Any]], list[int]]:
    """Run in a process whose disk becomes full at some moment; return what it tells, and which items were sent when."""
    mount = 'mount -t tmpfs -o size=400k tmpfs "$1" && shift && exec "$@"'
    command = [*unshared(("-rm",), ("-m",)), "sh", "-c", mount, "sh", str(folder)]
    async with Server(*script) as server:
        if moment == "download":
            server.script = [library(server, PHOTO * 100)]
        order = {"folder": str(folder), "moment": moment, "base_url": server.base_url}
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = await anyio.run_process(
            [*command, sys.executable, str(FULL), json.dumps(order)], env=environment, stderr=None
        )
        return json.loads(done.stdout), [item(request.body) for request in server.requests if request.body]


def kinds(run: dict[str, Any]) -> list[Any]:
    """Say of each item what came of it."""
    return ["not tried" if not outcome["tried"] else outcome["error"] for outcome in run["outcomes"]]


async def test_full_when_an_upload_is_noted(tmp_path: Path) -> None:
    """An upload that cannot be noted as done ends the run; its error has the media id, and the next run flags it."""
    (first, second), sent = await full_at("done", tmp_path, numbered())
    assert kinds(first) == [None] * 4 + ["StorageError"] + ["not tried"] * 7
    failed = first["outcomes"][4]
    assert (failed["media_id"], failed["maybe_applied"], failed["attempts"]) == ("104", True, 1)
    assert failed["message"].endswith("failed: database or disk is full")
    assert (first["ended by"], first["integrity"]) == ("StorageError", "ok")
    assert kinds(second) == [None] * 12
    assert [outcome["skipped"] for outcome in second["outcomes"]] == [True] * 4 + [False] * 8
    assert [outcome["duplicate"] for outcome in second["outcomes"]] == [False] * 4 + [True] + [False] * 7
    assert sent == [*range(5), *range(4, 12)]


async def test_full_when_an_upload_is_begun(tmp_path: Path) -> None:
    """An upload that cannot be noted as begun is not sent, and ends the run: none of the others could be, either."""
    (first, second), sent = await full_at("begin", tmp_path, numbered())
    assert kinds(first) == [None] * 4 + ["StorageError"] + ["not tried"] * 7
    failed = first["outcomes"][4]
    assert (failed["media_id"], failed["maybe_applied"], failed["attempts"]) == (None, False, 0)
    assert (first["ended by"], first["integrity"]) == ("StorageError", "ok")
    assert kinds(second) == [None] * 12
    assert [outcome["duplicate"] for outcome in second["outcomes"]] == [False] * 12
    assert sent == list(range(12))


async def test_full_when_a_failure_is_noted(tmp_path: Path) -> None:
    """If it cannot be noted that nothing came of an upload, the run ends as well, and the next one flags it."""
    steps = [told({"id": str(number)}) for number in range(100, 112)]
    steps[4] = REFUSED
    (first, second), _ = await full_at("undo", tmp_path, *steps)
    assert kinds(first)[:4] == [None] * 4
    assert kinds(first)[4] in {"StorageError", "InvalidRequestError"}
    assert kinds(first)[5:] == ["not tried"] * 7
    assert first["integrity"] == "ok"
    assert [outcome["duplicate"] for outcome in second["outcomes"]] == [False] * 4 + [True] + [False] * 7


async def test_full_while_downloads_are_made(tmp_path: Path) -> None:
    """A disk that is full ends a run of downloads: what there was room for is there, the rest was not tried."""
    (run,), _ = await full_at("download", tmp_path)
    assert run["ended by"] == "StorageError"
    assert kinds(run) == [None] * 5 + ["StorageError"] + ["not tried"] * 6
