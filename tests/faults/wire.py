"""One connection of the fault server, with TLS of its own: bytes can be damaged after they were encrypted."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from typing import Final

_READ: Final = 2**16  # bytes read from a connection at a time


def flipped(data: bytes) -> bytes:
    """Flip a bit in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


class Wire:
    """One connection, with TLS of its own where there is any: bytes can be damaged after they were encrypted."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tls: ssl.SSLContext | None) -> None:
        self._reader = reader
        self._writer = writer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._secured = tls.wrap_bio(self._incoming, self._outgoing, server_side=True) if tls else None
        self._ahead = bytearray()
        writer.transport.set_write_buffer_limits(0)  # so that `drain` means that it has left

    @property
    def secured(self) -> bool:
        """Whether there is TLS."""
        return self._secured is not None

    async def start_tls(self, *, flip: bool) -> None:
        """Do the handshake, with a flipped bit if asked."""
        while self._secured is not None:
            try:
                self._secured.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush(flip=flip)
                await self._fill()
            else:
                await self._flush()
                return

    async def raw(self) -> bytes:
        """Take what comes, as it is."""
        return await self._reader.read(_READ)

    async def say_raw(self, data: bytes) -> None:
        """Send bytes without TLS."""
        self._writer.write(data)
        await self._writer.drain()

    async def _fill(self) -> bool:
        data = await self._reader.read(_READ)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        return bool(data)

    async def _flush(self, *, flip: bool = False) -> None:
        data = self._outgoing.read()
        await self.say_raw(flipped(data) if flip and data else data)

    async def read(self, size: int = _READ) -> bytes:
        """Take up to so many bytes; none at the end."""
        if self._ahead:
            data = bytes(self._ahead[:size])
            del self._ahead[:size]
            return data
        if self._secured is None:
            return await self._reader.read(size)
        while True:
            try:
                return self._secured.read(size)
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._fill():
                    return b""

    async def read_head(self) -> bytes:
        """Take a request's head; nothing at the end."""
        taken = bytearray()
        while b"\r\n\r\n" not in taken:
            data = await self.read()
            if not data:
                return b""
            taken += data
        head, _, self._ahead = taken.partition(b"\r\n\r\n")
        return bytes(head)

    async def send(self, data: bytes, *, flip: bool = False) -> None:
        """Send bytes, with a bit flipped after encryption if asked."""
        if self._secured is None:
            await self.say_raw(flipped(data) if flip else data)
        elif data:
            self._secured.write(data)
            await self._flush(flip=flip)

    def reset(self) -> None:
        """Break the connection with RST."""
        connection: socket.socket = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def end(self, *, takes_leave: bool = True) -> None:
        """Close with FIN, after TLS's close_notify unless told otherwise."""
        if self._secured is not None and takes_leave:
            with contextlib.suppress(ssl.SSLError):  # it would like to wait for the client's
                self._secured.unwrap()
            await self._flush()
        self._writer.close()

    async def aclose(self) -> None:
        """Close, and wait until it is closed."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
