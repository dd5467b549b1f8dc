"""TCP and TLS streams: how connections come about, who waits for whom, and what a timeout means."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpcore
import pytest
from servers import Server, reset, silence, until
from stepping import LeanServer, descriptors, settled_at

from meta_media import MediaApi, Settings, network
from meta_media.errors import NetworkError
from meta_media.network import Stream, connect

LARGE = 30 * 10**6


@contextlib.contextmanager
def reader(pause: float, size: int = 2**18) -> Iterator[tuple[int, list[int]]]:
    """Run a server, with a small receive buffer, on a thread, that takes so many bytes at a time and says nothing."""
    received = [0]

    def take() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(size):
                received[0] += len(data)
                time.sleep(pause)

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield listener.getsockname()[1], received
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextlib.contextmanager
def deaf() -> Iterator[tuple[str, int]]:
    """Give an address where a connection is neither accepted nor refused: the queue in front of it is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        yield listener.getsockname()


@contextlib.asynccontextmanager
async def talking(*script: Any, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Server, Stream]]:
    """Connect to a scripted server."""
    async with Server(*script, tls=tls) as server:
        stream = await connect("127.0.0.1", server.port, None, 10)
        try:
            yield server, stream
        finally:
            await stream.aclose()


GET = b"GET / HTTP/1.1\r\n\r\n"


async def test_small_writes_leave_when_an_answer_is_wanted() -> None:
    """What was written in pieces is sent before a read waits; at the end, nothing is read."""

    async def answer(_: object, writer: asyncio.StreamWriter) -> None:
        writer.write(b"answer")
        writer.close()

    async with talking(answer) as (server, stream):
        for piece in (GET[:5], GET[5:]):
            await stream.write(piece)
        assert await stream.read(100) == b"answer"
        assert await stream.read(100) == b""
        assert len(server.requests) == 1


async def test_writing_after_the_answer() -> None:
    """A write to a peer that has answered, or gone, is a WriteError; the answer can be read; then there is no more."""

    async def answer(_: object, writer: asyncio.StreamWriter) -> None:
        writer.write(b"answer")
        writer.close()

    async with talking(answer) as (_, stream):
        await stream.write(GET)
        await stream.write(b"x" * 2**16)
        await until(lambda: bool(stream.get_extra_info("is_readable")))
        with pytest.raises(httpcore.WriteError):
            await stream.write(b"more")
        assert await stream.read(100) == b"answer"


async def test_read_timeout() -> None:
    """Silence is a ReadTimeout."""
    async with talking(silence) as (_, stream):
        await stream.write(GET)
        with pytest.raises(httpcore.ReadTimeout):
            await stream.read(100, timeout=0.1)


async def test_reset() -> None:
    """A connection that breaks is a ReadError with the system's reason, as often as one asks."""
    async with talking(reset()) as (_, stream):
        await stream.write(GET)
        for _ in range(2):
            with pytest.raises(httpcore.ReadError, match="reset"):
                await stream.read(100, timeout=10)


async def test_reading_behind_a_fast_peer() -> None:
    """A peer that sends much more than is read has to wait, and nothing is lost."""
    body = bytes(range(256)) * 2**17

    async def pour(_: object, writer: asyncio.StreamWriter) -> None:
        writer.write(body)
        await writer.drain()
        writer.close()

    async with talking(pour) as (_, stream):
        await stream.write(GET)
        received = [await stream.read(2**20)]
        await asyncio.sleep(0.2)  # so that the peer gets ahead
        while received[-1]:
            received.append(await stream.read(2**20))
        assert b"".join(received) == body


async def test_write_timeout() -> None:
    """A peer that takes nothing at all is a WriteTimeout."""
    with deaf_reader() as port:
        stream = await connect("127.0.0.1", port, None, 10)
        with pytest.raises(httpcore.WriteTimeout):
            await stream.write(b"x" * LARGE, timeout=0.3)
        stream.abort()


@contextlib.contextmanager
def deaf_reader() -> Iterator[int]:
    """Listen, and never read: the system accepts the connection, and takes what its buffers hold."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


async def test_slow_but_steady_peer() -> None:
    """A peer that takes some of a large write in time may take longer for all of it."""
    with reader(0.01) as (port, received):
        stream = await connect("127.0.0.1", port, None, 10)
        started = time.monotonic()
        await stream.write(b"x" * LARGE, timeout=0.4)
        await until(lambda: stream._protocol.transport.get_write_buffer_size() == 0)
        stream._protocol.transport.close()
        await until(lambda: received[0] == LARGE)
        assert time.monotonic() - started > 0.4


async def test_fast_peer_starves_nobody() -> None:
    """While a fast peer takes a large upload in pieces, the rest of the loop moves on."""
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0)  # a turn of the loop
            beats += 1

    with reader(0, size=2**22) as (port, received):
        stream = await connect("127.0.0.1", port, None, 10)
        heart = asyncio.ensure_future(beat())
        for _ in range(300):
            await stream.write(b"x" * 10**5, timeout=30)
        heart.cancel()
        stream._protocol.transport.close()
        await until(lambda: received[0] == LARGE)
    assert beats >= 300


# Connecting


async def test_nobody_listens() -> None:
    """Where nobody listens, and what nobody knows, are ConnectErrors."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(httpcore.ConnectError):
            await connect("127.0.0.1", closed.getsockname()[1], None, 10)
    with pytest.raises(httpcore.ConnectError):
        await connect("nobody.invalid", 80, None, 10)


async def test_connect_timeout() -> None:
    """A connection that is neither accepted nor refused is a ConnectTimeout, and leaves no descriptor."""
    with deaf() as (host, port):
        await asyncio.get_running_loop().getaddrinfo(host, port)
        before = descriptors()
        with pytest.raises(httpcore.ConnectTimeout):
            await connect(host, port, None, 0.2)
        await settled_at(before, descriptors)


def resolving_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Make the system's resolver give these addresses for every name."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


async def test_next_address_is_tried_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that does not answer is overtaken by the next one, and what it was tried with is closed."""
    async with LeanServer(lambda *_: b"") as server:
        with deaf() as deaf_address:
            resolving_to(monkeypatch, deaf_address, ("127.0.0.1", server.port))
            before = descriptors()
            stream = await connect("both.example", 80, None, 10)
            assert stream.get_extra_info("peername") == ("127.0.0.1", server.port)
            stream.abort()
            await settled_at(before, descriptors)


async def test_late_address_wins_after_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the last address has failed, earlier ones are still waited for; if none is reached, the last one says why."""
    with socket.socket() as closed, deaf() as deaf_address:
        closed.bind(("127.0.0.1", 0))
        resolving_to(monkeypatch, deaf_address, closed.getsockname())
        with pytest.raises(httpcore.ConnectTimeout):
            await connect("neither.example", 80, None, 0.8)
        resolving_to(monkeypatch, closed.getsockname(), closed.getsockname())
        with pytest.raises(httpcore.ConnectError, match="Connect call failed"):
            await connect("refused.example", 80, None, 10)


async def test_slow_handshake_that_is_cancelled(tls_files: tuple[Path, Path]) -> None:
    """A TLS handshake that is never answered times out and leaves no descriptor."""
    async with Server(silence) as server:
        before = descriptors()
        with pytest.raises(httpcore.ConnectTimeout):
            await connect("127.0.0.1", server.port, ssl.create_default_context(), 0.2)
        await settled_at(before, descriptors)


async def test_ipv6(tls: ssl.SSLContext) -> None:
    """IPv6 is spoken, with TLS too, to an address in brackets."""
    reply = b'HTTP/1.1 200 OK\r\ncontent-length: 52\r\n\r\n{"id": "7", "url": "https://x/", "mime_type": "a/b"} '[:-1]
    async with (
        LeanServer(lambda *_: reply, tls, "::1") as server,
        MediaApi("token", "1", settings=Settings(base_url=server.base_url)) as api,
    ):
        assert (await api.get_info("7")).id == "7"


async def test_certificate_of_another_host(tls: ssl.SSLContext) -> None:
    """A trusted certificate that is another host's is a NetworkError that trying again does not cure."""
    async with (
        LeanServer(lambda *_: b"", tls, "127.0.0.2") as server,
        MediaApi("token", "1", settings=Settings(base_url=server.base_url.replace("http:", "https:"))) as api,
    ):
        with pytest.raises(NetworkError, match=r"not valid for '127\.0\.0\.2'") as caught:
            await api.get_info("7")
    assert caught.value.retryable is False
    assert server.requests == []


async def test_tls_port_spoken_to_in_plain(tls: ssl.SSLContext) -> None:
    """A TLS port behind an http URL is a NetworkError."""
    async with LeanServer(lambda *_: b"", tls) as server:
        settings = Settings(base_url=f"http://127.0.0.1:{server.port}")
        async with MediaApi("token", "1", settings=settings) as api:
            with pytest.raises(NetworkError):
                await api.get_info("7")


async def test_what_came_before_a_failed_write_is_kept() -> None:
    """When a write breaks the connection before the loop has read the answer, the answer is read all the same."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.sendall(b"the answer")
        protocol = network._Protocol(ours, encrypted=False)

        assert protocol.unread()
        protocol.connection_lost(BrokenPipeError())

        assert protocol.taken() == b"the answer"
        assert not protocol.unread()
        theirs.close()
        assert protocol.unread()  # the end is something that has come, too
    assert protocol.unread()  # and so is a failure to look


async def test_a_connection_that_came_too_late_is_closed() -> None:
    """An address that is reached after another one has won, or after everything was cancelled, is let go."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        late = asyncio.ensure_future(network._connected(socket.AF_INET, socket.SOCK_STREAM, 6, listener.getsockname()))
        connected = await late

        network._close_unused(late)

        assert connected.fileno() == -1


async def test_every_address_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """When no address can be reached, the last one's reason is told."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = listener.getsockname()
    resolving_to(monkeypatch, nobody, nobody)

    with pytest.raises(httpcore.ConnectError) as caught:
        await connect("both.example", 80, None, 10)

    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
