"""
TCP and TLS streams on asyncio's buffered protocol.

A protocol receives while its owner writes, so that the early response of a server is received. TLS is done here, because
asyncio's own drops what it has not decrypted when a write fails: the response of a server that refused an upload and hung up.
Bytes are received into the reader's buffer. Encrypted ones, and those that no reader waits for, pass a shared buffer.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import select
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import httpx

from meta_media.http.timeouts import TransferTimeouts, Waiter

__all__ = ["NetworkStream"]

_BUFFER_SIZE: Final = 2**17  # bytes of encrypted data received at a time, so that other tasks get their turn
_SMALL_SIZE: Final = 2**16  # bytes received ahead of the reader, or decrypted at a time: OpenSSL's buffers never shrink
_ENCRYPTED_SIZE: Final = _SMALL_SIZE + 2**13  # bytes encrypted at a time, so that 64 KiB leave with their form and head
_FEW_PIECES: Final = 8  # that are encrypted without being joined: each begins a record
_UNREAD_PIECES: Final = 2**10  # received ahead of the reader; a TLS record may have one byte
_TLS_RECORD_SIZE: Final = 2**14  # bytes at most (RFC 8446, section 5.1)
_PIECE_SIZE: Final = 2**19  # bytes received or sent at a time, so that other tasks get their turn


class _Shared(threading.local):
    """A buffer for each thread. Its event loop fills and empties it without a pause between."""

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(_BUFFER_SIZE))


_shared = _Shared()


class NetworkStream(asyncio.BufferedProtocol):
    """One connection, over a connected socket. Closing it is immediate and awaits nothing."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._arrivals = _arrivals(connected)
        self._transport: Any = None
        self._tls: Any = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._buffer = _shared.buffer
        self._unread: deque[memoryview] = deque()
        self._unread_size = 0
        self._wanted: memoryview | None = None  # the rest of a waiting reader's buffer
        self.filled = 0  # bytes that the last `readinto` received, also if it failed
        self._ended = self._handshaking = False
        self.cut = False  # whether TLS ended without the peer's close_notify: it may be the work of an attacker
        self._error: Exception | None = None
        self._reading = True
        self.writable = True  # whether asyncio's buffer has room
        self._pending = 0  # bytes in asyncio's buffer when writing was paused, or last timed
        self._waiter = Waiter()
        with contextlib.suppress(AttributeError, OSError):  # not on Windows, and not for sockets other than TCP
            # megabytes in the system's buffers would still be on their way while the response is waited for
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _PIECE_SIZE)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go: the reader's buffer, or the one that all connections share."""
        if self._wanted is None:
            return self._buffer[:_SMALL_SIZE]
        return self._buffer[: len(self._wanted) + _TLS_RECORD_SIZE] if self._tls else self._wanted[:_PIECE_SIZE]

    def buffer_updated(self, nbytes: int) -> None:
        """Use the bytes that were received."""
        if self._handshaking:
            self._incoming.write(self._buffer[:nbytes])
            self._waiter.wake()
        elif self._tls is not None:
            for start in range(0, nbytes, _SMALL_SIZE):
                self._incoming.write(self._buffer[start : min(start + _SMALL_SIZE, nbytes)])
                self._decrypt()
        elif self._wanted is not None:
            self._filled_up_to(self._wanted[nbytes:])
        else:
            self._keep(bytes(self._buffer[:nbytes]))

    def eof_received(self) -> None:
        """Note the end of what the peer sends; asyncio closes the connection then."""
        self.cut = self._tls is not None and not self._ended
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Receive what the system still holds: a response may have arrived before a write failed."""
        if exc is not None and not self._ended:
            with contextlib.suppress(OSError):
                while count := self._socket.recv_into(self.get_buffer(-1)):
                    self.buffer_updated(count)
        self._end(exc)
        self._waiter.close()

    def pause_writing(self) -> None:
        """Make `write` wait until the peer has received more."""
        self.writable = False
        self._pending = self._transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        """Let `write` go on."""
        self.writable = True
        self._waiter.wake()

    @property
    def stale(self) -> bool:
        """Whether an idle connection has received bytes or has ended, even if the event loop has not noticed yet."""
        return self.received_any or bool(self._arrivals())

    @property
    def unsent(self) -> bool:
        """Whether written bytes are still in asyncio's buffer."""
        return bool(self._transport.get_write_buffer_size())

    # Reading

    @property
    def received_any(self) -> bool:
        """Whether bytes have arrived that were not read, or the connection has ended."""
        return self._ended or bool(self._unread)

    async def read(self, timeouts: TransferTimeouts) -> memoryview:
        """Return the next bytes that arrive; none at the end."""
        while not self._unread:
            if self._ended:
                self._raise_error()
                return memoryview(b"")
            if not await self._waiter.wait(timeouts.wait("read")):
                raise timeouts.error("read")
        timeouts.check_deadline()
        return self._next_unread()

    async def readinto(self, buffer: memoryview, timeouts: TransferTimeouts) -> int:
        """Fill a buffer; return the number of bytes, which is smaller only at the end."""
        size = len(buffer)
        while buffer and self._unread:
            piece = self._unread[0]
            if len(piece) > len(buffer):
                self._unread[0] = piece[len(buffer) :]
                self._unread_size -= len(buffer)
                piece = piece[: len(buffer)]
            else:
                self._next_unread()
            buffer[: len(piece)] = piece
            buffer = buffer[len(piece) :]
        self._wanted, before = buffer or None, len(buffer)
        try:
            while self._wanted is not None and not self._ended:
                if not await self._waiter.wait(timeouts.wait("read")):
                    before, moved = len(self._wanted), before - len(self._wanted)
                    timeouts.check_idle("read", moved)
            if self._wanted is None:
                return size
            self._raise_error()
            return size - len(self._wanted)
        finally:
            self.filled = size - len(self._wanted or b"")
            self._wanted = None

    def _next_unread(self) -> memoryview:
        piece = self._unread.popleft()
        self._unread_size -= len(piece)
        if not self._reading and not self._full and not self._ended:
            self._reading = True
            self._transport.resume_reading()
        return piece

    @property
    def _full(self) -> bool:
        return self._unread_size >= _SMALL_SIZE or len(self._unread) >= _UNREAD_PIECES

    def _raise_error(self) -> None:
        if self._error is not None:
            raise httpx.ReadError(str(self._error)) from self._error

    def _keep(self, piece: bytes) -> int:
        if not piece:
            return 0
        self._unread.append(memoryview(piece))
        self._unread_size += len(piece)
        if self._full and self._reading and not self._ended:
            self._reading = False
            self._transport.pause_reading()
        self._waiter.wake()
        return len(piece)

    def _filled_up_to(self, rest: memoryview) -> None:
        self._wanted = rest or None
        if not rest:
            self._waiter.wake()

    def _decrypt(self) -> None:
        """Decrypt all records that have arrived. TLS itself may have something to send after one."""
        read, arrived, decrypted = self._tls.read, self._incoming, self._tls.pending
        try:
            while not self._ended and (arrived.pending or decrypted()):  # else `read` would make an exception
                if (rest := self._wanted) is None:
                    count = self._keep(read(_TLS_RECORD_SIZE))  # no variable: tracebacks may show it
                else:
                    count = read(len(rest), rest)
                    self._wanted = rest = rest[count:] or None
                    if rest is None:
                        self._waiter.wake()
                if not count:
                    self._end(None)
                    self._transport.close()  # the peer has closed TLS and waits for the same from us
        except ssl.SSLWantReadError:  # the rest of a record has not arrived
            pass
        except ssl.SSLError as error:
            self._end(error)
            self._transport.close()
        self._send_encrypted()

    def _end(self, error: Exception | None) -> None:
        if not self._ended:  # an error after the end means nothing
            self._ended, self._error = True, error
        self._waiter.wake()

    # Writing

    async def write(self, data: memoryview, timeouts: TransferTimeouts) -> int:
        """
        Send bytes until the peer responds or hangs up; return how many were handed to the transport.

        None are handed to it before it has sent nearly all of those before, however often the peer says something meanwhile.
        """
        given = 0
        while not (self._ended or self._unread):
            if not self.writable:
                await self._drain(timeouts)
                continue
            if given == len(data):
                break
            if given:
                await asyncio.sleep(0)  # lets other tasks run, and the loop receive an early response
                if self.received_any:
                    break
            piece = data[given : given + (_PIECE_SIZE if self._tls is None else _ENCRYPTED_SIZE)]
            given += len(piece)
            timeouts.restart()
            if self._tls is None:
                self._transport.write(piece)
            else:
                self._tls.write(piece)
                self._send_encrypted()
        return given

    def send(self, pieces: Sequence[Any]) -> memoryview:
        """Send pieces, before they are joined, as far as that can be done at once; return the rest, for `write`."""
        size, sent = sum(map(len, pieces)), 0
        idle = not (self.received_any or self.unsent)
        if idle and self._tls is None and size <= _PIECE_SIZE:
            with contextlib.suppress(AttributeError, OSError):  # not on Windows; and `write` meets the error again
                sent = self._socket.sendmsg(pieces)
        elif idle and self._tls is not None and size <= _ENCRYPTED_SIZE and len(pieces) <= _FEW_PIECES:
            for piece in filter(len, pieces):
                self._tls.write(piece)
            self._send_encrypted()
            sent = size
        if sent == size:
            return memoryview(b"")
        return memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))[sent:]

    async def _drain(self, timeouts: TransferTimeouts) -> None:
        while not self.writable and not self.received_any:
            if not await self._waiter.wait(timeouts.wait("write")):
                before, self._pending = self._pending, self._transport.get_write_buffer_size()
                timeouts.check_idle("write", before - self._pending)

    def _send_encrypted(self) -> None:
        if self._outgoing.pending and not self._ended:  # after the end, asyncio would drop it and uvloop raise
            self._transport.write(self._outgoing.read())

    async def start_tls(self, tls: ssl.SSLContext, host: str) -> None:
        """Shake hands; `ssl.SSLError` if the peer does not agree, `OSError` if it hangs up."""
        secured = tls.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        while self._unread:  # kept, these bytes would pass for a response. On uvloop they come earlier than on asyncio
            self._incoming.write(self._next_unread())
        self._handshaking = True
        while self._handshaking:
            try:
                secured.do_handshake()
                self._handshaking = False
            except ssl.SSLWantReadError:
                if self._ended:
                    raise self._error or ConnectionResetError(errno.ECONNRESET, "hung up") from None
            finally:
                self._send_encrypted()  # after a failure, the alert that names its reason
            if self._handshaking:
                await self._waiter.wait(None)
        self._tls = secured
        self._decrypt()

    def abort(self, *, unsent: bool = False) -> None:
        """Close at once. With `unsent`, the system drops the bytes of the request that it still holds."""
        if unsent:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


def _arrivals(connected: socket.socket) -> Callable[[], list[Any]]:
    """Return what asks the system whether bytes, or an end, have arrived. Unlike a look at them, it makes no exception."""
    if not hasattr(select, "poll"):  # on Windows, where select takes any socket
        return lambda: select.select([connected], [], [], 0)[0]
    poll = select.poll()
    poll.register(connected, select.POLLIN)
    return functools.partial(poll.poll, 0)
