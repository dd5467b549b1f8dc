"""What the tests of full and broken disks share: files of any size, and a client for them."""

from __future__ import annotations

import errno
import hashlib
import random
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from meta_media import InboundMedia, MediaApi, Settings
from tests.support.servers import Server, json_response, page
from tests.support.stepping import LeanServer

SAVER: Final = Path(__file__).parents[1] / "scripts" / "saver.py"
OLD: Final = b"what was there before"
CHUNK: Final = 20_000
SIZE: Final = 90_000
SPOOLED: Final = 1_203_000  # bytes: more than is kept in memory, and the last of them less than a buffer holds
TEXT: Final = b"All work and no play. " * (SPOOLED // 22 + 1)
TEMPORARY: Final = re.compile(r"\.[0-9a-f]{16}\.meta-media\.part")
NUMBERS: Final = (errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EACCES)
WRITING: Final = frozenset({"open", "write", "truncate", "fsync", "fdatasync", "link", "mkdir"})  # what takes room


def content(size: int) -> bytes:
    """Make bytes of which every length is another file."""
    return random.Random(size).randbytes(size)


def digest(data: bytes) -> str:
    """Tell a file's content shortly."""
    return hashlib.sha256(data).hexdigest()


def answer(method: str, target: str) -> bytes:
    """Serve a file of the size in its URL; take any upload."""
    if method == "POST":
        return json_response({"id": "1"})
    return page(content(int(target.rpartition("/")[2])), content_type="image/jpeg")


def settings(server: LeanServer | Server, **more: Any) -> dict[str, Any]:
    """Say how to reach a server."""
    return {"base_url": server.base_url, "chunk_size": CHUNK, "backoff": 0.001} | more


def client(server: LeanServer | Server, **more: Any) -> MediaApi:
    """Make a client."""
    return MediaApi("a-token", "1", settings=Settings(**settings(server, **more)))


def media(server: LeanServer | Server, size: int = SIZE) -> InboundMedia:
    """Make what a webhook tells of a file."""
    url = f"{server.base_url}/media/{size}"
    return InboundMedia(id="7", kind="image", mime_type="image/jpeg", sha256=digest(content(size)), url=url)


def listing(folder: Path) -> dict[str, bytes]:
    """Read all files of a folder."""
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.is_file()}


def left_over(folder: Path) -> list[Path]:
    """List the temporary files in a folder and the folders in it."""
    return [entry for entry in folder.rglob("*") if TEMPORARY.fullmatch(entry.name)]


def made(folder: Path, name: str) -> Path:
    """Make a file with other content."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(OLD)
    return folder / name


async def pieces(size: int) -> AsyncIterator[bytes]:
    """Yield the first bytes of `TEXT` in pieces."""
    for start in range(0, size, 50_000):
        yield TEXT[start : min(start + 50_000, size)]
