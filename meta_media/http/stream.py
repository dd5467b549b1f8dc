"""
TCP and TLS streams on asyncio's buffered protocol.

A protocol receives while its owner writes, so a server that answers early, while an upload is still on its way, is received_any.
TLS is done here, between socket and reader, because asyncio's own throws away what it has not decrypted yet when a write
fails, and with it the answer of a server that refused an upload and hung up. Bytes are received right where the reader wants
them; what nobody waits for yet, or is still encrypted, passes through a buffer that connections share.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx

from meta_media.http.addresses import first_connected
from meta_media.http.timeouts import TransferTimeouts

__all__ = ["NetworkStream", "connect", "secure"]

_READ: Final = 2**19  # bytes that one system call may bring
_KEPT: Final = 120 * 2**10  # bytes of a piece that nobody waits for: above 128 KiB malloc maps fresh pages for each
_HELD: Final = 2**18  # bytes received ahead of the reader, above which the peer has to wait
_RECORD: Final = 2**14  # bytes that a record of TLS holds at most (RFC 8446, section 5.1)
_PIECE: Final = 2**18  # bytes taken from the system, or given to it, at a time: others want their turn, too


class _Shared(threading.local):
    """What all connections of a thread receive into: its event loop fills it and hands it over without a pause between."""

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(_READ))


_shared = _Shared()


class NetworkStream(asyncio.BufferedProtocol):
    """
    One connection. Closing it is immediate, and takes no await.

    Attributes:
        filled: How many bytes the last `readinto` brought, also when it failed.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._transport: Any = None
        self._tls: Any = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._handshaking = False
        self._buffer = _shared.buffer
        self._received: deque[memoryview] = deque()
        self._held = 0
        self._wanted: memoryview | None = None  # where a reader waits for bytes; shrinks as they come
        self.filled = 0
        self._ended = False
        self._error: Exception | None = None
        self._reading = True
        self._writable = True
        self._waiter: asyncio.Future[bool] | None = None
        with contextlib.suppress(AttributeError, OSError):  # neither Windows nor what is not TCP has it
            # megabytes that the system holds would still be leaving while we wait for the reply to them
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _PIECE)

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where the next bytes go: straight to a reader, or into the buffer that all connections share."""
        if self._tls or self._handshaking:
            return self._buffer
        return self._buffer[:_KEPT] if self._wanted is None else self._wanted[:_PIECE]

    def buffer_updated(self, nbytes: int) -> None:
        """Take what has come."""
        if self._handshaking:
            self._incoming.write(self._buffer[:nbytes])
            self._wake()
        elif self._tls is not None:
            self._incoming.write(self._buffer[:nbytes])
            self._decrypt()
        elif self._wanted is not None:
            self._fill(self._wanted[nbytes:])
        else:
            self._keep(bytes(self._buffer[:nbytes]))

    def eof_received(self) -> None:
        """Note that no more will come; asyncio closes the connection then."""
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Save what the system still holds: a failed write must not cost us the answer that came before it."""
        if exc is not None and not self._ended:
            with contextlib.suppress(OSError):
                while count := self._socket.recv_into(self.get_buffer(-1)):
                    self.buffer_updated(count)
        self._end(exc)

    def pause_writing(self) -> None:
        """Wait: the peer does not keep up."""
        self._writable = False

    def resume_writing(self) -> None:
        """Go on."""
        self._writable = True
        self._wake()

    @property
    def stale(self) -> bool:
        """Whether an idle connection has said something, or ended, even if the loop has not received_any of it yet."""
        if self.received_any:
            return True
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    @property
    def unsent(self) -> bool:
        """Whether something that was written is still to leave."""
        return bool(self._transport.get_write_buffer_size())

    # Reading

    @property
    def received_any(self) -> bool:
        """Whether the peer has said something that was not read yet, or has gone."""
        return self._ended or bool(self._received)

    async def read(self, timeouts: TransferTimeouts) -> memoryview:
        """Return what has come, or nothing at the end."""
        while not self._received:
            if self._ended:
                self._check()
                return memoryview(b"")
            if not await self._changed(timeouts.wait("read")):
                raise timeouts.error("read")
        return self._taken()

    async def readinto(self, wanted: memoryview, timeouts: TransferTimeouts) -> int:
        """Fill a buffer, but for what is missing at the end; return how many bytes came."""
        size = len(wanted)
        while wanted and self._received:
            piece = self._received[0]
            if len(piece) > len(wanted):
                self._received[0] = piece[len(wanted) :]
                self._held -= len(wanted)
                piece = piece[: len(wanted)]
            else:
                self._taken()
            wanted[: len(piece)] = piece
            wanted = wanted[len(piece) :]
        self._wanted = wanted or None
        before = len(wanted)
        try:
            while self._wanted is not None and not self._ended:
                if not await self._changed(timeouts.wait("read")):
                    before, moved = len(self._wanted), before - len(self._wanted)
                    timeouts.check_idle("read", moved)
            if self._wanted is None:
                return size
            self._check()
            return size - len(self._wanted)
        finally:
            self.filled = size - len(self._wanted or b"")
            self._wanted = None

    def _taken(self) -> memoryview:
        piece = self._received.popleft()
        self._held -= len(piece)
        if not self._reading and self._held < _HELD and not self._ended:
            self._reading = True
            self._transport.resume_reading()
        return piece

    def _check(self) -> None:
        if self._error is not None:
            raise httpx.ReadError(str(self._error)) from self._error

    def _keep(self, piece: bytes) -> int:
        if not piece:
            return 0
        self._received.append(memoryview(piece))
        self._held += len(piece)
        if self._held >= _HELD and self._reading and not self._ended:
            self._reading = False
            self._transport.pause_reading()
        self._wake()
        return len(piece)

    def _fill(self, left: memoryview) -> None:
        self._wanted = left or None
        if not left:
            self._wake()

    def _decrypt(self) -> None:
        """Decrypt all that is there; a record may also ask for an answer of TLS's own."""
        try:
            while not self._ended:
                if self._wanted is None:
                    count = self._keep(self._tls.read(_RECORD))  # no variable: tracebacks may show them
                else:
                    count = self._tls.read(len(self._wanted), self._wanted)
                    self._fill(self._wanted[count:])
                if not count:
                    self._end(None)
                    self._transport.close()  # a peer that has taken its leave waits for ours
        except ssl.SSLWantReadError:
            self._send_encrypted()
        except ssl.SSLError as error:
            self._end(error)
            self._transport.close()

    def _end(self, error: Exception | None) -> None:
        if not self._ended:  # else it is too late for an error to matter
            self._ended, self._error = True, error
        self._wake()

    # Writing

    async def write(self, data: memoryview, timeouts: TransferTimeouts) -> int:
        """Send bytes; return how many were given away when the last had left, or the peer had spoken or gone."""
        given = 0
        while given < len(data) and not self.received_any:
            if given:
                await asyncio.sleep(0)  # a fast peer must not keep us from everybody else, nor from hearing it
            piece = data[given : given + _PIECE]
            given += len(piece)
            if self._tls is None:
                self._transport.write(piece)
            else:
                self._tls.write(piece)
                self._send_encrypted()
            if not self._writable:
                await self._drained(timeouts)
        return given

    async def _drained(self, timeouts: TransferTimeouts) -> None:
        left = self._transport.get_write_buffer_size()
        while not self._writable and not self.received_any:
            if not await self._changed(timeouts.wait("write")):
                before, left = left, self._transport.get_write_buffer_size()
                timeouts.check_idle("write", before - left)

    def _send_encrypted(self) -> None:
        if self._outgoing.pending:
            self._transport.write(self._outgoing.read())

    # Beginning and end

    async def start_tls(self, tls: ssl.SSLContext, host: str) -> None:
        """Begin TLS; `ssl.SSLError` if it cannot be, `OSError` if the peer goes away."""
        secured = tls.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._handshaking = True
        while self._handshaking:
            try:
                secured.do_handshake()
                self._handshaking = False
            except ssl.SSLWantReadError:
                if self._ended:
                    raise self._error or ConnectionResetError(errno.ECONNRESET, "hung up") from None
            finally:
                self._send_encrypted()  # if nothing else, the alert that tells the peer why not
            if self._handshaking:
                await self._changed(None)
        self._tls = secured
        self._decrypt()

    def abort(self, *, unsent: bool = False) -> None:
        """Close at once; with `unsent`, what the system still holds of a request does not follow."""
        if unsent:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    async def _changed(self, timeout: float | None) -> bool:
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


async def connect(host: str, port: int, tls: ssl.SSLContext | None, timeouts: TransferTimeouts) -> NetworkStream:
    """Connect, and for TLS shake hands."""
    async with _connecting(timeouts):
        connected = await first_connected(host, port)
        stream = NetworkStream(connected)
        try:
            await asyncio.get_running_loop().create_connection(lambda: stream, sock=connected)
            if tls is not None:
                await stream.start_tls(tls, host)
        except BaseException:
            stream.abort()  # asyncio has made its transport before anything can fail
            raise
    return stream


async def secure(stream: NetworkStream, host: str, tls: ssl.SSLContext, timeouts: TransferTimeouts) -> None:
    """Shake hands with a host, which ends the connection if it fails."""
    try:
        async with _connecting(timeouts):
            await stream.start_tls(tls, host)
    except BaseException:
        stream.abort()
        raise


@contextlib.asynccontextmanager
async def _connecting(timeouts: TransferTimeouts) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeouts.wait("connect")):
            yield
    except TimeoutError as error:
        raise timeouts.error("connect") from error
    except OSError as error:
        raise httpx.ConnectError(str(error)) from error
