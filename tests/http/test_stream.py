"""TCP and TLS streams: how connections come about, who waits for whom, and what a timeout means."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import queue
import random
import socket
import ssl
import struct
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from meta_media import MediaApi, Settings
from meta_media.errors import NetworkError, TransferTimeoutError
from meta_media.http import connect as connect_module
from meta_media.http.connect import connect, secure
from meta_media.http.connection import RequestResponseCycle
from meta_media.http.stream import NetworkStream
from meta_media.http.timeouts import TransferTimeouts
from tests.support.resolver import replace_resolver
from tests.support.servers import Server, page, reset, silence, stalled, wait_until
from tests.support.stepping import LeanServer, Stepper, descriptors, none_added

pytest_plugins = ["tests.support.clock"]

LARGE = 30 * 10**6


@contextlib.contextmanager
def reader(pause: float, size: int = 2**18) -> Iterator[tuple[int, list[int]]]:
    """Run a server, with a small receive buffer, on a thread, that takes so many bytes at a time and says nothing."""
    received = [0]

    def take() -> None:
        connection, _ = listener.accept()
        connection.settimeout(30)  # if the test fails, its end waits for this
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
def secured(tls: ssl.SSLContext) -> Iterator[tuple[int, queue.SimpleQueue[ssl.SSLSocket]]]:
    """Shake hands on a thread, and hand over the connections."""
    accepted: queue.SimpleQueue[ssl.SSLSocket] = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    plain = stack.enter_context(listener.accept()[0])
                    plain.settimeout(30)
                    accepted.put(stack.enter_context(tls.wrap_socket(plain, server_side=True)))

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1], accepted
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def block_the_loop() -> None:
    """Give the system the time to hear from the peer, and the loop none."""
    time.sleep(0.05)  # as long as a busy machine may take for that


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


def patient(*, connect: float = 30, read: float = 30, write: float = 30, rate: float = 0) -> TransferTimeouts:
    """Make a clock that is generous but for what is asked."""
    return TransferTimeouts(connect=connect, read=read, write=write, rate=rate, deadline=None)


@contextlib.asynccontextmanager
async def talking(*script: Any) -> AsyncIterator[tuple[Server, NetworkStream]]:
    """Connect to a scripted server."""
    async with Server(*script) as server:
        stream = await connect("127.0.0.1", server.port, None, patient())
        try:
            yield server, stream
        finally:
            stream.abort()


async def answer(_: object, writer: asyncio.StreamWriter) -> None:
    """Say something, and hang up."""
    writer.write(b"answer")
    writer.close()


GET = memoryview(b"GET / HTTP/1.1\r\n\r\n")


async def test_write_then_read() -> None:
    """What was written in pieces arrives, the answer is read, and at the end nothing is, as often as one asks."""
    async with talking(answer) as (server, stream):
        for piece in (GET[:5], GET[5:]):
            assert await stream.write(piece, patient()) == len(piece)
        assert bytes(await stream.read(patient())) == b"answer"
        for _ in range(2):
            assert bytes(await stream.read(patient())) == b""
        assert len(server.requests) == 1
        assert not stream.unsent


async def test_writing_after_the_answer() -> None:
    """Nothing is given to a peer that has answered, or gone; the answer can be read; then there is no more."""
    async with talking(answer) as (_, stream):
        await stream.write(GET, patient())
        await wait_until(lambda: stream.received_any)
        assert await stream.write(memoryview(b"more"), patient()) == 0
        assert bytes(await stream.read(patient())) == b"answer"
        assert bytes(await stream.read(patient())) == b""
        assert await stream.write(memoryview(b"more"), patient()) == 0


async def test_answer_in_the_middle_of_a_write() -> None:
    """A write that the peer interrupts says how much was given away, which is not all."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = await connect("127.0.0.1", listener.getsockname()[1], None, patient())
        writing = asyncio.ensure_future(stream.write(memoryview(bytes(LARGE)), patient()))
        with listener.accept()[0] as connection:
            await asyncio.sleep(0.05)  # so that the write waits for the peer
            connection.sendall(b"answer")
            given = await writing
            assert 0 < given < LARGE
            assert bytes(await stream.read(patient())) == b"answer"
        stream.abort()


async def test_end_between_two_pieces_of_a_write(tls: ssl.SSLContext) -> None:
    """A connection that ends while a write lets other tasks run is given nothing more, which uvloop would not take."""
    with secured(tls) as (port, _):
        stream = await connect("127.0.0.1", port, ssl.create_default_context(), patient())
        data = memoryview(bytes(200_000))  # three pieces
        writing = asyncio.ensure_future(stream.write(data, patient()))
        await asyncio.sleep(0)  # the first piece is given
        stream.abort()  # the end comes when the second was
        assert 0 < await writing < len(data)


async def test_handshake_after_the_end() -> None:
    """A connection that has ended before TLS is begun has hung up, on every event loop."""
    async with talking(answer) as (_, stream):
        await stream.write(GET, patient())
        assert await read_whole(stream) == b"answer"
        await asyncio.sleep(0)  # the loop closes the connection
        with pytest.raises(ConnectionResetError, match="hung up"):
            await stream.start_tls(ssl.create_default_context(), "127.0.0.1")


async def test_read_timeout() -> None:
    """Silence is a ReadTimeout, however it is read."""
    async with talking(silence) as (_, stream):
        await stream.write(GET, patient())
        with pytest.raises(httpx.ReadTimeout):
            await stream.read(patient(read=0.1))
        with pytest.raises(httpx.ReadTimeout):
            await stream.readinto(memoryview(bytearray(9)), patient(read=0.1))


async def test_reset() -> None:
    """A connection that breaks is a ReadError with the system's reason, as often as one asks, however it is read."""
    async with talking(reset()) as (_, stream):
        await stream.write(GET, patient())
        for _ in range(2):
            with pytest.raises(httpx.ReadError, match="reset"):
                await stream.read(patient())
        with pytest.raises(httpx.ReadError, match="reset"):
            await stream.readinto(memoryview(bytearray(9)), patient())


async def read_whole(stream: NetworkStream) -> bytes:
    """Read to the end in pieces."""
    received = []
    while piece := await stream.read(patient()):
        received.append(bytes(piece))
    return b"".join(received)


async def filled_whole(stream: NetworkStream) -> bytes:
    """Read to the end into buffers of an odd size."""
    received = []
    count = size = 99_991
    while count == size:
        count = await stream.readinto(buffer := memoryview(bytearray(size)), patient())
        received.append(bytes(buffer[:count]))
    return b"".join(received)


@pytest.mark.parametrize("whole", [read_whole, filled_whole])
@pytest.mark.parametrize("secured", [False, True], ids=["http", "https"])
async def test_reading_behind_a_fast_peer(
    whole: Callable[[NetworkStream], Awaitable[bytes]], secured: bool, tls: ssl.SSLContext
) -> None:
    """A peer that sends much more than is read has to wait, and nothing is lost."""
    body = random.Random(7).randbytes(LARGE)
    sent = 0

    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with contextlib.closing(writer):
            while sent < LARGE:
                writer.write(body[sent : sent + 10**5])
                sent += 10**5
                await writer.drain()

    async with await asyncio.start_server(pour, "127.0.0.1", 0, ssl=tls if secured else None) as server:
        context = ssl.create_default_context() if secured else None
        stream = await connect("127.0.0.1", server.sockets[0].getsockname()[1], context, patient())
        await asyncio.sleep(0.5)  # so that the peer gets ahead
        assert sent < LARGE
        assert stream._unread_size < 2**19
        assert await whole(stream) == body
        stream.abort()


async def test_readinto_what_was_received_before() -> None:
    """What came before anybody asked fills the buffers first, and a buffer may end in the middle of it."""
    text = b"0123456789" * 3
    async with talking(stalled(text[:20], more := asyncio.Event(), text[20:])) as (_, stream):
        await stream.write(GET, patient())
        await wait_until(lambda: stream.received_any)
        first, second = bytearray(15), bytearray(15)
        assert await stream.readinto(memoryview(first), patient()) == 15
        more.set()
        assert await stream.readinto(memoryview(second), patient()) == 15
        assert first + second == text


async def test_write_timeout() -> None:
    """A peer that takes nothing at all is a WriteTimeout."""
    with deaf_reader() as port:
        stream = await connect("127.0.0.1", port, None, patient())
        with pytest.raises(httpx.WriteTimeout):
            await stream.write(memoryview(bytes(LARGE)), patient(write=0.3))
        stream.abort()


@contextlib.contextmanager
def deaf_reader() -> Iterator[int]:
    """Listen, and never read: the system accepts the connection, and takes what its buffers hold."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.usefixtures("steady_clock")
async def test_slow_but_steady_peer() -> None:
    """A peer that takes some of a large write in time may take longer for all of it."""
    with reader(0.02) as (port, received):
        stream = await connect("127.0.0.1", port, None, patient())
        stream._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)  # else it looks idle for a megabyte
        started = time.monotonic()
        timeouts = patient(write=0.5, rate=1000)
        with timeouts:
            assert await stream.write(memoryview(bytes(8 * 10**6)), timeouts) == 8 * 10**6
        await wait_until(lambda: not stream.unsent)
        stream.abort()
        await asyncio.sleep(0.01)  # so that it is closed, for which the reader waits
        await wait_until(lambda: received[0] == 8 * 10**6)
        assert time.monotonic() - started > 2 * 0.5


async def test_fast_peer_starves_nobody() -> None:
    """While a fast peer takes a large upload in one piece, the rest of the loop moves on."""
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0)  # a turn of the loop
            beats += 1

    with reader(0, size=2**22) as (port, received):
        stream = await connect("127.0.0.1", port, None, patient())
        heart = asyncio.ensure_future(beat())
        await stream.write(memoryview(bytes(LARGE)), patient())
        heart.cancel()
        await wait_until(lambda: not stream.unsent)
        stream.abort()
        await asyncio.sleep(0.01)  # so that it is closed, for which the reader waits
        await wait_until(lambda: received[0] == LARGE)
    assert beats >= 100


@pytest.mark.parametrize("unsent", [False, True])
async def test_abort(unsent: bool) -> None:
    """Closing lets what the system holds follow; closing an unfinished request does not."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = await connect("127.0.0.1", listener.getsockname()[1], None, patient())
        with listener.accept()[0] as connection:
            await stream.write(memoryview(b"text"), patient())
            stream.abort(unsent=unsent)
            await asyncio.sleep(0)  # the turn in which asyncio closes it
            assert connection.recv(9) == b"text"
            with pytest.raises(ConnectionResetError) if unsent else contextlib.nullcontext():
                assert connection.recv(9) == b""


# Idle connections


@pytest.mark.parametrize("call", ["poll", "select"])
@pytest.mark.parametrize("way", ["ends", "speaks", "breaks"])
async def test_stale_before_the_loop_has_heard(way: str, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle connection that has spoken or gone is known to be stale, although the loop has not heard of it."""
    if call == "select":
        monkeypatch.delattr("select.poll", raising=False)  # as on Windows
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = await connect("127.0.0.1", listener.getsockname()[1], None, patient())
        connection = listener.accept()[0]
        assert stream.stale is False
        if way == "speaks":
            connection.sendall(b"poison")
        elif way == "breaks":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if way != "speaks":
            connection.close()
        block_the_loop()
        assert (stream.received_any, stream.stale) == (False, True)
        await wait_until(lambda: stream.received_any)
        assert (stream.received_any, stream.stale) == (True, True)
        connection.close()
        stream.abort()


# Connecting


async def test_nobody_listens() -> None:
    """Where nobody listens, and what nobody knows, are ConnectErrors."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(httpx.ConnectError):
            await connect("127.0.0.1", closed.getsockname()[1], None, patient())
    with pytest.raises(httpx.ConnectError):
        await connect("nobody.invalid", 80, None, patient())


async def test_connect_timeout() -> None:
    """A connection that is neither accepted nor refused is a ConnectTimeout, and leaves no descriptor."""
    with deaf() as (host, port):
        await asyncio.get_running_loop().getaddrinfo(host, port)
        before = descriptors()
        with pytest.raises(httpx.ConnectTimeout):
            await connect(host, port, None, patient(connect=0.2))
        await none_added(before, descriptors)


async def test_timeout_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timeout of the system's own is one of the connect phase, also where the deadline would be the first of ours."""

    def give_up(*_: Any, **__: Any) -> list[Any]:
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    replace_resolver(monkeypatch, give_up)
    settings = Settings(base_url="https://slow.example", connect_timeout=20, deadline=10, max_retries=0)
    async with MediaApi("token", "1", settings=settings) as api:
        with pytest.raises(TransferTimeoutError, match="no progress") as caught:
            await api.get_info("7")
    assert (caught.value.phase, caught.value.retryable) == ("connect", True)


def resolving_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Make the system's resolver give these addresses for every name."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
    replace_resolver(monkeypatch, lambda *_, **__: found)


async def test_next_address_is_tried_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that does not answer is overtaken by the next one, and what it was tried with is closed."""
    async with LeanServer(lambda *_: b"") as server:
        with deaf() as deaf_address:
            resolving_to(monkeypatch, deaf_address, ("127.0.0.1", server.port))
            before = descriptors()
            stream = await connect("both.example", 80, None, patient())
            assert stream._socket.getpeername() == ("127.0.0.1", server.port)
            stream.abort()
            await none_added(before, descriptors)


async def test_late_address_wins_after_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the last address has failed, earlier ones are still waited for; if none is reached, the last one says why."""
    with socket.socket() as closed, deaf() as deaf_address:
        closed.bind(("127.0.0.1", 0))
        resolving_to(monkeypatch, deaf_address, closed.getsockname())
        with pytest.raises(httpx.ConnectTimeout):
            await connect("neither.example", 80, None, patient(connect=0.8))
        resolving_to(monkeypatch, closed.getsockname(), closed.getsockname())
        with pytest.raises(httpx.ConnectError, match="Connect call failed"):
            await connect("refused.example", 80, None, patient())


async def test_slow_handshake_that_is_cancelled(tls_files: tuple[Path, Path]) -> None:
    """A TLS handshake that is never answered times out and leaves no descriptor."""
    async with Server(silence) as server:
        before = descriptors()
        with pytest.raises(httpx.ConnectTimeout):
            await connect("127.0.0.1", server.port, ssl.create_default_context(), patient(connect=0.2))
        await none_added(before, descriptors)


async def test_nothing_precedes_tls(tls: ssl.SSLContext, tls_files: tuple[Path, Path]) -> None:
    """What a connection brings before it is secured is no response: the handshake fails on it, at once."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(page("planted"))
        with contextlib.suppress(OSError):
            await writer.start_tls(tls)
            await reader.read()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        trusting = ssl.create_default_context(cafile=str(tls_files[0]))
        with pytest.raises(httpx.ConnectError, match="SSL"):
            await connect("127.0.0.1", port, trusting, patient())
        stream = await connect("127.0.0.1", port, None, patient())
        await wait_until(lambda: stream.received_any)
        with pytest.raises(httpx.ConnectError, match="SSL"):
            await secure(stream, "127.0.0.1", trusting, patient())
        stream.abort()


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


def impatient() -> TransferTimeouts:
    """Timeouts of which that to read is reached."""
    return patient(read=0.1)


async def later(writer: asyncio.StreamWriter) -> None:
    """Say something after the time of the impatient."""
    await asyncio.sleep(0.3)
    writer.write(b"more")


async def test_a_wait_has_its_own_time() -> None:
    """The timer that an earlier wait has set neither ends a longer wait, nor holds back the end of a shorter one."""

    async def speak(_: object, writer: asyncio.StreamWriter) -> None:
        writer.write(b"text")
        await later(writer)
        await asyncio.Event().wait()

    async with talking(speak) as (_, stream):
        await stream.write(GET, patient())
        assert bytes(await stream.read(impatient())) == b"text"
        assert bytes(await stream.read(patient())) == b"more"
        async with asyncio.timeout(20):  # less than that wait might have taken
            with pytest.raises(httpx.ReadTimeout):
                await stream.read(impatient())


async def test_a_wait_without_end() -> None:
    """A timer that an earlier wait has set does not end one that may take for ever."""

    async def speak(_: object, writer: asyncio.StreamWriter) -> None:
        writer.write(b"text")
        await later(writer)

    endless = TransferTimeouts(connect=None, read=None, write=None, rate=0, deadline=None)
    async with talking(speak) as (_, stream):
        await stream.write(GET, patient())
        assert bytes(await stream.read(impatient())) == b"text"
        assert bytes(await stream.read(endless)) == b"more"


async def test_nothing_is_kept_of_a_closed_connection() -> None:
    """Neither the loop nor its timers keep a connection that was closed while half a minute was allowed for a wait."""
    async with talking(silence) as (_, stream):
        await stream.write(GET, patient())
        reading = asyncio.ensure_future(stream.read(patient()))
        await asyncio.sleep(0)  # so that the reader waits
        reading.cancel()
        await asyncio.wait((reading,))
        closed = weakref.WeakSet[object]([stream, stream._waiter])
    del stream, reading
    async with asyncio.timeout(20):
        while closed:
            gc.collect()
            await asyncio.sleep(0)  # a turn of the loop


async def kept(stream: NetworkStream, said: bytes, say: Callable[[], None], waiting: bool) -> bytes:
    """Break a connection by a failed write before the loop has read what the peer said; return what can be read."""
    received = bytearray(len(said))
    reading = asyncio.ensure_future(stream.readinto(memoryview(received), patient())) if waiting else None
    await asyncio.sleep(0)  # so that the reader waits
    say()
    stream.connection_lost(BrokenPipeError())  # as asyncio does, before it has looked at what has come
    assert stream.received_any
    count = await (reading or stream.readinto(memoryview(received), patient()))
    return bytes(received[:count])


@pytest.mark.parametrize("waiting", [False, True], ids=["nobody waits", "a reader waits"])
async def test_what_came_before_a_failed_write_is_kept(waiting: bool) -> None:
    """When a write breaks the connection before the loop has read the answer, the answer is read all the same."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        stream = NetworkStream(ours)
        assert await kept(stream, b"the answer", lambda: theirs.sendall(b"the answer"), waiting) == b"the answer"
        with pytest.raises(httpx.ReadError):
            await stream.read(patient())
    assert stream.stale


@pytest.mark.parametrize("waiting", [False, True], ids=["nobody waits", "a reader waits"])
async def test_what_came_before_a_failed_write_is_decrypted(waiting: bool, tls: ssl.SSLContext) -> None:
    """The same through TLS, with more than one record."""
    said = random.Random(7).randbytes(40_000)
    with secured(tls) as (port, accepted):
        stream = await connect("127.0.0.1", port, ssl.create_default_context(), patient())
        connection = await asyncio.to_thread(accepted.get)

        def say() -> None:
            connection.sendall(said)
            block_the_loop()

        assert await kept(stream, said, say, waiting) == said
        stream.abort()


async def test_loop_that_hands_over_more_than_was_wanted() -> None:
    """A loop may fill one buffer after another before any reader runs, as asyncio's on Windows does; nothing is lost."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = NetworkStream(ours)
        received = bytearray(4)
        reading = asyncio.ensure_future(stream.readinto(memoryview(received), patient()))
        await asyncio.sleep(0)  # so that the reader waits
        asyncio.protocols._feed_data_to_buffered_proto(stream, b"0123456789")  # type: ignore[attr-defined]  # asyncio's own
        assert (await reading, bytes(received)) == (4, b"0123")
        assert bytes(await stream.read(patient())) == b"456789"


async def test_an_error_after_the_end_is_none() -> None:
    """When the peer has ended properly, a later failure to write does not turn that into an error of reading."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = NetworkStream(ours)
        stream.get_buffer(-1)[:4] = b"text"
        stream.buffer_updated(4)
        stream.eof_received()
        stream.connection_lost(BrokenPipeError())
        assert bytes(await stream.read(patient())) == b"text"
        assert bytes(await stream.read(patient())) == b""


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_event_loops_in_two_threads(scheme: str, tls: ssl.SSLContext) -> None:
    """Connections of event loops in two threads receive at the same time, and neither gets the other's bytes."""
    bodies = [bytes([number]) * 2_000_000 for number in range(2)]

    async def work(url: str, body: bytes) -> int:
        async with MediaApi("token", "1", settings=Settings(base_url=url, chunk_size=50_000)) as api:
            for _ in range(8):
                async with api.stream(f"{url}/{body[0]}") as stream:
                    async for chunk in stream:
                        await asyncio.sleep(0)  # so that some comes while nobody waits
                        assert chunk == body[: len(chunk)]
        return body[0]

    async with LeanServer(
        lambda _, target: page(bodies[int(target[1:])]), tls if scheme == "https" else None
    ) as server:
        works = [asyncio.to_thread(asyncio.run, work(server.base_url, body)) for body in bodies]
        assert await asyncio.gather(*works) == [0, 1]


# TLS


@contextlib.contextmanager
def plain_server(*said: bytes) -> Iterator[int]:
    """Run a server on a thread that takes what comes first, says something, one thing to each client, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for reply in said:
                with listener.accept()[0] as connection:
                    connection.recv(2**16)
                    connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


async def test_tls_handshake_answered_in_plain_text() -> None:
    """A TLS handshake that is answered by plain HTTP is a ConnectError, and leaves no descriptor."""
    with plain_server(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n") as port:
        before = descriptors()
        with pytest.raises(httpx.ConnectError) as caught:
            await connect("127.0.0.1", port, ssl.create_default_context(), patient())
        assert isinstance(caught.value.__cause__, ssl.SSLError)
        await none_added(before, descriptors)


async def test_tls_handshake_that_is_cut(tls: ssl.SSLContext) -> None:
    """A server that goes away in the handshake, also in the middle of its own flight, is a ConnectError."""
    server_hello = ssl.MemoryBIO()
    said = ssl.MemoryBIO()
    client_hello = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), client_hello, server_hostname="localhost").do_handshake()
    server_hello.write(client_hello.read())
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.wrap_bio(server_hello, said, server_side=True).do_handshake()
    record = said.read()
    with plain_server(b"", record[:3], record[:60]) as port:
        before = descriptors()
        for _ in range(3):
            with pytest.raises(httpx.ConnectError, match=r"hung up|reset"):
                await connect("127.0.0.1", port, ssl.create_default_context(), patient())
        await none_added(before, descriptors)


async def test_tls_alert_tells_the_peer_why(tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose certificate is not trusted is told so."""
    monkeypatch.delenv("SSL_CERT_FILE")
    told: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with listener.accept()[0] as connection, pytest.raises(ssl.SSLError) as caught:
                tls.wrap_socket(connection, server_side=True).recv(1)
            told.append(str(caught.value))

        thread = threading.Thread(target=accept)
        thread.start()
        with pytest.raises(httpx.ConnectError):
            await connect("127.0.0.1", listener.getsockname()[1], ssl.create_default_context(), patient())
        await wait_until(lambda: bool(told))
        thread.join()
    assert "unknown ca" in told[0].lower()


@pytest.mark.parametrize("read", [read_whole, filled_whole])
async def test_tls_garbage(read: Callable[[NetworkStream], Awaitable[bytes]], tls: ssl.SSLContext) -> None:
    """What cannot be decrypted is a ReadError, after what could be was read."""
    with secured(tls) as (port, accepted):
        stream = await connect("127.0.0.1", port, ssl.create_default_context(), patient())
        connection = await asyncio.to_thread(accepted.get)
        connection.sendall(b"text")
        with socket.socket(fileno=connection.detach()) as plain:
            plain.sendall(b"garbage, which is not a record of TLS")
            if read is read_whole:
                assert bytes(await stream.read(patient())) == b"text"
            with pytest.raises(httpx.ReadError):
                await read(stream)
            assert await stream.write(memoryview(b"more"), patient()) == 0
        stream.abort()


async def test_tls_pieces(tls: ssl.SSLContext) -> None:
    """A few pieces are encrypted and sent at once. Many are joined first, because each would begin a record."""
    few: list[bytes | memoryview] = [b"head", b"", memoryview(bytes(2**16)), b"end"]
    many = [b"x"] * 2000
    with secured(tls) as (port, accepted):
        stream = await connect("127.0.0.1", port, ssl.create_default_context(), patient())
        connection = await asyncio.to_thread(accepted.get)
        assert (bytes(stream.send(few)), stream.writable) == (b"", True)
        with connection.makefile("rb") as sent:
            assert await asyncio.to_thread(sent.read, 2**16 + 7) == b"".join(few)
        assert bytes(stream.send(many)) == b"".join(many)
        stream.abort()


async def test_tls_pieces_that_the_system_does_not_take(tls: ssl.SSLContext) -> None:
    """Encrypted bytes that are still in asyncio's buffer are waited for, up to the write timeout."""
    with secured(tls) as (port, _):
        stream = await connect("127.0.0.1", port, ssl.create_default_context(), patient())
        stream._transport.set_write_buffer_limits(0)
        while stream.writable:
            assert not stream.send([bytes(2**16)])
        with pytest.raises(httpx.WriteTimeout):
            await stream.write(memoryview(b""), patient(write=0.1))
        stream.abort()


async def test_tls_request_that_the_system_does_not_take(tls: ssl.SSLContext) -> None:
    """A small request that is still in asyncio's buffer is waited for, up to the write timeout."""
    with secured(tls) as (port, _):
        stream = await connect("127.0.0.1", port, ssl.create_default_context(), patient())
        stream.pause_writing()  # as asyncio does while the system takes no more
        cycle = RequestResponseCycle(stream, patient(write=0.1), lambda _: None)
        with pytest.raises(httpx.WriteTimeout):
            await cycle.send("GET", "/", [("Host", "127.0.0.1")], None)
        stream.abort()


async def test_tls_rest_of_a_record(tls: ssl.SSLContext) -> None:
    """The rest of a record of which a reader wanted a part is there for the next one."""
    with secured(tls) as (port, accepted):
        stream = await connect("127.0.0.1", port, ssl.create_default_context(), patient())
        connection = await asyncio.to_thread(accepted.get)
        reading = asyncio.create_task(stream.readinto(memoryview(bytearray(10)), patient()))
        await asyncio.sleep(0)  # it waits from now on
        await asyncio.to_thread(connection.sendall, b"0123456789rest")
        assert (await reading, bytes(await stream.read(patient(read=5)))) == (10, b"rest")
        stream.abort()


async def test_tls_records_of_one_byte(tls: ssl.SSLContext) -> None:
    """Receiving is paused for many small records as for a few large ones, and all of them can be read."""
    count = 40_000
    with secured(tls) as (port, accepted):
        stream = await connect("127.0.0.1", port, ssl.create_default_context(), patient())
        connection = await asyncio.to_thread(accepted.get)
        await asyncio.to_thread(lambda: [connection.send(b"x") for _ in range(count)])
        await asyncio.sleep(0.1)  # the loop receives what it wants
        ahead = 0
        while stream.received_any:
            ahead += len(await stream.read(patient()))  # which waits for nothing
        assert 1000 < ahead < 30_000  # one system call may receive 22,795
        while ahead < count:
            ahead += len(await stream.read(patient()))
        stream.abort()


@pytest.mark.parametrize("notified", [True, False], ids=["close_notify", "none"])
async def test_tls_end(notified: bool, tls: ssl.SSLContext) -> None:
    """The peer's end is noticed with TLS's own farewell and without."""
    with secured(tls) as (port, accepted):
        stream = await connect("127.0.0.1", port, ssl.create_default_context(), patient())
        connection = await asyncio.to_thread(accepted.get)
        connection.sendall(b"text")
        if notified:
            with contextlib.suppress(TimeoutError):
                connection.settimeout(0.1)
                connection.unwrap()  # which would also wait for our farewell, that never comes
        else:
            connection.close()
        assert await read_whole(stream) == b"text"
        assert stream.received_any
        assert stream.cut is not notified
        stream.abort()


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
async def test_race_cancelled_at_every_await(monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    """A race between addresses that is cancelled, at any await, before or after its result came, leaves no socket open."""
    async with LeanServer(lambda *_: b"") as server:
        address = ("127.0.0.1", server.port)
        resolving_to(monkeypatch, address, address)
        monkeypatch.setattr(connect_module, "_ADDRESS_DELAY", 0.0)  # both are tried at once
        before, at = descriptors(), 0
        while True:
            at += 1
            stepper = Stepper(at, late=late)
            task = await stepper.run(lambda: connect("both.example", 80, None, patient()))
            if not task.cancelled():
                task.result().abort()
            await none_added(before, descriptors)
            if not stepper.reached:
                break
    assert at > 3


async def test_every_address_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no address can be reached, the error has the system's reason."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = listener.getsockname()
    resolving_to(monkeypatch, nobody, nobody)
    with pytest.raises(httpx.ConnectError) as caught:
        await connect("both.example", 80, None, patient())
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
