"""A SQLite file beside an event loop: one thread at a time works on it, and what is asked of it together is committed together."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from meta_media.bulk.caught import Caught
from meta_media.errors import ConfigurationError, MediaError, StorageError
from meta_media.transfer.threads import await_completion, run_in_thread, submit

if TYPE_CHECKING:
    import sqlite3
    from concurrent.futures import Future

__all__ = ["SQLiteFile"]

T = TypeVar("T")
Work = Callable[["sqlite3.Connection"], Any]
_BUSY_TIMEOUT: Final = 30.0  # seconds to wait for other processes' transactions, each of which takes milliseconds
_POLL_SECONDS: Final = 0.005  # seconds
_BATCH: Final = 1000  # pieces of work in one transaction


class SQLiteFile:
    """
    A file that is opened at first need; what `run` has returned from is on the disk, also after a power cut.

    Args:
        path: Its name; folder and file are made where there are none.
        purpose: What it is, for messages; and a number that tells it from other SQLite files.
        schema: Statements that make its tables where they are missing.
        exclusive: Whether no other process may have it open.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, purpose: tuple[str, int], schema: str, exclusive: bool = False
    ) -> None:
        self.path = Path(path)
        self._purpose, self._number = purpose
        self._schema = schema
        self._exclusive = exclusive
        self._connection: sqlite3.Connection | None = None
        self._pending: deque[tuple[Work, Future[Any]]] = deque()
        self._turn = threading.Lock()
        self._closed = False

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """
        Work on the file in a transaction, on a thread; other tasks' work may be part of it, but cannot undo this.

        Raises:
            StorageError: SQLite or the disk refused.
            ConfigurationError: It is closed, is no such file, or another process has it.
        """
        import asyncio
        from concurrent.futures import Future

        if self._closed:
            raise ConfigurationError(f"the {self._purpose} {str(self.path)!r} is closed")
        outcome: Future[T] = Future()
        self._pending.append((work, outcome))
        submit(self._drain)
        return await await_completion(asyncio.wrap_future(outcome))

    async def aclose(self) -> None:
        """Close the file; twice does no harm."""
        self._closed = True
        await run_in_thread(self._close)

    def _close(self) -> None:
        with self._turn:
            while self._pending:  # somebody waits for it
                self._work()
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def _drain(self) -> None:
        """Work until nothing is left to do, on whichever thread comes first; the others go away at once."""
        while self._pending and self._turn.acquire(blocking=False):
            try:
                self._work()
            finally:
                self._turn.release()

    def _work(self) -> None:
        batch = [self._pending.popleft() for _ in range(min(len(self._pending), _BATCH))]
        done: list[tuple[Any, Exception | None]] = []
        with Caught() as whole:
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            with contextlib.ExitStack() as undo:
                undo.callback(_rolled_back, connection)
                done = [_attempted(connection, work) for work, _ in batch]
                connection.execute("COMMIT")
        for number, (_, outcome) in enumerate(batch):
            result, failure = (None, whole.error) if whole.error else done[number]
            if failure is None:
                outcome.set_result(result)
            else:
                outcome.set_exception(self._translate(failure))

    def _translate(self, error: Exception) -> Exception:
        import sqlite3

        if not isinstance(error, sqlite3.Error | OSError):
            return error
        why = getattr(error, "sqlite_errorname", "")
        if self._exclusive and why.startswith("SQLITE_BUSY"):
            told: MediaError = ConfigurationError(
                f"the {self._purpose} {str(self.path)!r} is in use: only one run at a time can keep it"
            )
        elif why == "SQLITE_NOTADB":
            told = ConfigurationError(f"{str(self.path)!r} is no {self._purpose}, but some other file")
        else:
            told = StorageError(
                f"the {self._purpose} {str(self.path)!r} failed: {error}", errno=getattr(error, "errno", None)
            )
        told.__cause__ = error
        return told

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        import sqlite3

        self.path.parent.mkdir(parents=True, exist_ok=True)
        patience = 0.0 if self._exclusive else _BUSY_TIMEOUT
        connection = sqlite3.connect(self.path, timeout=patience, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if self._exclusive:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN")  # both answers are about the same moment
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (number,) = connection.execute("PRAGMA application_id").fetchone()
        connection.execute("COMMIT")
        if tables and number != self._number:
            raise ConfigurationError(f"{str(self.path)!r} is no {self._purpose}, but some other database")
        _write_ahead(connection, 0.0 if self._exclusive else _BUSY_TIMEOUT)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in self._schema.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {self._number}")
            connection.execute("COMMIT")
        finally:
            _rolled_back(connection)


def _write_ahead(connection: sqlite3.Connection, patience: float) -> None:
    """Change to a write-ahead log; while another process does so or writes, SQLite refuses that, and waits for nobody."""
    import sqlite3

    until = time.monotonic() + patience
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
            time.sleep(_POLL_SECONDS)
        else:
            return


def _attempted(connection: sqlite3.Connection, work: Work) -> tuple[Any, Exception | None]:
    """Do one piece of a transaction; if it fails, only that is undone."""
    result = None
    connection.execute("SAVEPOINT piece")
    with Caught() as caught:
        result = work(connection)
    if caught.error is not None:
        connection.execute("ROLLBACK TO piece")
    connection.execute("RELEASE piece")
    return result, caught.error


def _rolled_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.rollback()
