"""Journals: what is on the disk before an outcome is handed out, and what the next run does with it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from meta_media import BulkRun, InboundMedia, MediaApi, Settings, UploadedMedia
from meta_media.bulk.journal import Record
from meta_media.bulk.sqlite_file import checksum
from meta_media.errors import CorruptedMediaError, InvalidRequestError, MediaNotFoundError, NetworkError
from tests.bulk.helpers import outcomes
from tests.bulk.journal_helpers import GONE, LONG, PHOTO, REFUSED, changed, library, numbered, old, opened, serving
from tests.support.servers import Server, cut, json_response, silence, wait_until

# Items


async def test_an_item_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    """An item is new, then begun, then done; undone, it is new again."""
    path = tmp_path / "run.sqlite"
    async with opened(path) as journal:
        async with journal.item("a", UploadedMedia) as record:
            assert record == Record(None)
        async with journal.item("a", UploadedMedia) as record:
            assert record == Record(None, unfinished=True)
        await journal.undo("a")
        async with journal.item("a", UploadedMedia) as record:
            assert record == Record(None)
        await journal.done("a", UploadedMedia(id="7"), valid_until=time.time() + 60)
    async with opened(path) as journal:
        await journal.undo("a")  # what is done stays
        async with journal.item("a", UploadedMedia) as record:
            assert record == Record(UploadedMedia(id="7"))
        async with journal.item("b", UploadedMedia) as record:
            assert record == Record(None)


async def test_the_same_item_twice_at_once(tmp_path: Path) -> None:
    """A task that starts an item in progress waits and gets its result; other items do not wait."""
    seen: list[tuple[str, bool]] = []

    async def work(key: str) -> None:
        async with journal.item(key, UploadedMedia) as record:
            seen.append((key, record.value is None))
            await asyncio.sleep(0)  # a turn of the loop
            if record.value is None:
                await held.wait()
                await journal.done(key, UploadedMedia(id=key), valid_until=time.time() + 60)

    async with opened(tmp_path / "run.sqlite") as journal:
        held = asyncio.Event()
        tasks = [asyncio.ensure_future(work(key)) for key in "aaab"]
        await wait_until(lambda: len(seen) == 2)
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
    """
    A journal of the first version stays readable. What it has downloaded and deleted is skipped.

    It does not say when a file was uploaded, so that its ids may be dead: uploads are done again.
    """
    journal, folder = tmp_path / "run.sqlite", tmp_path / "inbox"
    folder.mkdir()
    (folder / "7.txt").write_bytes(b"text")
    journal_of_the_first_version(journal, folder)
    async with serving(numbered()) as (server, api):
        runs: list[BulkRun[Any]] = [
            api.upload_many([b"text"] * 2, journal=journal, concurrency=1),
            api.download_many(["7"], folder, journal=journal),
            api.delete_many(["7"], journal=journal),
        ]
        (uploaded, again), (saved,), (deleted,) = [await outcomes(run) for run in runs]
    assert len(server.requests) == 1
    assert (uploaded.value.id, uploaded.value.maybe_duplicate, uploaded.skipped) == ("100", False, False)
    assert (again.value, again.skipped) == (uploaded.value, True)
    assert (saved.skipped, saved.value.path, saved.value.media_id) == (True, folder / "7.txt", "7")
    assert (deleted.skipped, deleted.value.success) == (True, True)


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
    path, journal = old(tmp_path / "a.txt", LONG), tmp_path / "run.sqlite"
    wrong = "0" * 64
    async with serving(numbered()) as (server, api):
        await api.upload_many([path], journal=journal).report()
        ((stamp, sha256),) = hashes(journal)
        assert len(sha256) == 64
        changed(journal, f"UPDATE files SET sha256 = '{wrong}', sum = '{checksum(stamp, wrong)}'")
        (outcome,) = await outcomes(api.upload_many([path], journal=journal))
    assert isinstance(outcome.error, CorruptedMediaError)
    assert (outcome.error.limit, outcome.error.actual) == (wrong, sha256)
    assert len(server.requests) == 1
    assert [known for known, _ in hashes(journal)] == [stamp]


@pytest.mark.parametrize(("age", "kept"), [(-60, False), (0, False), (1.9, False), (2.1, True)])
async def test_a_file_that_has_just_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float, kept: bool
) -> None:
    """The hash of a file that changed less than two seconds ago is not kept: the next change might look the same."""
    path, journal = old(tmp_path / "a.txt", LONG), tmp_path / "run.sqlite"
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
            await wait_until(lambda: len(server.requests) == 1)
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
            await wait_until(lambda: len(server.requests) == 1)
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
    """After an error of the caller's code in the middle of an upload, the next run flags the item: it may have been applied."""
    journal = tmp_path / "run.sqlite"

    def progress(_: object) -> None:
        raise LookupError("no listener")

    async with serving(numbered()) as (_, api):
        text = b"text" * 50_000  # more than is sent in one piece
        (failed,) = await outcomes(api.upload_many([(text, {"progress": progress})], journal=journal))
        (done,) = await outcomes(api.upload_many([text], journal=journal))
    assert isinstance(failed.error, LookupError)
    assert done.value.maybe_duplicate


async def test_a_callback_that_raises_before_a_small_file(tmp_path: Path) -> None:
    """A small file is sent in one piece after the callback: if that raises, nothing was sent, and nothing may be applied."""

    def progress(_: object) -> None:
        raise LookupError("no listener")

    async with serving(numbered()) as (server, api):
        (failed,) = await outcomes(
            api.upload_many([(b"text", {"progress": progress})], journal=tmp_path / "run.sqlite")
        )
        (done,) = await outcomes(api.upload_many([b"text"], journal=tmp_path / "run.sqlite"))
    assert isinstance(failed.error, LookupError)
    assert (done.value.maybe_duplicate, len(server.requests)) == (False, 1)


# Downloads and deletes


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
    async with serving(json_response({"success": True})) as (server, api):
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
            await wait_until(lambda: len(server.requests) == 1)
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
        server.script = [json_response({"success": True, "id": "7"})]
        reports = [await api.upload_many([b"7"], journal=journal).report()]
        reports.append(await api.delete_many(["7"], journal=journal).report())
    assert [(report.succeeded, report.skipped) for report in reports] == [(1, 0), (1, 0)]
