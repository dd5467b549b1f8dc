"""
What the emulator remembers: metadata in SQLite, bytes in files beside it.

SQLite has one thread of its own. A file is named by its media id, which is made here and is digits only, so nothing a client
sends becomes part of a path. Order of events: bytes under a temporary name, final name, row, reply. What a kill leaves of
that is swept away at the next start.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import anyio
import anyio.to_thread
import attrs

from meta_media.emulator.accounts import Token

__all__ = ["Store", "StoredMedia", "new_media_id"]

_P = ParamSpec("_P")
_T = TypeVar("_T")
_FILE_THREADS: Final = 8
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS token (
    access_token TEXT PRIMARY KEY, numbers TEXT NOT NULL, expires_at REAL, forbidden INTEGER
);
CREATE TABLE IF NOT EXISTS media (
    id TEXT PRIMARY KEY, phone_number_id TEXT NOT NULL, mime_type TEXT NOT NULL, sha256 TEXT NOT NULL,
    file_size INTEGER NOT NULL, filename TEXT, expires_at REAL
) WITHOUT ROWID;
"""


@attrs.frozen(kw_only=True)
class StoredMedia:
    """
    What is known about the bytes of one media id.

    Attributes:
        id: 16 digits.
        phone_number_id: The number it belongs to.
        mime_type: As the client declared it, with its parameters.
        sha256: 64 hex digits.
        file_size: Bytes.
        filename: As the client named it; never used as a path.
        expires_at: Unix seconds; None for never.
    """

    id: str
    phone_number_id: str
    mime_type: str
    sha256: str
    file_size: int
    filename: str | None = None
    expires_at: float | None = None


class Store:
    """A data folder, opened by one emulator at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._database = folder / "emulator.sqlite3"
        self._media = folder / "media"
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, "meta-media-emulator-sqlite")
        self._file_threads = ThreadPoolExecutor(_FILE_THREADS, "meta-media-emulator-files")

    async def open(self, now: float) -> None:
        """
        Open or create the folder, and sweep away what has expired or was left by a kill.

        Raises:
            RuntimeError: Another emulator has it open.
        """
        await self._query(self._open, now)

    async def close(self) -> None:
        """Finish what was asked for, and close."""
        await self._query(self._close)
        for threads in (self._file_threads, self._thread):
            await anyio.to_thread.run_sync(threads.shutdown)

    async def in_thread(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Do file work off the event loop; who is cancelled meanwhile still waits for the thread."""
        work = asyncio.get_running_loop().run_in_executor(self._file_threads, lambda: function(*args, **kwargs))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                await asyncio.gather(work, return_exceptions=True)
            raise

    def path(self, media_id: str) -> Path:
        """Where the bytes of an id are."""
        if not (media_id.isascii() and media_id.isdecimal()):
            raise ValueError("a media id is digits only")
        return self._media / media_id

    def partial_path(self, media_id: str) -> Path:
        """Where the bytes of an id are while they arrive."""
        return self.path(media_id).with_suffix(".part")

    async def add(self, media: StoredMedia) -> None:
        """Make media known whose bytes are in place."""
        await self._query(self._insert, media)

    async def find(self, media_id: str, now: float) -> StoredMedia | None:
        """Look media up that has not expired."""
        return await self._query(self._select, media_id, now)

    async def remove(self, media_id: str) -> None:
        """Forget media and delete its bytes."""
        await self._query(self._delete, media_id)

    async def setting(self, name: str, default: str) -> str:
        """Read a value that is made once and then kept."""
        return await self._query(self._setting, name, default)

    async def tokens(self) -> dict[str, Token]:
        """All tokens by their value."""
        return await self._query(self._tokens)

    def keep_token(self, token: Token) -> None:
        """Save a token, in the background and in order. May be called from any thread."""
        self._thread.submit(self._put_token, token)

    async def _query(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: function(*args, **kwargs))

    # What follows runs on SQLite's thread.

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise RuntimeError("the emulator's store is not open")
        return self._connection

    def _open(self, now: float) -> None:
        self._media.mkdir(mode=0o700, parents=True, exist_ok=True)
        # It holds the secret that signs URLs. SQLite gives its side files the same mode.
        os.close(os.open(self._database, os.O_RDWR | os.O_CREAT, 0o600))
        self._connection = sqlite3.connect(self._database, timeout=0, isolation_level=None)
        try:
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.OperationalError as exc:
            self._close()
            raise RuntimeError(f"{self._folder} cannot be opened; is another emulator using it? ({exc})") from exc
        self._sweep(now)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _sweep(self, now: float) -> None:
        self._db.execute("DELETE FROM media WHERE expires_at <= ?", (now,))
        known = {row[0] for row in self._db.execute("SELECT id FROM media")}
        for path in self._media.iterdir():
            if path.name not in known:
                path.unlink()

    def _insert(self, media: StoredMedia) -> None:
        self._db.execute("INSERT INTO media VALUES (?, ?, ?, ?, ?, ?, ?)", attrs.astuple(media))

    def _select(self, media_id: str, now: float) -> StoredMedia | None:
        row = self._db.execute(
            "SELECT id, phone_number_id, mime_type, sha256, file_size, filename, expires_at FROM media"
            " WHERE id = ? AND (expires_at IS NULL OR expires_at > ?)",
            (media_id, now),
        ).fetchone()
        names = [field.name for field in attrs.fields(StoredMedia)]
        return None if row is None else StoredMedia(**dict(zip(names, row, strict=True)))

    def _delete(self, media_id: str) -> None:
        self._db.execute("DELETE FROM media WHERE id = ?", (media_id,))
        self.path(media_id).unlink(missing_ok=True)

    def _setting(self, name: str, default: str) -> str:
        self._db.execute("INSERT OR IGNORE INTO setting VALUES (?, ?)", (name, default))
        row = self._db.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
        return str(row[0])

    def _tokens(self) -> dict[str, Token]:
        rows = self._db.execute("SELECT access_token, numbers, expires_at, forbidden FROM token").fetchall()
        return {
            value: Token(value=value, numbers=frozenset(json.loads(numbers)), expires_at=expires, forbidden=code)
            for value, numbers, expires, code in rows
        }

    def _put_token(self, token: Token) -> None:
        row = (token.value, json.dumps(sorted(token.numbers)), token.expires_at, token.forbidden)
        self._db.execute("INSERT OR REPLACE INTO token VALUES (?, ?, ?, ?)", row)


def new_media_id() -> str:
    """Make a media id: 16 digits, of 15 to 17 seen in real ones."""
    return str(10**15 + secrets.randbelow(9 * 10**15))
