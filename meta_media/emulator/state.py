"""
The emulator's data folder: access tokens, metadata and secrets in SQLite, bytes in files beside it.

A file is named by its media id, which is made here and is digits only, so that no input of a client becomes part of a path.
Order of writes: bytes under a temporary name, final name, row, response. What a kill leaves of that is deleted at the next start.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import heapq
import json
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Final, ParamSpec, Self, TypeVar

import anyio
import anyio.to_thread
import attrs

from meta_media.emulator.folder import folder_errors, open_database, open_media, read_rows, sweep, write_row
from meta_media.emulator.responses import GraphError
from meta_media.emulator.settings import Clock
from meta_media.errors import ConfigurationError

__all__ = ["NOT_RUNNING", "IncomingFile", "State", "StoredMedia", "Token"]

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Piece = bytes | memoryview
_THREAD_COUNT: Final = 8
_BATCH_SIZE: Final = 2**20  # bytes
_SETTINGS: Final[Mapping[str, Callable[[], str]]] = {  # made once, and then kept
    "phone_number_id": lambda: str(10**14 + secrets.randbelow(9 * 10**14)),
    "access_token": lambda: "EAAG" + secrets.token_hex(40),
    "url_secret": lambda: secrets.token_hex(32),
    "app_secret": lambda: secrets.token_hex(16),
}
NOT_RUNNING: Final = "the emulator is not running: use `async with Emulator() as emulator`"


@attrs.frozen
class Token:
    """An access token."""

    value: str = attrs.field(repr=False)
    numbers: frozenset[str] = frozenset()  # the phone number ids it may act for
    expires_at: float | None = None  # Unix seconds; None for never
    forbidden: int | None = None  # the error code of every request with it; None when it has all permissions


@attrs.frozen
class StoredMedia:
    """The metadata of one media id."""

    id: str
    phone_number_id: str  # the number it belongs to
    mime_type: str  # as the client declared it, with its parameters
    sha256: str  # 64 hex digits
    file_size: int  # bytes
    filename: str | None  # as the client named it; never used as a path
    expires_at: float | None  # Unix seconds; None for never


class State:
    """A data folder, made if it is missing. One emulator at a time can open it, by `async with`; the next one fails."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.settings: dict[str, str] = {}  # what `_SETTINGS` has made for this folder, and what was `set`
        self._folder = folder
        self._media = folder / "media"
        self._clock = clock
        # Called on a thread, with each id that is new, other or gone.
        self.on_change: Callable[[str], None] = lambda _media_id: None
        self._tokens: dict[str, Token] = {}
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.RLock()
        self._threads = ThreadPoolExecutor(_THREAD_COUNT, "meta-media-emulator")

    async def __aenter__(self) -> Self:
        try:
            with folder_errors(self._folder):
                await self.in_thread(self._open)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await anyio.to_thread.run_sync(self._close)

    async def in_thread(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run file work off the event loop. A cancellation takes effect once the work is done."""
        running = asyncio.wrap_future(self._submit(functools.partial(work, *args, **kwargs)))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                await asyncio.gather(running, return_exceptions=True)
            raise

    def path(self, media_id: str) -> Path:
        """Return the path of an id's bytes."""
        if not (media_id.isascii() and media_id.isdecimal()):
            raise ValueError("a media id is digits only")
        return self._media / media_id

    async def find(self, media_id: str) -> StoredMedia | None:
        """Return the metadata of an id that has not expired, or None."""
        found = await self.in_thread(self._read, "media", StoredMedia, media_id)
        now = self._clock.now()
        return next((media for media in found if media.expires_at is None or media.expires_at > now), None)

    async def set(self, name: str, value: str) -> None:
        """Keep a setting."""
        self.settings[name] = value
        await self.in_thread(self._write_setting, name)

    def has_token(self, phone_number_id: str, access_token: str) -> bool:
        """Return whether a token, valid or not, was added for this number."""
        return access_token in self._tokens and phone_number_id in self._tokens[access_token].numbers

    def add_token(self, phone_number_id: str, access_token: str) -> None:
        """Let a token, new or revived, act for a phone number. Any thread may call this and the next two methods."""
        numbers = self._tokens.get(access_token, Token(access_token)).numbers | {phone_number_id}
        self._keep(Token(access_token, numbers))

    def expire_token(self, access_token: str, seconds: float) -> None:
        """Let a token expire some seconds from now."""
        self._keep(attrs.evolve(self._known(access_token), expires_at=max(0.0, self._clock.now() + seconds)))

    def forbid_token(self, access_token: str, code: int) -> None:
        """Take a token's permissions away."""
        self._keep(attrs.evolve(self._known(access_token), forbidden=code))

    def authenticate(self, access_token: str | None) -> Token:
        """Return the token, if it is valid and has permissions; otherwise raise its `GraphError`."""
        if not access_token:
            raise GraphError.of("no_token")
        token = self._tokens.get(access_token)
        if token is None:
            raise GraphError.of("unknown_token")
        if token.expires_at is not None and token.expires_at <= (now := self._clock.now()):
            raise GraphError.expired(token.expires_at, now)
        if token.forbidden is not None:
            raise GraphError.forbidden(token.forbidden)
        return token

    def _known(self, access_token: str) -> Token:
        if access_token not in self._tokens:
            raise ConfigurationError("the emulator has no such access token: give it to add_account first")
        return self._tokens[access_token]

    def _keep(self, token: Token) -> None:
        self._tokens[token.value] = token
        self._submit(functools.partial(self._write_token, token.value))

    def _submit(self, work: Callable[[], _T]) -> Future[_T]:
        try:
            return self._threads.submit(work)
        except RuntimeError:  # the threads have ended
            raise ConfigurationError(NOT_RUNNING) from None

    # The methods below run on threads.

    def add(self, media: StoredMedia) -> None:
        """Write the metadata of media whose bytes are in place."""
        self._write("media", *attrs.astuple(media))
        self.on_change(media.id)

    def remove(self, media_id: str) -> None:
        """Delete an id, with its bytes."""
        with self._lock:
            self._database.execute("DELETE FROM media WHERE id = ?", (media_id,))
        self.path(media_id).unlink(missing_ok=True)
        self.on_change(media_id)

    def expire(self, media_id: str) -> None:
        """Let an id expire now."""
        with self._lock:
            for media in self._read("media", StoredMedia, media_id):
                self.add(attrs.evolve(media, expires_at=self._clock.now()))

    def describe(self, media_id: str) -> tuple[StoredMedia, float] | None:
        """Return the metadata of an id, expired or not, and when its bytes were written, in Unix seconds; or None."""
        with suppress(FileNotFoundError):
            for media in self._read("media", StoredMedia, media_id):
                return media, self.path(media_id).stat().st_mtime
        return None

    def newest(self, count: int) -> tuple[list[str], int]:
        """Return the ids of the newest files, the newest first, and how many files there are."""
        found = []
        with os.scandir(self._media) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # it has just been deleted
                    found.append((entry.stat().st_mtime_ns, entry.name))
        return [name for _, name in heapq.nlargest(count, found) if name.isdecimal()], len(found)

    def _open(self) -> None:
        self._connection, folder = open_database(self._folder), open_media(self._folder)
        settings, tokens = dict(self._read("setting", lambda *row: row)), self._read("token", _token)
        media = self._read("media", StoredMedia)
        if not (settings or tokens or media):
            settings = {name: make() for name, make in _SETTINGS.items()}
            with self._connection:
                self._connection.execute("BEGIN")
                for setting in settings.items():
                    self._write("setting", *setting)
        elif lost := sorted(_SETTINGS.keys() - settings.keys()):
            raise ValueError(f"its table setting lacks {lost[0]}")
        self.settings, self._tokens = settings, {token.value: token for token in tokens}
        now = self._clock.now()
        self._connection.execute("DELETE FROM media WHERE expires_at <= ?", (now,))
        known = {found.id for found in media if found.expires_at is None or found.expires_at > now}
        sweep(folder, known)

    def _close(self) -> None:
        self._threads.shutdown()
        if self._connection is not None:
            self._connection.close()

    @property
    def _database(self) -> sqlite3.Connection:
        if self._connection is None:
            raise ConfigurationError(NOT_RUNNING)
        return self._connection

    def _read(self, table: str, make: Callable[..., _T], key: str | None = None) -> list[_T]:
        with self._lock:
            return [make(*row) for row in read_rows(self._database, table, key)]

    def _write(self, table: str, *row: object) -> None:
        with self._lock:
            write_row(self._database, table, row)

    def _write_setting(self, name: str) -> None:
        with self._lock:  # as for tokens
            self._write("setting", name, self.settings[name])

    def _write_token(self, value: str) -> None:
        with self._lock:  # two writes of one token may come in any order: each writes the latest state
            token = self._tokens[value]
            self._write("token", value, json.dumps(sorted(token.numbers)), token.expires_at, token.forbidden)


def _token(value: str, numbers: str, expires_at: float | None, forbidden: int | None) -> Token:
    return Token(value, frozenset(json.loads(numbers)), expires_at, forbidden)


class IncomingFile:
    """
    A file that arrives: written and hashed on a thread in batches, one being written while the next fills up.

    Used as `async with`. Unless `keep` is called, nothing is left of it at the end of the block.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._id = str(10**15 + secrets.randbelow(9 * 10**15))  # 16 digits, of 15 to 17 seen in real ones
        self._path = state.path(self._id).with_suffix(".part")
        self._file: FileIO | None = None
        self._hash = hashlib.sha256()
        self._size = 0
        self._batch: list[_Piece] = []
        self._batched = 0
        self._writing: asyncio.Task[None] | None = None
        self._kept = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._kept:
            with anyio.CancelScope(shield=True):
                if self._writing is not None:
                    await asyncio.gather(self._writing, return_exceptions=True)
                await self._state.in_thread(self._abandon)

    async def write(self, pieces: Sequence[_Piece]) -> None:
        """Add bytes; a full batch is written in the background."""
        self._batch.extend(pieces)
        self._batched += sum(map(len, pieces))
        if self._batched >= _BATCH_SIZE:
            await self._finish_writing()
            batch, self._batch, self._batched = self._batch, [], 0
            self._writing = asyncio.create_task(self._state.in_thread(self._append, batch))

    async def keep(self, number: str, mime_type: str, filename: str | None, expires_at: float | None) -> StoredMedia:
        """Write the rest, and the metadata."""
        await self._finish_writing()

        def keep() -> StoredMedia:
            self._append(self._batch)
            self._close()
            self._path.rename(self._state.path(self._id))
            media = StoredMedia(self._id, number, mime_type, self._hash.hexdigest(), self._size, filename, expires_at)
            self._state.add(media)
            self._kept = True
            return media

        return await self._state.in_thread(keep)

    async def _finish_writing(self) -> None:
        if self._writing is not None:
            await asyncio.wait({self._writing})  # a cancellation of this leaves the task running
            self._writing.result()

    def _append(self, batch: Sequence[_Piece]) -> None:
        if self._file is None:
            self._file = FileIO(self._path, "xb")
        for piece in batch:
            view = memoryview(piece)
            self._hash.update(view)
            self._size += len(view)
            while view:
                view = view[self._file.write(view) :]

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _abandon(self) -> None:
        self._close()
        for path in (self._path, self._state.path(self._id)):
            path.unlink(missing_ok=True)
