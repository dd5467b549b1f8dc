"""Requests and responses with plain heads, over a transport without a client: where a message ends, and what is used again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from meta_media.http.connection import RequestResponseCycle
from meta_media.http.exceptions import ExceptionMapper
from meta_media.http.response import Response
from meta_media.http.timeouts import TransferTimeouts
from meta_media.http.transport import Transport
from meta_media.protocol.requests import Request
from meta_media.protocol.secrets import Secret
from tests.support.servers import Server, page


def patient() -> TransferTimeouts:
    """Timeouts that are not reached."""
    return TransferTimeouts(connect=30, read=30, write=30, rate=0, deadline=None)


@contextlib.asynccontextmanager
async def cycle(
    transport: Transport, server: Server, method: str = "GET", content: Any = None, length: int | None = None
) -> AsyncIterator[RequestResponseCycle]:
    """Send a request, with a Content-Length if it is given."""
    headers = [("Host", "server"), *([] if length is None else [("Content-Length", str(length))])]
    sent = await transport.send(method, f"{server.base_url}/", headers, content, patient())
    try:
        yield sent
    finally:
        await sent.aclose()


async def body_of(sent: RequestResponseCycle) -> bytes:
    """Read a whole body."""
    return b"".join([piece async for piece in sent])


async def pieces(*each: bytes) -> AsyncIterator[bytes]:
    """Yield the pieces of a body."""
    for piece in each:
        yield piece


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """A transport, closed after the test."""
    made = Transport()
    yield made
    await made.aclose()


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: Keep-Alive\r\n\r\n"),
    ],
)
async def test_no_body(transport: Transport, method: str, said: bytes) -> None:
    """What has no body (RFC 9112, 6.3) is complete at the end of its head, whatever its length says."""
    async with Server(said, page("text")) as server:
        async with cycle(transport, server, method) as sent:
            assert await body_of(sent) == b""
            assert sent.complete
        async with cycle(transport, server) as sent:
            assert await body_of(sent) == b"text"
    assert server.connections == 1


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: Close\r\n\r\ntext",
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntext?",
        b"HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\ntext",
    ],
    ids=["close", "surplus", "surplus of 204"],
)
async def test_not_used_again(transport: Transport, said: bytes) -> None:
    """A connection is closed if the server says so, or if bytes follow the response."""
    async with Server(said, page("text")) as server:
        async with cycle(transport, server) as sent:
            await body_of(sent)
            assert not sent.complete
        async with cycle(transport, server) as sent:
            assert await body_of(sent) == b"text"
    assert server.connections == 2


@pytest.mark.parametrize("make", [lambda: b"text", lambda: pieces(b"te", b"xt")], ids=["bytes", "pieces"])
@pytest.mark.parametrize("length", [3, 5, None])
async def test_length_of_a_request(transport: Transport, make: Callable[[], Any], length: int | None) -> None:
    """A body that is not as long as its Content-Length, or that has none, is not sent, and the connection is closed."""
    async with Server(page("text")) as server:
        with pytest.raises(httpx.LocalProtocolError, match="shorter" if length == 5 else "longer"):
            async with cycle(transport, server, "POST", make(), length):
                pass
        assert not server.requests
        async with cycle(transport, server, "POST", b"text", 4) as sent:
            assert sent.request_sent
            assert await body_of(sent) == b"text"
    assert server.requests[0].body == b"text"


async def test_body_in_pieces(transport: Transport) -> None:
    """Pieces are sent as they are, large ones alone; the connection is used again."""
    each = (b"a" * 10, b"b" * 2**17, b"c" * 2**15, b"d")
    async with Server(page("text"), page("text")) as server:
        for _ in range(2):
            async with cycle(transport, server, "POST", pieces(*each), sum(map(len, each))) as sent:
                assert await body_of(sent) == b"text"
    assert [request.body for request in server.requests] == [b"".join(each)] * 2
    assert server.connections == 1


@pytest.mark.parametrize("at", [1, 20, 40, 43])
async def test_head_in_two(transport: Transport, at: int) -> None:
    """A head that comes in two pieces is the same as one that comes in one."""
    said, more = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nx: y\r\n\r\ntext", asyncio.Event()

    async def step(_: object, writer: asyncio.StreamWriter) -> None:
        writer.write(said[:at])
        await more.wait()
        writer.write(said[at:])

    async with Server(step, said) as server:
        waiting = asyncio.ensure_future(transport.send("GET", f"{server.base_url}/", [("Host", "x")], None, patient()))
        while not server.requests:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0)  # a turn of the loop
        await asyncio.sleep(0.05)  # for the first piece to arrive alone
        more.set()
        first = await waiting
        assert await body_of(first) == b"text"
        await first.aclose()
        async with cycle(transport, server) as second:
            assert await body_of(second) == b"text"
        assert (first.status, first.headers) == (second.status, second.headers)
    assert server.connections == 1


@pytest.mark.parametrize("limit", [3, 4])
async def test_limit_of_a_body(transport: Transport, limit: int) -> None:
    """A body that has arrived with its head is not returned either if it is longer than what the caller allows."""
    request = Request(operation="get_info", method="GET", url="http://server/")
    mapper = ExceptionMapper(request, None, hooked=False, secret=Secret())
    async with Server(page("text")) as server, cycle(transport, server) as sent:
        response = Response(sent, timeouts=patient(), mapper=mapper, refused=lambda _: None)
        assert await response.read(limit) == (b"text" if limit == 4 else None)
