"""
The journal of a run: which items were started and which were done. It lets the next run continue after a crash.

An item that was started and not done may have been applied. It is done again, and marked as a possible duplicate.

An upload is recorded with the time until which its id may be used. It is done again after that time, and if the id was deleted
by this client, or by a run with the same journal. The first version recorded no time: its uploads are done again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Callable, Container
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import anyio
import attrs

from meta_media.bulk.sqlite_file import SQLiteFile
from meta_media.errors import MediaError
from meta_media.protocol.convert import from_plain, to_plain
from meta_media.protocol.models import UploadedMedia

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Journal", "Record", "deletion_key", "usable_for"]

T = TypeVar("T")
_MEDIA_LIFETIME: Final = timedelta(days=30)  # Meta's Media guide: uploaded media and their ids
_EXPIRY_MARGIN: Final = timedelta(days=1)  # a message that is sent now is fetched later
_PURPOSE: Final = ("journal", 0x6D6D_6A31)  # "mmj1"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS items (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (stamp TEXT PRIMARY KEY, sha256 TEXT NOT NULL) WITHOUT ROWID
"""
_SELECT: Final = "SELECT value FROM items WHERE key = ?"
_UPDATE: Final = "UPDATE items SET value = ? WHERE key = ?"


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
        self._file = SQLiteFile(path, purpose=_PURPOSE, schema=(_SCHEMA,), exclusive=True)
        self.failed = False  # whether the file or its disk has failed, so that no other item can be recorded
        self._locks: dict[str, anyio.Lock] = {}  # of items in progress, by key
        self._new_digests: list[tuple[str, str]] = []  # written with the next item

    async def open(self) -> None:
        """Open the file. It is a `ConfigurationError` if another run has it open, or if it is not a journal."""
        await self._run(lambda _: None)

    async def aclose(self) -> None:
        """Close the file."""
        await self._file.aclose()

    @asynccontextmanager
    async def item(self, key: str, cls: type[T]) -> AsyncIterator[Record[T]]:
        """Record that an item is started, and return the record of earlier runs. The same key waits until this block ends."""
        digests, self._new_digests = self._new_digests, []
        lock = self._locks.setdefault(key, anyio.Lock())
        try:
            async with lock:
                yield await self._run(lambda connection: self._start(connection, key, cls, digests))
        finally:
            if not lock.locked():  # nothing waits for it
                self._locks.pop(key, None)

    async def done(self, key: str, value: attrs.AttrsInstance, valid_until: float | None = None) -> None:
        """Record the result of an item. It is on the disk when this returns. An upload is valid until a Unix time."""

        def update(connection: sqlite3.Connection) -> None:
            text = json.dumps({**to_plain(value, omit=("extra",)), "valid_until": valid_until})
            connection.execute(_UPDATE, (text, key))

        await self._run(update)

    async def restart(self, key: str) -> None:
        """Drop the result of an item, and record that the item is started."""
        await self._run(lambda connection: connection.execute(_UPDATE, (None, key)))

    async def strike_out(self, media_id: str) -> None:
        """Record that media is about to be deleted, so that no run returns its id."""
        insert = "INSERT OR IGNORE INTO items (key) VALUES (?)"
        await self._run(lambda connection: connection.execute(insert, (deletion_key(media_id),)))

    async def undo(self, key: str) -> None:
        """Forget that an item was started, because it was certainly not applied."""
        delete = "DELETE FROM items WHERE key = ? AND value IS NULL"
        await self._run(lambda connection: connection.execute(delete, (key,)))

    async def find(self, stamp: str) -> str | None:
        """See `DigestCache`."""

        def select(connection: sqlite3.Connection) -> str | None:
            row = connection.execute("SELECT sha256 FROM files WHERE stamp = ?", (stamp,)).fetchone()
            return row and str(row[0])

        return await self._run(select)

    async def remember(self, stamp: str, sha256: str) -> None:
        """See `DigestCache`."""
        self._new_digests.append((stamp, sha256))

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._file.run(work)
        except MediaError:
            self.failed = True
            raise

    def _start(
        self, connection: sqlite3.Connection, key: str, cls: type[T], digests: list[tuple[str, str]]
    ) -> Record[T]:
        connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?)", digests)
        row = connection.execute(_SELECT, (key,)).fetchone()
        if row is None:
            connection.execute("INSERT INTO items (key) VALUES (?)", (key,))
            return Record(None)
        try:
            plain = json.loads(row[0] or "")
            value = from_plain(cls, plain)
        except ValueError:  # it has no result, or a damaged one
            return Record(None, unfinished=True)
        if isinstance(value, UploadedMedia) and not self._is_usable(connection, value.id, plain.get("valid_until")):
            connection.execute(_UPDATE, (None, key))
            return Record(None)
        return Record(value)

    def _is_usable(self, connection: sqlite3.Connection, media_id: str, valid_until: Any) -> bool:
        if media_id in self._deleted or not isinstance(valid_until, int | float) or valid_until <= time.time():
            return False
        return connection.execute(_SELECT, (deletion_key(media_id),)).fetchone() is None
