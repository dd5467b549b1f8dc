"""Our connections: which one is used again, which one never, and what a server's early word does to an upload."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import hashlib
import random
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
from anyio.from_thread import start_blocking_portal

from meta_media import MediaApi, Settings, Source
from meta_media.errors import UploadRejectedError
from meta_media.http.connection import RequestResponseCycle
from meta_media.http.timeouts import TransferTimeouts
from meta_media.http.transport import Transport
from meta_media.transfer.readers import BATCH_SIZE
from tests.support.servers import (
    Received,
    Server,
    Step,
    cut,
    endless,
    info,
    json_response,
    page,
    reset,
    silence,
    stalled,
    wait_until,
)
from tests.support.stepping import LeanServer, settled_at

LARGE = 30 * 10**6
AHEAD = 2**20  # bytes that may still be sent once the answer is there
POISON = page("poison")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A plain client over our transport."""
    async with httpx.AsyncClient(transport=Transport()) as made:
        yield made


def trusting() -> httpx.AsyncClient:
    """Make a client over our transport that trusts this machine."""
    return httpx.AsyncClient(transport=Transport(ssl.create_default_context()), timeout=30)


def patient() -> TransferTimeouts:
    """Make a clock that is generous."""
    return TransferTimeouts(connect=30, read=30, write=30, rate=0, deadline=None)


# Which connection


async def test_latest_first(client: httpx.AsyncClient) -> None:
    """The connection used last is used next, so that the others can expire."""
    async with LeanServer(lambda *_: page("text")) as server:
        await asyncio.gather(*(client.get(server.base_url) for _ in range(3)))
        latest = server.served_by[-1]
        for _ in range(3):
            await client.get(server.base_url)
    assert (server.connections, server.served_by[3:]) == (3, [latest] * 3)


async def test_closed_by_the_server_while_idle(client: httpx.AsyncClient) -> None:
    """A connection that the server has closed meanwhile is passed over, wherever it lies in the stack."""
    async with LeanServer(lambda *_: page("text")) as server:
        await asyncio.gather(*(client.get(server.base_url) for _ in range(2)))
        latest = next(each for each in server.open if each._number == server.served_by[-1])
        latest.transport.close()
        await settled_at(1, lambda: len(server.open))
        await asyncio.sleep(0.05)  # so that word of it arrives
        assert (await client.get(server.base_url)).text == "text"
        assert server.connections == 2
        for last in tuple(server.open):
            last.transport.close()
        await settled_at(0, lambda: len(server.open))
        await asyncio.sleep(0.05)  # so that word of it arrives
        assert (await client.get(server.base_url)).text == "text"
        assert server.connections == 3


async def test_idle_connections_expire(client: httpx.AsyncClient) -> None:
    """A connection that was idle for longer than servers keep one is not used again."""
    async with LeanServer(lambda *_: page("text")) as server:
        await asyncio.gather(*(client.get(server.base_url) for _ in range(2)))
        await asyncio.sleep(5.2)  # a little longer than they are kept
        await client.get(server.base_url)
        await settled_at(1, lambda: len(server.open))
    assert server.connections == 3


@pytest.mark.parametrize("late", [False, True], ids=["at once", "later"])
async def test_surplus_is_no_answer(client: httpx.AsyncClient, late: bool) -> None:
    """Bytes after a reply close the connection, and never become the answer to the next request."""
    more = asyncio.Event()
    first = stalled(page("first"), more, POISON) if late else page("first") + POISON
    async with Server(first, page("second")) as server:
        assert (await client.get(server.base_url)).text == "first"
        more.set()
        await asyncio.sleep(0.1)  # so that the surplus arrives
        assert (await client.get(server.base_url)).text == "second"
    assert server.connections == 2


async def test_half_read_body(client: httpx.AsyncClient) -> None:
    """A reply that was not read to its end takes its connection along."""
    async with Server(endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 10**5), page("next")) as server:
        async with client.stream("GET", server.base_url) as response:
            assert await anext(response.aiter_raw())
        assert (await client.get(server.base_url)).text == "next"
    assert server.connections == 2


async def test_no_keep_alive(client: httpx.AsyncClient) -> None:
    """A server that wants to close after its reply is believed."""
    async with Server(page("text", length=None)) as server:
        for _ in range(3):
            assert (await client.get(server.base_url)).text == "text"
    assert server.connections == 3


@pytest.mark.parametrize("secured", [False, True], ids=["http", "https"])
async def test_closed_by_the_server_unheard(secured: bool, tls: ssl.SSLContext) -> None:
    """A connection that the server has closed is not used, even if the event loop has had no turn to hear of it."""
    closing, closed = threading.Event(), threading.Event()

    def serve() -> None:
        for number in range(2):
            with listener.accept()[0] as plain, wrap(plain) as connection:
                connection.recv(2**16)
                connection.sendall(page(f"reply {number}"))
                closing.wait(30)
            closed.set()

    def wrap(plain: socket.socket) -> contextlib.AbstractContextManager[socket.socket]:
        return tls.wrap_socket(plain, server_side=True) if secured else contextlib.nullcontext(plain)

    def block_until_closed() -> None:
        closing.set()
        assert closed.wait(30)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"{'https' if secured else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=serve)
        thread.start()
        async with trusting() as client:
            assert (await client.get(url)).text == "reply 0"
            block_until_closed()
            assert (await client.get(url)).text == "reply 1"
        thread.join()


@pytest.mark.parametrize(
    ("head", "body", "reused"),
    [
        (b"200 OK\r\ncontent-length: 4", b"text", True),
        (b"200 OK\r\ncontent-length: 0", b"", True),
        (b"200 OK\r\ntransfer-encoding: chunked", b"3\r\ntex\r\n1;of=it\r\nt\r\n0\r\n\r\n", True),
        (b"200 OK\r\ntransfer-encoding: chunked", b"4\r\ntext\r\n0\r\ntrailer: x\r\n\r\n", True),
        (b"200 OK\r\ntransfer-encoding: chunked", b"4\r\ntext\r\n0\r\n\r\n" + POISON, False),
        (b"200 OK\r\ntransfer-encoding: chunked\r\nconnection: close", b"4\r\ntext\r\n0\r\n\r\n", False),
        (b"200 OK\r\ncontent-length: 4\r\nconnection: close", b"text", False),
        (b"200 OK", b"text", False),
        (b"204 No Content", b"", True),
        (b"304 Not Modified\r\ncontent-length: 99", b"", True),
    ],
)
@pytest.mark.parametrize("secured", [False, True], ids=["http", "https"])
async def test_every_sort_of_body(secured: bool, head: bytes, body: bytes, reused: bool, tls: ssl.SSLContext) -> None:
    """A reply's body is found whatever marks its end, and its connection serves again only if it can."""

    async def reply(_: object, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 " + head + b"\r\n\r\n" + body)
        if b"-" not in head and b"204" not in head:
            writer.close()

    async with Server(reply, page("next"), tls=tls if secured else None) as server, trusting() as client:
        response = await client.get(server.base_url)
        assert response.content == (b"text" if body else b"")
        assert (await client.get(server.base_url)).text == "next"
    assert server.connections == (1 if reused else 2)


async def test_reply_to_head(client: httpx.AsyncClient) -> None:
    """A reply to HEAD has no body, whatever it says of its length, and its connection serves again."""
    chunked = page(length=None).replace(b"connection: close", b"transfer-encoding: chunked")
    async with Server(page(length=99), chunked, page("next")) as server:
        for _ in range(2):
            assert (await client.head(server.base_url)).content == b""
        assert (await client.get(server.base_url)).text == "next"
    assert server.connections == 1


async def test_reply_of_http_1_0(client: httpx.AsyncClient) -> None:
    """A connection over which HTTP/1.0 was spoken does not serve again."""
    async with Server(page("old").replace(b"HTTP/1.1", b"HTTP/1.0"), page("next")) as server:
        assert (await client.get(server.base_url)).text == "old"
        assert (await client.get(server.base_url)).text == "next"
    assert server.connections == 2


async def test_sixty_four_at_once() -> None:
    """Five hundred calls with 64 places make at most 64 connections, and use them again."""
    async with (
        LeanServer(lambda *_: json_response({"id": "7"})) as server,
        MediaApi("token", "1", settings=Settings(base_url=server.base_url, concurrency=64)) as api,
    ):
        await asyncio.gather(*(api.upload(b"text") for _ in range(500)))
    assert len(server.requests) == 500
    assert server.connections <= 64


async def test_closed_twice() -> None:
    """An exchange that is closed twice gives its connection back once."""
    async with LeanServer(lambda *_: page("text")) as server:
        transport = Transport()
        timeouts = TransferTimeouts(connect=20, read=20, write=20, rate=0, deadline=None)
        for _ in range(2):
            exchange = await transport.send("GET", f"{server.base_url}/", [("Host", "server")], None, timeouts)
            assert [piece async for piece in exchange] == [b"text"]
            await exchange.aclose()
            await exchange.aclose()
        await transport.aclose()
    assert server.served_by == [1, 1]


# Under any client


async def test_under_a_plain_client(client: httpx.AsyncClient) -> None:
    """Bodies of all sorts go through, and interim replies are passed over."""

    async def echo(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + page(request.body, method=request.method))

    async def pieces() -> AsyncIterator[bytes]:
        yield b"in "
        yield b"pieces"

    async with Server(echo) as server:
        response = await client.get(f"{server.base_url}/path?query=1")
        assert (response.status_code, response.text, response.headers["method"]) == (200, "", "GET")
        assert server.requests[0].target == "/path?query=1"
        assert (await client.post(server.base_url, content=b"whole")).content == b"whole"
        assert (await client.post(server.base_url, content=pieces())).content == b"in pieces"
    assert server.connections == 1


async def test_errors_are_those_of_httpx(client: httpx.AsyncClient) -> None:
    """Failures arrive as the exceptions that any client of httpx raises."""
    async with Server(b"garbage\r\n\r\n", silence, reset(), cut(b"")) as server:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(server.base_url)
        with pytest.raises(httpx.ReadTimeout):
            await client.get(server.base_url, timeout=0.1)
        with pytest.raises(httpx.ReadError):
            await client.get(server.base_url)
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(server.base_url)
        with pytest.raises(httpx.LocalProtocolError):
            await client.post(server.base_url, content=b"text", headers={"content-length": "5"})
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://127.0.0.1:{closed.getsockname()[1]}")


async def test_scheme_that_cannot_be_spoken() -> None:
    """Every scheme but http and https is refused before anything is sent."""
    with pytest.raises(httpx.UnsupportedProtocol, match="ftp"):
        await Transport().send("GET", "ftp://127.0.0.1/", [("Host", "server")], None, patient())


async def test_closed_while_in_use(client: httpx.AsyncClient) -> None:
    """Closing breaks the exchanges under way, which are told."""
    async with Server(silence) as server:
        task = asyncio.ensure_future(client.get(server.base_url))
        await wait_until(lambda: len(server.requests) == 1)
        await client.aclose()
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await task


async def test_small_pieces_leave_together(client: httpx.AsyncClient) -> None:
    """A body in very many pieces takes few system calls, and arrives whole."""

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(5000):
            yield number.to_bytes(200, "big")

    async def check(request: Received, writer: asyncio.StreamWriter) -> None:
        assert request.body == b"".join([piece async for piece in pieces()])
        writer.write(page("whole"))

    sends = 0

    def called(_: object, event: str, what: Any) -> None:
        nonlocal sends
        sends += event == "c_call" and what.__name__ == "sendmsg"

    async with Server(check) as server:
        before = sys.getprofile()
        sys.setprofile(called)
        try:
            response = await client.post(server.base_url, content=pieces(), headers={"content-length": "1000000"})
        finally:
            sys.setprofile(before)
    assert response.text == "whole"
    assert 1 <= sends < 100  # those of a loop of its own, for what one of these left, are no more


# Replies that break the rules


async def in_pieces(exchange: RequestResponseCycle) -> bytes:
    """Read a body as it comes."""
    return b"".join([piece async for piece in exchange])


async def into_a_buffer(exchange: RequestResponseCycle) -> bytes:
    """Read a body into a buffer that has room to spare."""
    buffer = bytearray(10**6)
    return bytes(buffer[: await exchange.readinto(memoryview(buffer))])


async def into_small_buffers(exchange: RequestResponseCycle) -> bytes:
    """Read a body into buffers of three bytes."""
    received = b""
    while count := await exchange.readinto(memoryview(buffer := bytearray(3))):
        received += buffer[:count]
    return received


READS = pytest.mark.parametrize("read", [in_pieces, into_a_buffer, into_small_buffers])
Read = Callable[[RequestResponseCycle], Awaitable[bytes]]
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@contextlib.asynccontextmanager
async def exchanged(step: Step) -> AsyncIterator[RequestResponseCycle]:
    """Send a request straight through a transport."""
    transport = Transport()
    async with Server(step) as server:
        exchange = await transport.send("GET", f"{server.base_url}/", [("Host", "server")], None, patient())
        try:
            yield exchange
        finally:
            await exchange.aclose()
            await transport.aclose()


@READS
@pytest.mark.parametrize(
    "said",
    [page("0123456789"), CHUNKED + b"6\r\n012345\r\n4\r\n6789\r\n0\r\n\r\n", page("0123456789", length=None)],
    ids=["length", "chunked", "closed"],
)
async def test_whole_body(read: Read, said: bytes) -> None:
    """A whole body is read whole, also when it comes in two, and what follows it is its end."""
    head = said.index(b"\r\n\r\n") + 8
    more = asyncio.Event()

    async def step(_: object, writer: asyncio.StreamWriter) -> None:
        writer.write(said[:head])
        await more.wait()
        writer.write(said[head:])
        if b"close" in said:
            writer.close()

    async with exchanged(step) as exchange:
        more.set()
        assert exchange.status == 200
        assert await read(exchange) == b"0123456789"
        assert await read(exchange) == b""
        assert exchange.complete is (b"close" not in said)


@READS
@pytest.mark.parametrize(
    "said", [page("text", length=9), page("", length=9), CHUNKED + b"9\r\ntext", CHUNKED + b"4\r\ntext\r\n", CHUNKED]
)
async def test_body_that_is_cut(read: Read, said: bytes) -> None:
    """A server that hangs up before the end of a body broke the rules."""
    async with exchanged(cut(said)) as exchange:
        with pytest.raises(httpx.RemoteProtocolError):
            await read(exchange)
        assert not exchange.complete


@READS
@pytest.mark.parametrize("said", [page("text", length=9), CHUNKED + b"9\r\ntext"], ids=["length", "chunked"])
async def test_body_that_breaks(read: Read, said: bytes) -> None:
    """A connection that breaks before the end of a body is a ReadError."""
    async with exchanged(reset(said)) as exchange:
        with pytest.raises(httpx.ReadError):
            await read(exchange)


@READS
async def test_garbage_where_a_chunk_should_be(read: Read) -> None:
    """A chunk without a size breaks the rules."""
    async with exchanged(CHUNKED + b"4\r\ntext\r\nnonsense\r\n") as exchange:
        with pytest.raises(httpx.RemoteProtocolError):
            await read(exchange)


@pytest.mark.parametrize("head", [b"x: " + b"x" * 10**6, b"x: y\r\n" * 10**5, b"x" * 10**6])
async def test_endless_headers(client: httpx.AsyncClient, head: bytes) -> None:
    """A reply whose headers are longer than 100 KiB breaks the rules; shorter ones may be long."""
    async with Server(page("text", x="x" * 90_000), b"HTTP/1.1 200 OK\r\n" + head) as server:
        response = await client.get(server.base_url)
        assert (response.text, len(response.headers["x"])) == ("text", 90_000)
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(server.base_url)


# TLS


@pytest.mark.parametrize("size", [0, 1, 16383, 16384, 16385, 300_000, 5_000_000])
async def test_bodies_through_tls(size: int, tls: ssl.SSLContext) -> None:
    """Bodies arrive byte for byte in both directions, whole and in pieces, by length and in chunks."""
    body = random.Random(size).randbytes(size)

    async def echo(request: Received, writer: asyncio.StreamWriter) -> None:
        if request.header("transfer-encoding"):
            writer.write(
                CHUNKED + b"%x\r\n" % len(body) + request.body + b"\r\n0\r\n\r\n" if body else CHUNKED + b"0\r\n\r\n"
            )
        else:
            writer.write(page(request.body))

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, size, 77_777):
            yield body[start : start + 77_777]

    async with Server(echo, tls=tls) as server, trusting() as client:
        for _ in range(2):
            assert (await client.post(server.base_url, content=body)).content == body
            assert (await client.post(server.base_url, content=pieces())).content == body
    assert server.connections == 1


@pytest.mark.parametrize("notified", [True, False], ids=["close_notify", "none"])
@pytest.mark.parametrize("length", [True, False], ids=["length", "closed"])
async def test_end_of_a_reply_through_tls(notified: bool, length: bool, tls: ssl.SSLContext) -> None:
    """A reply is complete by its length, or by TLS's farewell; the connection does not serve again."""
    body = random.Random(7).randbytes(100_000)

    def serve() -> None:
        for _ in range(2):
            with listener.accept()[0] as plain, tls.wrap_socket(plain, server_side=True) as connection:
                connection.settimeout(30)
                connection.recv(2**16)
                connection.sendall(page(body, length=-1 if length else None))
                if notified:
                    connection.setblocking(False)  # it is sent, and the client's is not waited for
                    with contextlib.suppress(OSError):  # the client may have hung up, with all of the body
                        connection.unwrap()
            ended.release()

    ended = threading.Semaphore(0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        async with trusting() as client:
            for _ in range(2):
                url = f"https://127.0.0.1:{listener.getsockname()[1]}"
                if not (notified or length):
                    with pytest.raises(httpx.RemoteProtocolError, match="hung up before the end"):
                        await client.get(url)
                    continue
                response = await client.get(url)
                assert response.content == body
                await asyncio.to_thread(ended.acquire)  # else the next request may meet the end on its way
        await asyncio.to_thread(thread.join)


# Other loops and processes


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_second_event_loop() -> None:
    """In a second event loop, the connections of the first, which died with it, are forgotten."""
    transport = Transport()

    async def use() -> int:
        async with asyncio.timeout(20):
            answer = await transport.send("GET", f"{server.base_url}/", [("Host", "server")], None, patient())
            assert await answer.readinto(memoryview(bytearray(1))) == 0
            await answer.aclose()
        return answer.status

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(LeanServer(lambda *_: page())) as server:
        assert [asyncio.run(use()) for _ in range(2)] == [200, 200]
        assert server.connections == 2
    transport._bound._states.clear()
    gc.collect()  # asyncio warns of what died with its loop; now, and not in another test


FORK = """
import asyncio, os, sys
from meta_media.http.timeouts import TransferTimeouts
from meta_media.http.transport import Transport
from meta_media.transfer.readers import BATCH_SIZE

transport = Transport()

async def use():
    async with asyncio.timeout(20):
        clock = TransferTimeouts(connect=9, read=9, write=9, rate=0, deadline=None)
        answer = await transport.send("GET", sys.argv[1], [("Host", "server")], None, clock)
        assert (answer.status, await answer.readinto(memoryview(bytearray(1)))) == (200, 0)
        await answer.aclose()

with asyncio.Runner() as runner:
    runner.run(use())
    child = os.fork()
    if not child:
        asyncio.run(use())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    runner.run(use())
    runner.run(transport.aclose())
"""


def test_after_a_fork() -> None:
    """A forked child makes connections of its own, and leaves its parent's alone."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(LeanServer(lambda *_: page())) as server:
        subprocess.run([sys.executable, "-c", FORK, server.base_url], check=True, timeout=60)
        assert server.served_by == [1, 2, 1]


# Interim replies


@pytest.mark.parametrize("secured", [False, True], ids=["http", "https"])
async def test_interim_replies_to_an_upload(secured: bool, tls: ssl.SSLContext) -> None:
    """Interim replies in the middle of a large upload, in pieces too, are passed over, and not a byte of it is lost."""
    said = [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 1",
        b"00 Continue\r\n",
        b"\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n" * 3,
    ]
    body = random.Random(7).randbytes(LARGE)
    received = hashlib.sha256()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for number in range(0, LARGE, 10**6):
            received.update(await reader.readexactly(10**6))
            if number % (5 * 10**6) == 0 and number < 25 * 10**6:
                writer.write(said[number // (5 * 10**6)])
            await asyncio.sleep(0)  # so that the other end may be first
        writer.write(page("whole"))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(page("next"))
        writer.close()

    async with await asyncio.start_server(receive, "127.0.0.1", 0, ssl=tls if secured else None) as server:
        url = f"{'https' if secured else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with trusting() as client:
            response = await client.post(url, content=body)
            assert (response.status_code, response.text) == (200, "whole")
            assert received.digest() == hashlib.sha256(body).digest()
            assert (await client.get(url)).text == "next"


# Early replies


REFUSAL = json_response({"error": {"message": "Too large", "type": "OAuthException", "code": 131053}}, 413)


class Hasty:
    """Refuses the first upload after its first bytes, on a thread of its own, and answers whatever comes next."""

    def __init__(self, way: str, tls: ssl.SSLContext | None) -> None:
        self.refusal = REFUSAL
        self.refused = threading.Event()
        self.received = 0
        self.connections = 0
        self._way = way
        self._tls = tls
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)  # what it holds unread counts as sent
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> str:
        self._thread.start()
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            while True:
                connection = stack.enter_context(self._listener.accept()[0])
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what it holds back, a reset discards
                if self._tls:
                    connection = stack.enter_context(self._tls.wrap_socket(connection, server_side=True))
                self.connections += 1
                if self.connections > 1:
                    connection.recv(2**16)
                    connection.sendall(info("https://lookaside.fbsbx.com/", media_id="7"))
                    continue
                self.received += len(connection.recv(2**16))
                connection.sendall(self.refusal)
                self.refused.set()
                stack.callback(self._refused(connection))

    def _refused(self, connection: socket.socket) -> functools.partial[None]:
        if self._way == "resets":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if self._way in {"resets", "closes"}:
            connection.close()
        elif self._way == "lingers":
            self._take(connection)
        return functools.partial(self._held, connection)

    def _take(self, connection: socket.socket) -> None:
        """Count what the client goes on to send."""
        with contextlib.suppress(OSError):
            while data := connection.recv(2**16):
                self.received += len(data)
                time.sleep(0.001)  # slower than any client sends

    def _held(self, connection: socket.socket) -> None:
        """Hold the connection until all is over, then count what has come."""
        self._over.wait(20)
        if self._way == "holds":
            self._take(connection)


@contextlib.contextmanager
def hasty(way: str, tls: ssl.SSLContext | None) -> Iterator[tuple[Hasty, str]]:
    """Run such a server."""
    server = Hasty(way, tls)
    with server as url:
        yield server, url


@pytest.mark.parametrize("way", ["closes", "resets", "holds", "lingers"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_early_refusal(way: str, scheme: str, tls: ssl.SSLContext) -> None:
    """A server that refuses an upload at its first bytes is heard, whatever it does then; its connection is dropped."""
    for _ in range(5):
        with hasty(way, tls if scheme == "https" else None) as (server, url):
            settings = Settings(base_url=url, write_timeout=20, read_timeout=20)
            async with MediaApi("token", "1", settings=settings) as api:
                with pytest.raises(UploadRejectedError) as caught:
                    await api.upload(bytes(LARGE), filename="a.txt", mime_type="text/plain", validate=False)
                assert (caught.value.status, caught.value.code) == (413, 131053)
                assert (await api.get_info("7")).id == "7"
        assert server.connections == 2
        assert server.received <= AHEAD


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_refusal_before_the_last_piece(scheme: str, tls: ssl.SSLContext) -> None:
    """A server that refuses an upload when only its last, small piece was not sent gets no other request on its connection."""
    with hasty("holds", tls if scheme == "https" else None) as (server, url):

        async def pieces() -> AsyncIterator[bytes]:
            yield bytes(BATCH_SIZE)
            yield bytes(BATCH_SIZE)  # it is read before the first is sent
            await asyncio.to_thread(server.refused.wait, 20)
            await asyncio.sleep(0.05)  # the event loop receives the refusal
            yield b"the end"

        settings = Settings(base_url=url, read_timeout=20, max_retries=0)
        async with MediaApi("token", "1", settings=settings) as api:
            source = Source.stream(pieces(), size=2 * BATCH_SIZE + 7)
            with pytest.raises(UploadRejectedError):
                await api.upload(source, filename="a.txt", mime_type="text/plain", validate=False)
            assert (await api.get_info("7")).id == "7"
    assert server.connections == 2


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_early_refusal_without_a_length(scheme: str, tls: ssl.SSLContext) -> None:
    """An early refusal that ends with its connection is heard, too."""
    for _ in range(5):
        with hasty("closes", tls if scheme == "https" else None) as (server, url):
            server.refusal = page(REFUSAL.partition(b"\r\n\r\n")[2], 413, length=None)
            async with MediaApi("token", "1", settings=Settings(base_url=url)) as api:
                with pytest.raises(UploadRejectedError) as caught:
                    await api.upload(bytes(LARGE), filename="a.txt", mime_type="text/plain", validate=False)
                assert (caught.value.status, caught.value.code) == (413, 131053)


@pytest.mark.parametrize("tail", [b"the last bytes", bytes(2**21)], ids=["small", "large"])
async def test_response_before_the_last_bytes(client: httpx.AsyncClient, tail: bytes) -> None:
    """A connection whose response came before the last bytes of the request is not used again: they were never sent."""
    responded, over = asyncio.Event(), asyncio.Event()
    methods = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        methods.append((await reader.readuntil(b"\r\n\r\n")).split(b" ")[0])
        writer.write(page("early"))
        responded.set()
        if methods == [b"POST"]:
            with contextlib.suppress(ConnectionResetError):
                await reader.read(-1)
            over.set()
        writer.close()

    async def body() -> AsyncIterator[bytes]:
        yield bytes(2**16)
        await responded.wait()
        for _ in range(9):
            await asyncio.sleep(0)  # turns of the loop in which the response arrives
        yield tail

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        headers = {"content-length": str(2**16 + len(tail))}
        assert (await client.post(url, content=body(), headers=headers)).text == "early"
        await asyncio.wait_for(over.wait(), 30)
        assert (await client.get(url)).text == "early"
    assert methods == [b"POST", b"GET"]
