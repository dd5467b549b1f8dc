"""
The journal of a run: which items were started and which were done. It lets the next run continue after a crash.

An item that was started and not done may have been applied. It is done again, and marked as a possible duplicate.

An upload is recorded with the time until which its id may be used. It is done again after that time, and if the id was deleted
by this client, or by a run with the same journal. The first version recorded no time: its uploads are done again.

What is read back is not trusted. Each row has a checksum of its key, and one of its key and value. A damaged value is none:
the item is done again, and marked. A damaged key may be that of any item, so the journal is refused, as is one that SQLite
finds damaged.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Callable, Container
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import anyio
import attrs

from meta_media.bulk.sqlite_file import SQLiteFile, checksum
from meta_media.errors import MediaError
from meta_media.protocol.convert import from_plain, to_plain
from meta_media.protocol.models import HasMediaId, UploadedMedia
from meta_media.protocol.secrets import excerpt
from meta_media.protocol.validators import is_id

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Journal", "Record", "deletion_key", "usable_for"]

T = TypeVar("T")
_MEDIA_LIFETIME: Final = timedelta(days=30)  # Meta's Media guide: uploaded media and their ids
_EXPIRY_MARGIN: Final = timedelta(days=1)  # a message that is sent now is fetched later
_PURPOSE: Final = ("journal", 0x6D6D_6A31)  # "mmj1"
_SCHEMA: Final = (
    """
CREATE TABLE items (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE files (stamp TEXT PRIMARY KEY, sha256 TEXT NOT NULL) WITHOUT ROWID
""",
    # NOT NULL: the first version cannot write rows without checksums. `SELECT *` fails on tables that have them already.
    """
ALTER TABLE items RENAME TO old_items;
CREATE TABLE items (key TEXT PRIMARY KEY, value TEXT, key_sum TEXT NOT NULL, value_sum TEXT) WITHOUT ROWID;
INSERT INTO items SELECT *, checksum(key), checksum(key, value) FROM old_items;
DROP TABLE old_items;
DROP TABLE files;
CREATE TABLE files (stamp TEXT PRIMARY KEY, sha256 TEXT NOT NULL, sum TEXT NOT NULL) WITHOUT ROWID
""",
)
_INSERT: Final = "INSERT OR IGNORE INTO items (key, key_sum) VALUES (?, ?)"
_SELECT: Final = "SELECT value, value_sum FROM items WHERE key = ?"
_UPDATE: Final = "UPDATE items SET value = ?, value_sum = ? WHERE key = ?"
_BAD_KEY: Final = "SELECT key FROM items WHERE key_sum IS NOT checksum(key) LIMIT 1"


def deletion_key(media_id: str) -> str:
    """Return the key of an item that deletes media."""
    return f"delete {media_id}"


def usable_for(ttl: timedelta | None) -> timedelta:
    """
    Return how long after its upload an id may be handed out.

    It ends a day before Meta forgets the media (after 30 days or the upload's `ttl`), or a tenth of a `ttl` below 10 days.
    """
    lifetime = ttl or _MEDIA_LIFETIME
    return lifetime - min(_EXPIRY_MARGIN, lifetime / 10)


@attrs.frozen
class Record(Generic[T]):
    """The journal's record of an item."""

    value: T | None  # the result, if it still holds
    unfinished: bool = False  # whether an earlier run started the item, and its result is missing or damaged


class Journal:
    """
    The items of one or several runs, in a SQLite file that only one process at a time can open.

    `deleted` has the media ids that are not returned any more.
    """

    def __init__(self, path: str | os.PathLike[str], deleted: Container[str] = ()) -> None:
        self._deleted = deleted
        self._file = SQLiteFile(path, purpose=_PURPOSE, schema=_SCHEMA, exclusive=True)
        self.failed = False  # whether the file or its disk has failed, so that no other item can be recorded
        self._locks: dict[str, anyio.Lock] = {}  # of items in progress, by key
        self._new_digests: list[tuple[str, str, str]] = []  # rows to be written with the next item, or at the end

    async def open(self) -> None:
        """Open and check the file. It is a `ConfigurationError` if another run has it open, or if it is not a journal."""
        await self._run(self._check)

    async def aclose(self) -> None:
        """Write the hashes that are left, and close the file."""
        if self._new_digests and not self.failed:
            with suppress(MediaError):  # they are read from the files again
                await self._run(self._write_digests)
        await self._file.aclose()

    @asynccontextmanager
    async def item(self, key: str, cls: type[T]) -> AsyncIterator[Record[T]]:
        """Record that an item is started, and return the record of earlier runs. The same key waits until this block ends."""
        lock = self._locks.setdefault(key, anyio.Lock(fast_acquire=True))
        try:
            async with lock:
                yield await self._run(lambda connection: self._start(connection, key, cls))
        finally:
            if not lock.locked():  # nothing waits for it
                self._locks.pop(key, None)

    async def done(self, key: str, value: attrs.AttrsInstance, valid_until: float | None = None) -> None:
        """Record the result of an item. It is on the disk when this returns. An upload is valid until a Unix time."""

        def update(connection: sqlite3.Connection) -> None:
            self._write_digests(connection)
            text = json.dumps({**to_plain(value, omit=("extra",)), "valid_until": valid_until})
            connection.execute(_UPDATE, (text, checksum(key, text), key))

        await self._run(update)

    async def restart(self, key: str) -> None:
        """Drop the result of an item, and record that the item is started."""
        await self._run(lambda connection: connection.execute(_UPDATE, (None, None, key)))

    async def strike_out(self, media_id: str) -> None:
        """Record that media is about to be deleted, so that no run returns its id."""
        key = deletion_key(media_id)
        await self._run(lambda connection: connection.execute(_INSERT, (key, checksum(key))))

    async def undo(self, key: str) -> None:
        """Forget that an item was started, because it was certainly not applied."""
        delete = "DELETE FROM items WHERE key = ? AND value IS NULL"
        await self._run(lambda connection: connection.execute(delete, (key,)))

    async def find(self, stamp: str) -> str | None:
        """See `DigestCache`."""

        def select(connection: sqlite3.Connection) -> str | None:
            row = connection.execute("SELECT sha256, sum FROM files WHERE stamp = ?", (stamp,)).fetchone()
            return row[0] if row and row[1] == checksum(stamp, row[0]) else None

        return await self._run(select)

    async def remember(self, stamp: str, sha256: str) -> None:
        """See `DigestCache`."""
        self._new_digests.append((stamp, sha256, checksum(stamp, sha256)))

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._file.run(work)
        except MediaError:
            self.failed = True
            raise

    def _check(self, connection: sqlite3.Connection) -> None:
        """Raise if the file is damaged in a way that hides items; it would be done again, without a mark."""
        (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise self._file.damaged(found.splitlines()[-1])
        for (key,) in connection.execute(_BAD_KEY):
            raise self._file.damaged(f"its item {excerpt(str(key))} has not the checksum of that key")
        connection.execute("SELECT stamp, sha256, sum FROM files LIMIT 0")  # raises if the table is lost

    def _write_digests(self, connection: sqlite3.Connection) -> None:
        digests, self._new_digests = self._new_digests, []
        connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", digests)

    def _start(self, connection: sqlite3.Connection, key: str, cls: type[T]) -> Record[T]:
        self._write_digests(connection)
        row = connection.execute(_SELECT, (key,)).fetchone()
        if row is None:
            connection.execute(_INSERT, (key, checksum(key)))
            return Record(None)
        text, found = row
        try:
            plain = json.loads(text if isinstance(text, str) and found == checksum(key, text) else "")
            value = from_plain(cls, plain)
        except (ValueError, RecursionError):  # it has no result, or a damaged one
            return Record(None, unfinished=True)
        if isinstance(value, HasMediaId) and not is_id(value.id):
            return Record(None, unfinished=True)
        if isinstance(value, UploadedMedia) and not self._is_usable(connection, value.id, plain.get("valid_until")):
            connection.execute(_UPDATE, (None, None, key))
            return Record(None)
        return Record(value)

    def _is_usable(self, connection: sqlite3.Connection, media_id: str, valid_until: object) -> bool:
        now = time.time()
        if media_id in self._deleted or not isinstance(valid_until, int | float):
            return False
        latest = now + _MEDIA_LIFETIME.total_seconds()  # a later time was recorded before the clock was put back
        if not now < valid_until <= latest:
            return False
        return connection.execute(_SELECT, (deletion_key(media_id),)).fetchone() is None
