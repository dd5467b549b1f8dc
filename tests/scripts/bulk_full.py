"""
Runs over many items on a disk that becomes full at a certain moment, and prints what became of each, as JSON.

Its one argument is JSON too: where the server is, a folder on the small disk, and the moment: before an item is begun in the
journal, before it is noted there as done, before it is noted there that nothing came of it, or in the middle of downloads.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from meta_media import BulkRun, MediaApi, MediaError, Settings

ITEMS = 12
FULL_AT = 4  # the index of the item during which it happens


class Filler:
    """A file that takes all room there is."""

    def __init__(self, folder: str) -> None:
        self._path = Path(folder) / "filler"

    def fill(self, *_: object) -> None:
        """Take it, to the last byte."""
        with self._path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                os.write(file.fileno(), b"x" * 512)

    def free(self) -> None:
        """Give it back."""
        self._path.unlink()


def items(order: dict[str, Any], filler: Filler) -> list[Any]:
    """Make texts to upload, of which one fills the disk: while it is read, or while it is sent."""

    async def filling(text: bytes) -> AsyncIterator[bytes]:
        filler.fill()
        yield text

    texts: list[Any] = [f"This is item {number}.".encode() for number in range(ITEMS)]
    if order["moment"] == "begin":
        texts[FULL_AT] = (filling(texts[FULL_AT]), {"filename": "a.txt"})
    else:
        texts[FULL_AT] = (texts[FULL_AT], {"progress": filler.fill})
    return texts


def described(run: BulkRun[Any], outcomes: list[Any]) -> dict[str, Any]:
    """Describe outcomes by what JSON knows."""
    told = []
    for outcome in outcomes:
        error, described = outcome.error, {}
        if isinstance(error, MediaError):
            described = {"message": str(error), "media_id": error.media_id, "maybe_applied": error.maybe_applied}
        told.append(
            {
                "error": type(error).__name__ if error else None,
                "tried": outcome.tried,
                "skipped": outcome.skipped,
                "attempts": outcome.attempts,
                "duplicate": getattr(outcome.value, "maybe_duplicate", None),
                **described,
            }
        )
    ended_by = run.so_far.ended_by
    return {"outcomes": told, "ended by": type(ended_by).__name__ if ended_by else None}


async def done(run: BulkRun[Any]) -> dict[str, Any]:
    """Carry out a run."""
    async with run:
        return described(run, [outcome async for outcome in run])


async def main(order: dict[str, Any]) -> None:
    """Run until the disk is full, look at the journal, and run again once there is room."""
    filler, folder = Filler(order["folder"]), Path(order["folder"])
    journal = folder / "journal.sqlite"
    settings = Settings(base_url=order["base_url"], concurrency=1, max_retries=0)
    async with MediaApi("a-token", "1", settings=settings) as api:
        if order["moment"] == "download":
            run: BulkRun[Any] = api.download_many([str(number) for number in range(ITEMS)], folder)
            told = [await done(run)]
        else:
            told = [await done(api.upload_many(items(order, filler), journal=journal, in_order=True))]
            filler.free()
            with contextlib.closing(sqlite3.connect(journal)) as connection:
                told[0]["integrity"] = connection.execute("PRAGMA integrity_check").fetchone()[0]
            texts = [text[0] if isinstance(text, tuple) else text for text in items(order, filler)]
            texts[FULL_AT] = f"This is item {FULL_AT}.".encode()
            told.append(await done(api.upload_many(texts, journal=journal, in_order=True)))
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
