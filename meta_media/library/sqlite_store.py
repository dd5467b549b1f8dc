"""A store in a SQLite file, for the processes of one machine."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from meta_media.bulk.sqlite_file import SQLiteFile
from meta_media.library.entry import LibraryEntry, readable_entries, stored_entry
from meta_media.library.store import MESSAGE_LIFETIME, AsyncCloseable, Store

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SQLiteStore"]

_PURPOSE: Final = ("library", 0x6D6D_6C31)  # "mml1"
_TABLES: Final = """
CREATE TABLE entries (key TEXT PRIMARY KEY, id TEXT NOT NULL, entry TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE claims (number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT UNIQUE NOT NULL, until REAL NOT NULL)
"""
_CHANGES: Final = """
CREATE INDEX IF NOT EXISTS entries_by_id ON entries (id);
ALTER TABLE claims ADD COLUMN seconds REAL
"""
_MESSAGES: Final = """
CREATE TABLE messages (id TEXT PRIMARY KEY, entry TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX messages_by_time ON messages (until)
"""
_SCHEMA: Final = (_TABLES, _CHANGES, _MESSAGES)
# A claim is until `seconds` after the `time.monotonic()` of its last renewal. All processes of a machine share that clock,
# which cannot be set. A claim that would last longer was made before the machine restarted, or by the first version.
_END_OLD: Final = "DELETE FROM claims WHERE key = ? AND (until - ? BETWEEN 0 AND seconds) IS NOT TRUE"
_CLAIM: Final = "INSERT INTO claims (key, until, seconds) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_RENEW: Final = "UPDATE claims SET until = ?, seconds = ? WHERE key = ? AND number = ?"
_END: Final = "DELETE FROM claims WHERE key = ? AND number = ?"
_PAGE_SIZE: Final = 500  # entries


class SQLiteStore(AsyncCloseable, Store):
    """
    A store in a file, for any number of processes of one machine. The file must not be on a network drive.

    Claims do not depend on the wall clock. An entry that is damaged counts as missing.

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
        rows = await self._select("WHERE key = ?", key)
        return stored_entry(self._file, *rows[0]) if rows else None

    async def find(self, media_id: str) -> LibraryEntry | None:
        """Return the entry with a media id, or None."""
        return next(iter(readable_entries(self._file, await self._select("WHERE id = ?", media_id))), None)

    async def claim(self, key: str, seconds: float) -> int | None:
        def write(connection: sqlite3.Connection) -> int | None:
            now = time.monotonic()  # while no other process can write
            connection.execute(_END_OLD, (key, now))
            inserted = connection.execute(_CLAIM, (key, now + seconds, seconds))
            return inserted.lastrowid if inserted.rowcount else None

        return await self._file.run(write)

    async def renew(self, key: str, claim: int, seconds: float) -> bool:
        return await self._change(_RENEW, time.monotonic() + seconds, seconds, key, claim)

    async def put(self, entry: LibraryEntry, claim: int) -> bool:
        def write(connection: sqlite3.Connection) -> bool:
            ended = connection.execute(_END, (entry.key, claim)).rowcount > 0
            if ended:
                insert = "INSERT OR REPLACE INTO entries VALUES (?, ?, ?)"
                connection.execute(insert, (entry.key, entry.id, entry.to_json()))
            return ended

        return await self._file.run(write)

    async def release(self, key: str, claim: int) -> None:
        await self._change(_END, key, claim)

    async def touch(self, entry: LibraryEntry) -> None:
        update = "UPDATE entries SET entry = ? WHERE key = ? AND id = ?"
        await self._file.run(lambda db: db.execute(update, (entry.to_json(), entry.key, entry.id)).rowcount)

    async def remove(self, entry: LibraryEntry) -> bool:
        return await self._change("DELETE FROM entries WHERE key = ? AND id = ?", entry.key, entry.id)

    async def entries(self) -> AsyncIterator[LibraryEntry]:
        last = before = ""
        while rows := await self._select("WHERE key > ? ORDER BY key LIMIT ?", last, _PAGE_SIZE):
            entries = readable_entries(self._file, rows)
            for entry in entries:
                yield entry
            # A damaged key may be anything: the next page begins after an intact one, if there is one.
            keys = [entry.key for entry in entries] or [key for _, key, _ in rows if isinstance(key, str)]
            before, last = last, max([last, *keys])
            if last == before:
                return

    async def put_message(self, message_id: str, entry: LibraryEntry) -> None:
        """See `MessageStore`."""

        def write(connection: sqlite3.Connection) -> None:
            now = time.time()
            connection.execute("DELETE FROM messages WHERE until < ?", (now,))
            values = (message_id, entry.to_json(), now + MESSAGE_LIFETIME)
            connection.execute("INSERT OR REPLACE INTO messages VALUES (?, ?, ?)", values)

        await self._file.run(write)

    async def get_message(self, message_id: str) -> LibraryEntry | None:
        """See `MessageStore`."""
        select = "SELECT entry FROM messages WHERE id = ?"
        row = await self._file.run(lambda db: db.execute(select, (message_id,)).fetchone())
        return None if row is None else LibraryEntry.from_json(row[0])

    async def aclose(self) -> None:
        await self._file.aclose()

    async def _select(self, where: str, *values: object) -> list[tuple[Any, Any, Any]]:
        select = f"SELECT entry, key, id FROM entries {where}"  # noqa: S608 - of the callers above
        return await self._file.run(lambda db: db.execute(select, values).fetchall())

    async def _change(self, statement: str, *values: object) -> bool:
        return await self._file.run(lambda db: db.execute(statement, values).rowcount > 0)
