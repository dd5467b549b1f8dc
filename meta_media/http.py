"""
One request and its reply: the only room that sends.

It adds the token for hosts that may see it, holds calls back while all connections are busy, and turns every exception of
the libraries below into ours.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .connections import Connections, Secret, Token
from .errors import (
    AuthenticationError,
    MediaError,
    NetworkError,
    Operation,
    ServerError,
    TransferTimeoutError,
)
from .settings import Settings
from .wire import MAX_REPLY, Request, decipher, refusal

if TYPE_CHECKING:
    pass

__all__ = ["Http", "Reply", "network_error"]

_SHORTEST_TOKEN: Final = 8  # characters; shorter ones are toys, which may be part of anything
_REFUSAL: Final = 2**16  # bytes of an error's body that are worth reading
T = TypeVar("T")
_sent: ContextVar[list[int]] = ContextVar("meta_media_requests_sent")  # of the call in progress

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
    while seen is not None and not (isinstance(seen, OSError) and seen.strerror):
        several = seen.exceptions if isinstance(seen, BaseExceptionGroup) else ()  # one for each address of a host
        seen = seen.__cause__ or seen.__context__ or next(iter(several), None)
    return seen


def _reason(cause: OSError | None) -> str:
    if cause is None:
        return ""
    number = (
        cause.errno or 0
    )  # asyncio's own words are about its calls; name resolution has negative numbers, and good words
    return f" ({os.strerror(number) if number > 0 else cause.strerror})"


class Reply:
    """
    A reply whose body has not been read.

    Attributes:
        status: HTTP status.
        headers: With names in lower case.
    """

    def __init__(self, answer: Any, failures: contextlib.AbstractContextManager[None], token: str) -> None:
        self._answer = answer
        self._failures = failures
        self._token = token
        self.status: int = answer.status
        self.headers: Mapping[str, str] = {
            name.lower().decode("latin-1"): value.decode("latin-1") for name, value in answer.headers
        }

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it arrives, exactly as sent."""
        self._check_encoding()
        async with contextlib.aclosing(self._answer.chunks()) as pieces:
            while True:
                with self._failures:
                    piece = await anext(pieces, None)
                if piece is None:
                    return
                yield piece

    async def read(self, limit: int) -> bytes | None:
        """
        Return the whole body, or None when it is longer than `limit`.

        The token is not in it: Meta quotes one that is malformed in its error message, with slashes escaped.
        """
        self._check_encoding()
        body = bytearray()
        with self._failures:
            async with contextlib.aclosing(self._answer.chunks()) as pieces:
                async for piece in pieces:
                    body += piece
                    if len(body) > limit:
                        return None
        for quoted in {self._token, self._token.replace("/", "\\/")} if len(self._token) >= _SHORTEST_TOKEN else ():
            body = body.replace(quoted.encode(), b"***")
        return bytes(body)

    def _check_encoding(self) -> None:
        if self.headers.get("content-encoding", "identity").lower() != "identity":
            raise ServerError("Meta's reply is compressed although that was declined", status=self.status)


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
        self._timeouts = {
            "connect": settings.connect_timeout,
            "read": settings.read_timeout,
            "write": settings.write_timeout,
        }

    @asynccontextmanager
    async def turn(self, operation: Operation, media_id: object = None) -> AsyncIterator[None]:
        """
        Wait for a place, and complete every error of ours with the call it belongs to.

        A call waits before it opens any file, so that thousands of waiting calls hold nothing.
        """
        started = time.monotonic()
        outside, sent = _sent.get([0]), [0]
        _sent.set(sent)
        try:
            await self.connections.wire("")
            async with self.connections.place(operation):
                yield
        except MediaError as error:
            if error.operation is None:  # else it is another call's, made inside a stream's block
                error.operation, error.elapsed = operation, time.monotonic() - started
                error.attempts = sent[0]
                error.media_id = error.media_id or (media_id if isinstance(media_id, str) else None)
            raise
        finally:
            _sent.set(outside)

    async def call(self, request: Request, cls: type[T], content: Any = None) -> T:
        """Send a request to the Graph API and decode its reply into one of `models`."""
        async with self.exchange(request, content) as reply:
            if not 200 <= reply.status < 300:
                raise await self.refused(request, reply)
            body = await reply.read(MAX_REPLY)
            if body is None:
                changes = request.method != "GET"
                raise ServerError(
                    "Meta's reply is too long to be one",
                    status=reply.status,
                    retryable=not changes,
                    maybe_applied=changes,
                )
            return decipher(request, cls, reply.status, reply.headers, body)

    async def refused(self, request: Request, reply: Reply) -> MediaError:
        """Read a reply that is not the expected success into the error it stands for; its status alone will do."""
        try:
            body = await reply.read(_REFUSAL)
        except (NetworkError, ServerError):
            body = None
        return refusal(request.operation, reply.status, reply.headers, body or b"")

    @asynccontextmanager
    async def exchange(self, request: Request, content: Any = None) -> AsyncIterator[Reply]:
        """
        Send a request, and give its reply for as long as the block lasts.

        Args:
            request: From `wire`.
            content: An async iterable of as many bytes as the request's Content-Length says; or bytes; or nothing.
        """
        wire = await self.connections.wire(request.url)
        headers = dict(request.headers)
        token = ""
        if request.bearer:
            token = await self.token.get()
            headers["Authorization"] = Secret(f"Bearer {token}")
        failures = _Failures(request, content)
        _sent.get()[0] += 1
        with failures:
            answer = await wire.send(request.method, request.url, headers, content, self._timeouts)
        try:
            yield Reply(answer, failures, token)
        except AuthenticationError:
            self.token.forget(token)
            raise
        finally:
            with contextlib.suppress(MediaError), failures:
                await answer.aclose()  # all of the reply that anybody wanted has been read


class _Failures:
    """Lets nothing of the HTTP stack out; but what the caller's own source or callback raised is the caller's."""

    def __init__(self, request: Request, content: Any) -> None:
        self._request = request
        self._content = content

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, Exception):
            return
        if hasattr(self._content, "blame"):
            self._content.blame()
        doing = f"{self._request.operation} at {self._request.url.split('/')[2]}"
        raise network_error(error, doing, changes=self._request.method != "GET") from error
