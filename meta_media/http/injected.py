"""
A guard around what must not be cancelled half way.

Stock httpx loses a place in its pool for good when a plain asyncio cancellation arrives at the wrong await. Its anyio parts
are safe from the cancellations of anyio's own scopes, though. So what it does runs in a task of ours, which nobody else
can cancel, and a cancellation is handed on to it as that of a scope.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import anyio
import anyio.lowlevel

from meta_media.http.connection import RequestResponseCycle
from meta_media.http.logs import QueriesHidden
from meta_media.http.timeouts import TransferTimeouts
from meta_media.http.transport import CYCLE, TIMEOUTS, split_url
from meta_media.protocol.secrets import SecretBytes

__all__ = ["InjectedClient", "shield_native_cancel"]

T = TypeVar("T")
_GRACE: Final = 5.0  # seconds that the work may take to end after it was cancelled


async def shield_native_cancel(
    work: Callable[[], Awaitable[T]], *, undo: Callable[[T], Awaitable[object]] | None = None
) -> T:
    """
    Do some work in a task of its own; a cancellation arrives there by a scope, and here once the work has ended.

    Args:
        work: Called without arguments.
        undo: What to do with a result that its cancelled caller will never see.
    """
    import asyncio

    scope = anyio.CancelScope()

    async def shielded() -> Any:
        with scope:
            return await work()

    task = asyncio.ensure_future(shielded())
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        scope.cancel()
        await _ended(task)
        finished = task.done() and not task.cancelled() and task.exception() is None and not scope.cancelled_caught
        if finished and undo is not None:
            await _ended(asyncio.ensure_future(undo(task.result())))
        raise


async def _ended(task: Any) -> None:
    """Wait for a task, whatever it ends with and however often we are cancelled meanwhile, but not for ever."""
    import asyncio

    loop = asyncio.get_running_loop()
    latest = loop.time() + _GRACE
    with anyio.CancelScope(shield=True):
        while not task.done() and loop.time() < latest:
            try:
                await asyncio.wait((task,), timeout=latest - loop.time())
            except asyncio.CancelledError:
                continue


class InjectedClient:
    """Sends over an `httpx.AsyncClient`, or what quacks like one, and none of its own headers, cookies or parameters."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], content: Any, timeouts: TransferTimeouts
    ) -> InjectedResponse | RequestResponseCycle:
        """Send a request; a cancelled one leaves the client as it was. Over our own transport, give its cycle."""
        made_by = _shy(self._client.build_request(method, url).__class__)  # httpx's class, or that of its heir
        new = _NewConnections()
        extensions = {"timeout": {**timeouts.timeouts(), "pool": None}, "trace": new.heard, TIMEOUTS: timeouts}
        request = made_by(method, url, content=content, headers=headers, extensions=extensions)
        target = SecretBytes(split_url(url)[2].encode())
        if request.url.raw_path != target:  # httpx has quoted it anew, which breaks a signature
            request.extensions["target"] = target
        send = functools.partial(self._client.send, request, stream=True, auth=None, follow_redirects=False)
        with QueriesHidden():
            response = await _in_time(timeouts, functools.partial(new.kept_if, send), undo=lambda late: late.aclose())
        cycle: RequestResponseCycle | None = response.extensions.get(CYCLE)
        return InjectedResponse(response, timeouts) if cycle is None or response.is_stream_consumed else cycle


@functools.cache
def _shy(kind: Any) -> Any:
    """Derive a class of requests that tracebacks with local variables may show: a URL may be signed."""
    return type(kind.__name__, (kind,), {"__repr__": lambda _: f"<{kind.__name__}>"})


class _NewConnections:
    """
    Closes what a cancelled request opened.

    httpcore forgets to close a connection when the TLS handshake is cancelled, and loses its place in the pool when the
    cancellation arrives between handshake and request. Its public trace tells of both moments.
    """

    def __init__(self) -> None:
        self._opened: list[Any] = []

    async def heard(self, event: str, about: Mapping[str, Any]) -> None:
        """Remember a new connection; let a cancellation through where httpcore still minds it."""
        if event.endswith("connect_tcp.complete"):
            self._opened.append(about["return_value"])
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            await anyio.lowlevel.checkpoint_if_cancelled()

    async def kept_if(self, send: Callable[[], Awaitable[T]]) -> T:
        """Send, and close what was opened if that fails."""
        try:
            return await send()
        except BaseException:
            with anyio.CancelScope(shield=True):
                for connection in self._opened:
                    await connection.aclose()
            raise


class InjectedResponse:
    """A reply on somebody else's connection; see `exchange.Exchange`."""

    def __init__(self, response: Any, timeouts: TransferTimeouts) -> None:
        self._response = response
        self._clock = timeouts
        self._pieces = response.aiter_bytes()  # which, uncompressed, are the raw ones, also of a reply made by a mock
        self._rest = memoryview(b"")
        self.filled = 0
        self.request_sent = True  # for all we know
        self.status: int = response.status_code
        self.headers: list[tuple[bytes, bytes]] = response.headers.raw

    async def readinto(self, wanted: memoryview) -> int:
        """Fill a buffer with the next bytes of the body; return how many came, which are fewer only at its end."""
        self.filled = 0
        while self.filled < len(wanted) and (self._rest or await self._more()):
            count = min(len(self._rest), len(wanted) - self.filled)
            wanted[self.filled : self.filled + count] = self._rest[:count]
            self._rest = self._rest[count:]
            self.filled += count
        return self.filled

    async def _more(self) -> bool:
        self._rest = memoryview(await _in_time(self._clock, functools.partial(anext, self._pieces, b"")))
        self._clock.record("read", len(self._rest))
        return bool(self._rest)

    def do_not_reuse(self) -> None:
        """Do nothing: what becomes of the connection is its owner's business."""

    async def aclose(self) -> None:
        """Let the client have its connection back."""
        with anyio.move_on_after(_GRACE, shield=True):
            await shield_native_cancel(self._response.aclose)


async def _in_time(timeouts: TransferTimeouts, work: Callable[[], Awaitable[T]], **options: Any) -> T:
    """Guard, up to the deadline."""
    import asyncio

    try:
        async with asyncio.timeout_at(timeouts.ends()) as timeouts.timer:
            return await shield_native_cancel(work, **options)
    except TimeoutError as error:
        raise timeouts.error("read") from error
    finally:
        timeouts.timer = None
