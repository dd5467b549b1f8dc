"""Where only the end of the connection ends a body, TLS without its farewell is no end, unless a checksum vouches."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from meta_media import MediaApi, MediaInfo, Settings
from meta_media.errors import MediaError, NetworkError
from tests.support.servers import Received, Server, Step, json_response, page

CONTENT = b"half of the bytes that were to come"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n23\r\n" + CONTENT + b"\r\n0\r\n\r\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def cut_off(data: bytes) -> Step:
    """Send bytes, and close the connection below TLS."""

    async def step(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.transport.abort()

    return step


def ended(data: bytes) -> Step:
    """Send bytes, and close TLS, then the connection."""

    async def step(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        writer.close()
        with contextlib.suppress(ssl.SSLError, OSError):
            await writer.wait_closed()

    return step


@pytest.fixture
async def server(tls: ssl.SSLContext) -> AsyncIterator[Server]:
    """A server over TLS that cuts its response off."""
    async with Server(cut_off(HEAD + CONTENT), tls=tls) as running:
        yield running


@pytest.fixture
async def media(server: Server) -> AsyncIterator[MediaApi]:
    """A client of the server."""
    async with MediaApi("token", "1", settings=Settings(base_url=server.base_url, max_retries=0)) as api:
        yield api


def known(server: Server, **facts: Any) -> MediaInfo:
    """What is known of the media."""
    return MediaInfo(id="7", url=f"{server.base_url}/media", mime_type="text/plain", **facts)


async def _downloaded(media: MediaApi, what: Any, folder: Path) -> bytes:
    saved = await media.download(what, folder / "copy.txt")
    assert saved.path is not None
    return await asyncio.to_thread(saved.path.read_bytes)


async def _read(media: MediaApi, what: Any, _: Path) -> bytes:
    return await media.read(what)


async def _streamed(media: MediaApi, what: Any, _: Path) -> bytes:
    async with media.stream(what) as stream:
        return b"".join([bytes(chunk) async for chunk in stream])


Verb = Callable[[MediaApi, Any, Path], Awaitable[bytes]]
each_verb = pytest.mark.parametrize("verb", [_downloaded, _read, _streamed])


@each_verb
async def test_a_url_alone(server: Server, media: MediaApi, verb: Verb, tmp_path: Path) -> None:
    """Of a bare URL neither a length nor a checksum is known: an error, tried again if there are retries, and no file."""
    with pytest.raises(NetworkError, match=r"in the middle of TLS.*: pass the media id") as caught:
        await verb(media, f"{server.base_url}/media", tmp_path)
    assert (caught.value.retryable, caught.value.lasting) == (True, False)
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - asks the disk once
    if verb is not _streamed:
        server.script = [cut_off(HEAD + CONTENT)] * (len(server.requests) + 1) + [ended(HEAD + CONTENT)]
        again = media.with_options(max_retries=1, backoff=0.001)
        assert await verb(again, f"{server.base_url}/media", tmp_path) == CONTENT


@each_verb
@pytest.mark.parametrize("facts", [{"sha256": SHA256}, {"file_size": len(CONTENT)}], ids=str)
async def test_what_vouches(server: Server, media: MediaApi, verb: Verb, facts: Any, tmp_path: Path) -> None:
    """A length or a checksum that Meta gave shows that all bytes have come."""
    assert await verb(media, known(server, **facts), tmp_path) == CONTENT


async def test_a_part(server: Server, media: MediaApi) -> None:
    """The checksum of the whole says nothing of a part whose end is not known."""
    async with media.stream(known(server, sha256=SHA256), end=1000) as stream:
        with pytest.raises(NetworkError, match="in the middle of TLS"):
            await stream.read()
    async with media.stream(known(server, sha256=SHA256), end=4) as stream:
        assert await stream.read() == CONTENT[:4]


@pytest.mark.parametrize("step", [ended(HEAD + CONTENT), cut_off(CHUNKED), cut_off(page(CONTENT))])
async def test_ends_that_are_marked(server: Server, media: MediaApi, step: Step) -> None:
    """TLS's farewell, the last chunk and a Content-Length mark the end."""
    server.script = [step]
    assert await media.read(f"{server.base_url}/media") == CONTENT
    assert (await media.client.get(f"{server.base_url}/media")).content == CONTENT


async def test_json(server: Server, media: MediaApi) -> None:
    """JSON marks its own end: the result of an upload is taken, so that it is not sent twice."""
    server.script = [cut_off(HEAD + json_response({"id": "7"}).partition(b"\r\n\r\n")[2])]
    assert (await media.upload(b"text")).id == "7"
    server.script = [page(), cut_off(HEAD + b'{"id": "7"')]
    with pytest.raises(MediaError, match="empty or incomplete"):
        await media.upload(b"text")


async def test_our_client(server: Server, media: MediaApi) -> None:
    """What is fetched over `media.client`, where nothing else vouches, and what is uploaded from there, is not cut either."""
    with pytest.raises(httpx.RemoteProtocolError):
        await media.client.get(f"{server.base_url}/media")
    async with media.client.stream("GET", f"{server.base_url}/media") as response:
        with pytest.raises(NetworkError):
            await media.upload(response)
    assert [request.method for request in server.requests] == ["GET", "GET"]


async def test_plain_http() -> None:
    """Plain HTTP, which is for this machine only, ends with the connection: nothing there tells a cut from an end."""
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(Server(page(CONTENT, length=None)))
        media = await stack.enter_async_context(MediaApi("token", "1", settings=Settings(base_url=server.base_url)))
        assert await media.read(f"{server.base_url}/media") == CONTENT
