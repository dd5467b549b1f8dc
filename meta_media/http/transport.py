"""
Our transport for `httpx.AsyncClient`: for each origin a stack of idle connections, of which the one used last is taken first.

There is no pool to search or to lock. A connection is given back only when request and response are both complete and no
byte is left over. After anything else, such as a cancellation at any await, it is closed at once, without another await.
"""

from __future__ import annotations

import functools
import itertools
import os
import ssl
import time
from collections import defaultdict, deque
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import anyio
import anyio.to_thread
import httpx

from meta_media.errors import ConfigurationError
from meta_media.http.connect import connect, secure
from meta_media.http.connection import RequestResponseCycle
from meta_media.http.heads import Headers
from meta_media.http.loop_bound import LoopBound
from meta_media.http.proxy import Proxy
from meta_media.http.stream import NetworkStream
from meta_media.http.timeouts import TransferTimeouts
from meta_media.protocol.secrets import Secret

__all__ = ["CYCLE", "TIMEOUTS", "StaleConnectionError", "Transport", "load_certificates", "split_url"]

TIMEOUTS: Final = "meta_media.timeouts"  # extension of a request: its `TransferTimeouts`
CYCLE: Final = "meta_media.cycle"  # extension of a response: its `RequestResponseCycle`
_IDLE_TIMEOUT: Final = 5.0  # seconds that an idle connection is kept, which is less than servers keep one
_PORTS: Final = {"https": 443, "http": 80}
_HUNG_UP: Final = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
Origin = tuple[str, str, int]  # scheme, host, port (RFC 6454)
Idle = deque[tuple[float, NetworkStream]]  # when it expires, and the connection


class StaleConnectionError(httpx.RemoteProtocolError):
    """A server closed an idle connection instead of responding, most likely before the request arrived."""


class Transport(httpx.AsyncBaseTransport):
    """Sends requests over its own connections."""

    hooked: Final = False  # see `ExceptionMapper`

    def __init__(self, tls: ssl.SSLContext | None = None, proxy: Proxy | None = None) -> None:
        self._tls = tls  # by default that of `load_certificates`, called on a thread at the first https connection
        self._proxy = proxy  # for https; plain http, which is for this machine only, does not pass it
        self._bound = LoopBound("MediaApi", lambda _: _Connections())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Serve an `httpx.AsyncClient`.

        A request of a `Call` has its `TransferTimeouts` as an extension, and its response the cycle. Any other request
        has httpx's timeouts.
        """
        timeouts = request.extensions.get(TIMEOUTS)
        if timeouts is None:
            given = request.extensions.get("timeout", {})
            limits = {phase: given.get(phase) for phase in ("connect", "read", "write")}
            timeouts = TransferTimeouts(**limits, rate=0, deadline=None)
        url, target = Secret(str(request.url)), request.extensions.get("target")
        try:
            cycle = await self.send(request.method, url, request.headers.raw, request.stream, timeouts, target)
        except Exception as error:  # whatever it is, it is reported and raised
            if (trace := request.extensions.get("trace")) is not None:
                await trace("transport.send.failed", {"exception": error})  # as httpcore reports its failures
            raise
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in cycle.headers]
        return httpx.Response(cycle.status, headers=headers, stream=cycle, extensions={CYCLE: cycle})

    async def send(
        self,
        method: str,
        url: str,
        headers: Headers,
        content: Any,
        timeouts: TransferTimeouts,
        target: bytes | None = None,
    ) -> RequestResponseCycle:
        """
        Send a request and read the response's headers. The connection is closed if that fails.

        `headers` are all, with Host. `target` is the request target, if it is not that of the URL.
        """
        origin, own_target = split_url(url)
        connections = self._bound.get()
        reused = _take(connections.idle[origin])
        stream = reused or await self._connect(origin, timeouts)
        connections.busy.add(stream)
        cycle = RequestResponseCycle(stream, timeouts, functools.partial(connections.give_back, origin))
        try:
            await cycle.send(method, target or own_target, headers, content)
        except BaseException as error:
            await cycle.aclose()
            if reused and not cycle.received_any and isinstance(error, _HUNG_UP):
                for _, other in connections.idle.pop(origin, ()):  # they are as old as this one
                    other.abort()
                raise StaleConnectionError("hung up before the first byte of the response") from error
            raise
        return cycle

    async def aclose(self) -> None:
        """Close all connections. Requests in progress fail."""
        connections = self._bound.get()
        idle = (stream for kept in connections.idle.values() for _, stream in kept)
        for stream in itertools.chain(idle, connections.busy):
            stream.abort()
        connections.idle.clear()
        connections.busy.clear()

    async def _connect(self, origin: Origin, timeouts: TransferTimeouts) -> NetworkStream:
        scheme, host, port = origin
        if scheme == "http":
            return await connect(host, port, None, timeouts)
        if scheme != "https":
            raise httpx.UnsupportedProtocol(f"the URL's scheme must be http or https, not {scheme}")
        if self._tls is None:
            self._tls = await anyio.to_thread.run_sync(load_certificates, limiter=self._bound.get().threads)
        if self._proxy is None or not self._proxy.serves(host, port):
            return await connect(host, port, self._tls, timeouts)
        stream = await connect(self._proxy.host, self._proxy.port, None, timeouts)
        try:
            await self._proxy.tunnel(stream, host, port, timeouts)
            await secure(stream, host, self._tls, timeouts)
        except BaseException:
            stream.abort()
            raise
        return stream


class _Connections:
    """The connections of one event loop. They die with it, and do not survive a fork."""

    def __init__(self) -> None:
        self.idle: defaultdict[Origin, Idle] = defaultdict(deque)
        self.busy: set[NetworkStream] = set()
        self.threads = anyio.CapacityLimiter(1)  # the default one is shared with the rest of the program

    def give_back(self, origin: Origin, cycle: RequestResponseCycle) -> None:
        """Keep the connection of a complete cycle, and close any other."""
        if cycle.stream in self.busy and cycle.complete:
            self.idle[origin].append((time.monotonic() + _IDLE_TIMEOUT, cycle.stream))
        else:
            cycle.abort()
        self.busy.discard(cycle.stream)


@functools.lru_cache
def split_url(url: str) -> tuple[Origin, Secret]:
    """Return a URL's origin and request target. The query may be a signature, so that tracebacks do not show the target."""
    parts = urlsplit(url)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    return _origin(parts.scheme, parts.netloc), Secret(target)


@functools.lru_cache
def _origin(scheme: str, netloc: str) -> Origin:
    parts = SplitResult(scheme, netloc, "", "", "")
    return scheme, parts.hostname or "", parts.port or _PORTS.get(scheme, 0)


def _take(idle: Idle) -> NetworkStream | None:
    """Take the connection used last, if it is still open; close those that were idle for too long."""
    now = time.monotonic()
    while idle and idle[0][0] <= now:
        idle.popleft()[1].abort()
    while idle:
        stream = idle.pop()[1]
        if not stream.stale:
            return stream
        stream.abort()
    return None


def load_certificates() -> ssl.SSLContext:
    """Return a TLS context that trusts httpx's certificates, or those that the environment names."""
    named = {name: os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    try:
        return _cached_context(*named.values())
    except OSError as error:  # of which SSLError is one
        culprits = " or ".join(name for name, value in named.items() if value) or "the system's CA certificates"
        raise ConfigurationError(f"{culprits} cannot be used: {error.strerror or type(error).__name__}") from error


@functools.cache
def _cached_context(*_: str | None) -> ssl.SSLContext:
    """Load the certificates once for each value of the environment variables, which takes 20 ms."""
    return httpx.create_ssl_context()
