"""Bytes that are no body: headers, interim responses, chunk extensions and trailers that trickle or flood end in time."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import httpx
import pytest

from meta_media import MediaApi, Settings
from meta_media.errors import NetworkError, TransferTimeoutError
from meta_media.http.connection import RequestResponseCycle
from meta_media.http.stream import NetworkStream
from meta_media.http.timeouts import TransferTimeouts
from tests.support.marks import slow_except
from tests.support.servers import Received, Server, Step, endless, json_response

pytest_plugins = ["tests.support.clock"]
pytestmark = pytest.mark.usefixtures("steady_clock")  # the servers are on the loop of their clients

HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: image/jpeg\r\n"
CHUNKED: Final = HEAD + b"transfer-encoding: chunked\r\n\r\n"
INTERIM: Final = b"HTTP/1.1 102 Processing\r\n\r\n"
PARTS: Final = {  # what is sent first, and what goes on without end
    "headers": (HEAD, b"a: b\r\n"),
    "one header": (HEAD, b"x"),
    "interim": (b"", INTERIM),
    "extension": (CHUNKED + b"2;", b"x"),
    "extensions": (CHUNKED, b"1;" + b"x" * 1000 + b"\r\nx\r\n"),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n", b"a: b\r\n"),
}
SIZE: Final = 2 * 10**6  # bytes of an upload, for which `minimum_rate` allows half an hour

Call = Callable[[MediaApi], Awaitable[object]]
Serve = Callable[..., contextlib.AbstractAsyncContextManager[tuple[Server, MediaApi]]]


async def upload(api: MediaApi) -> object:
    """Upload what may take long."""
    return await api.upload(bytes(SIZE), filename="a.txt", mime_type="text/plain", validate=False)


CALLS: Final[dict[str, Call]] = {
    "get_info": lambda api: api.get_info("7"),
    "read": lambda api: api.read(f"{api.settings.base_url}/media"),
    "upload": upload,
    "delete": lambda api: api.delete("7"),
    "send": lambda api: api.send("+15550001111", "7", kind="image"),
}
QUICK: Final = [("one header", "upload"), ("interim", "send"), ("extension", "read"), ("trailers", "get_info")]
CASES: Final = [*QUICK, ("headers", "read"), ("interim", "upload"), ("extensions", "delete"), ("extensions", "read")]


@pytest.fixture(params=["ours", "injected"])
def client(request: pytest.FixtureRequest) -> Callable[[], httpx.AsyncClient] | None:
    """Make the caller's client, or none."""
    return httpx.AsyncClient if request.param == "injected" else None


@pytest.fixture(params=slow_except(["https"], ["http", "https"]))
def serve(request: pytest.FixtureRequest, tls: ssl.SSLContext, client: Callable[[], Any] | None) -> Serve:
    """Serve a script, and make an object that calls the server."""

    @contextlib.asynccontextmanager
    async def serving(*script: Step, **settings: Any) -> AsyncIterator[tuple[Server, MediaApi]]:
        async with contextlib.AsyncExitStack() as stack:
            secured = tls if request.param == "https" else None
            server = await stack.enter_async_context(Server(*script, tls=secured))
            given = await stack.enter_async_context(client()) if client else None
            configured = Settings(base_url=server.base_url, **{"max_retries": 0, **settings})
            api = await stack.enter_async_context(MediaApi("token", "1", settings=configured, http_client=given))
            yield server, api

    return serving


trickled = functools.partial(endless, pause=0.02)  # the pace


async def phase_of(call: Awaitable[object]) -> str | None:
    """Make a call that must be ended by a timeout, and return which."""
    with pytest.raises(TransferTimeoutError) as caught:
        await asyncio.wait_for(call, 30)
    return caught.value.phase


@pytest.mark.parametrize(("part", "call"), slow_except(QUICK, CASES))
async def test_trickle(part: str, call: str, serve: Serve, client: object) -> None:
    """What trickles beside a body counts as silence."""
    whole = part in {"extension", "extensions", "trailers"}  # the headers are, so that an injected client returns them
    settings = {"read_timeout": 0.3} if whole or client is None else {"deadline": 0.5}
    async with serve(trickled(*PARTS[part]), **settings) as (_, api):
        phase = await phase_of(CALLS[call](api))
    if part == "extensions":  # a byte of the body between each two of them
        assert phase in {"rate", "read"}
    else:
        assert phase == ("read" if "read_timeout" in settings else "deadline")


@pytest.mark.parametrize(("part", "call"), slow_except([("extensions", "read"), ("interim", "send")], CASES))
async def test_flood(part: str, call: str, serve: Serve, client: object) -> None:
    """What floods beside a body is ended: by its size, or by the deadline over an injected client that has no such limit."""
    before, more = PARTS[part]
    async with serve(endless(before, more * 200), deadline=20 if client is None else 0.5) as (_, api):
        with pytest.raises(NetworkError) as caught:
            await asyncio.wait_for(CALLS[call](api), 30)
    assert client is not None or "broke the rules of HTTP" in str(caught.value)


@pytest.mark.parametrize("call", slow_except(["upload"], ["upload", "get_info"]))
async def test_time_for_a_response(call: str, serve: Serve, client: object) -> None:
    """By default, headers have the time of headers: neither that of the upload before them nor that of a download."""
    waits = {"connect_timeout": 1, "read_timeout": 0.5, "write_timeout": 0.5}
    async with serve(trickled(*PARTS["one header"]), **waits) as (_, api):
        assert await phase_of(CALLS[call](api)) == ("read" if client is None else "deadline")


@pytest.mark.parametrize("call", slow_except(["upload"], ["upload", "get_info"]))
@pytest.mark.parametrize(
    "length", slow_except([b""], [b"", b"content-length: 1000000000\r\n"]), ids=["unknown", "huge"]
)
async def test_time_for_json(length: bytes, call: str, serve: Serve) -> None:
    """A JSON response has the time of a small one, whatever length it states, and at whatever rate it arrives."""
    waits = {"connect_timeout": 1, "read_timeout": 0.5, "write_timeout": 0.5, "minimum_rate": 0}
    async with serve(trickled(HEAD + length + b"\r\n", b" "), **waits) as (_, api):
        assert await phase_of(CALLS[call](api)) == "deadline"


@pytest.mark.parametrize("call", slow_except(["read"], ["read", "get_info"]))
async def test_deadline_of_a_flood(call: str, serve: Serve) -> None:
    """The deadline ends a body that always has bytes ready, in chunks of one byte."""
    async with serve(endless(CHUNKED, b"1\r\nx\r\n" * 1000), deadline=0.5) as (_, api):
        assert await phase_of(CALLS[call](api)) == "deadline"


async def test_deadline_of_a_flood_of_headers() -> None:
    """The deadline is noticed though the next byte of the headers is always there before the loop has looked at the time."""

    async def step(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        while True:
            writer.write(b"x")
            await asyncio.sleep(0)

    async with (
        Server(step) as server,
        MediaApi("token", "1", settings=Settings(base_url=server.base_url, max_retries=0, deadline=0.3)) as api,
    ):
        assert await phase_of(api.get_info("7")) == "deadline"


async def test_other_tasks_in_a_flood() -> None:
    """Other tasks get their turn while chunks of one byte are read."""
    turns, size = 0, 20_000

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with (
        Server(CHUNKED + b"1\r\nx\r\n" * size + b"0\r\n\r\n") as server,
        MediaApi("token", "1", settings=Settings(base_url=server.base_url)) as api,
        api.stream(f"{server.base_url}/media") as stream,
    ):
        counting = asyncio.ensure_future(count())
        assert len(await stream.read()) == size
        counting.cancel()
    assert turns > size / 100


# Interim responses


@pytest.mark.parametrize(
    ("said", "passes"),
    [
        (INTERIM * 32, True),
        (INTERIM * 33, False),
        (INTERIM.replace(b"\r\n\r\n", b"\r\nlink: %s\r\n\r\n" % (b"x" * 45_000)) * 2, True),
        (INTERIM.replace(b"\r\n\r\n", b"\r\nlink: %s\r\n\r\n" % (b"x" * 45_000)) * 3, False),
    ],
    ids=["32", "33", "90 KB", "135 KB"],
)
async def test_interim_responses_are_limited(said: bytes, passes: bool) -> None:
    """At most 32 interim responses, of together 100 KiB, come before a response."""

    async def step(_: Received, writer: asyncio.StreamWriter) -> None:
        for start in range(0, len(said), 1000):
            writer.write(said[start : start + 1000])
            await writer.drain()
        await asyncio.sleep(0.05)  # so that the response does not arrive with the last of them
        writer.write(json_response({"success": True}))

    async with Server(step) as server:
        settings = Settings(base_url=server.base_url, max_retries=0)
        async with MediaApi("token", "1", settings=settings) as api:
            if passes:
                assert (await api.delete("7")).success
                return
            with pytest.raises(NetworkError, match="broke the rules of HTTP"):
                await api.delete("7")


# During an upload


@contextlib.asynccontextmanager
async def busy(tls: ssl.SSLContext | None, pause: float, piece: int = 0) -> AsyncIterator[str]:
    """Serve interim responses from the first byte of a request on, and take `piece` bytes of it for each."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            while True:
                writer.write(INTERIM)
                await asyncio.gather(writer.drain(), asyncio.sleep(pause))  # the pace
                if piece:
                    await reader.readexactly(piece)

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        listener.bind(("127.0.0.1", 0))
        async with await asyncio.start_server(talk, sock=listener, limit=2**15, ssl=tls) as server:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"


class Pieces:
    """A source in pieces, which counts what was taken of it."""

    size = 20 * 10**6
    taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(0, self.size, 10**5):
            self.taken += 10**5
            yield bytes(10**5)


@pytest.mark.parametrize("secured", slow_except([True], [False, True]), ids=["http", "https"])
@pytest.mark.parametrize("injected", [False, True], ids=["ours", "injected"])
async def test_trickle_during_an_upload(secured: bool, injected: bool, tls: ssl.SSLContext) -> None:
    """Interim responses do not keep an upload alive that is not taken, and nothing is read ahead of it meanwhile."""
    source = Pieces()
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(busy(tls if secured else None, 0.05))
        given = await stack.enter_async_context(httpx.AsyncClient()) if injected else None
        settings = Settings(base_url=url, max_retries=0, write_timeout=1, validate=False, chunk_size=10**5)
        api = await stack.enter_async_context(MediaApi("token", "1", settings=settings, http_client=given))
        made = api.upload(source.__aiter__(), size=source.size, filename="a.txt", mime_type="text/plain")
        assert await phase_of(made) == "write"
    assert source.taken < (source.size if injected else 3 * 10**6)


@pytest.mark.parametrize("secured", slow_except([True], [False, True]), ids=["http", "https"])
async def test_flood_during_an_upload(secured: bool, tls: ssl.SSLContext) -> None:
    """A flood of interim responses ends an upload at once, though the server goes on taking it."""
    async with busy(tls if secured else None, 0, 1000) as url:
        settings = Settings(base_url=url, max_retries=0, validate=False)
        async with MediaApi("token", "1", settings=settings) as api:
            with pytest.raises(NetworkError, match="broke the rules of HTTP") as caught:
                await api.upload(bytes(8 * 10**6), filename="a.txt", mime_type="text/plain")
    assert not isinstance(caught.value, TransferTimeoutError)
    assert caught.value.maybe_applied


async def test_headers_have_their_time_when_the_body_has_left() -> None:
    """A server that takes the end of a request late, and responds late, has the time for each."""
    size = 200_000

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.7)  # in which nothing leaves
            await reader.readexactly(size)
            await asyncio.sleep(0.7)  # the response's delay
            writer.write(json_response({"id": "7"}))
            await writer.drain()

    timeouts = TransferTimeouts(connect=9, read=1.2, write=9, rate=0, deadline=None)
    with socket.socket() as listener, socket.socket() as connected:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**12)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**12)  # so that the last piece is one that waits
        listener.bind(("127.0.0.1", 0))
        async with await asyncio.start_server(take, sock=listener, limit=2**12):
            connected.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(connected, listener.getsockname())
            stream = NetworkStream(connected)
            await loop.create_connection(lambda: stream, sock=connected)
            cycle = RequestResponseCycle(stream, timeouts, lambda cycle: cycle.abort())
            with timeouts:
                headers = [("Host", "localhost"), ("Content-Length", str(size))]
                await cycle.send("POST", "/", headers, bytes(size))
            assert cycle.status == 200
            await cycle.aclose()


# Before a request


@pytest.mark.parametrize("injected", [False, True], ids=["ours", "injected"])
async def test_handshake_that_trickles(injected: bool, tls: ssl.SSLContext) -> None:
    """A TLS handshake has the time to connect in all."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            writer.write(b"\x16\x03\x03\x40\x00")  # the beginning of a record (RFC 8446, section 5.1)
            while not writer.is_closing():
                writer.write(b"\x02")
                await asyncio.sleep(0.02)  # the pace

    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(await asyncio.start_server(greet, "127.0.0.1", 0))
        given = await stack.enter_async_context(httpx.AsyncClient()) if injected else None
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        settings = Settings(base_url=url, max_retries=0, connect_timeout=0.4)
        api = await stack.enter_async_context(MediaApi("token", "1", settings=settings, http_client=given))
        assert await phase_of(api.get_info("7")) == "connect"


@pytest.mark.parametrize("part", ["one header", "interim"])
async def test_proxy_that_trickles(part: str, tls: ssl.SSLContext) -> None:
    """The response of a proxy to CONNECT has the time of headers."""
    async with Server(trickled(*PARTS[part])) as proxy:
        settings = Settings(proxy=proxy.base_url, base_url="https://graph.invalid", max_retries=0, read_timeout=0.3)
        async with MediaApi("token", "1", settings=settings) as api:
            assert await phase_of(api.get_info("7")) == "read"
