"""
One request and its reply: the only room that sends.

It adds the token for hosts that may see it, holds calls back while all connections are busy, and turns every exception of
the libraries below into ours.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio

from .errors import AuthenticationError, ConfigurationError, MediaError, NetworkError, ServerError, TransferTimeoutError
from .files import in_thread
from .models import converter, hide_query
from .settings import Settings, checked_token
from .wire import MAX_REPLY, Request, decipher, refusal

if TYPE_CHECKING:
    import httpx

__all__ = ["Connections", "Http", "Reply", "Token", "network_error"]

_CLOSING: Final = 5.0  # seconds that closing a connection may take before it is abandoned
_REFUSAL: Final = 2**16  # bytes of an error's body that are worth reading
T = TypeVar("T")

# httpx and its heirs raise classes of these names. Most specific first; what is not here is a NetworkError all the same.
_TIMEOUTS: Final = {
    "ConnectTimeout": "connect",
    "ReadTimeout": "read",
    "WriteTimeout": "write",
    "PoolTimeout": "pool",
    "TimeoutException": "read",
}
_FAILURES: Final = {
    "ConnectError": "could not connect",
    "ProxyError": "the proxy refused",
    "UnsupportedProtocol": "the URL has a scheme that cannot be used",
    "InvalidURL": "the URL is not valid",
    "DecodingError": "the reply could not be decoded",
    "RemoteProtocolError": "the server broke off or broke the rules of HTTP",
    "LocalProtocolError": "the request would have broken the rules of HTTP",
    "ReadError": "the connection was lost while waiting for the reply",
    "WriteError": "the connection was lost while sending",
    "CloseError": "the connection could not be closed",
    "SSLError": "the encrypted connection failed",
}
_NOT_SENT: Final = frozenset({"ConnectTimeout", "PoolTimeout", "ConnectError", "ProxyError", "UnsupportedProtocol"})


def network_error(error: Exception, doing: str, *, changes: bool = False) -> NetworkError:
    """
    Turn an exception of the HTTP stack into ours, in words without addresses or headers.

    Args:
        error: Anything that came out of the stack.
        doing: The start of the sentence.
        changes: Whether the request, had it arrived, would have changed something.
    """
    import ssl

    names = [cls.__name__ for cls in type(error).__mro__]
    applied = changes and not _NOT_SENT.intersection(names)
    for name in names:
        if name in _TIMEOUTS:
            phase = _TIMEOUTS[name]
            return TransferTimeoutError(
                f"{doing}: no progress in the {phase} phase", phase=phase, maybe_applied=applied
            )
    why = next((_FAILURES[name] for name in names if name in _FAILURES), f"the connection failed ({names[0]})")
    cause = _system_cause(error)
    refused = isinstance(cause, ssl.SSLCertVerificationError)
    text = f": {cause.verify_message}" if isinstance(cause, ssl.SSLCertVerificationError) else _reason(cause)
    return NetworkError(f"{doing}: {why}{text}", retryable=not refused, maybe_applied=applied)


def _system_cause(error: BaseException) -> OSError | None:
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, OSError):
        seen = seen.__cause__ or seen.__context__
    return seen


def _reason(cause: OSError | None) -> str:
    return f" ({cause.strerror})" if cause is not None and cause.strerror else ""


class _Secret(str):
    """Text that is itself when used, and nothing when shown: tracebacks with local variables end in logs."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class Connections:
    """
    The connections that a `MediaApi` and all its `with_options` copies share.

    Graph and the download hosts each have their own places, so that a task which holds a download open while it uploads
    cannot wait for itself.
    """

    def __init__(self, client: httpx.AsyncClient | None, concurrency: int) -> None:
        self._client = client
        self._owned = client is None
        self._opening = anyio.Lock()
        self._concurrency = concurrency
        self._places = {True: anyio.Semaphore(concurrency), False: anyio.Semaphore(concurrency)}
        self._ready = False
        self.closed = False

    def place(self, request: Request) -> anyio.Semaphore:
        """Return the queue in which a request waits for its turn."""
        return self._places[request.operation == "download"]

    async def client(self) -> Any:
        """Return the caller's client, or ours, which is made at first need."""
        if self.closed:
            raise ConfigurationError("this MediaApi is closed")
        async with self._opening:
            if not self._ready:
                self._client = await in_thread(_prepared, self._client, self._concurrency)
                self._ready = True
        return self._client

    async def aclose(self) -> None:
        """Close what we opened, once; the caller's client is theirs."""
        self.closed = True
        if self._owned and self._client is not None:
            client, self._client = self._client, None
            await client.aclose()


def _prepared(client: httpx.AsyncClient | None, concurrency: int) -> httpx.AsyncClient:
    """Do on a thread what takes a tenth of a second: import aiofiles, cattrs and httpx, load the certificates."""
    importlib.import_module("aiofiles.tempfile")
    converter()
    _hide_queries_in_logs()
    return client or _new_client(concurrency)


def _new_client(concurrency: int) -> httpx.AsyncClient:
    import httpx

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=2 * concurrency)
    try:
        # Plain http only ever goes to this machine, where no proxy belongs.
        return httpx.AsyncClient(limits=limits, follow_redirects=False, mounts={"http://": None})
    except Exception as error:
        raise ConfigurationError(
            "the HTTP client could not be made; look at HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and"
            f" SSL_CERT_DIR in the environment ({type(error).__name__})"
        ) from error


class _HiddenQueries(logging.Filter):
    """httpx logs every URL in full, at INFO; a download's is signed."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(hide_query(str(arg)) if "://" in str(arg) else arg for arg in record.args)
        return True


def _hide_queries_in_logs() -> None:
    logger = logging.getLogger("httpx")
    if not any(isinstance(existing, _HiddenQueries) for existing in logger.filters):
        logger.addFilter(_HiddenQueries())


class Reply:
    """
    A reply whose body has not been read.

    Attributes:
        status: HTTP status.
        headers: With names in lower case.
    """

    def __init__(self, response: Any, failures: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        self._response = response
        self._failures = failures
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it arrives, exactly as sent."""
        with self._failures():
            if self.headers.get("content-encoding", "identity") != "identity":
                raise ServerError("Meta's reply is compressed although that was declined", status=self.status)
        pieces = self._response.aiter_raw()
        while True:
            with self._failures():
                piece = await anext(pieces, None)
            if piece is None:
                return
            yield piece

    async def read(self, limit: int) -> bytes | None:
        """Return the whole body, or None when it is longer than `limit`."""
        body = bytearray()
        async with contextlib.aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > limit:
                    return None
        return bytes(body)


class Token:
    """An access token: a string, or an async callable that gives one and is asked once for all who wait for it."""

    def __init__(self, source: str | Callable[[], Awaitable[str]] | None) -> None:
        self._ask = source if callable(source) else None
        self._known = _Secret(checked_token(source)) if isinstance(source, str) else None
        self._asking = anyio.Lock()

    async def get(self) -> str:
        """Return the token; `ConfigurationError` if there is none."""
        async with self._asking:
            if self._known is None:
                self._known = _Secret(checked_token(await self._ask() if self._ask else None))
        return self._known

    def forget(self) -> None:
        """Ask again next time, where there is somebody to ask."""
        if self._ask:
            self._known = None

    def removed_from(self, body: bytes) -> bytes:
        """Return a reply without the token, which Meta quotes in the error message for a malformed one."""
        return body.replace(self._known.encode(), b"***") if self._known else body


class Http:
    """
    Sends requests for one token over shared connections.

    Args:
        settings: Timeouts.
        token: What to send to hosts that may see it.
        connections: Where to.
    """

    def __init__(self, settings: Settings, token: Token, connections: Connections) -> None:
        self.settings = settings
        self.token = token
        self.connections = connections

    async def ready(self) -> None:
        """Load what is slow to load, before any work is begun; `ConfigurationError` on a closed client."""
        await self.connections.client()

    async def call(self, request: Request, cls: type[T], content: Any = None) -> T:
        """Send a request to the Graph API and decode its reply into one of `models`."""
        async with self.exchange(request, content) as reply:
            body = await reply.read(MAX_REPLY)
            if body is None:
                raise ServerError("Meta's reply is too long to be one", status=reply.status)
            try:
                return decipher(request, cls, reply.status, reply.headers, self.token.removed_from(body))
            except AuthenticationError:
                self.token.forget()
                raise

    async def refused(self, request: Request, reply: Reply) -> MediaError:
        """Read a reply that is not the expected success into the error it stands for."""
        body = await reply.read(_REFUSAL) or b""
        return refusal(request.operation, reply.status, reply.headers, self.token.removed_from(body))

    @asynccontextmanager
    async def exchange(self, request: Request, content: Any = None) -> AsyncIterator[Reply]:
        """
        Send a request, and give its reply for as long as the block lasts.

        Args:
            request: From `wire`.
            content: An async iterable of as many bytes as the request's Content-Length says; or bytes; or nothing.
        """
        client = await self.connections.client()
        headers = dict(request.headers)
        if request.bearer:
            headers["Authorization"] = _Secret(f"Bearer {await self.token.get()}")
        failures = functools.partial(_failures, request, content)
        async with self.connections.place(request):
            with failures():
                built = _built(client, request, headers, content, self.settings)
                response = await client.send(built, stream=True, auth=None, follow_redirects=False)
            try:
                with _counted():
                    yield Reply(response, failures)
            finally:
                with anyio.move_on_after(_CLOSING, shield=True), failures():
                    await response.aclose()


@contextlib.contextmanager
def _counted() -> Iterator[None]:
    """Note on every error that a request was sent."""
    try:
        yield
    except MediaError as error:
        error.attempts = max(error.attempts, 1)
        raise


@contextlib.contextmanager
def _failures(request: Request, content: Any) -> Iterator[None]:
    """Let nothing of the HTTP stack out; but what the caller's own source or callback raised is the caller's."""
    with _counted():
        try:
            yield
        except MediaError:
            raise
        except Exception as error:
            if getattr(content, "failure", None) is not None:
                raise
            doing = f"{request.operation} at {request.url.split('/')[2]}"
            raise network_error(error, doing, changes=request.method != "GET") from error


def _built(client: Any, request: Request, headers: Mapping[str, str], content: Any, settings: Settings) -> Any:
    """Build a request that carries what we say, and no headers, cookies or parameters of the client's own."""
    timeouts = {"connect": settings.connect_timeout, "read": settings.read_timeout, "write": settings.write_timeout}
    built = client.build_request(
        request.method, request.url, content=content, headers=headers, extensions={"timeout": timeouts | {"pool": None}}
    )
    allowed = {name.lower() for name in headers} | {"host", "content-length", "connection"}
    for name in [name for name in built.headers if name.lower() not in allowed]:
        del built.headers[name]
    built.url = type(built.url)(request.url)
    return built
