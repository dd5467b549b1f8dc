"""
The socket: uvicorn in the caller's event loop, without logs and signal handlers; and faults, acted out on it byte by byte.

An ASGI server keeps its responses in order: no wrong length, no break in the middle, nothing after the end. `inject` therefore
writes a faulty response to the transport itself, past h11. At its end uvicorn gets a response of no bytes, which
`Connection.end_response` keeps off the socket: for uvicorn the request is over, and the connection is ready for the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import logging
import os
import socket
import ssl
import struct
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final, cast

import anyio.to_thread
import h11
import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meta_media.emulator.faults import Fault
from meta_media.emulator.tls import HandshakingConnection
from meta_media.errors import NetworkError

__all__ = ["Connection", "Server", "inject", "scripted"]

_LOGGER: Final = logging.getLogger("meta_media.emulator")
_KEEP_ALIVE: Final = 60  # seconds; longer than clients keep an idle connection, so that they never find it closed
_MAX_HEAD_SIZE: Final = 2**16  # bytes of a request's head; uvicorn's own limit
_ACCEPT_TURNS: Final = 3  # turns of the event loop in which asyncio hands over a connection that it has accepted
_STEP: Final = 0.05  # seconds from one write or read to the next, at a rate
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
_NO_BYTES: Final = ((b"content-length", b"0"),)
_TLS_HANDSHAKE: Final = b"\x16\x03"  # the first bytes of a TLS client (RFC 8446, section 5.1)
_RESET: Final = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)  # linger for no time: close() sends RST


class _Http(h11.Connection):
    """HTTP's state, which can change without an output."""

    muted = False

    def send_with_data_passthrough(self, event: h11.Event) -> list[bytes] | None:
        """Return the bytes of an event; none while muted."""
        output = super().send_with_data_passthrough(event)
        return [] if self.muted and output is not None else output


class Connection(HandshakingConnection):
    """One connection: `scope["state"]["connection"]` of its requests."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.app_state = self.app_state | {"connection": self}
        # Not uvicorn's global loggers: its access log would show signed URLs.
        self.access_log = False
        self.logger = _LOGGER
        self.lost = asyncio.Event()  # set when the connection is gone, whichever side ended it
        self._http = self.conn = _Http(h11.SERVER, _MAX_HEAD_SIZE)
        self._began = False

    def data_received(self, data: bytes) -> None:
        """Answer a client that speaks TLS by a sentence in the log and one in plain text, which its TLS library refuses."""
        began, self._began = self._began, True
        if not began and data.startswith(_TLS_HANDSHAKE):
            self.logger.warning("a client spoke TLS to the emulator: let it use http://, or start this with TLS")
            self.send_400_response("This port speaks plain HTTP: use http://")
        else:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Set `lost`."""
        super().connection_lost(exc)
        self.lost.set()

    async def idle(self, seconds: float) -> None:
        """Wait, or until the connection is gone."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.lost.wait()

    async def end_response(self, send: Send) -> None:
        """Give uvicorn a response of no bytes, and keep it off the socket."""
        self._http.muted = True
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _NO_BYTES})
            await send({"type": "http.response.body"})
        finally:
            self._http.muted = False

    def read_at_most(self, size: int | None) -> None:
        """Limit how many bytes are read from the socket at once; None for the default."""
        # asyncio has no public way. `max_size` is what its selector transport passes to recv(); the transports of other
        # event loops have no such attribute, and read in pieces of their own size.
        transport: Any = self.transport
        with contextlib.suppress(AttributeError):
            if size is None:
                del transport.max_size
            else:
                transport.max_size = size


class Server:
    """Serves an application on one socket, by TLS if it is given a context."""

    def __init__(self, app: ASGIApp, tls: ssl.SSLContext | None = None) -> None:
        self._scheme, connection = "http" if tls is None else "https", functools.partial(Connection, tls=tls)
        config = uvicorn.Config(
            app,
            http=cast("Any", connection),
            ws="none",
            lifespan="off",
            log_config=None,
            date_header=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE,
        )
        config.load()
        self._uvicorn = uvicorn.Server(config)
        self._uvicorn.lifespan = config.lifespan_class(config)

    async def start(self, host: str, port: int) -> str:
        """Listen, and return the base URL; a `NetworkError` if the address is in use, or not of this machine."""
        listener = await anyio.to_thread.run_sync(_listen, host, port)
        await self._uvicorn.startup(sockets=[listener])
        address, port = listener.getsockname()[:2]
        if ipaddress.ip_address(address).is_unspecified:  # "all addresses" is not one to connect to
            address = "::1" if ":" in address else "127.0.0.1"
        return f"{self._scheme}://[{address}]:{port}" if ":" in address else f"{self._scheme}://{address}:{port}"

    async def stop(self) -> None:
        """Close the socket, abort every connection, and wait for the requests to end."""
        for server in self._uvicorn.servers:
            server.close()
        for _ in range(_ACCEPT_TURNS):
            await asyncio.sleep(0)
        for connection in list(self._uvicorn.server_state.connections):
            connection.transport.abort()
        if tasks := set(self._uvicorn.server_state.tasks):
            await asyncio.wait(tasks)
        for server in self._uvicorn.servers:
            await server.wait_closed()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in str(host) else socket.AF_INET
    # asyncio switches Nagle's algorithm off only where the protocol is named: with it, each small response takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # A port is free again at once after a restart. Outside POSIX the option would let two servers share it instead.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(os.name == "posix"))
        listener.bind((host, port))
    except (OSError, OverflowError, TypeError, ValueError) as error:  # not OSError: what is no address at all
        listener.close()
        why = f"{getattr(error, 'strerror', None) or error}: choose another port, 0 for a free one, or another address"
        raise NetworkError(f"the emulator could not listen on {host}, port {port}: {why}") from error
    return listener


def scripted(fault: Fault) -> Response:
    """Return the response that a fault puts in the place of the real one."""
    return Response(fault.body, fault.status or 200, media_type=None if fault.body is None else "application/json")


async def inject(fault: Fault, app: ASGIApp, instead: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Respond to a request of a `Connection` by `app`, or by `instead` if the fault replaces the response; with the fault."""
    cycle = _FaultyCycle(fault, scope, receive, send)
    try:
        await cycle.run(app, instead)
    finally:
        cycle.connection.read_at_most(None)


class _FaultyCycle:
    """One request and its response."""

    def __init__(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        self.connection: Connection = scope["state"]["connection"]
        self._fault = fault
        self._scope = scope
        self._receive = receive
        self._send = send
        self._position = 0  # in the response's body
        self._happened = False
        self._over = False
        self._reading = False
        self._held = b""  # the last bytes: a surplus leaves together with them, unless `at` separates them

    async def run(self, app: ASGIApp, instead: ASGIApp) -> None:
        fault = self._fault
        if fault.at == "request":
            await self._discard(fault.reads or 0)
            await self._happen()
        if self._over:
            return
        if not fault.replaces:
            await app(self._scope, self._slow_receive, self._respond)
        else:
            if fault.applied:
                await app(self._scope, self._slow_receive, _ignore)
            elif fault.at != "request" or fault.reads is None:
                await self._discard(fault.reads)
            await instead(self._scope, self._receive, self._respond)
        await self._finish()

    async def _slow_receive(self) -> Message:
        connection, rate = self.connection, self._fault.read_rate
        if rate is not None and not self._reading:
            self._reading = True
            connection.read_at_most(max(1, int(rate * _STEP)))
            return await self._receive()  # bytes that arrived with the head
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
        if self._happened:
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
        elif how == "reset" and not self.connection.lost.is_set():  # else the client has closed it meanwhile
            raw: socket.socket = self.connection.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.connection.transport.abort()
        await self.connection.lost.wait()  # or uvicorn would find no response, and send one

    async def _respond(self, message: Message) -> None:
        """Take a message in the place of ASGI's `send`."""
        if message["type"] == "http.response.start":
            await self._send_head(self._head(message))
        elif self._scope["method"] != "HEAD":
            for piece in self._pieces(message.get("body", b"")):
                await self._send_body(piece)
                if self._position == self._fault.at:
                    await self._happen()

    async def _send_head(self, head: bytes) -> None:
        if self._fault.at in {None, "reply"}:
            await self._happen()
        if self._fault.at == "head":
            middle = len(head) // 2
            await self._write(head[:middle])
            await self._happen()
            head = head[middle:]
        await self._write(head)
        if self._fault.at == 0:
            await self._happen()

    def _head(self, message: Message) -> bytes:
        fault, status = self._fault, message["status"]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
        length = int(headers.pop("content-length", "0"))  # every response of the emulator has one
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

    async def _send_body(self, piece: bytes) -> None:
        rate = self._fault.rate
        step = max(1, len(piece) if rate is None else int(rate * _STEP))
        for start in range(0, len(piece), step):
            part = piece[start : start + step]
            await self._write(b"%x\r\n%b\r\n" % (len(part), part) if self._fault.framing == "chunked" else part)
            if rate is not None:
                await self.connection.idle(len(part) / rate)
            if self._gone:
                return
        self._position += len(piece)

    async def _finish(self) -> None:
        if isinstance(self._fault.at, int):
            await self._happen()
        ended = self._fault.framing == "chunked" and self._scope["method"] != "HEAD"
        await self._pass(self._held + (b"0\r\n\r\n" if ended else b"") + self._fault.surplus)
        if self._fault.at == "end":
            await self._happen()
        if self._fault.framing == "close" and not self._gone:
            await self._leave("close")
        if not self._gone:
            await self.connection.end_response(self._send)

    @property
    def _gone(self) -> bool:
        return self._over or self.connection.lost.is_set()

    async def _write(self, data: bytes) -> None:
        if self._fault.surplus and self._fault.at is None:
            data, self._held = self._held, data
        await self._pass(data)

    async def _pass(self, data: bytes) -> None:
        if not self._gone:
            self.connection.transport.write(data)
            if self.connection.flow.write_paused:
                await self.connection.flow.drain()


async def _ignore(_message: Message) -> None:
    """Take a message in the place of ASGI's `send`, and drop it."""
