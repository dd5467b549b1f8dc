"""
Our own connections, under httpx's interface for transports: per origin a stack, the latest used taken first.

There is no pool to search, to lock or to lose a place in. Whoever takes a connection gives it back only when reply and
request are both complete and not a byte is left over; anything else, a cancellation at any await included, closes it on
the spot, without another await.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import ssl
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any, Final

import httpcore
import httpx

from .logs import QueriesHidden
from .network import Stream, connect

__all__ = ["Answer", "Transport"]

_KEEP_ALIVE: Final = 5.0  # seconds that an idle connection is kept, which is less than servers keep them
_PORTS: Final = {b"https": 443, b"http": 80}
Origin = tuple[bytes, bytes, int]


class _Connection(httpcore.AsyncHTTP11Connection):
    READ_NUM_BYTES = 2**20  # `network` brings as much at a time

    def __init__(self, origin: Origin, stream: Stream) -> None:
        super().__init__(httpcore.Origin(*origin), stream, keepalive_expiry=_KEEP_ALIVE)
        self.wire = stream

    def reusable(self) -> bool:
        """Whether the last exchange is complete to the byte: a surplus would be read as the next reply."""
        return self.is_available() and not self.has_expired() and not self._h11_state.trailing_data[0]


class Answer:
    """
    A reply on its connection.

    Attributes:
        status: HTTP status.
        headers: As received, in bytes.
    """

    def __init__(self, response: httpcore.Response, give_back: Callable[..., None]) -> None:
        self.status = response.status
        self.headers = response.headers
        self._body: Any = response.stream
        self._give_back = give_back
        self._closed = False

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes."""
        try:
            async for chunk in self._body:
                yield chunk
        except BaseException:
            self._end(whole=False)
            raise

    async def aclose(self) -> None:
        """Give the connection back, or close it if anything is left to send or to read."""
        try:
            await self._body.aclose()
        except BaseException:
            self._end(whole=False)
            raise
        self._end(whole=True)

    def _end(self, *, whole: bool) -> None:
        if not self._closed:
            self._closed = True
            self._give_back(whole=whole)


class Transport(httpx.AsyncBaseTransport):
    """
    Sends over connections of its own.

    Args:
        tls: For https; None refuses it.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._idle: defaultdict[Origin, deque[_Connection]] = defaultdict(deque)
        self._busy: set[_Connection] = set()
        self._home: tuple[int, asyncio.AbstractEventLoop] | None = None

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], content: Any, timeouts: Mapping[str, float]
    ) -> Answer:
        """Send a request of ours: a complete URL, all headers but Host."""
        target = httpcore.URL(url)
        raw = [(b"Host", url.split("/", 3)[2].encode())]
        raw += [(name.encode(), value.encode()) for name, value in headers.items()]
        request = httpcore.Request(method, target, headers=raw, content=content, extensions={"timeout": timeouts})
        with QueriesHidden():
            return await self.exchange(request)

    async def exchange(self, request: httpcore.Request) -> Answer:
        """Send a request; whatever goes wrong, its connection is closed."""
        url = request.url
        if url.scheme not in _PORTS or (url.scheme == b"https" and self._tls is None):
            raise httpcore.UnsupportedProtocol("http, and https with a TLS context, are all that can be spoken")
        origin = (url.scheme, url.host, url.port or _PORTS[url.scheme])
        idle = self._at_home()[origin]
        connection = self._taken(idle)
        if connection is None:
            timeout = request.extensions.get("timeout", {}).get("connect")
            tls = self._tls if origin[0] == b"https" else None
            connection = _Connection(origin, await connect(origin[1].decode().strip("[]"), origin[2], tls, timeout))
        self._busy.add(connection)
        try:
            return Answer(
                await connection.handle_async_request(request), functools.partial(self._given_back, origin, connection)
            )
        except BaseException:
            self._drop(connection)
            raise

    def _given_back(self, origin: Origin, connection: _Connection, *, whole: bool) -> None:
        if whole and connection.reusable() and connection in self._busy:
            self._busy.discard(connection)
            self._idle[origin].append(connection)
        else:
            self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        self._busy.discard(connection)
        connection.wire.abort()

    def _at_home(self) -> defaultdict[Origin, deque[_Connection]]:
        """Forget connections of another event loop, or of the process that this one was forked from."""
        home = os.getpid(), asyncio.get_running_loop()
        if self._home != home:
            self._home = home
            self._idle = defaultdict(deque)
            self._busy = set()
        return self._idle

    def _taken(self, idle: deque[_Connection]) -> _Connection | None:
        while idle and idle[0].has_expired():
            idle.popleft().wire.abort()
        while idle:
            connection = idle.pop()
            if connection.reusable():
                return connection
            connection.wire.abort()
        return None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Serve any `httpx.AsyncClient`."""
        url = request.url
        answer = await self.exchange(
            httpcore.Request(
                request.method,
                httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer))

    async def aclose(self) -> None:
        """Close all connections; whoever is using one is told that it broke."""
        for connection in (*itertools.chain(*self._at_home().values()), *self._busy):
            self._drop(connection)
        self._idle.clear()


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._answer.chunks()

    async def aclose(self) -> None:
        await self._answer.aclose()
