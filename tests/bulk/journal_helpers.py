"""Journals, SQLite files and scripted servers for the tests of journals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

from meta_media import MediaApi, Settings
from meta_media.bulk.journal import Journal
from meta_media.bulk.sqlite_file import SQLiteFile
from tests.support.servers import Received, Server, info, json_response, page

FULL: Final = Path(__file__).parents[1] / "scripts" / "bulk_full.py"
THREADS: Final = 16  # that all file work shares
REFUSED: Final = json_response({"error": {"message": "no", "code": 100}}, 400)
GONE: Final = json_response({"error": {"message": "gone", "code": 100, "error_subcode": 33}}, 400)
LONG: Final = "some text\n" * 10_000  # of a file whose hash is kept: it is longer than 64 KiB
PHOTO: Final = b"\xff\xd8\xff\xe0" + b"a photo" * 100


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Journal]:
    """Open a journal."""
    journal = Journal(path)
    try:
        await journal.open()
        yield journal
    finally:
        await journal.aclose()


@contextlib.asynccontextmanager
async def database(path: Path, *, exclusive: bool = False) -> AsyncIterator[SQLiteFile]:
    """Open a database with a table of names."""
    schema = ("CREATE TABLE names (name TEXT PRIMARY KEY)",)
    made = SQLiteFile(path, purpose=("list of names", 7), schema=schema, exclusive=exclusive)
    try:
        yield made
    finally:
        await made.aclose()


def added(connection: sqlite3.Connection, name: str) -> int:
    """Add a name, and count them."""
    connection.execute("INSERT INTO names VALUES (?)", (name,))
    return int(connection.execute("SELECT count(*) FROM names").fetchone()[0])


def adding(name: str) -> Callable[[sqlite3.Connection], int]:
    """Make work that adds a name."""
    return lambda connection: added(connection, name)


def asking(statement: str) -> Callable[[sqlite3.Connection], Any]:
    """Make work that executes a statement, and gives the first value that comes back."""
    return lambda connection: next(iter(connection.execute(statement)), (None,))[0]


def names(path: Path) -> list[str]:
    """List the names on the disk, as another program sees them."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM names ORDER BY name")]


def changed(path: Path, *statements: str) -> None:
    """Change a closed file, as damage or another program would."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@contextlib.contextmanager
def closed_to_writers(folder: Path) -> Iterator[None]:
    """Make a folder read-only, except for root."""
    folder.chmod(0o500)
    try:
        yield
    finally:
        folder.chmod(0o700)


@contextlib.asynccontextmanager
async def serving(*script: Any, **settings: Any) -> AsyncIterator[tuple[Server, MediaApi]]:
    """Run a scripted server, and a client for it that tries once."""
    async with (
        Server(*script) as server,
        MediaApi(
            "a-token", "1", settings=Settings(base_url=server.base_url, max_retries=0, concurrency=4, **settings)
        ) as api,
    ):
        yield server, api


def numbered() -> Any:
    """Make a step that gives each upload another id."""
    given = iter(range(100, 10_000))

    async def step(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(json_response({"id": str(next(given))}))

    return step


def old(path: Path, text: str) -> Path:
    """Write a file that has not just been changed."""
    path.write_text(text)
    os.utime(path, (time.time() - 60,) * 2)
    return path


def library(server: Server, content: bytes = PHOTO) -> Any:
    """Make a step that has a photo under every id."""

    async def step(request: Received, writer: asyncio.StreamWriter) -> None:
        media_id = request.target.split("?")[0].rpartition("/")[2]
        if request.target.startswith("/file"):
            writer.write(page(content, content_type="image/jpeg"))
        else:
            writer.write(info(f"{server.base_url}/file/{media_id}?hash=s", content, media_id=media_id))

    return step
