"""
Downloads into a folder with a journal, and writes down what `os.fsync` was called for, until it is killed.

Its one argument is JSON: the server, the folder, the journal, the ids, and the file of notes. A note is a line of JSON: the
inode of a file that was flushed; or the inode of a folder, with the inodes of the names in it. `os.fsync` is not carried out:
what is noted counts as flushed.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from typing import Any

from meta_media import MediaApi, Settings

ORDER: dict[str, Any] = json.loads(sys.argv[1])


def note(fd: Any) -> None:
    """Note what a descriptor is open on, in one piece."""
    status = os.fstat(fd)
    noted: dict[str, Any] = {"inode": status.st_ino}
    if stat.S_ISDIR(status.st_mode):
        with os.scandir(fd) as entries:
            noted["names"] = {entry.name: entry.inode() for entry in entries}
    os.write(NOTES, json.dumps(noted).encode() + b"\n")


async def main() -> None:
    """Download all, and acknowledge each outcome."""
    async with (
        MediaApi("a-token", "1", settings=Settings(base_url=ORDER["base_url"], concurrency=4)) as api,
        api.download_many(ORDER["ids"], ORDER["folder"], journal=ORDER["journal"]) as run,
    ):
        async for outcome in run:
            done = {"id": outcome.source, "skipped": outcome.skipped, "path": str(outcome.result().path)}
            sys.stdout.write(json.dumps(done) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    NOTES = os.open(ORDER["notes"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.fsync = note
    asyncio.run(main())
