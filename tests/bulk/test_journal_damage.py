"""Journals that are damaged, hostile, of another version, or ahead of the disk: what the next run makes of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sqlite3
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from meta_media import DeletedMedia, DownloadedMedia, UploadedMedia
from meta_media.bulk.journal import Journal, Record, deletion_key
from meta_media.bulk.sqlite_file import checksum
from meta_media.errors import ConfigurationError, StorageError
from tests.bulk.helpers import outcomes
from tests.bulk.journal_helpers import LONG, changed, numbered, old, opened, serving

ITEMS: Final = 25  # of each kind, in a journal that is damaged
Known = dict[str, tuple[type[Any], Record[Any]]]


async def kept(journal: Path) -> Known:
    """Make a journal with items of each kind, and return what it must say of each."""
    known: Known = {}
    async with opened(journal) as made:
        for number in range(ITEMS):
            values: dict[str, UploadedMedia | DownloadedMedia | DeletedMedia] = {
                f"upload 1 {number:064} text/plain None None": UploadedMedia(id=f"77{number}", mime_type="text/plain"),
                f"download {number} /inbox": DownloadedMedia(
                    path=Path(f"/inbox/{number}.txt"), size=number, sha256=f"{number:064}", mime_type="text/plain"
                ),
                deletion_key(f"88{number}"): DeletedMedia(success=True),
            }
            for key, value in values.items():
                await made.remember(f"stamp of {key}", key)
                async with made.item(key, type(value)):
                    await made.done(key, value, valid_until=time.time() + 1000)
                known[key] = type(value), Record(value)
            async with made.item(f"upload 2 {number}", UploadedMedia):
                known[f"upload 2 {number}"] = UploadedMedia, Record(None, unfinished=True)
    return known


async def read(journal: Path, known: Known) -> Counter[str]:
    """Open a journal and ask for everything that it knows; return what came of it. A value is the right one, or none."""
    came: Counter[str] = Counter()
    made = Journal(journal)

    async def ask(key: str, cls: type[Any], expected: Record[Any]) -> None:
        async with made.item(key, cls) as record:
            assert record in (expected, Record(None, unfinished=True)), (key, record)
            came["right" if record == expected else "done anew"] += 1
        assert await made.find(f"stamp of {key}") in (key, None)

    try:
        await made.open()
        came_back = await asyncio.gather(*(ask(key, *item) for key, item in known.items()), return_exceptions=True)
        for error in filter(None, came_back):
            raise error
    except (ConfigurationError, StorageError) as error:
        sentence, kind = str(error), type(error).__name__
        came[kind] += 1
    else:
        return came
    finally:
        await made.aclose()
    assert str(journal) in sentence
    assert sentence.isprintable()
    assert len(sentence) < 400 + len(str(journal))
    return came


async def flipped(folder: Path, trials: int, seed: int) -> Counter[str]:
    """Change one to eight random bytes of a journal, many times; count what came of it."""
    dice = random.Random(seed)
    known = await kept(folder / "whole.sqlite")
    whole = (folder / "whole.sqlite").read_bytes()
    path = folder / "run.sqlite"
    came: Counter[str] = Counter()
    for _ in range(trials):
        damaged = bytearray(whole)
        for _ in range(dice.choice((1, 1, 1, 2, 8))):
            at = dice.randrange(100) if dice.random() < 0.1 else dice.randrange(len(damaged))  # the header is small
            damaged[at] ^= dice.choice((1 << dice.randrange(8), dice.randrange(1, 256)))
        for left in ("run.sqlite-wal", "run.sqlite-shm"):
            (folder / left).unlink(missing_ok=True)
        path.write_bytes(damaged)
        found = await read(path, known)
        errors = {name for name in found if name.endswith("Error")}
        came[min(errors) if errors else "done anew" if found["done anew"] else "right"] += 1
    return came


@pytest.mark.parametrize("trials", [40, pytest.param(150, marks=pytest.mark.slow)])
async def test_flipped_bytes(tmp_path: Path, trials: int) -> None:
    """Whatever bytes of a journal change, no item gets another's result, and nothing that was done is new: it is flagged."""
    seed = random.SystemRandom().randrange(2**32)
    sys.stdout.write(f"the seed is {seed}\n")
    came = await flipped(tmp_path, trials, seed)
    assert set(came) <= {"right", "done anew", "StorageError", "ConfigurationError"}
    assert came["right"]
    assert came["StorageError"]
    sys.stdout.write(f"{came}\n")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
async def test_a_journal_that_was_cut_off(tmp_path: Path, keep: float) -> None:
    """A journal whose end is missing is refused in one sentence, and so is one whose middle is zeros."""
    known = await kept(tmp_path / "run.sqlite")
    whole = (tmp_path / "run.sqlite").read_bytes()
    for damaged in (whole[: int(len(whole) * keep)], whole[: int(len(whole) * keep)].ljust(len(whole), b"\0")):
        (tmp_path / "run.sqlite").write_bytes(damaged)
        assert set(await read(tmp_path / "run.sqlite", known)) & {"StorageError", "ConfigurationError"}


@pytest.mark.parametrize("text", [b"\xbf\xbfBLE", b"T\n\nLE", b"\x1b[2JE", b"T'\"LE", b"TA\0LE"])
async def test_a_damaged_schema(tmp_path: Path, text: bytes) -> None:
    """SQLite's sentence may have a part of the file, with any bytes: what is said of it is one line of plain text."""
    known = await kept(tmp_path / "run.sqlite")
    whole = (tmp_path / "run.sqlite").read_bytes()
    assert whole.count(b"CREATE TABLE files") == 1
    (tmp_path / "run.sqlite").write_bytes(whole.replace(b"CREATE TABLE files", b"CREATE " + text + b" files"))
    assert await read(tmp_path / "run.sqlite", known) == {"StorageError": 1}


async def test_rows_out_of_order(tmp_path: Path) -> None:
    """Rows that are whole, but not where SQLite looks for them, would be new: such a journal is refused."""
    known = await kept(tmp_path / "run.sqlite")
    whole = bytearray((tmp_path / "run.sqlite").read_bytes())
    size = int.from_bytes(whole[16:18], "big")
    leaves = [at for at in range(size, len(whole), size) if whole[at] == 10 and b"upload 2 1" in whole[at : at + size]]
    for at in leaves:  # swap the pointers to the first two rows of the page
        whole[at + 8 : at + 12] = whole[at + 10 : at + 12] + whole[at + 8 : at + 10]
    (tmp_path / "run.sqlite").write_bytes(whole)
    assert await read(tmp_path / "run.sqlite", known) == {"StorageError": 1}
    refused = r"is damaged \(row not in PRIMARY KEY order for (items|files)\): put back a copy"
    with pytest.raises(StorageError, match=refused):
        async with opened(tmp_path / "run.sqlite"):
            pass


@pytest.mark.parametrize("lost", ["items", "files"])
async def test_lost_tables(tmp_path: Path, lost: str) -> None:
    """A journal that has lost a table is not taken for a new one: nothing is sent."""
    journal = tmp_path / "run.sqlite"
    async with serving(numbered()) as (server, api):
        await api.upload_many([b"text"], journal=journal).report()
        changed(journal, f"DROP TABLE {lost}")
        with pytest.raises(StorageError, match=rf"run\.sqlite' is damaged \(no such table: {lost}\): put back a copy"):
            await api.upload_many([b"text"], journal=journal).report()
    assert len(server.requests) == 1


async def test_lost_tables_of_the_first_version(tmp_path: Path) -> None:
    """Likewise, a journal of the first version, which had no number."""
    changed(tmp_path / "run.sqlite", "PRAGMA application_id = 1835887153", "CREATE TABLE files (stamp, sha256)")
    with pytest.raises(StorageError, match=r"is damaged \(no such table: items\)"):
        await Journal(tmp_path / "run.sqlite").open()


async def test_a_later_version(tmp_path: Path) -> None:
    """A journal of a later version is refused in one sentence, before anything is sent, and stays as it was."""
    journal = tmp_path / "run.sqlite"
    async with serving(numbered()) as (server, api):
        await api.upload_many([b"text"], journal=journal).report()
        changed(journal, "PRAGMA user_version = 3")
        before = journal.read_bytes()
        with pytest.raises(ConfigurationError, match="has format 3, and this version of meta_media knows 2: update"):
            await api.upload_many([b"text"], journal=journal).report()
    assert (len(server.requests), journal.read_bytes()) == (1, before)


async def test_a_journal_without_checksums(tmp_path: Path) -> None:
    """A journal of the version before is brought up to date when it is opened. What it has as done is done."""
    path, journal = old(tmp_path / "a.txt", "some text"), tmp_path / "run.sqlite"
    async with serving(numbered()) as (server, api):
        await api.upload_many([path], journal=journal).report()
        changed(
            journal,
            "ALTER TABLE items DROP COLUMN key_sum",
            "ALTER TABLE items DROP COLUMN value_sum",
            "ALTER TABLE files DROP COLUMN sum",
            "PRAGMA user_version = 0",
        )
        for _ in range(2):
            (again,) = await outcomes(api.upload_many([path], journal=journal))
            assert (again.skipped, again.value.id) == (True, "100")
    assert len(server.requests) == 1
    with contextlib.closing(sqlite3.connect(journal)) as connection:
        assert list(connection.execute("PRAGMA user_version")) == [(2,)]
        ((key, mark),) = connection.execute("SELECT key, key_sum FROM items")
        assert mark == checksum(key)


async def test_the_first_version_does_not_write_to_it(tmp_path: Path) -> None:
    """The first version cannot add items without checksums. It would else make rows that look damaged."""
    async with opened(tmp_path / "run.sqlite"):
        pass
    with pytest.raises(sqlite3.IntegrityError, match="key_sum"):
        changed(tmp_path / "run.sqlite", "INSERT INTO items (key) VALUES ('upload 1')")


@pytest.mark.parametrize("where", ["key = 'delete 7'", "key LIKE 'upload%'"])
async def test_a_damaged_key(tmp_path: Path, where: str) -> None:
    """A key that is not what was written may be that of any item: the journal is refused, and the sentence has the key."""
    journal = tmp_path / "run.sqlite"
    async with serving(numbered()) as (server, api):
        await api.upload_many([b"text"], journal=journal).report()
        async with opened(journal) as made:
            await made.strike_out("7")
        changed(journal, f"UPDATE items SET key = key || '!' WHERE {where}")
        with pytest.raises(
            StorageError, match=r"is damaged \(its item '.*!' has not the checksum of that key\): put back"
        ):
            await api.upload_many([b"text"], journal=journal).report()
    assert len(server.requests) == 1


RESULTS: Final = {
    "no JSON": "{",
    "no object": "7",
    "no id": "{}",
    "no text": '{"id": null}',
    "no valid id": '{"id": "../7", "valid_until": 9e9}',
    "too deep": "[" * 100_000,
    "a number": 7,
    "bytes": b'{"id": "7"}',
}


@pytest.mark.parametrize("vouched_for", [False, True])
@pytest.mark.parametrize("name", RESULTS)
async def test_a_damaged_result(tmp_path: Path, name: str, vouched_for: bool) -> None:
    """A result that cannot be read is done again, and flagged, even if it has the right checksum; the others are known."""
    journal, damaged = tmp_path / "run.sqlite", RESULTS[name]
    async with serving(numbered()) as (_, api):
        await api.upload_many([b"text", b"other"], journal=journal, concurrency=1).report()
        with contextlib.closing(sqlite3.connect(journal)) as connection:
            ((key, mark),) = connection.execute("SELECT key, value_sum FROM items WHERE value LIKE '%\"100\"%'")
            mark = checksum(key, damaged) if vouched_for else mark
            connection.execute("UPDATE items SET value = ?, value_sum = ? WHERE key = ?", (damaged, mark, key))
            connection.commit()
        again, known = await outcomes(api.upload_many([b"text", b"other"], journal=journal))
    assert (again.skipped, again.value.id, again.value.maybe_duplicate) == (False, "102", True)
    assert (known.skipped, known.value.id) == (True, "101")


async def test_a_result_of_another_item(tmp_path: Path) -> None:
    """A result that belongs to another item is damage: the item is done again, and flagged."""
    journal = tmp_path / "run.sqlite"
    async with serving(numbered()) as (_, api):
        await api.upload_many([b"text", b"other"], journal=journal, concurrency=1).report()
        result = "(SELECT {} FROM items WHERE value LIKE '%\"101\"%')".format
        changed(journal, f"UPDATE items SET value = {result('value')}, value_sum = {result('value_sum')}")
        first, second = await outcomes(api.upload_many([b"text", b"other"], journal=journal))
    assert (first.skipped, first.value.id, first.value.maybe_duplicate) == (False, "102", True)
    assert (second.skipped, second.value.id) == (True, "101")


async def test_a_field_of_a_later_version(tmp_path: Path) -> None:
    """A field that a later version has added to a result is ignored."""
    journal = tmp_path / "run.sqlite"
    async with serving(numbered()) as (_, api):
        await api.upload_many([b"text"], journal=journal).report()
        with contextlib.closing(sqlite3.connect(journal)) as connection:
            ((key, value),) = connection.execute("SELECT key, value FROM items")
            later = json.dumps(json.loads(value) | {"later": [1]})
            connection.execute("UPDATE items SET value = ?, value_sum = ?", (later, checksum(key, later)))
            connection.commit()
        (known,) = await outcomes(api.upload_many([b"text"], journal=journal))
    assert (known.skipped, known.value.id) == (True, "100")


@pytest.mark.parametrize(("ahead", "skipped"), [(-10, True), (3600, True), (2 * 86_400, False), (365 * 86_400, False)])
async def test_recorded_by_a_clock_that_was_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: float, skipped: bool
) -> None:
    """An id that was recorded while the clock was days ahead is not returned long after Meta has forgotten it."""
    journal, now = tmp_path / "run.sqlite", time.time()
    async with serving(numbered()) as (_, api):
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: now + ahead)
            await api.upload_many([b"text"], journal=journal).report()
        (again,) = await outcomes(api.upload_many([b"text"], journal=journal))
    assert again.skipped == skipped


# The hashes of files


@pytest.mark.parametrize("damage", ["sha256 = '{zeros}'", "stamp = stamp || '7'", "sum = ''", "sha256 = x'00'"])
async def test_a_damaged_hash(tmp_path: Path, damage: str) -> None:
    """A hash that is damaged is as good as none: the file is read again, and found to be done."""
    path, journal = old(tmp_path / "a.txt", LONG), tmp_path / "run.sqlite"
    async with serving(numbered()) as (server, api):
        await api.upload_many([path], journal=journal).report()
        changed(journal, "UPDATE files SET " + damage.format(zeros="0" * 64))
        (again,) = await outcomes(api.upload_many([path], journal=journal))
    assert (again.skipped, again.value.id, len(server.requests)) == (True, "100", 1)
