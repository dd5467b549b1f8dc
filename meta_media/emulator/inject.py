"""
Acting out a fault: one exchange, whose reply is written to the socket byte by byte, below ASGI and past h11.

An ASGI server keeps its replies in order: no length that lies, no break in the middle, nothing after the end. So a
reply that something happens to is caught here, and said in our own bytes. At its end uvicorn is told a reply of no
bytes, which `Connection.hushed` keeps off the wire: to it the exchange is over, and the connection is ready for the
next request.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meta_media.emulator.faults import Fault
from meta_media.emulator.server import Connection

__all__ = ["inject", "scripted"]

_STEP: Final = 0.05  # seconds from one write to the next, or from one read to the next, at a rate
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
_NO_BYTES: Final = ((b"content-length", b"0"),)
_RESET: Final = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)  # linger for no time: close() sends RST


def scripted(fault: Fault) -> Response:
    """Make the reply that a fault puts in the place of the real one."""
    return Response(fault.body, fault.status or 200, media_type=None if fault.body is None else "application/json")


async def inject(fault: Fault, app: ASGIApp, instead: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """
    Answer a request with a fault.

    Args:
        fault: What happens.
        app: Does what is asked, and answers.
        instead: Answers in its place, if the fault replaces the reply.
        scope: The request, of a `Connection`.
        receive: The request's body.
        send: Where uvicorn takes the reply.
    """
    exchange = _Exchange(fault, scope, receive, send)
    try:
        await exchange.run(app, instead)
    finally:
        exchange.connection.read_at_most(None)


class _Exchange:
    """One request and its reply."""

    def __init__(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        self.connection: Connection = scope["state"]["connection"]
        self._fault = fault
        self._scope = scope
        self._receive = receive
        self._send = send
        self._message: Message = {}
        self._position = 0  # in the reply's body, as far as it was looked at
        self._happened = False
        self._over = False
        self._reading = False

    async def run(self, app: ASGIApp, instead: ASGIApp) -> None:
        fault = self._fault
        if fault.at == "request":
            await self._discard(fault.reads or 0)
            await self._happen()
        if self._over:
            return
        if not fault.replaces:
            await app(self._scope, self._slow_receive, self._say)
        else:
            if fault.applied:
                await app(self._scope, self._slow_receive, _unheard)
            elif fault.at != "request" or fault.reads is None:
                await self._discard(fault.reads)
            await instead(self._scope, self._receive, self._say)
        await self._finish()

    async def _slow_receive(self) -> Message:
        connection, rate = self.connection, self._fault.read_rate
        if rate is not None and not self._reading:
            self._reading = True
            connection.read_at_most(max(1, int(rate * _STEP)))
            return await self._receive()  # what came along with the head
        message = await self._receive()
        if rate is not None and message.get("body"):
            connection.flow.pause_reading()
            await connection.idle(len(message["body"]) / rate)
        return message

    async def _discard(self, limit: int | None) -> None:
        read = 0
        while limit is None or read < limit:
            message = await self._slow_receive()
            read += len(message.get("body", b""))
            if not message.get("more_body"):
                return

    async def _happen(self) -> None:
        if self._happened or (self._fault.delay is None and self._fault.end is None):
            return
        self._happened = True
        if self._fault.delay is not None:
            await self.connection.idle(self._fault.delay)
        if self._fault.end is not None:
            await self._leave(self._fault.end)

    async def _leave(self, how: str) -> None:
        self._over = True
        if how == "close":
            self.connection.transport.close()
        elif how == "reset":
            raw: socket.socket = self.connection.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.connection.transport.abort()
        await self.connection.lost.wait()  # or uvicorn would miss a reply and give one

    async def _say(self, message: Message) -> None:
        """Take the place of ASGI's `send`."""
        if message["type"] == "http.response.start":
            self._message = message
            await self._say_head()
        elif self._scope["method"] != "HEAD":
            for piece in self._pieces(message.get("body", b"")):
                await self._say_body(piece)
                if self._position == self._fault.at:
                    await self._happen()

    async def _say_head(self) -> None:
        if self._fault.at in {None, "reply"}:
            await self._happen()
        head = self._head()
        if self._fault.at == "head":
            middle = len(head) // 2
            await self._write(head[:middle])
            await self._happen()
            head = head[middle:]
        await self._write(head)
        if self._fault.at == 0:
            await self._happen()

    def _head(self) -> bytes:
        fault, status = self._fault, self._message["status"]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._message["headers"]}
        length = int(headers.pop("content-length", "0"))  # every reply of the emulator says how long it is
        if fault.framing == "chunked":
            headers["transfer-encoding"] = "chunked"
        elif fault.framing == "length":
            length = length if fault.truncate is None else min(length, fault.truncate)
            headers["content-length"] = str(length if fault.content_length is None else fault.content_length)
        if fault.framing == "close" or (b"connection", b"close") in self._scope["headers"]:
            headers["connection"] = "close"
        headers |= {name.lower(): value for name, value in fault.headers.items()}
        lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, '')}", *(f"{name}: {headers[name]}" for name in headers)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        fault, start = self._fault, self._position
        if fault.truncate is not None:
            data = data[: max(0, fault.truncate - start)]
        if fault.flip_at is not None and start <= fault.flip_at < start + len(data):
            flipped = bytearray(data)
            flipped[fault.flip_at - start] ^= 1
            data = bytes(flipped)
        if isinstance(fault.at, int) and start < fault.at < start + len(data):
            yield data[: fault.at - start]
            data = data[fault.at - start :]
        yield data

    async def _say_body(self, piece: bytes) -> None:
        rate = self._fault.rate
        step = max(1, len(piece) if rate is None else int(rate * _STEP))
        for start in range(0, len(piece), step):
            part = piece[start : start + step]
            if self._fault.framing == "chunked":
                await self._write(b"%x\r\n%b\r\n" % (len(part), part))
            else:
                await self._write(part)
            if rate is not None:
                await self.connection.idle(len(part) / rate)
            if self._gone:
                return
        self._position += len(piece)

    async def _finish(self) -> None:
        if isinstance(self._fault.at, int):
            await self._happen()
        ended = self._fault.framing == "chunked" and self._scope["method"] != "HEAD"
        await self._write((b"0\r\n\r\n" if ended else b"") + self._fault.surplus)
        if self._fault.at == "end":
            await self._happen()
        if self._fault.framing == "close" and not self._gone:
            await self._leave("close")
        if not self._gone:
            with self.connection.hushed():
                await self._send({"type": "http.response.start", "status": 200, "headers": _NO_BYTES})
                await self._send({"type": "http.response.body"})

    @property
    def _gone(self) -> bool:
        return self._over or self.connection.lost.is_set()

    async def _write(self, data: bytes) -> None:
        if not self._gone:
            self.connection.transport.write(data)
            if self.connection.flow.write_paused:
                await self.connection.flow.drain()


async def _unheard(_message: Message) -> None:
    """Take the place of ASGI's `send` for a reply that nobody gets."""
