"""
A guard around what must not be cancelled half way.

Stock httpx loses a place in its pool for good when a plain asyncio cancellation arrives at the wrong await. Its anyio parts
are safe from the cancellations of anyio's own scopes, though. So what it does runs in a task of ours, which nobody else
can cancel, and a cancellation is handed on to it as that of a scope.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import anyio
import anyio.lowlevel

from .logs import QueriesHidden

__all__ = ["GuardedClient", "guarded"]

T = TypeVar("T")
_GRACE: Final = 5.0  # seconds that the work may take to end after it was cancelled


async def guarded(work: Callable[[], Awaitable[T]], *, undo: Callable[[T], Awaitable[object]] | None = None) -> T:
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


class GuardedClient:
    """Sends over an `httpx.AsyncClient`, or what quacks like one, and none of its own headers, cookies or parameters."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], content: Any, timeouts: Mapping[str, float]
    ) -> GuardedAnswer:
        """Send a request; a cancelled one leaves the client as it was."""
        made_by = type(self._client.build_request(method, url))  # httpx's class, or that of its heir
        new = _NewConnections()
        extensions = {"timeout": {**timeouts, "pool": None}, "trace": new.heard}
        request = made_by(method, url, content=content, headers=headers, extensions=extensions)
        send = functools.partial(self._client.send, request, stream=True, auth=None, follow_redirects=False)
        with QueriesHidden():
            return GuardedAnswer(await guarded(functools.partial(new.kept_if, send), undo=lambda late: late.aclose()))

    async def aclose(self) -> None:
        """Close the client."""
        await self._client.aclose()


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


class GuardedAnswer:
    """A reply on somebody else's connection; see `transport.Answer`."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self.status: int = response.status_code
        self.headers: list[tuple[bytes, bytes]] = response.headers.raw

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes."""
        pieces = self._response.aiter_bytes()  # which, uncompressed, are the raw ones, also of a reply made by a mock
        while (piece := await guarded(functools.partial(anext, pieces, None))) is not None:
            yield piece

    async def aclose(self) -> None:
        """Let the client have its connection back."""
        with anyio.move_on_after(_GRACE, shield=True):
            await guarded(self._response.aclose)
