"""
Works in a place of its own - another file system, user or limit - and prints what became of each piece of work, as JSON.

Its one argument is JSON too: settings of a client, and a list of jobs. A job is a method's name, its arguments, and how
many files may be opened meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import resource
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from meta_media import InboundMedia, MediaApi, MediaError, Settings
from tests.support.servers import open_files


def listing(folder: str) -> dict[str, str]:
    """Tell the files of a folder by their hashes."""
    return {entry.name: hashlib.sha256(entry.read_bytes()).hexdigest() for entry in Path(folder).iterdir()}


def held_open() -> list[str]:
    """List the files that this process holds open."""
    return [name for name in open_files("/") if not name.startswith("/proc/")]


@contextlib.contextmanager
def at_most(more: int | None) -> Iterator[None]:
    """Let only so many more files be opened than are open now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers: list[int] = []
    if more is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        with contextlib.suppress(OSError):  # which comes when there is no room for another
            while True:
                fillers.append(os.dup(0))
        for _ in range(more):
            os.close(fillers.pop())
    try:
        yield
    finally:
        for filler in fillers:
            os.close(filler)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def pieces(size: int) -> AsyncIterator[bytes]:
    """Yield so many bytes, without saying beforehand how many they will be."""
    for _ in range(size // 1000):
        yield b"x" * 1000


async def done(api: MediaApi, job: dict[str, Any]) -> dict[str, Any]:
    """Do one job, and tell."""
    told: dict[str, Any] = {"error": None}
    before = held_open()
    try:
        with at_most(job.get("descriptors")):
            if job["work"] == "upload":
                source = pieces(job["size"]) if "size" in job else job["path"]
                await api.upload(source, filename="a.txt", mime_type="text/plain", validate=False)
            else:
                media = InboundMedia(id="7", kind="image", mime_type="image/jpeg", url=job["url"])
                await api.download(media, job["path"], overwrite=job.get("overwrite", True))
    except MediaError as error:
        names = [cls.__name__ for cls in type(error).__mro__]
        told |= {"error": names, "message": str(error), "errno": getattr(error, "errno", None)}
        told |= {"attempts": error.attempts}
    told["left open"] = [name for name in held_open() if name not in before]
    if folder := job.get("folder"):
        told["listing"] = listing(folder)
    return told


async def main(order: dict[str, Any]) -> None:
    """Do all jobs with one client."""
    async with MediaApi("a-token", "1", settings=Settings(**order["settings"])) as api:
        for job in order["jobs"]:
            sys.stdout.write(json.dumps(await done(api, job)) + "\n")


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
