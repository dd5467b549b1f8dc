"""A scripted HTTP server that sends exactly the given bytes, including what no correct web server sends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Self

import attrs


@attrs.frozen(kw_only=True)
class Received:
    """A request that was received completely."""

    method: str
    target: str  # path and query
    headers: tuple[tuple[str, str], ...]  # names in lower case, in order, repeated ones included
    body: bytes  # without its chunked framing

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
    Write a complete response. Names of headers have underscores for hyphens; a tuple is sent as several headers.

    Content-Length is the true one (-1) or `length`. None omits it, and the connection closes at the end.
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


def endless(data: bytes, more: bytes, pause: float = 0.0) -> Step:
    """Send some bytes, then `more` without end, with a pause of some seconds after each."""

    async def step(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        while True:
            writer.write(more)
            await writer.drain()
            if pause:
                await asyncio.sleep(pause)  # the pace

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


class Listener:
    """A server on a free port, whose conversations are tasks that end with it."""

    def __init__(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.tls = tls
        self._host = host
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
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _keep(self, conversation: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(conversation)
        self._tasks.add(task)
        return task


class Server(Listener):
    """Sends one scripted response for each request; the last one again for all further requests."""

    def __init__(self, *script: Step, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self.script: list[Step] = list(script)
        self.requests: list[Received] = []  # all that were received completely
        self.connections = 0  # so far
        self.most_at_once = 0  # requests in progress at the same time
        self._at_once = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self.tls)
        return self

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._keep(self._converse(reader, writer))

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


@contextlib.asynccontextmanager
async def hasty(refusal: bytes) -> AsyncIterator[str]:
    """Serve a refusal to each client that has only begun to upload. The URL is yielded."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(2**16)
        writer.write(refusal)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


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
