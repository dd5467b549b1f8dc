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
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import httpx

from meta_media.errors import ConfigurationError
from meta_media.http.connection import RequestResponseCycle
from meta_media.http.proxy import Proxy
from meta_media.http.stream import NetworkStream, connect, secure
from meta_media.http.timeouts import TransferTimeouts
from meta_media.protocol.secrets import Secret

__all__ = ["CYCLE", "TIMEOUTS", "StaleConnectionError", "Transport", "load_tls", "split_url"]

_KEEP_ALIVE: Final = 5.0  # seconds that an idle connection is kept, which is less than servers keep them
_PORTS: Final = {"https": 443, "http": 80}
TIMEOUTS: Final = "meta_media.timeouts"  # extension of a request: its `TransferTimeouts`
CYCLE: Final = "meta_media.cycle"  # extension of a response: its `RequestResponseCycle`
_HUNG_UP: Final = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
Origin = tuple[str, str, int]
Idle = deque[tuple[float, NetworkStream]]


def load_tls() -> ssl.SSLContext:
    """
    Return a TLS context that trusts httpx's certificates, or those that the environment names.

    Raises:
        ConfigurationError: They cannot be loaded.
    """
    named = {name: os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    try:
        return _cached_context(*named.values())
    except OSError as error:  # of which SSLError is one
        culprits = " or ".join(name for name, value in named.items() if value) or "the system's CA certificates"
        raise ConfigurationError(f"{culprits} cannot be used: {error.strerror or type(error).__name__}") from error


@functools.cache
def _cached_context(*_: str | None) -> ssl.SSLContext:
    """Load the certificates once for each value of the environment variables that name them: it takes 20 ms and 1 MB."""
    return httpx.create_ssl_context()


class StaleConnectionError(httpx.RemoteProtocolError):
    """A server hung up on a kept connection instead of answering: most likely it had done so before the request came."""


class Transport(httpx.AsyncBaseTransport):
    """
    Sends over connections of its own.

    Args:
        tls: For https. Default: the system's certificates, which are loaded on a thread at the first https connection.
        proxy: For https; nothing else leaves this machine.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, proxy: Proxy | None = None) -> None:
        self._tls = tls
        self._loader = anyio.CapacityLimiter(1)  # the default one is shared with the rest of the program
        self._proxy = proxy
        self._idle: defaultdict[Origin, Idle] = defaultdict(deque)
        self._busy: set[NetworkStream] = set()
        self._home: tuple[int, asyncio.AbstractEventLoop] | None = None

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: AsyncIterable[Any] | bytes | None,
        timeouts: TransferTimeouts,
    ) -> RequestResponseCycle:
        """Send a request of ours: a complete URL, all headers but Host."""
        origin, host, target = split_url(url)
        return await self._sent(origin, method, target, [("Host", host), *headers.items()], content, timeouts)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Serve an `httpx.AsyncClient`.

        A request of ours brings its `TransferTimeouts` as an extension, and its response has the cycle as one.
        """
        url, extensions = request.url, request.extensions
        origin = url.scheme, url.raw_host.decode("ascii"), url.port or _PORTS.get(url.scheme, 0)
        target = extensions.get("target", url.raw_path)
        timeouts = extensions.get(TIMEOUTS) or _timeouts(extensions.get("timeout", {}))
        cycle = await self._sent(origin, request.method, target, request.headers.raw, request.stream, timeouts)
        return httpx.Response(cycle.status, headers=list(cycle.headers), stream=_Body(cycle), extensions={CYCLE: cycle})

    async def aclose(self) -> None:
        """Close all connections; whoever is using one is told that it broke."""
        for stream in itertools.chain((stream for idle in self._at_home().values() for _, stream in idle), self._busy):
            stream.abort()
        self._idle.clear()
        self._busy.clear()

    async def _sent(
        self,
        origin: Origin,
        method: str,
        target: str | bytes,
        headers: Iterable[tuple[Any, Any]],
        content: Any,
        timeouts: TransferTimeouts,
    ) -> RequestResponseCycle:
        """Send a request; whatever goes wrong, its connection is closed."""
        kept = _taken(self._at_home()[origin])
        stream = kept or await self._connected(origin, timeouts)
        self._busy.add(stream)
        exchange = RequestResponseCycle(stream, timeouts, lambda over: self._given_back(origin, over))
        try:
            await exchange.send(method, target, headers, content)
        except BaseException as error:
            await exchange.aclose()
            if kept and not exchange.received_any and isinstance(error, _HUNG_UP):
                self._drop(origin)
                raise StaleConnectionError("hung up before a byte of the reply") from error
            raise
        return exchange

    def _drop(self, origin: Origin) -> None:
        """Close the idle connections of an origin: they are as old as one that its server had given up."""
        for _, stream in self._idle.pop(origin, ()):
            stream.abort()

    async def _connected(self, origin: Origin, timeouts: TransferTimeouts) -> NetworkStream:
        scheme, host, port = origin
        if scheme == "http":
            return await connect(host, port, None, timeouts)
        if scheme != "https":
            raise httpx.UnsupportedProtocol(f"the URL's scheme must be http or https, not {scheme}")
        if self._tls is None:
            self._tls = await anyio.to_thread.run_sync(load_tls, limiter=self._loader)
        if self._proxy is None or not self._proxy.serves(host):
            return await connect(host, port, self._tls, timeouts)
        stream = await connect(self._proxy.host, self._proxy.port, None, timeouts)
        try:
            await self._proxy.tunnel(stream, host, port, timeouts)
        except BaseException:
            stream.abort()
            raise
        await secure(stream, host, self._tls, timeouts)
        return stream

    def _given_back(self, origin: Origin, exchange: RequestResponseCycle) -> None:
        if exchange.stream in self._busy and exchange.complete:
            self._idle[origin].append((time.monotonic() + _KEEP_ALIVE, exchange.stream))
        else:
            exchange.abort()
        self._busy.discard(exchange.stream)

    def _at_home(self) -> defaultdict[Origin, Idle]:
        """Forget connections of another event loop, or of the process that this one was forked from."""
        home = os.getpid(), asyncio.get_running_loop()
        if self._home != home:
            self._home = home
            self._idle = defaultdict(deque)
            self._busy = set()
        return self._idle


def split_url(url: str) -> tuple[Origin, str, Secret]:
    """Part a URL into origin, Host and target, of which the last is kept out of tracebacks: a query may be a signature."""
    parts = urlsplit(url)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    return (parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)), parts.netloc, Secret(target)


def _timeouts(given: Mapping[str, float | None]) -> TransferTimeouts:
    limits = {phase: given.get(phase) for phase in ("connect", "read", "write")}
    return TransferTimeouts(**limits, rate=0, deadline=None)


def _taken(idle: Idle) -> NetworkStream | None:
    """Take the connection used last, if it is still good; close those that have been idle for too long."""
    now = time.monotonic()
    while idle and idle[0][0] <= now:
        idle.popleft()[1].abort()
    while idle:
        stream = idle.pop()[1]
        if not stream.stale:
            return stream
        stream.abort()
    return None


class _Body(httpx.AsyncByteStream):
    def __init__(self, exchange: RequestResponseCycle) -> None:
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._exchange.pieces():
            yield piece

    async def aclose(self) -> None:
        await self._exchange.aclose()
