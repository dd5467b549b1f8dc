"""A SQLite file for an event loop: work runs on a thread, and work that waits at the same time is committed together."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from meta_media.errors import ConfigurationError, MediaError, StorageError
from meta_media.http.loop_bound import running_loop
from meta_media.transfer.threads import FileWork, pool, submit

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SQLiteFile", "checksum"]

T = TypeVar("T")
Work = Callable[["sqlite3.Connection"], Any]
Outcome = tuple["asyncio.Future[Any]", Any, Exception | None]  # of one piece of work
_BUSY_TIMEOUT: Final = 30.0  # seconds to wait for transactions of other processes, which take milliseconds each
_POLL_SECONDS: Final = 0.005
_TURN_SECONDS: Final = 0.5  # two that open an exclusive file together can refuse each other, so each tries again
_encode: Final = json.JSONEncoder(default=repr).encode  # `json.dumps` makes an encoder for each call
_of_parents: Final[list[object]] = []  # connections that a fork has copied
_BATCH_SIZE: Final = 1000  # pieces of work in one transaction
_ERRNOS: Final = {"SQLITE_FULL": errno.ENOSPC, "SQLITE_READONLY": errno.EROFS, "SQLITE_IOERR": errno.EIO}
_AWAY: Final = frozenset({"SQLITE_BUSY", "SQLITE_IOERR", "SQLITE_LOCKED"})  # maybe not for long
_DAMAGED: Final = frozenset({"SQLITE_CORRUPT", "SQLITE_ERROR", "SQLITE_FORMAT", "SQLITE_TOOBIG"})  # ERROR: lost tables


def checksum(*parts: object) -> str:
    """Return 16 hex digits that tell the parts of a row from damaged ones. SQL has it as a function of the same name."""
    return hashlib.blake2b(_encode(parts).encode(), digest_size=8).hexdigest()


class SQLiteFile:
    """
    A SQLite file that is made and opened when it is first needed. Once `run` has returned, its work survives a power cut.

    `schema` has, for each version of the format, the statements that lead to it from the version before, separated by
    semicolons. A file of an earlier version is brought up to date. Text that is not UTF-8 any more is decoded all the same,
    so that checksums find it.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        purpose: tuple[str, int],
        schema: tuple[str, ...],
        *,
        exclusive: bool = False,
        makes_folder: bool = False,
    ) -> None:
        self.path = Path(path)
        self._purpose, self._number = purpose  # a noun for messages; marks files of this kind (`PRAGMA application_id`)
        self._schema = schema
        self._exclusive = exclusive  # whether only one process may have the file open
        self._makes_folder = makes_folder  # whether a missing folder is made; else it is an error: it may be misspelt
        self._busy_timeout = 0.0 if exclusive else _BUSY_TIMEOUT
        self._connection: sqlite3.Connection | None = None
        self._pending: deque[tuple[Work, asyncio.Future[Any]]] = deque()
        self._caller: asyncio.AbstractEventLoop | None = None  # that will call a thread in its next turn
        self._lock = threading.Lock()  # held by the thread that works
        self._process = os.getpid()
        self._closed = False

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """
        Run work on a thread, in a transaction. Work of other tasks may share the transaction; each fails alone.

        A failure of SQLite or of the disk is a `StorageError`. It is a `ConfigurationError` if the file is closed, is not of
        this kind, or is open in another process.
        """
        loop = running_loop()
        if self._closed:
            raise ConfigurationError(f"{self} is closed: make another")
        if self._process != os.getpid():  # a fork: the parent's connection is not even closed ("How To Corrupt")
            _of_parents.append(self._connection)
            self._process, self._connection = os.getpid(), None
            self._pending, self._lock = deque(), threading.Lock()
        future: asyncio.Future[T] = loop.create_future()
        self._pending.append((work, future))
        if self._caller is not loop:
            self._caller = loop
            loop.call_soon(self._call)  # once for all tasks of this turn of the event loop
        return await FileWork(self.path).result(future)

    async def aclose(self) -> None:
        """Finish pending work and close the file. Closing twice is fine."""
        self._closed = True
        closing = submit(self._close)  # which a cancelled caller does not drop: the connection would stay open
        await FileWork(self.path).settled(closing)
        closing.result()

    def __str__(self) -> str:
        return f"the {self._purpose} {str(self.path)!r}"

    def _close(self) -> None:
        with self._lock:
            while self._pending:
                self._run_batch()
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def _call(self) -> None:
        """Have a thread run the pending work. A thread that works already looks for more when it is done."""
        self._caller = None
        if not self._lock.locked():
            pool().submit(self._drain)

    def _drain(self) -> None:
        """Run all pending work, unless another thread does that now."""
        while self._pending and self._lock.acquire(blocking=False):
            try:
                self._run_batch()
            finally:
                self._lock.release()

    def _run_batch(self) -> None:
        batch = [self._pending.popleft() for _ in range(min(len(self._pending), _BATCH_SIZE))]
        try:
            connection = self._open()
            with connection:  # commits, or rolls back after an error
                connection.execute("BEGIN IMMEDIATE")
                results = [_attempt(connection, work) for work, _ in batch]
        except Exception as error:  # noqa: BLE001 - all callers in the batch get it
            results = [(None, error) for _ in batch]
        outcomes: dict[asyncio.AbstractEventLoop, list[Outcome]] = {}
        for (_, future), (result, failure) in zip(batch, results, strict=True):
            translated = None if failure is None else self._translate(failure)
            outcomes.setdefault(future.get_loop(), []).append((future, result, translated))
        for loop, of_loop in outcomes.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_deliver, of_loop)  # once for all: each call writes to a socket

    def damaged(self, why: object) -> StorageError:
        """Return the error of a file that cannot be what was written."""
        words = repr(f"{why!s:.200}")[1:-1]  # SQLite's may have a part of the file, with any characters
        return StorageError(f"{self} is damaged ({words}): put back a copy of it, or use another file")

    def _translate(self, error: Exception) -> Exception:
        import sqlite3

        if isinstance(error, UnicodeDecodeError):  # of SQLite's sentence, which has a part of the file
            return self.damaged("its text is not UTF-8")
        if not isinstance(error, sqlite3.Error | OSError):
            return error
        name = "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])  # without what makes it more precise
        number = getattr(error, "errno", None) or _ERRNOS.get(name)
        translated: MediaError = StorageError(f"{self} failed: {error}", errno=number, retryable=name in _AWAY)
        if self._exclusive and name == "SQLITE_BUSY":
            translated = ConfigurationError(f"{self} is in use by another run: wait for its end, or use another file")
        elif name == "SQLITE_NOTADB":
            translated = self._other("file")
        elif name in _DAMAGED:
            translated = self.damaged(error)
        translated.__cause__ = error
        return translated

    def _other(self, kind: str) -> ConfigurationError:
        return ConfigurationError(f"{str(self.path)!r} is no {self._purpose}, but some other {kind}: use another path")

    def _open(self) -> sqlite3.Connection:
        import sqlite3

        start = time.monotonic()
        while self._connection is None:
            self._check_folder()
            timeout = self._busy_timeout
            connection = sqlite3.connect(self.path, timeout=timeout, isolation_level=None, check_same_thread=False)
            tried = time.monotonic()
            try:
                self._prepare(connection)
            except BaseException as error:
                connection.close()
                busy = self._exclusive and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
                if not busy or tried - start >= _TURN_SECONDS:
                    raise
                time.sleep(random.random() * 10 * max(_POLL_SECONDS, time.monotonic() - tried))  # noqa: S311 - chance parts them
            else:
                self._connection = connection
        return self._connection

    def _check_folder(self) -> None:
        folder = self.path.parent
        if self._makes_folder:
            folder.mkdir(parents=True, exist_ok=True)
        elif not folder.is_dir():
            missing = f"{self} cannot be opened: its folder does not exist: make it, or use another path"
            raise StorageError(missing, errno=errno.ENOENT)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.text_factory = lambda raw: raw.decode(errors="replace")
        connection.create_function("checksum", -1, checksum, deterministic=True)
        if self._exclusive:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        with connection:
            connection.execute("BEGIN")  # so that all it reads is of the same moment
            self._version(connection)  # raises, before anything of a foreign file is changed
        self._write_ahead(connection)
        connection.execute("PRAGMA synchronous = FULL")
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            if missing := self._schema[self._version(connection) :]:
                missing += (f"PRAGMA application_id = {self._number}", f"PRAGMA user_version = {len(self._schema)}")
            for statement in ";".join(missing).split(";"):
                connection.execute(statement)

    def _version(self, connection: sqlite3.Connection) -> int:
        """Return the version of the file's format, 0 for a new file. The first version did not write its number."""
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (number,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if number != self._number:
            if tables:
                raise self._other("database")
            return 0
        if not 0 <= version <= len(self._schema):
            what = f"{self} has format {version}, and this version of meta_media knows {len(self._schema)}"
            raise ConfigurationError(f"{what}: update meta_media, or use another file")
        return version or 1

    def _write_ahead(self, connection: sqlite3.Connection) -> None:
        """Turn on the write-ahead log. SQLite's busy timeout does not cover this statement, so it is repeated."""
        import sqlite3

        until = time.monotonic() + self._busy_timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                    raise
                time.sleep(_POLL_SECONDS)
            else:
                return


def _deliver(outcomes: list[Outcome]) -> None:
    """Give callers what they wait for, on their event loop."""
    for future, result, failure in outcomes:
        if future.done():  # the caller was cancelled
            continue
        if failure is None:
            future.set_result(result)
        else:
            future.set_exception(failure)


def _attempt(connection: sqlite3.Connection, work: Work) -> tuple[Any, Exception | None]:
    """Run one piece of work inside the transaction, and undo only that piece if it fails."""
    result, failure = None, None
    connection.execute("SAVEPOINT piece")
    try:
        result = work(connection)
    except Exception as error:  # its caller gets it, and nothing else in the transaction
        if not connection.in_transaction:  # a full disk, for example: SQLite has undone all of it
            raise
        connection.execute("ROLLBACK TO piece")
        failure = error
    connection.execute("RELEASE piece")
    return result, failure
