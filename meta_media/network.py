"""
TCP and TLS streams on asyncio's buffered protocol, under httpcore's interface for network streams.

A protocol receives while its owner writes, so a server that answers early, while an upload is still on its way, is heard:
the write ends in a `WriteError`, at which httpcore turns to reading the answer. All connections read through one buffer, and
small writes leave together in one system call.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections import deque
from typing import Any, Final, NoReturn

import httpcore

__all__ = ["Stream", "connect"]

_READ: Final = 120 * 2**10  # bytes one system call may bring: above 128 KiB malloc maps fresh pages for each piece
_HELD: Final = 2**20  # bytes received ahead of the reader, above which the peer has to wait
_CORKED: Final = 2**16  # bytes written that wait for more to leave with
_HAPPY_EYEBALLS: Final = 0.25  # seconds before the next address is tried beside the last, as RFC 8305 recommends

_buffer = memoryview(bytearray(_READ))  # asyncio fills it and hands it over without a pause between: one is enough


class _Protocol(asyncio.BufferedProtocol):
    """Keeps what has come until it is wanted, and wakes whoever waits for anything to change."""

    def __init__(self, connected: socket.socket, *, encrypted: bool) -> None:
        self.socket = connected
        self.encrypted = encrypted
        self.transport: Any = None
        self.received: deque[bytes] = deque()
        self.held = 0
        self.ended = False
        self.error: Exception | None = None
        self.reading = True
        self.writable = True
        self._waiter: asyncio.Future[bool] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received.append(bytes(_buffer[:nbytes]))
        self.held += nbytes
        if self.held >= _HELD and self.reading:
            self.reading = False
            self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self.ended = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and not self.encrypted:
            with contextlib.suppress(OSError):  # a write failed before the loop could read what had come before
                while piece := self.socket.recv(_READ):
                    self.received.append(piece)
                    self.held += len(piece)
        self.ended = True
        self.error = exc
        self._wake()

    def unread(self) -> bool:
        """Whether something has come, be it the end, that the loop has not read yet."""
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._wake()

    def taken(self) -> bytes:
        """Give away the next piece, and let the peer go on once there is room."""
        piece = self.received.popleft()
        self.held -= len(piece)
        if not self.reading and self.held < _HELD and not self.ended:
            self.reading = True
            self.transport.resume_reading()
        return piece

    async def changed(self, timeout: float | None) -> bool:
        """Wait until anything happens; False if nothing did in time."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = None if timeout is None else loop.call_later(timeout, self._wake, False)
        try:
            return await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _wake(self, happened: bool = True) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(happened)


class Stream(httpcore.AsyncNetworkStream):
    """One connection. Closing it is immediate, and takes no await."""

    def __init__(self, protocol: _Protocol) -> None:
        self._protocol = protocol
        self._corked: list[bytes] = []
        self._corked_size = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what has come, or nothing at the end; what waits to be sent is sent first."""
        protocol = self._protocol
        if self._corked:
            with contextlib.suppress(httpcore.WriteError):  # what has come is what was asked for
                await self._uncork(timeout)
        while not protocol.received:
            if protocol.error is not None:
                raise httpcore.ReadError(str(protocol.error)) from protocol.error
            if protocol.ended:
                return b""
            if not await protocol.changed(timeout):
                raise httpcore.ReadTimeout("nothing came in time")
        return protocol.taken()

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes, soon; a `WriteError` tells that the peer has answered already, or gone."""
        if self._heard():
            self._early()
        self._corked.append(buffer)
        self._corked_size += len(buffer)
        if self._corked_size >= _CORKED:
            await self._uncork(timeout)
            await asyncio.sleep(0)  # a fast peer must not keep us from everybody else

    async def _uncork(self, timeout: float | None) -> None:
        """Send what waits; a peer that takes any of it in time may take its time for the rest."""
        protocol = self._protocol
        waiting, self._corked, self._corked_size = self._corked, [], 0
        whole = memoryview(b"".join(waiting) if len(waiting) > 1 else waiting[0])
        size = _CORKED if protocol.encrypted else len(whole)  # an answer in TLS cannot be rescued from a broken socket
        for start in range(0, len(whole), size or 1):
            await self._sent(whole[start : start + size], timeout)

    async def _sent(self, piece: memoryview, timeout: float | None) -> None:
        protocol = self._protocol
        while not self._heard() and protocol.unread():  # else a broken connection could swallow the answer
            await asyncio.sleep(0)  # the loop reads at its next turn
        if self._heard():
            self._early()
        protocol.transport.write(piece)
        left = protocol.transport.get_write_buffer_size()
        while not protocol.writable and not self._heard():
            if not await protocol.changed(timeout):
                before, left = left, protocol.transport.get_write_buffer_size()
                if left >= before:
                    raise httpcore.WriteTimeout("nothing was taken in time")
        if not protocol.writable:
            self._early()

    def _early(self) -> NoReturn:
        """Turn to the answer; what the system still holds of the request shall not follow it."""
        with contextlib.suppress(OSError):
            self._protocol.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise httpcore.WriteError("the peer has answered or gone")

    def _heard(self) -> bool:
        return self._protocol.ended or bool(self._protocol.received)

    def abort(self) -> None:
        """Close at once."""
        self._corked.clear()
        self._protocol.transport.abort()

    async def aclose(self) -> None:
        """Close at once."""
        self.abort()

    def get_extra_info(self, info: str) -> Any:
        """Tell httpcore whether an idle connection can be read from, which is always a bad sign."""
        if info == "is_readable":
            return self._heard()
        return self._protocol.transport.get_extra_info(info)


async def connect(host: str, port: int, tls: ssl.SSLContext | None, timeout: float | None) -> Stream:
    """Connect, and for TLS shake hands."""
    try:
        async with asyncio.timeout(timeout):
            connected = await _first_connected(host, port)
            protocol = _Protocol(connected, encrypted=tls is not None)
            try:
                await asyncio.get_running_loop().create_connection(
                    lambda: protocol, sock=connected, ssl=tls, server_hostname=host if tls else None
                )
            except BaseException:
                if protocol.transport is None:
                    connected.close()
                else:  # closing the socket below a transport that lives would cross it with the next one of its number
                    protocol.transport.abort()
                raise
    except TimeoutError as error:
        raise httpcore.ConnectTimeout("no connection in time") from error
    except OSError as error:
        raise httpcore.ConnectError(str(error)) from error
    return Stream(protocol)


async def _first_connected(host: str, port: int) -> socket.socket:
    """
    Race a host's addresses (RFC 8305).

    asyncio has this too, but a cancellation at the wrong moment makes it forget an open socket.
    """
    loop = asyncio.get_running_loop()
    addresses = list(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    attempts: list[asyncio.Task[socket.socket]] = []
    try:
        while addresses or not all(attempt.done() for attempt in attempts):
            if addresses:
                family, kind, proto, _, address = addresses.pop(0)
                attempts.append(loop.create_task(_connected(family, kind, proto, address)))
            busy = [attempt for attempt in attempts if not attempt.done()]
            patience = _HAPPY_EYEBALLS if addresses else None
            await asyncio.wait(busy, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if winner := _winner(attempts):
                return winner
        return attempts[-1].result()  # which raises why not
    finally:
        for attempt in attempts:
            attempt.add_done_callback(_close_unused)
            attempt.cancel()


async def _connected(family: int, kind: int, proto: int, address: Any) -> socket.socket:
    candidate = socket.socket(family, kind, proto)
    try:
        candidate.setblocking(False)
        await asyncio.get_running_loop().sock_connect(candidate, address)
    except BaseException:
        candidate.close()
        raise
    return candidate


def _winner(attempts: list[asyncio.Task[socket.socket]]) -> socket.socket | None:
    for attempt in attempts:
        if attempt.done() and not attempt.cancelled() and attempt.exception() is None:
            attempts.remove(attempt)
            return attempt.result()
    return None


def _close_unused(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
