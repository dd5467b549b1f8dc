"""A scripted HTTP server that sends exactly the given bytes, including what no correct web server sends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Self

import attrs

__all__ = [
    "Received",
    "Server",
    "Step",
    "cut",
    "endless",
    "info",
    "json_response",
    "open_files",
    "page",
    "reset",
    "silence",
    "stalled",
    "wait_until",
]


@attrs.frozen(kw_only=True)
class Received:
    """
    A request that was received completely.

    Attributes:
        method: As sent.
        target: Path and query.
        headers: Names in lower case, in order, repeated ones included.
        body: Without its chunked framing.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the one header of this name; more than one is an error."""
        values = [value for given, value in self.headers if given == name]
        assert len(values) < 2, f"{name} was sent {len(values)} times"
        return values[0] if values else None


Step = Callable[[Received, asyncio.StreamWriter], Awaitable[None]] | bytes


def page(
    body: bytes | str = b"", status: int = 200, *, length: int | str | None = -1, **headers: str | tuple[str, ...]
) -> bytes:
    """
    Write a complete response.

    Args:
        body: As it is.
        status: HTTP status.
        length: The value of Content-Length. Default: the true one. None omits it and closes the connection at the end.
        headers: With underscores for hyphens; a tuple is sent as several headers.
    """
    content = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} Scripted"]
    for name, values in headers.items():
        lines += [f"{name.replace('_', '-')}: {value}" for value in ((values,) if isinstance(values, str) else values)]
    lines.append(
        "connection: close" if length is None else f"content-length: {len(content) if length == -1 else length}"
    )
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + content


def json_response(value: object, status: int = 200, **headers: str) -> bytes:
    """Write a JSON response."""
    return page(json.dumps(value), status, content_type="application/json", **headers)


def info(url: str, content: bytes = b"", *, media_id: str = "1", mime_type: str = "image/jpeg", **more: Any) -> bytes:
    """Write Meta's response to a request about a media id."""
    known = {"messaging_product": "whatsapp", "id": media_id, "url": url, "mime_type": mime_type}
    return json_response(known | ({"file_size": len(content)} if content else {}) | more)


def cut(data: bytes) -> Step:
    """Send some bytes, then close the connection."""

    async def step(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()

    return step


def reset(data: bytes = b"") -> Step:
    """Send some bytes, then reset the connection (RST)."""

    async def step(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    return step


def endless(data: bytes, more: bytes) -> Step:
    """Send some bytes, then `more` without end."""

    async def step(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        while True:
            writer.write(more)
            await writer.drain()

    return step


def stalled(data: bytes, until: asyncio.Event, then: bytes = b"") -> Step:
    """Send some bytes, and `then` once the event is set."""

    async def step(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await until.wait()
        writer.write(then)

    return step


async def silence(_: Received, __: asyncio.StreamWriter) -> None:
    """Send nothing until the client closes the connection."""
    await asyncio.Event().wait()


class Server:
    """
    Sends one scripted response for each request; the last one again for all further requests.

    Attributes:
        requests: All that were received completely, the newest last.
        connections: The number of connections so far.
        most_at_once: The largest number of requests in progress at the same time.
    """

    def __init__(self, *script: Step, tls: ssl.SSLContext | None = None) -> None:
        self.script: list[Step] = list(script)
        self.requests: list[Received] = []
        self.connections = 0
        self.most_at_once = 0
        self._at_once = 0
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port that it listens on."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def base_url(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.ensure_future(self._converse(reader, writer))
        self._tasks.add(task)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                while not writer.is_closing():
                    request = await _received(reader)
                    step = self.script[min(len(self.requests), len(self.script) - 1)]
                    self.requests.append(request)
                    self._at_once += 1
                    self.most_at_once = max(self.most_at_once, self._at_once)
                    try:
                        await self._answer(step, request, reader, writer)
                    finally:
                        self._at_once -= 1
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(
        self, step: Step, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if isinstance(step, bytes):
            writer.write(step)
            await writer.drain()
            if b"connection: close" in step.partition(b"\r\n\r\n")[0]:
                writer.close()
            return
        answering = asyncio.ensure_future(step(request, writer))
        hung_up = asyncio.ensure_future(_end(reader)) if step is silence else None
        try:
            await asyncio.wait({answering, *({hung_up} if hung_up else ())}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in filter(None, (answering, hung_up)):
                task.cancel()
            await asyncio.gather(answering, return_exceptions=True)


async def _end(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


async def _received(reader: asyncio.StreamReader) -> Received:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    pairs = [line.partition(":") for line in lines if line]
    headers = tuple((name.lower(), value.strip()) for name, _, value in pairs)
    return Received(method=method, target=target, headers=headers, body=await _body(reader, dict(headers)))


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if "transfer-encoding" not in headers:
        return await reader.readexactly(int(headers.get("content-length", "0")))
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return body


def open_files(folder: str | os.PathLike[str]) -> list[str]:
    """List the files that this process has open below a folder, and all unnamed temporary files."""
    targets = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            targets.append(str(link.readlink()))
    return sorted(target for target in targets if target.startswith(os.fspath(folder)) or target.endswith("(deleted)"))


async def wait_until(condition: Callable[[], bool]) -> None:
    """Poll until a condition holds that no event announces."""
    while not condition():  # noqa: ASYNC110 - it changes in threads and in the system
        await asyncio.sleep(0.01)  # polling
