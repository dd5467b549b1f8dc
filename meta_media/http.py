"""
One request and its reply: the only room that sends.

It adds the token for hosts that may see it, holds calls back while all connections are busy, and turns every exception of
the libraries below into ours.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterable, Mapping
from contextvars import ContextVar
from typing import Any, Final, TypeVar

from .clocks import Clock
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

__all__ = ["Http", "Reply", "network_error"]

_SHORTEST_TOKEN: Final = 8  # characters; shorter ones are toys, which may be part of anything
_REFUSAL: Final = 2**16  # bytes of an error's body that are worth reading
T = TypeVar("T")
_UNKNOWN: Final = 2**14  # bytes to make room for where a reply does not say how many it has
_calls: ContextVar[Any] = ContextVar("meta_media_call", default=None)  # the `_Call` in progress

# httpx and its heirs raise classes of these names. Most specific first; what is not here is a NetworkError all the same.
_TIMEOUTS: Final = {
    "ConnectTimeout": "connect",
    "ReadTimeout": "read",
    "WriteTimeout": "write",
    "PoolTimeout": "pool",
    "TooSlowError": "rate",
    "DeadlineError": "deadline",
    "TimeoutException": "read",
}
_TOO_LONG: Final = {"rate": "it was slower than minimum_rate allows", "deadline": "it was not over by its deadline"}
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
            told = _TOO_LONG.get(phase, f"no progress in the {phase} phase")
            return TransferTimeoutError(f"{doing}: {told}", phase=phase, maybe_applied=applied)
    why = next((_FAILURES[name] for name in names if name in _FAILURES), f"the connection failed ({names[0]})")
    if "ProxyError" in names and str(error)[:3].isdecimal():
        why += f" with status {str(error)[:3]}"
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
    A reply whose body has not been read; it is left by `async with`.

    Attributes:
        status: HTTP status.
        headers: With names in lower case.
        length: What it says of its body's length, in bytes.
    """

    def __init__(self, answer: Any, clock: Clock, failures: _Failures, token: Token, shown: str) -> None:
        self._answer = answer
        self._clock = clock
        self._failures = failures
        self._token = token
        self._shown = shown
        self.status: int = answer.status
        self.headers: Mapping[str, str] = {
            name.lower().decode("latin-1"): value.decode("latin-1") for name, value in answer.headers
        }
        length = self.headers.get("content-length", "")
        self.length = int(length) if length.isdecimal() else None

    async def __aenter__(self) -> Reply:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, AuthenticationError):
            self._token.forget(self._shown)
        with contextlib.suppress(MediaError), self._failures:
            await self._answer.aclose()  # all of the reply that anybody wanted has been read

    async def readinto(self, wanted: memoryview) -> int:
        """Fill a buffer with the next bytes of the body, exactly as sent; return how many: fewer only at its end."""
        if self.headers.get("content-encoding", "identity").lower() != "identity":
            raise ServerError("Meta's reply is compressed although that was declined", status=self.status)
        with self._failures, self._clock:
            return int(await self._answer.readinto(wanted))

    async def read(self, limit: int) -> bytes | None:
        """
        Return the whole body, or None when it is longer than `limit`.

        The token is not in it: Meta quotes one that is malformed in its error message, with slashes escaped.
        """
        body = bytearray()
        while True:
            expected = _UNKNOWN if self.length is None else self.length
            piece = memoryview(bytearray(min(expected, limit - len(body)) + 1))  # one more, so that the end is seen
            count = await self.readinto(piece)
            body += piece[:count]
            if len(body) > limit:
                return None
            if count < len(piece):
                break
        for quoted in {self._shown, self._shown.replace("/", "\\/")} if len(self._shown) >= _SHORTEST_TOKEN else ():
            body = body.replace(quoted.encode(), b"***")
        return bytes(body)


class _Call:
    """What its requests have in common: how many were sent, and the time that all may take."""

    def __init__(self, settings: Settings) -> None:
        self.sent = 0
        self.clock = Clock(
            connect=settings.connect_timeout,
            read=settings.read_timeout,
            write=settings.write_timeout,
            rate=settings.minimum_rate,
            deadline=settings.deadline,
        )


class _Turn:
    """
    A place among the connections, and the context of a call.

    A call waits before it opens any file, so that thousands of waiting calls hold nothing.
    """

    def __init__(self, http: Http, operation: Operation, media_id: object) -> None:
        self._connections = http.connections
        self._place = http.connections.place(operation)
        self._operation: Operation = operation
        self._media_id = media_id
        self._outside = _calls.get()
        self._call = _Call(http.settings)

    async def __aenter__(self) -> None:
        self._started = time.monotonic()
        _calls.set(self._call)
        try:
            await self._connections.wire()
            await self._place.acquire()
        except BaseException as error:
            self._leave(error)
            raise

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._place.release()
        self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        """Complete an error of ours with the call it belongs to, unless that is another one, made inside a stream's block."""
        _calls.set(self._outside)
        if isinstance(error, MediaError) and error.operation is None:
            error.operation, error.elapsed = self._operation, time.monotonic() - self._started
            error.attempts = self._call.sent
            error.media_id = error.media_id or (self._media_id if isinstance(self._media_id, str) else None)


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

    def turn(self, operation: Operation, media_id: object = None) -> _Turn:
        """Wait for a place, and complete every error of ours with the call it belongs to: `async with`."""
        return _Turn(self, operation, media_id)

    async def call(self, request: Request, cls: type[T], content: Any = None) -> T:
        """Send a request to the Graph API and decode its reply into one of `models`."""
        async with await self.send(request, content) as reply:
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

    async def send(self, request: Request, content: Any = None) -> Reply:
        """
        Send a request, and give its reply, which wants `async with` at once.

        Args:
            request: From `wire`.
            content: An async iterable of as many bytes as the request's Content-Length says; or bytes; or nothing.
        """
        wire = await self.connections.wire()
        headers = dict(request.headers)
        token = ""
        if request.bearer:
            token = await self.token.get()
            headers["Authorization"] = Secret(f"Bearer {token}")
        failures = _Failures(request, content)
        call = _calls.get()
        call.sent += 1
        call.clock.expect(int(headers.get("Content-Length", 0)))
        if isinstance(content, AsyncIterable):
            content = _Unhurried(content, call.clock)
        with failures, call.clock:
            answer = await wire.send(request.method, request.url, headers, content, call.clock)
        reply = Reply(answer, call.clock, failures, self.token, token)
        call.clock.expect(reply.length or self.settings.max_download_size)
        return reply


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


class _Unhurried:
    """The caller's source, with the clocks standing still while it has its turn; judged is how fast its pieces leave."""

    def __init__(self, content: AsyncIterable[Any], clock: Clock) -> None:
        self._pieces = aiter(content)
        self._clock = clock
        self._leaving = 0

    def __aiter__(self) -> _Unhurried:
        return self

    async def __anext__(self) -> Any:
        self._clock.moved("write", self._leaving)
        self._clock.__exit__()
        try:
            piece = await anext(self._pieces)
        finally:
            self._clock.__enter__()
        self._leaving = len(piece)
        return piece
