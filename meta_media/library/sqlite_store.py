"""Entries of the processes of one machine, in a SQLite file."""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from meta_media.bulk.sqlite_file import SQLiteFile
from meta_media.library.entry import LibraryEntry

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SQLiteStore"]

_PURPOSE: Final = ("library", 0x6D6D_6C31)  # "mml1"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, id TEXT NOT NULL, entry TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT UNIQUE NOT NULL, until REAL NOT NULL)
"""
_LONGEST_CLAIM: Final = 86_400.0  # seconds; one that ends later was made before the wall clock was put back
_PAGE: Final = 500  # entries read at a time


class SQLiteStore:
    """
    A store in a file, for any number of processes of one machine; not on a network drive.

    Args:
        path: Its name; file and folder are made where there are none. Default: `meta_media/library.sqlite` in the user's
            cache folder (`XDG_CACHE_HOME`, else `~/.cache`).
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        if path is None:
            path = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "meta_media" / "library.sqlite"
        self._database = SQLiteFile(path, purpose=_PURPOSE, schema=_SCHEMA)

    async def get(self, key: str) -> LibraryEntry | None:
        """See `Store`."""
        row = await self._database.run(
            lambda connection: connection.execute("SELECT entry FROM entries WHERE key = ?", (key,)).fetchone()
        )
        return LibraryEntry.from_json(json.loads(row[0])) if row else None

    async def claim(self, key: str, seconds: float) -> int | None:
        """See `Store`."""
        now = time.time()  # the one clock that all processes share
        over = "DELETE FROM claims WHERE key = ? AND (until <= ? OR until > ?)"
        claimed = "INSERT INTO claims (key, until) VALUES (?, ?) ON CONFLICT DO NOTHING"

        def work(connection: sqlite3.Connection) -> int | None:
            connection.execute(over, (key, now, now + _LONGEST_CLAIM))
            done = connection.execute(claimed, (key, now + seconds))
            return done.lastrowid if done.rowcount else None

        return await self._database.run(work)

    async def renew(self, key: str, claim: int, seconds: float) -> bool:
        """See `Store`."""
        renewed = "UPDATE claims SET until = ? WHERE key = ? AND number = ?"
        return await self._changes(renewed, time.time() + seconds, key, claim)

    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        """See `Store`."""
        row = (entry.key, entry.id, json.dumps(entry.as_json()))

        def work(connection: sqlite3.Connection) -> bool:
            held = connection.execute("DELETE FROM claims WHERE key = ? AND number = ?", (entry.key, claim)).rowcount
            if held:
                connection.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", row)
            return bool(held)

        return await self._database.run(work)

    async def release(self, key: str, claim: int) -> None:
        """See `Store`."""
        await self._changes("DELETE FROM claims WHERE key = ? AND number = ?", key, claim)

    async def touch(self, entry: LibraryEntry) -> None:
        """See `Store`."""
        text = json.dumps(entry.as_json())
        await self._changes("UPDATE entries SET entry = ? WHERE key = ? AND id = ?", text, entry.key, entry.id)

    async def remove(self, entry: LibraryEntry) -> bool:
        """See `Store`."""
        return await self._changes("DELETE FROM entries WHERE key = ? AND id = ?", entry.key, entry.id)

    async def entries(self) -> AsyncIterator[LibraryEntry]:
        """See `Store`."""
        last = ""
        while rows := await self._database.run(functools.partial(_page, last)):
            for _, text in rows:
                yield LibraryEntry.from_json(json.loads(text))
            last = rows[-1][0]

    async def aclose(self) -> None:
        """See `Store`."""
        await self._database.aclose()

    async def _changes(self, statement: str, *values: object) -> bool:
        return await self._database.run(lambda connection: connection.execute(statement, values).rowcount > 0)


def _page(after: str, connection: sqlite3.Connection) -> list[tuple[str, str]]:
    page = "SELECT key, entry FROM entries WHERE key > ? ORDER BY key LIMIT ?"
    return connection.execute(page, (after, _PAGE)).fetchall()
