"""
The journal of a run: which items were started and which were done. It lets the next run continue after a crash.

An item that was started and not done may have been applied. It is done again, and marked as a possible duplicate.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import anyio
import attrs

from meta_media.bulk.sqlite_file import SQLiteFile
from meta_media.errors import MediaError
from meta_media.protocol.convert import from_plain, to_plain

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Journal", "Record"]

T = TypeVar("T")
_PURPOSE: Final = ("journal", 0x6D6D_6A31)  # "mmj1"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS items (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (stamp TEXT PRIMARY KEY, sha256 TEXT NOT NULL) WITHOUT ROWID
"""


@attrs.frozen
class Record(Generic[T]):
    """The journal's record of an item."""

    value: T | None  # the result; None if the item was not done, or if the file was damaged there
    started: bool  # by an earlier run


class Journal:
    """The items of one or several runs, in a SQLite file that only one process at a time can open."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = SQLiteFile(path, purpose=_PURPOSE, schema=_SCHEMA, exclusive=True)
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
                yield await self._run(lambda connection: _start(connection, key, cls, digests))
        finally:
            if not lock.locked():  # nothing waits for it
                self._locks.pop(key, None)

    async def done(self, key: str, value: attrs.AttrsInstance) -> None:
        """Record the result of an item. It is on the disk when this returns."""

        def update(connection: sqlite3.Connection) -> None:
            text = json.dumps(to_plain(value, omit=("extra",)))
            connection.execute("UPDATE items SET value = ? WHERE key = ?", (text, key))

        await self._run(update)

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


def _start(connection: sqlite3.Connection, key: str, cls: type[T], digests: list[tuple[str, str]]) -> Record[T]:
    connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?)", digests)
    row = connection.execute("SELECT value FROM items WHERE key = ?", (key,)).fetchone()
    if row is None:
        connection.execute("INSERT INTO items (key) VALUES (?)", (key,))
        return Record(None, started=False)
    try:
        return Record(None if row[0] is None else from_plain(cls, json.loads(row[0])), started=True)
    except ValueError:  # damaged, so that the item counts as started only
        return Record(None, started=True)
