"""What the tests of downloads share: content, clients, and the three verbs."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meta_media import InboundMedia, MediaApi, MediaInfo, Settings, inbound_media, samples
from meta_media.emulator import Emulator
from meta_media.errors import MediaError
from tests.support.servers import Server

PHOTO = next(path for path in samples.paths() if path.name == "photo.jpg").read_bytes()
CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OLD = b"what was there before"
TOKEN = "EAAGscripted"
NUMBER = "106540352242922"
FILES = "/whatsapp_business/attachments/"
JPEG = "image/jpeg"


def client(server: Server, **settings: Any) -> MediaApi:
    """Make a client for a scripted server, which tries everything once."""
    chosen = {"chunk_size": 10_000, "max_retries": 0} | settings
    return MediaApi(TOKEN, NUMBER, settings=Settings(base_url=server.base_url, **chosen))


def known(server: Server, **changes: Any) -> MediaInfo:
    """Make what Meta might have said of `CONTENT` a while ago."""
    facts: dict[str, Any] = {
        "id": "1",
        "url": f"{server.base_url}/old",
        "mime_type": JPEG,
        "sha256": SHA256,
        "file_size": len(CONTENT),
    }
    return MediaInfo(**(facts | changes))


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """Write a reply that does not announce its length."""
    framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: image/jpeg\r\n\r\n" + framed + end


def listing(folder: Path) -> dict[str, bytes]:
    """Read all files of a folder."""
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


def seen(emulator: Emulator) -> list[str]:
    """List the requests that an emulator got, after the upload."""
    return [f"{request.method} {request.path}" for request in emulator.requests if request.method != "POST"]


def targets(server: Server) -> list[str]:
    """List the requests that a scripted server got."""
    return [request.target for request in server.requests]


def sockets() -> int:
    """Count this process's sockets."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            count += str(link.readlink()).startswith("socket:")
    return count


async def received(emulator: Emulator, content: bytes = PHOTO, mime_type: str = JPEG, **more: Any) -> InboundMedia:
    """Let a customer send something, and read the webhook."""
    body, _ = await emulator.receive(content, mime_type, **more)
    (inbound,) = inbound_media(json.loads(body))
    return inbound


async def download(media: MediaApi, what: Any, folder: Path) -> object:
    """Download over a file."""
    return await media.download(what, folder / "photo.jpg")


async def stream(media: MediaApi, what: Any, _: Path) -> object:
    """Stream to the end."""
    async with media.stream(what) as opened:
        return b"".join([chunk async for chunk in opened])


async def read(media: MediaApi, what: Any, _: Path) -> object:
    """Read into memory."""
    return await media.read(what)


Verb = Callable[[MediaApi, Any, Path], Any]
every_verb = pytest.mark.parametrize("verb", [download, stream, read])


async def failure(media: MediaApi, what: Any, verb: Verb, folder: Path, kind: type[MediaError]) -> Any:
    """Return the error of a download, after which everything is as it was before."""
    with pytest.raises(kind) as caught:
        await verb(media, what, folder)
    assert type(caught.value) is kind
    assert caught.value.operation == "download"
    assert listing(folder) == {"photo.jpg": OLD}
    return caught.value
