"""
Runs the rows of one subject, and writes what became of each: `python -m tests.libraries.driver SUBJECT RESULTS [ROW]`.

It runs where the libraries are installed. Each line of the file RESULTS is one row and size, as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib
import inspect
import json
import logging
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from email.message import Message
from pathlib import Path
from typing import Any, Final

from meta_media import MediaApi
from meta_media.emulator import Emulator, EmulatorSettings
from meta_media.errors import MediaError
from tests.libraries.table import Row, Seen, content

__all__ = ["Missing", "Servers", "Trial", "lib"]

_TIMEOUT: Final = 60.0  # seconds for a row
lib: Final = importlib.import_module  # the libraries are installed only where a row runs


class Missing(Exception):  # noqa: N818  it is no error of the row
    """Something that a row needs cannot be had on this machine."""


class Servers:
    """Servers that many rows share: each is started at the first need, and ended with the driver."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._running: dict[Any, Any] = {}

    async def get(self, start: Callable[[], Any]) -> Any:
        """Return what the async context manager of `start` gives, or the reason why there is none."""
        if start not in self._running:
            try:
                self._running[start] = await self._stack.enter_async_context(start())
            except Missing as missing:
                self._running[start] = missing
        if isinstance(self._running[start], Missing):
            raise self._running[start]
        return self._running[start]


class Trial:
    """One run of a row: the file to send, a client of the emulator, and what became of it."""

    def __init__(
        self, row: Row, size: str, folder: Path, emulator: Emulator, media: MediaApi, servers: Servers
    ) -> None:
        self.content = content(size, row.kind)
        self.folder = folder
        self.path = folder / ("photo.jpg" if row.kind == "photo" else "note.txt")
        self.path.write_bytes(self.content)
        self.emulator = emulator
        self.media = media
        self.stack = AsyncExitStack()
        self.seen: Seen = {"result": "broken", "sentence": "the row did nothing"}
        self.server = servers.get

    def enter(self, manager: Any) -> Any:
        """Enter a context manager until the row ends."""
        return self.stack.enter_context(manager)

    async def aenter(self, manager: Any) -> Any:
        """Enter an async context manager until the row ends."""
        return await self.stack.enter_async_context(manager)

    async def made(self, make: Callable[[Trial], Any]) -> Any:
        """Call, and await what it gives if that is a coroutine."""
        made = make(self)
        return await made if inspect.iscoroutine(made) else made

    async def attempt(self, work: Awaitable[Any]) -> Any:
        """Await, and record how it ends."""
        try:
            with lib("blockbuster").blockbuster_ctx("meta_media"):  # a call that blocks the event loop is an error
                result = await work
        except MediaError as error:
            self.seen = {"result": "refused", "error": type(error).__name__, "sentence": str(error)}
        except Exception as error:  # noqa: BLE001  this is what a row is about: a raw exception
            name = f"{type(error).__module__}.{type(error).__qualname__}"
            self.seen = {"result": "raw", "error": name, "sentence": str(error)[:300]}
        else:
            self.seen = {"result": "done"}
            return result

    async def upload(self, source: Any, media: MediaApi | None = None, **keywords: Any) -> None:
        """Upload, and look at what has arrived."""
        uploaded = await self.attempt((media or self.media).upload(source, **keywords))
        if uploaded is not None:
            self.seen |= await self.stored(uploaded.id)

    async def sent(self) -> str:
        """Upload the file by its path, and return its id: there is something to download."""
        return (await self.media.upload(self.path)).id

    async def download(self, destination: Any, **keywords: Any) -> None:
        """Download the file. Afterwards `wrote` tells what the destination holds."""
        await self.attempt(self.media.download(await self.sent(), destination, **keywords))

    async def stored(self, media_id: str) -> Seen:
        """Fetch what the emulator holds, past our own downloads."""
        info = await self.media.get_info(media_id)
        headers = {"Authorization": f"Bearer {self.emulator.access_token}", "User-Agent": "driver"}
        response = await self.media.client.get(info.url, headers=headers)
        disposition = Message()
        disposition["Content-Disposition"] = response.headers["content-disposition"]
        return {"name": disposition.get_filename(), "mime_type": info.mime_type, **described(response.content)}

    def wrote(self, data: Any) -> None:
        """Record what is where the download was to go."""
        self.seen |= described(bytes(data))


def described(data: bytes) -> Seen:
    """Describe bytes."""
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


async def run(row: Row, size: str, *given: Any) -> Seen:
    """Run a row once."""
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(row, size, Path(folder), *given)
        try:
            async with asyncio.timeout(_TIMEOUT):
                await row.run(trial)
        except Missing as missing:
            return {"result": "missing", "sentence": str(missing)}
        except Exception as error:  # noqa: BLE001  one broken row must not hide the others
            return {"result": "broken", "sentence": "".join(traceback.format_exception(error))}
        finally:
            with contextlib.suppress(Exception):  # what a library says of an upload that failed is not the row's result
                await trial.stack.aclose()
        return trial.seen


async def main(subject: str, results: Path, only: str | None) -> None:
    """Run the rows of a subject."""
    rows: list[Row] = lib(f"tests.libraries.rows.{subject}").TABLE
    settings = EmulatorSettings(content_disposition=True)
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(Emulator(settings=settings))
        media = await stack.enter_async_context(emulator.api(max_retries=0))
        servers = Servers(stack)
        with results.open("w") as lines:
            for row in rows:
                for size in row.sizes if only in {None, row.name} else ():
                    seen = {"row": row.name, "of": size, **await run(row, size, emulator, media, servers)}
                    lines.write(json.dumps(seen) + "\n")
                    lines.flush()


if __name__ == "__main__":
    logging.disable()  # some libraries print every request
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None))
