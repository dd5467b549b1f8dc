"""A cell on stage: server, client, source and target, the call that is made, and what must be true afterwards."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from meta_media import DeletedMedia, DownloadedMedia, MediaApi, MediaInfo, UploadedMedia
from tests.faults.cells import Cell
from tests.faults.server import FaultServer

TOKEN: Final = "EAAGcanaryTOKENcanary"
APP_SECRET: Final = "canaryAPPSECRETcanary"
OLD: Final = b"what was there before"


@functools.cache
def lines(size: int) -> bytes:
    """Write text of which no two parts are alike: to begin at the wrong place shows."""
    return b"".join(b"line %09d\n" % number for number in range(size // 15 + 1))[:size]


CONTENT: Final = lines(50_000)
ELSEWHERE: Final = object()  # the value of a call that was made, and looked at, in another process


@attrs.define(kw_only=True)
class Scene:
    """What a set-up may change before, and a call uses."""

    cell: Cell
    server: FaultServer  # Graph, and the host of the media
    patch: pytest.MonkeyPatch  # undone at the end
    stack: AsyncExitStack  # left at the end
    source: Path  # the file that is uploaded
    folder: Path  # of `target`; at the end it holds nothing else but `others`
    target: Path
    handle: Any  # where the operation `handle` writes
    settings: dict[str, Any]
    others: set[str] = attrs.field(factory=set)
    overwrite: bool = True
    token: Any = TOKEN
    progress: Any = None  # of an upload or download; in a run, of the source that meets the faults
    run_progress: Any = None
    heard: list[Callable[[Any], Awaitable[None]]] = attrs.field(factory=list)  # awaited with each outcome of a run
    what: Any = None  # what is downloaded; set once the server is up
    call: Callable[[Scene], Awaitable[Any]]
    checks: list[Callable[[], bool]] = attrs.field(factory=list)  # what else must hold when all is over
    proofs: list[Callable[[], bool]] = attrs.field(factory=list)  # what must have happened, or the cell means nothing
    open_after: bool = True  # whether the client still serves after the call
    api: MediaApi = attrs.field(init=False)

    @property
    def sent(self) -> bytes:
        """What was to be uploaded."""
        return lines(self.cell.size)

    def known(self, media_id: str = "7") -> MediaInfo:
        """Tell of a media what Meta promised of it before."""
        promises, graph = self.cell.promises, self.server.graph
        before, graph.promises, graph.stored = graph.stored, set(promises), []
        facts = graph.facts(self.server.base_url, media_id)
        graph.stored = before
        return MediaInfo(**{name: value for name, value in facts.items() if name != "messaging_product"})

    def restart(self) -> None:
        """Let the world be as it was before a call that was only tried."""
        self.server.requests.clear()
        self.server.graph.deleted.clear()
        self.server.graph.stored.clear()
        if self.target.exists():
            self.target.write_bytes(OLD)
        for entry in self.folder.iterdir() if self.cell.items else ():
            if entry != self.target:
                entry.unlink()


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    """Yield content in pieces, from a source that does not have it at once."""
    for start in range(0, len(content), 100_000):
        await asyncio.sleep(0)
        yield content[start : start + 100_000]


async def _streamed(scene: Scene) -> bytes:
    async with scene.api.stream(scene.what) as stream:
        return b"".join([chunk async for chunk in stream])


OPERATIONS: Final[dict[str, Callable[[Scene], Awaitable[Any]]]] = {
    "upload": lambda scene: scene.api.upload(scene.source, progress=scene.progress),
    "upload once": lambda scene: scene.api.upload(pieces(scene.sent), filename="a.txt", size=scene.cell.size),
    "upload spooled": lambda scene: scene.api.upload(pieces(scene.sent), filename="a.txt"),
    "upload verified": lambda scene: scene.api.upload(scene.source, verify=True),
    "get_info": lambda scene: scene.api.get_info("7"),
    "download": lambda scene: scene.api.download(
        scene.what, scene.target, overwrite=scene.overwrite, progress=scene.progress
    ),
    "download of a URL": lambda scene: scene.api.download(str(scene.known().url), scene.target),
    "read": lambda scene: scene.api.read(scene.what),
    "stream": _streamed,
    "handle": lambda scene: scene.api.download(scene.what, scene.handle),
    "delete": lambda scene: scene.api.delete("7"),
    "send": lambda scene: scene.api.send("+15550001111", "7", kind="image"),
}


def check_value(scene: Scene, value: Any) -> None:
    """Check what a call gave that came out well."""
    operation = scene.cell.operation
    if value is ELSEWHERE:
        return
    if operation.startswith("upload"):
        assert isinstance(value, UploadedMedia)
        assert (value.id, value.file_size) == ("7", scene.cell.size)
        assert value.maybe_duplicate is scene.cell.maybe_duplicate
        assert scene.server.graph.stored
    elif operation == "get_info":
        assert isinstance(value, MediaInfo)
        assert value == scene.known()
    elif operation == "delete":
        assert value == DeletedMedia(success=True)
        assert scene.server.graph.deleted == {"7"} or "100/33" in scene.cell.names or "404" in scene.cell.names
    elif operation in {"read", "stream"}:
        assert value == CONTENT
    elif operation in {"download", "download of a URL", "handle"}:
        assert isinstance(value, DownloadedMedia)
        path = None if operation == "handle" else scene.target
        media_id = None if operation == "download of a URL" else "7"
        assert (value.path, value.size, value.media_id) == (path, len(CONTENT), media_id)
        assert operation != "handle" or Path(scene.handle.name).read_bytes() == CONTENT
    else:
        assert (operation, value.id) == ("send", "wamid.7")
        assert scene.server.graph.sent == 1
