"""
What a run has done, on disk before anybody is told: a run that was killed goes on where it was.

An item that was begun and not ended may have been applied. It is tried again, and said to be perhaps a duplicate.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import attrs

from meta_media.bulk.sqlite_file import SQLiteFile
from meta_media.errors import MediaError

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
class Record:
    """
    What a journal has of an item.

    Attributes:
        value: What came of it, as JSON's types; None when it has not come to an end.
        begun: Whether it was begun before.
    """

    value: Mapping[str, Any] | None
    started: bool


class Journal:
    """
    The items of a run, or of several, in a SQLite file that one process at a time may have.

    Args:
        path: Its name; it is made where there is none.

    Attributes:
        failed: Whether the file or its disk refused: then no other item can be noted, either.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._database = SQLiteFile(path, purpose=_PURPOSE, schema=_SCHEMA, exclusive=True)
        self.failed = False
        self._under_way: dict[str, anyio.Lock] = {}
        self._hashed: list[tuple[str, str]] = []  # to be written with the next item

    async def open(self) -> None:
        """Open the file; raise `ConfigurationError` if another run has it, or if it is no journal."""
        await self._run(lambda _: None)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._database.run(work)
        except MediaError:
            self.failed = True
            raise

    async def aclose(self) -> None:
        """Close it."""
        await self._database.aclose()

    @asynccontextmanager
    async def item(self, key: str) -> AsyncIterator[Record]:
        """Begin an item, after whoever has the same one just now, and give what is known of it."""
        hashed, self._hashed = self._hashed, []
        lock = self._under_way.setdefault(key, anyio.Lock())
        try:
            async with lock:
                yield await self._run(lambda connection: _begin(connection, key, hashed))
        finally:
            if not lock.locked():  # else it is somebody else's by now
                self._under_way.pop(key, None)

    async def done(self, key: str, value: Mapping[str, Any]) -> None:
        """Note what came of an item; it is on the disk when this returns."""
        text = json.dumps(value)
        await self._run(lambda connection: connection.execute("UPDATE items SET value = ? WHERE key = ?", (text, key)))

    async def undo(self, key: str) -> None:
        """Note that nothing came of an item: it can be begun as if for the first time."""
        await self._run(
            lambda connection: connection.execute("DELETE FROM items WHERE key = ? AND value IS NULL", (key,))
        )

    async def find(self, stamp: str) -> str | None:
        """See `identities.Digests`."""

        def work(connection: sqlite3.Connection) -> str | None:
            row = connection.execute("SELECT sha256 FROM files WHERE stamp = ?", (stamp,)).fetchone()
            return row and str(row[0])

        return await self._run(work)

    async def remember(self, stamp: str, sha256: str) -> None:
        """See `identities.Digests`."""
        self._hashed.append((stamp, sha256))


def _begin(connection: sqlite3.Connection, key: str, hashed: list[tuple[str, str]]) -> Record:
    connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?)", hashed)
    row = connection.execute("SELECT value FROM items WHERE key = ?", (key,)).fetchone()
    if row is None:
        connection.execute("INSERT INTO items (key) VALUES (?)", (key,))
        return Record(None, started=False)
    return Record(None if row[0] is None else json.loads(row[0]), started=True)
