"""
The emulator's data folder: whether it is one, and its database.

A folder of other files is refused before anything in it is touched. The database is read as input: its tables, its structure
and each of its rows are checked before anything is deleted.
"""

from __future__ import annotations

import os
import re
import reprlib
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, Final
from zlib import crc32

from meta_media.errors import ConfigurationError, StorageError

__all__ = ["folder_errors", "open_database", "open_media", "read_rows", "shown", "sweep", "write_row"]

_DATABASE: Final = "emulator.sqlite3"
_OF_SQLITE: Final = {_DATABASE + suffix for suffix in ("", "-journal", "-shm", "-wal")}
_NUMBER: Final = 0x6D6D_6531  # "mme1": marks the database as an emulator's (`PRAGMA application_id`)
_VERSION: Final = 1  # of the tables (`PRAGMA user_version`)
_TABLES: Final[Mapping[str, tuple[str, ...]]] = {  # their columns; the first is the key
    "setting": ("name", "value", "checksum"),
    "token": ("access_token", "numbers", "expires_at", "forbidden", "checksum"),
    "media": ("id", "phone_number_id", "mime_type", "sha256", "file_size", "filename", "expires_at", "checksum"),
}
_COLUMNS: Final = "SELECT t.name, c.name FROM sqlite_master t, pragma_table_info(t.name) c WHERE t.type = 'table'"
_MEDIA_FILE: Final = re.compile(r"[1-9][0-9]{15}(\.part)?")  # as `IncomingFile` names them
_TIMEOUT: Final = 0.5  # seconds to wait for another emulator that is just being refused
_ELSEWHERE: Final = "use another folder: Emulator(FOLDER), serve --data FOLDER"
_MAX_SHOWN: Final = 200  # characters of a path or a reason in an error


@contextmanager
def folder_errors(folder: Path) -> Iterator[None]:
    """Translate what goes wrong with a data folder into one sentence."""
    try:
        yield
    except OSError as error:
        what = f"the emulator could not keep data in {shown(folder)}: {error.strerror}"
        raise StorageError(what, errno=error.errno) from error
    except (sqlite3.Error, TypeError, ValueError) as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith("SQLITE_BUSY"):
            raise _unusable(folder, f"another emulator uses it: stop that one, or {_ELSEWHERE}") from error
        if name.startswith(("SQLITE_CANTOPEN", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_PERM", "SQLITE_READONLY")):
            raise StorageError(f"the emulator could not keep data in {shown(folder)}: {error}") from error
        raise _unusable(folder, f"it is damaged ({error}): {_ELSEWHERE}") from error


def open_database(folder: Path) -> sqlite3.Connection:
    """Open the database of a data folder. A missing folder is made, and an empty one gets a database."""
    folder.mkdir(parents=True, exist_ok=True)
    names, database = {path.name for path in folder.iterdir()}, folder / _DATABASE
    if not names:
        with suppress(FileExistsError):  # two emulators start at once
            # It holds the secret that signs URLs. SQLite gives its side files the same mode.
            os.close(os.open(database, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    elif _DATABASE not in names:
        why = f"it holds files, but no {_DATABASE}: use an empty folder, or one of the emulator's"
        raise ConfigurationError(f"{shown(folder)} is not a folder of the emulator's: {why}")
    # It is not opened to look at it: closing it would release the lock of another emulator in this process (SQLite's
    # "How To Corrupt An SQLite Database File", section 2.2).
    elif not S_ISREG(os.lstat(database).st_mode):
        raise _unusable(folder, f"it is not a regular file: {_ELSEWHERE}")
    connection = sqlite3.connect(database, timeout=_TIMEOUT, isolation_level=None, check_same_thread=False)
    try:
        connection.text_factory = bytes.decode  # raises for what is not UTF-8, as a ValueError
        with connection:
            connection.execute("BEGIN IMMEDIATE")  # of two emulators that start at once, one goes on
            # Only now: in this mode, the other one would keep a lock while it waits, and both would be refused.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            if _is_new(connection, folder, names):
                _make_tables(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection


def open_media(folder: Path) -> Path:
    """Return the folder of the media's bytes, which is made if it is missing."""
    media = folder / "media"
    with suppress(FileExistsError):
        media.mkdir(mode=0o700)
    if not S_ISDIR(os.lstat(media).st_mode):  # a link leads to files of others
        raise ConfigurationError(
            f"{shown(media)} is not a folder, but a link or a file: remove it, or use another folder"
        )
    return media


def read_rows(connection: sqlite3.Connection, table: str, key: str | None = None) -> list[tuple[Any, ...]]:
    """Return the rows of a table, or of a key in its first column; a `ValueError` if one has changed since it was written."""
    columns, keys = _TABLES[table], () if key is None else (key,)
    where = f" WHERE {columns[0]} = ?" if keys else ""
    rows: list[tuple[Any, ...]] = []
    for *row, checksum in connection.execute(f"SELECT {', '.join(columns)} FROM {table}{where}", keys):  # noqa: S608 - constants
        if checksum != _checksum(row):
            raise ValueError(f"row {len(rows) + 1} of its table {table} has changed")
        rows.append(tuple(row))
    return rows


def write_row(connection: sqlite3.Connection, table: str, row: Sequence[object]) -> None:
    """Write a row, in the place of one with the same key."""
    columns, places = ", ".join(_TABLES[table]), ", ".join("?" * len(_TABLES[table]))
    statement = f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({places})"  # noqa: S608 - constants
    connection.execute(statement, (*row, _checksum(row)))


def _checksum(row: Sequence[object]) -> int:
    return crc32(repr(tuple(row)).encode())


def sweep(media: Path, known: Collection[str]) -> None:
    """Delete the files of unknown media. Files that the emulator has not made, and links, stay."""
    with os.scandir(media) as entries:
        for entry in entries:
            made_here = _MEDIA_FILE.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
            if made_here and entry.name not in known:
                with suppress(OSError):  # it is gone already, or may not be deleted
                    Path(entry).unlink()


def shown(path: str | os.PathLike[str]) -> str:
    """Return a path for a message, without its middle if it is long."""
    short = reprlib.Repr()
    short.maxstring = _MAX_SHOWN
    return short.repr(os.fspath(path))


def _unusable(folder: Path, why: str) -> ConfigurationError:
    return ConfigurationError(f"the emulator cannot use its database {shown(folder / _DATABASE)}: {why}")


def _is_new(connection: sqlite3.Connection, folder: Path, names: set[str]) -> bool:
    """Return whether the database is still without tables. Raise unless it is an emulator's of this version, and whole."""
    (number,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    found = set(connection.execute(_COLUMNS))
    if not (number or version or found) and names <= _OF_SQLITE:
        return True
    if number != _NUMBER:
        raise _unusable(folder, f"it is not an emulator's: {_ELSEWHERE}")
    if version != _VERSION:
        age, update = ("a later", "update meta_media, or ") if version > _VERSION else ("an earlier", "")
        raise _unusable(folder, f"it is of {age} version: {update}{_ELSEWHERE}")
    if lost := sorted({(table, column) for table, columns in _TABLES.items() for column in columns} - found):
        raise _unusable(folder, f"it lacks {'.'.join(lost[0])}: {_ELSEWHERE}")
    (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise ValueError(" ".join(verdict.split())[:_MAX_SHOWN])
    return False


def _make_tables(connection: sqlite3.Connection) -> None:
    for table, columns in _TABLES.items():
        connection.execute(f"CREATE TABLE {table} ({', '.join(columns)}, PRIMARY KEY ({columns[0]})) WITHOUT ROWID")
    connection.execute(f"PRAGMA application_id = {_NUMBER}")
    connection.execute(f"PRAGMA user_version = {_VERSION}")
