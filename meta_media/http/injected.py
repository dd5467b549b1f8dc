"""
Sends over an `httpx.AsyncClient`: the caller's, or our own where its event hooks are to see the requests.

Stock httpx loses a place in its pool for good when a plain asyncio cancellation arrives at certain awaits. Its anyio parts
are safe from cancellations by anyio's own scopes. So its work runs in its own task, and a cancellation is passed on to it as
the cancellation of a scope.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final, TypeVar

import anyio
import anyio.lowlevel
import httpx

from meta_media.http.connection import RequestResponseCycle
from meta_media.http.exceptions import TransportFailure, has_rule
from meta_media.http.heads import Fields, Headers, RequestHeaders
from meta_media.http.loop_bound import outwait
from meta_media.http.timeouts import Phase, TransferTimeouts
from meta_media.http.transport import CYCLE, TIMEOUTS, split_url
from meta_media.protocol.secrets import SecretBytes, masked

__all__ = ["InjectedClient", "OwnClient", "shield_native_cancel"]

T = TypeVar("T")
_CANCEL_TIMEOUT: Final = 5.0  # seconds that cancelled work may take to end
_LOGGERS: Final = (  # hpack's log every header at DEBUG, `:path` among them
    *("httpx", "httpx2", "hpack.hpack", "hpack.table"),
    *(
        f"{name}.{part}"
        for name in ("httpcore", "httpcore2")
        for part in ("connection", "http11", "http2", "proxy", "socks")
    ),
)
_hidden_token: ContextVar[str | None] = ContextVar("token", default=None)  # in logs, with queries; None for neither


async def shield_native_cancel(
    work: Callable[[], Awaitable[T]], *, undo: Callable[[T], Awaitable[object]] | None = None
) -> T:
    """
    Run work in its own task. A cancellation reaches it through a scope, and is raised here after the work has ended.

    Where anyio finds no moment to deliver that, the task itself is cancelled: on uvloop, a task whose peer never stops
    sending is always about to resume when anyio looks at it. `undo` is called with a result that arrives after the cancellation.
    """
    scope = anyio.CancelScope()

    async def shielded() -> Any:
        with scope:
            return await work()

    task = asyncio.ensure_future(shielded())
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        scope.cancel()
        await outwait(task, _CANCEL_TIMEOUT)
        if task.cancel():
            await outwait(task, _CANCEL_TIMEOUT)
        finished = task.done() and not task.cancelled() and task.exception() is None and not scope.cancelled_caught
        if finished and undo is not None:
            await outwait(asyncio.ensure_future(undo(task.result())), _CANCEL_TIMEOUT)
        raise


class OwnClient(httpx.AsyncClient):
    """`MediaApi.client`. What it sends is logged without queries, because that of a media URL is a signature."""

    async def send(self, *args: Any, **kwargs: Any) -> httpx.Response:
        """See `httpx.AsyncClient.send`."""
        outside = _hidden_token.set(_hidden_token.get() or "")
        try:
            return await super().send(*args, **kwargs)
        finally:
            _hidden_token.reset(outside)


class InjectedClient:
    """Sends over an `httpx.AsyncClient`, or a client like it, without its own headers, cookies and parameters."""

    hooked: Final = True  # see `ExceptionMapper`

    def __init__(self, client: Any) -> None:
        self._client = client

    async def send(
        self, method: str, url: str, headers: Headers, content: Any, timeouts: TransferTimeouts
    ) -> InjectedResponse | RequestResponseCycle:
        """
        Send a request and read the response's headers. A cancelled one leaves the client as it was.

        Over our own transport the result is its cycle, unless an event hook has read the body.
        """
        request_class = _hidden(self._client.build_request(method, url).__class__)  # httpx's or httpx2's
        trace = _Trace(headers.shared.token if isinstance(headers, RequestHeaders) else "")
        extensions = {"timeout": {**timeouts.timeouts(), "pool": None}, "trace": trace.note, TIMEOUTS: timeouts}
        content = b"".join(content) if isinstance(content, tuple) else content
        request = request_class(method, url, content=content, headers=headers, extensions=extensions)
        target = SecretBytes(split_url(url)[1].encode())
        if request.url.raw_path != target:  # httpx has quoted it anew, which would break a signature
            request.extensions["target"] = target
        send = functools.partial(self._client.send, request, stream=True, auth=None, follow_redirects=False)
        work = functools.partial(trace.close_unless, send)
        response = await _in_time(timeouts, trace, work, undo=lambda response: response.aclose())
        cycle: RequestResponseCycle | None = response.extensions.get(CYCLE)
        return InjectedResponse(response, timeouts, trace) if cycle is None or response.is_stream_consumed else cycle


@functools.cache
def _hidden(kind: Any) -> Any:
    """Derive a class of requests whose repr does not show the URL, which may be signed, in tracebacks with locals."""
    return type(kind.__name__, (kind,), {"__repr__": lambda _: f"<{kind.__name__}>"})


class _Trace:
    """
    What a transport reports of a request, by httpx's public trace extension: the connections it opened, and its failures.

    httpcore does not close a connection when the TLS handshake is cancelled, and loses its place in the pool when the
    cancellation arrives between handshake and request. A failure that it does not report is of a hook or a mock.
    """

    def __init__(self, token: str) -> None:
        self.token = token  # that is sent, or nothing
        self.failures: list[BaseException] = []
        self._opened: list[Any] = []

    async def note(self, event: str, info: Mapping[str, Any]) -> None:
        """Note a connection or a failure, and let a cancellation arrive at an await where httpcore handles it well."""
        if event.endswith(".failed"):
            self.failures.append(info["exception"])
        if event.endswith("connect_tcp.complete"):
            self._opened.append(info["return_value"])
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            await anyio.lowlevel.checkpoint_if_cancelled()

    async def close_unless(self, send: Callable[[], Awaitable[T]]) -> T:
        """Send, and close what was opened if that fails."""
        try:
            return await send()
        except BaseException:
            with anyio.CancelScope(shield=True):
                for connection in self._opened:
                    await connection.aclose()
            raise


class InjectedResponse:
    """A response over another transport than ours, with the interface of `RequestResponseCycle`."""

    hooked: Final = True  # see `ExceptionMapper`
    cut: Final = False  # httpx does not say how TLS ended
    ended: Final = False  # nor what has arrived

    def __init__(self, response: Any, timeouts: TransferTimeouts, trace: _Trace) -> None:
        self._response = response
        self._timeouts = timeouts
        self._trace = trace
        self._pieces = response.aiter_bytes()  # never compressed; a mock's response has no `aiter_raw`
        self._buffered = memoryview(b"")
        self.filled = 0
        self.request_sent = True  # httpx does not say
        self.status: int = response.status_code
        raw = response.headers.raw
        self.headers: Fields = [(name.lower().decode("latin-1"), value.decode("latin-1")) for name, value in raw]

    def arrived(self) -> None:
        """Return nothing: see `ended`."""

    async def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer with the next bytes of the body; return their number, which is smaller only at the end."""
        self.filled = 0
        while self.filled < len(buffer) and (self._buffered or await self._receive()):
            count = min(len(self._buffered), len(buffer) - self.filled)
            buffer[self.filled : self.filled + count] = self._buffered[:count]
            self._buffered = self._buffered[count:]
            self.filled += count
        return self.filled

    async def _receive(self) -> bool:
        receive = functools.partial(anext, self._pieces, b"")
        self._buffered = memoryview(await _in_time(self._timeouts, self._trace, receive, "read"))
        self._timeouts.record("read", len(self._buffered))
        return bool(self._buffered)

    def do_not_reuse(self) -> None:
        """Do nothing: its client decides about the connection."""

    async def aclose(self) -> None:
        """Give the connection back to its client."""
        with anyio.move_on_after(_CANCEL_TIMEOUT, shield=True):
            await shield_native_cancel(self._response.aclose)


async def _in_time(
    timeouts: TransferTimeouts,
    trace: _Trace,
    work: Callable[[], Awaitable[T]],
    phase: Phase | None = None,
    **options: Any,
) -> T:
    """Run shielded work up to the deadline, and the timeout of a phase, with queries and the token hidden in logs."""
    outside = _hidden_token.set(trace.token)
    timer = timeouts.timer = asyncio.timeout_at(timeouts.ends(phase))
    try:
        async with timer:
            return await shield_native_cancel(work, **options)
    except Exception as error:  # each transport has its own
        if isinstance(error, TimeoutError) and timer.expired():
            raise timeouts.error(phase) from error
        if not has_rule(error) and any(error is failure for failure in trace.failures):
            raise TransportFailure from error
        raise
    finally:
        timeouts.timer = None
        trace.failures.clear()  # their frames refer to it
        _hidden_token.reset(outside)


def _hide_secrets(record: logging.LogRecord) -> bool:
    """
    Hide signatures, and echoes of the token.

    httpx logs every URL at INFO. At DEBUG, httpcore logs every header, and hpack all headers as compressed.
    """
    if (token := _hidden_token.get()) is not None:
        said = re.sub(r"\?[^\s'\"]+|(?<=header block to ).*", "?…", record.getMessage())
        record.msg, record.args = masked(said, token), ()
    return True


for _name in _LOGGERS:
    logging.getLogger(_name).addFilter(_hide_secrets)
