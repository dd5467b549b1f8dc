"""A store in a SQLite file, for the processes of one machine."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from meta_media.bulk.sqlite_file import SQLiteFile
from meta_media.library.entry import LibraryEntry
from meta_media.library.store import AsyncCloseable, Store

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SQLiteStore"]

_PURPOSE: Final = ("library", 0x6D6D_6C31)  # "mml1"
_TABLES: Final = """
CREATE TABLE entries (key TEXT PRIMARY KEY, id TEXT NOT NULL, entry TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE claims (number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT UNIQUE NOT NULL, until REAL NOT NULL)
"""
_SCHEMA: Final = (_TABLES, "CREATE INDEX IF NOT EXISTS entries_by_id ON entries (id)")
_LONGEST_CLAIM: Final = 86_400.0  # seconds; a claim that ends later was made before the wall clock was set back
_PAGE_SIZE: Final = 500  # entries


class SQLiteStore(AsyncCloseable, Store):
    """
    A store in a file, for any number of processes of one machine. The file must not be on a network drive.

    Args:
        path: Name of the file. A missing file is created; its folder must exist. Default: `meta_media/library.sqlite` in
            the user's cache folder (`XDG_CACHE_HOME`, or `~/.cache`), which is created.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        default = path is None
        if path is None:
            path = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "meta_media" / "library.sqlite"
        self._file = SQLiteFile(path, purpose=_PURPOSE, schema=_SCHEMA, makes_folder=default)

    @property
    def path(self) -> Path:
        """The file, which the first call creates."""
        return self._file.path

    async def get(self, key: str) -> LibraryEntry | None:
        found = await self._select("SELECT entry FROM entries WHERE key = ?", key)
        return found[0] if found else None

    async def find(self, media_id: str) -> LibraryEntry | None:
        """Return the entry with a media id, or None."""
        found = await self._select("SELECT entry FROM entries WHERE id = ?", media_id)
        return found[0] if found else None

    async def claim(self, key: str, seconds: float) -> int | None:
        now = time.time()  # the only clock that all processes share
        end_old = "DELETE FROM claims WHERE key = ? AND (until <= ? OR until > ?)"
        insert = "INSERT INTO claims (key, until) VALUES (?, ?) ON CONFLICT DO NOTHING"

        def write(connection: sqlite3.Connection) -> int | None:
            connection.execute(end_old, (key, now, now + _LONGEST_CLAIM))
            inserted = connection.execute(insert, (key, now + seconds))
            return inserted.lastrowid if inserted.rowcount else None

        return await self._file.run(write)

    async def renew(self, key: str, claim: int, seconds: float) -> bool:
        update = "UPDATE claims SET until = ? WHERE key = ? AND number = ?"
        return await self._change(update, time.time() + seconds, key, claim)

    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        end = "DELETE FROM claims WHERE key = ? AND number = ?"
        insert = "INSERT OR REPLACE INTO entries VALUES (?, ?, ?)"

        def write(connection: sqlite3.Connection) -> bool:
            ended = connection.execute(end, (entry.key, claim)).rowcount > 0
            if ended:
                connection.execute(insert, (entry.key, entry.id, entry.to_json()))
            return ended

        return await self._file.run(write)

    async def release(self, key: str, claim: int) -> None:
        await self._change("DELETE FROM claims WHERE key = ? AND number = ?", key, claim)

    async def touch(self, entry: LibraryEntry) -> None:
        update = "UPDATE entries SET entry = ? WHERE key = ? AND id = ?"
        await self._file.run(lambda db: db.execute(update, (entry.to_json(), entry.key, entry.id)).rowcount)

    async def remove(self, entry: LibraryEntry) -> bool:
        return await self._change("DELETE FROM entries WHERE key = ? AND id = ?", entry.key, entry.id)

    async def entries(self) -> AsyncIterator[LibraryEntry]:
        last, select = "", "SELECT entry FROM entries WHERE key > ? ORDER BY key LIMIT ?"
        while page := await self._select(select, last, _PAGE_SIZE):
            for entry in page:
                yield entry
            last = page[-1].key

    async def aclose(self) -> None:
        await self._file.aclose()

    async def _select(self, select: str, *values: object) -> list[LibraryEntry]:
        return await self._file.run(lambda db: [LibraryEntry.from_json(text) for (text,) in db.execute(select, values)])

    async def _change(self, statement: str, *values: object) -> bool:
        return await self._file.run(lambda db: db.execute(statement, values).rowcount > 0)
