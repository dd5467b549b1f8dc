"""A stream as the body of a response of a web framework: an error where it was left, and its end where the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.responses import StreamingResponse

from meta_media import MediaApi
from meta_media.errors import ConfigurationError, MediaNotFoundError
from tests.support.servers import Server, page, stalled, wait_until
from tests.transfer.downloads import CONTENT, client, known

HALF = page(CONTENT[:25_000], length=len(CONTENT))


@pytest.fixture
async def single(server: Server) -> AsyncIterator[MediaApi]:
    """A client with one connection for downloads."""
    async with client(server, concurrency=1) as media:
        yield media


class MediaResponse(StreamingResponse):
    """A response that opens its stream first, as a program may write it itself."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Open the stream before the headers go out, and close it when the client leaves."""
        async with self.body_iterator:  # type: ignore[attr-defined]  # a MediaStream
            await super().__call__(scope, receive, send)


async def respond(response: StreamingResponse, sent: list[Any], *, version: str, leave: asyncio.Event) -> None:
    """Run a response as a server of this ASGI version does, for a client that leaves at the event."""

    async def receive() -> dict[str, Any]:
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if leave.is_set():
            raise OSError("the client is gone")

    scope = {"type": "http", "method": "GET", "asgi": {"spec_version": version}, "headers": []}
    await response(scope, receive, send)


@pytest.mark.parametrize("version", ["2.3", "2.4"])
async def test_a_client_that_leaves(server: Server, single: MediaApi, version: str) -> None:
    """The download ends when the client leaves, while a chunk is awaited or sent, and its connection is given back."""
    go_on, leave = asyncio.Event(), asyncio.Event()
    sent: list[Any] = []
    server.script = [stalled(HALF, go_on, CONTENT[25_000:])]
    response = MediaResponse(single.stream(known(server)))
    serving = asyncio.ensure_future(respond(response, sent, version=version, leave=leave))
    await wait_until(lambda: len(sent) == 3)
    leave.set()
    if version == "2.4":
        go_on.set()
    await asyncio.wait([serving])
    server.script, server.requests = [page(CONTENT)], []
    assert await single.read(known(server)) == CONTENT


async def test_a_download_that_fails_at_once(server: Server, single: MediaApi) -> None:
    """An error of the download is raised before the headers are sent."""
    server.script = [page(status=404)]
    sent: list[Any] = []
    with pytest.raises(MediaNotFoundError):
        await respond(MediaResponse(single.stream(known(server))), sent, version="2.4", leave=asyncio.Event())
    assert sent == []


async def test_a_stream_that_its_block_left(server: Server, single: MediaApi) -> None:
    """A view that returns the stream of a block that it leaves fails: no complete and empty body goes out."""
    server.script = [page(CONTENT)]

    async def view() -> StreamingResponse:
        async with single.stream(known(server)) as stream:
            return StreamingResponse(stream)

    sent: list[Any] = []
    response = await view()
    with pytest.raises(ConfigurationError, match="inside its block"):
        await respond(response, sent, version="2.4", leave=asyncio.Event())
    assert [message for message in sent if not message.get("more_body", True)] == []
