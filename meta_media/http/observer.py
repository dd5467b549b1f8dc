"""
What is seen of calls and requests: a DEBUG record of the logger `meta_media` for each request, and an observer.

`Client.observer` is the one for a process. Without it, and above DEBUG, nothing here is made.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol, TypeVar

from meta_media.errors import ApiError, MediaError, Operation
from meta_media.http.log import LOGGER
from meta_media.protocol.requests import Request

__all__ = ["CallObserver", "ObservedRequest", "Observer", "RequestObserver", "error_type", "observed"]

T = TypeVar("T")
_FORMAT: Final = (
    "%(operation)s: attempt %(attempt)d: %(method)s %(url)s: %(status)s, %(bytes_sent)d bytes sent, "
    "%(bytes_received)d received, %(seconds).3f s%(more)s"
)


class Observer(Protocol):
    """Sees all calls of a process. None of its methods raises, and none waits."""

    def call(self, operation: Operation) -> CallObserver | None:
        """A call begins, in the caller's context; None if it is not to be seen."""

    def request(self, request: ObservedRequest) -> RequestObserver | None:
        """A request begins that is sent by no call, but by a source; None if it is not to be seen."""


class CallObserver(Protocol):
    """Sees one call."""

    def request(self, request: ObservedRequest) -> RequestObserver:
        """A request begins, of which only the first attributes are known."""
        ...

    def leave_context(self) -> None:
        """The caller's own code runs from now on, between the steps of this call."""

    def end(self, error: BaseException | None, attempts: int) -> None:
        """The call ends, after as many requests: perhaps in another context, if the caller's code has run in between."""


class RequestObserver(AbstractContextManager[None], Protocol):
    """Sees one request. Its block is the time from when the request is sent until the response's headers have arrived."""

    def end(self, request: ObservedRequest) -> None:
        """The request and its response are over, and all about them is known."""


class ObservedRequest:
    """
    What is known of a request. It begins when this is made, and ends with its response.

    Attributes:
        operation: The public verb that it is part of.
        attempt: Which one it is in its call, from 1, among those with the same method and URL, and the redirects to it.
        method: The HTTP method.
        url: The URL without its query, which may be a signature.
        injected: Whether it passes an `httpx.AsyncClient`.
        bytes_sent: Bytes of its body, by its Content-Length.
        bytes_received: Bytes of the response's body that were read.
        status: The status of the response; None if there was none.
        fbtrace_id: Meta's name for it, which its support asks for.
        seconds: From its beginning to its end.
        error: What it ended with.
    """

    def __init__(
        self,
        request: Request,
        attempt: int,
        url: str,
        *,
        injected: bool = False,
        by: Observer | CallObserver | None = None,
    ) -> None:
        self.operation = request.operation
        self.attempt = attempt
        self.method = request.method
        self.url = url
        self.injected = injected
        self.bytes_sent = int(request.headers.get("Content-Length", 0))
        self.bytes_received = 0
        self.status: int | None = None
        self.fbtrace_id: str | None = None
        self.seconds = 0.0
        self.error: BaseException | None = None
        self._started = time.monotonic()
        self._over = False
        self._observer = None if by is None else by.request(self)

    async def sent(self, sending: Awaitable[T]) -> T:
        """Send it, and wait for the headers of the response."""
        with nullcontext() if self._observer is None else self._observer:
            return await sending

    def end(
        self, error: BaseException | None, status: int | None = None, received: int = 0, trace: str | None = None
    ) -> None:
        """End it, once: with the failure of its response, or when that was left."""
        if self._over:
            return
        self._over = True
        self.seconds = time.monotonic() - self._started
        self.status, self.bytes_received, self.error = status, received, error
        self.fbtrace_id = (error.fbtrace_id if isinstance(error, ApiError) else None) or trace
        if LOGGER.isEnabledFor(logging.DEBUG):
            self._log()
        if self._observer is not None:
            self._observer.end(self)
        self.error = None  # its frames refer to this object

    def _log(self) -> None:
        private = {"_started", "_over", "_observer", "error", "injected"}
        facts = {name: value for name, value in vars(self).items() if name not in private}
        facts["error_type"] = error_type(self.error)
        trace = f", fbtrace_id {self.fbtrace_id}" if self.fbtrace_id else ""
        reason = str(self.error) if isinstance(self.error, MediaError) else facts["error_type"]
        more = f"{trace}: {reason}" if reason else trace
        LOGGER.debug(_FORMAT, {**facts, "status": self.status or "no response", "more": more}, extra=facts)


def observed(request: Request, attempt: int, url: str, observer: Observer | None) -> ObservedRequest | None:
    """Return what sees a request that no call sends; None if nothing does."""
    seen = observer is not None or LOGGER.isEnabledFor(logging.DEBUG)
    return ObservedRequest(request, attempt, url, by=observer) if seen else None


def error_type(error: BaseException | None) -> str | None:
    """Return the name of an error's class, with its module; None for no error, and for a stream that was left early."""
    if error is None or isinstance(error, GeneratorExit):
        return None
    return f"{type(error).__module__}.{type(error).__qualname__}"
