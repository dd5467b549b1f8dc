"""
A call's requests and their replies: the only room that sends, and the only one that tries again.

It adds the token for hosts that may see it, holds calls back while all connections are busy or Meta wants a pause, follows
redirects, and decides after each failure whether and when there is another try.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio

from meta_media.errors import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    MediaError,
    NetworkError,
    Operation,
    RateLimitError,
    ServerError,
    TransferTimeoutError,
)
from meta_media.http.exceptions import ExceptionMapper
from meta_media.http.limits import MAX_RETRY_AFTER, Throttle, backoff_delay
from meta_media.http.response import Response
from meta_media.http.retry import RetryState, cost
from meta_media.http.timeouts import TransferTimeouts, UntimedSource
from meta_media.protocol.requests import Request, redirected_request, with_proof
from meta_media.protocol.responses import MAX_RESPONSE_SIZE, parse_error, parse_response
from meta_media.protocol.secrets import Secret

if TYPE_CHECKING:
    from meta_media.http.client import Client

__all__ = ["Call"]

_log: Final = logging.getLogger("meta_media")
_REFUSAL: Final = 2**16  # bytes of an error's body that are worth reading
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS: Final = 5
T = TypeVar("T")
Content = Callable[[], AbstractAsyncContextManager[Any]]


class Call:
    """
    What a public verb does on the wire: its requests, what they have in common, and what became of them; `async with`.

    It waits for a place among the connections before anything else, so that thousands of waiting calls hold nothing, and
    completes every error of ours that leaves it.

    Attributes:
        settings: In force.
        clock: The time that all its requests may take.
        ambiguous: Whether Meta may have done what one of them asked, without our hearing of it.
        unsent: Whether it failed before its first request, because of `hurry`.
    """

    def __init__(self, client: Client, operation: Operation, number: str | None, media_id: object) -> None:
        self.settings = client.settings
        self.ambiguous = self.unsent = False
        self.timeouts = TransferTimeouts(
            connect=client.settings.connect_timeout,
            read=client.settings.read_timeout,
            write=client.settings.write_timeout,
            rate=client.settings.minimum_rate,
            deadline=client.settings.deadline,
        )
        self._token = client.token
        self._client = client
        self._pacing = client.shared.limits
        self._gate: Throttle = self._pacing.gate(number)
        self._place = client.shared.limiter(operation)
        self._placed = False
        self._operation: Operation = operation
        self._media_id = media_id if isinstance(media_id, str) else None
        self._sent = 0
        self._paid = 0  # for the last retry
        self._shown = Secret()
        self._met: MediaError | None = None  # what it waits after, for another try
        self._given_up: MediaError | None = None
        self._hurried = False
        self._wait: anyio.CancelScope | None = None

    async def __aenter__(self) -> Call:
        self._started = time.monotonic()
        try:
            await self._client.shared.sender(through_client=self._client.through_client)
            await self._ready()
        except BaseException as error:
            self._leave(error)
            raise
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        """Complete an error of ours with the call it belongs to, unless that is another one, made inside a stream's block."""
        self._give_place()
        if error is None:
            self._pacing.budget.earn(self._paid)
        elif isinstance(error, MediaError) and error.operation is None:
            error.operation, error.elapsed = self._operation, time.monotonic() - self._started
            error.attempts = self._sent
            error.media_id = error.media_id or self._media_id

    @property
    def attempts(self) -> int:
        """How many requests were sent."""
        return self._sent

    # Its place and its pace

    def stop_waiting(self) -> None:
        """Wait for no turn any more, nor for another try: a call that would have to fails. A request under way goes on."""
        self._hurried = True
        if self._wait is not None:
            self._wait.cancel()

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        if not self._hurried:
            with anyio.CancelScope() as scope:
                self._wait = scope
                yield
            if not scope.cancelled_caught:
                return
        self.unsent = not self._sent
        self._given_up = self._met or MediaError("it waited for its turn when the run ended", retryable=True)
        raise self._given_up

    async def _ready(self) -> None:
        if self._operation == "upload" and self.settings.uploads_per_second:
            with self._waiting():
                await self._gate.upload_slot(self.settings.uploads_per_second)
        await self._admitted()

    async def _admitted(self) -> None:
        """Have a place while the number's gate is open: nobody else has to wait because this number has to."""
        while not (self._placed and self._gate.open):
            self._give_place()
            with self._waiting():
                await self._gate.opened()
                await self._place.acquire()
            self._placed = True

    def _give_place(self) -> None:
        if self._placed:
            self._placed = False
            self._place.release()

    def _learn(self, request: Request, token: Secret, ticket: int, error: ApiError) -> None:
        """Draw from an answer what matters to other calls: a dead token, a throttled number, a lookup that was refused."""
        if isinstance(error, AuthenticationError):
            self._token.invalidate(token)
        if isinstance(error, RateLimitError) and error.retryable:
            self._gate.shut(ticket, error.retry_after, self.settings.backoff)
        if request.operation == "get_info" and (error.status or 0) >= 400:
            self._gate.lookup_refused()

    # Requests

    async def ask(
        self,
        request: Request,
        cls: type[T],
        content: Content = contextlib.nullcontext,
        *,
        check: Callable[[T], None] | None = None,
        replayable: Callable[[], bool] = lambda: True,
    ) -> T:
        """
        Send a request to the Graph API, as often as it takes, and decode its reply.

        Args:
            request: From `wire`.
            cls: One of `models`.
            content: Opens the request's body for one try; see `send`.
            check: Raises if the reply is not one to this request.
            replayable: Whether the body can be opened again.
        """
        retry = RetryState(replayable)
        while True:
            try:
                async with content() as sending, self.open(request, sending) as reply:
                    answer = await self._understood(request, reply, cls)
                    if check is not None:
                        check(answer)
                    return answer
            except MediaError as error:
                await self.recover(error, retry)

    async def _understood(self, request: Request, reply: Response, cls: type[T]) -> T:
        if not 200 <= reply.status < 300:
            raise await self.refused(request, reply)
        body = await reply.read(MAX_RESPONSE_SIZE)
        if body is None:
            changes = request.method != "GET"
            raise ServerError(
                "Meta's reply is too long to be one", status=reply.status, retryable=not changes, maybe_applied=changes
            )
        return parse_response(request, cls, reply.status, reply.headers, body)

    async def refused(self, request: Request, reply: Response) -> MediaError:
        """Read a reply that is not the expected success into the error it stands for; its status alone will do."""
        try:
            body = await reply.read(_REFUSAL)
        except (NetworkError, ServerError):
            body = None
        refused = parse_error(request.operation, reply.status, reply.headers, body or b"")
        refused.maybe_applied = refused.maybe_applied and reply.request_sent  # what never arrived whole was not done
        return refused

    @asynccontextmanager
    async def open(self, request: Request, content: Any = None) -> AsyncIterator[Response]:
        """Send a request, and go where its reply leads; each redirect is judged as if it were the first URL."""
        status = 0
        for _ in range(1 + _MAX_REDIRECTS):
            async with await self.send(request, content) as reply:
                status = reply.status
                if reply.status not in _REDIRECTS or "location" not in reply.headers:
                    yield reply
                    return
                request = redirected_request(request, reply.status, Secret(reply.headers["location"]), self.settings)
        raise ServerError(f"Meta redirected more than {_MAX_REDIRECTS} times", status=status)

    async def send(self, request: Request, content: Any = None) -> Response:
        """
        Send a request once, and give its reply, which wants `async with` at once.

        Args:
            request: From `wire`.
            content: An async iterable of as many bytes as the request's Content-Length says; or bytes; or nothing.
        """
        await self._admitted()
        sender = await self._client.shared.sender(through_client=self._client.through_client)
        if request.operation == "get_info" and self.settings.info_errors_per_hour:
            self._gate.check_lookups(self.settings.info_errors_per_hour)
        headers = dict(request.headers)
        token = self._shown = Secret()
        if request.bearer:
            token = self._shown = await self._token.get()
            headers["Authorization"] = Secret(f"Bearer {token}")
            request = with_proof(request, token, self.settings)
        failures = ExceptionMapper(request, content)
        self._sent += 1
        self.timeouts.extend(int(headers.get("Content-Length", 0)))
        if isinstance(content, AsyncIterable):
            content = UntimedSource(content, self.timeouts)
        ticket, well = self._gate.enter(), False
        try:
            with failures, self.timeouts:
                answer = await sender.send(request.method, Secret(request.url), headers, content, self.timeouts)
            well = answer.status < 400
        except ConfigurationError:  # certificates that cannot be loaded
            self._sent -= 1
            raise
        finally:
            self._gate.leave(ticket, well=well)
        learn = functools.partial(self._learn, request, token, ticket)
        reply = Response(answer, timeouts=self.timeouts, failures=failures, token=token, learn=learn)
        self.timeouts.extend(reply.length or self.settings.max_download_size)
        return reply

    # Trying again

    async def recover(self, error: MediaError, retry: RetryState) -> None:
        """After a failure, wait until the work may be tried again; raise the error if it is not to be."""
        self.ambiguous = error.maybe_applied = self.ambiguous or error.maybe_applied
        if error is self._given_up:
            raise error
        try:
            if await self._has_new_token(error, retry):
                return
            await self._wait_after(error, retry)
        except MediaError as final:
            self._given_up = final
            raise

    async def _has_new_token(self, error: MediaError, retry: RetryState) -> bool:
        """Ask for another token, once, if this one was refused and there is somebody to ask."""
        refused = isinstance(error, AuthenticationError) and self._shown
        if not refused or retry.token_renewed or not retry.replayable():
            return False
        retry.token_renewed = True
        return await self._token.get() != self._shown

    async def _wait_after(self, error: MediaError, retry: RetryState) -> None:
        asked = error.retry_after if isinstance(error, ApiError) else None
        should_retry = retry.should_retry(error, self._operation, self.settings.max_retries)
        self._paid = cost(error)
        if not should_retry or (asked or 0) > MAX_RETRY_AFTER or not self._pacing.budget.afford(self._paid):
            raise error
        retry.count += 1
        delay = (asked or 0) + backoff_delay(retry.count, self.settings.backoff, self._pacing.jitter)
        if isinstance(error, RateLimitError):
            delay = self._gate.left
        if isinstance(error, NetworkError) and error.stale:
            delay = 0
        if delay >= self.timeouts.left:
            what = f"{self._operation}: the deadline does not leave the time for another try"
            raise TransferTimeoutError(what, phase="deadline", maybe_applied=self.ambiguous) from error
        _log.info("%s: trying again in %.1f s: %s", self._operation, delay, error)
        self._give_place()
        self._met = error
        if delay:
            with self._waiting(), self.timeouts:
                await self._pacing.sleep(delay)
        await self._ready()
        self._met = None
