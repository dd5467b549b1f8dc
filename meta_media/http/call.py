"""
A call's requests and their responses: the one place that sends, and the one that retries.

It adds the token for the hosts that may receive it, waits for a connection slot and for the throttles, follows redirects,
and completes the errors that leave it.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final, TypeVar

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
from meta_media.http.heads import RequestHeaders
from meta_media.http.limits import Slot, Throttle
from meta_media.http.memory import Share
from meta_media.http.observer import CallObserver, ObservedRequest
from meta_media.http.response import Response
from meta_media.http.retry import RetryState, cost
from meta_media.http.timeouts import TransferTimeouts, UntimedSource
from meta_media.protocol.models import HasMediaId
from meta_media.protocol.requests import Request, redirected_request, with_proof
from meta_media.protocol.responses import MAX_RESPONSE_SIZE, parse_error, parse_response
from meta_media.protocol.secrets import Secret
from meta_media.protocol.validators import is_id

if TYPE_CHECKING:
    from meta_media.http.client import Client

__all__ = ["Call", "Content", "Pieces"]

_log: Final = logging.getLogger("meta_media")
_MAX_ERROR_SIZE: Final = 2**16  # bytes of an error's body that are read
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS: Final = 5
T = TypeVar("T")
Pieces = tuple[bytes | bytearray | memoryview, ...]  # of a body in memory; none for no body
Content = Pieces | Callable[[], AbstractAsyncContextManager[Any]]  # of a request: in memory, or what opens it


class Call:
    """
    One use of a public verb: all of its requests, their slot, their timeouts and their errors; `async with`.

    It acquires its slot before anything else, so that thousands of waiting calls hold no files and no memory.
    """

    attempts = 0  # requests sent
    ambiguous = False  # whether Meta may have done what a failed request asked for
    _token = Secret()  # that was sent last
    _retry_cost = 0  # of the last retry
    _final: MediaError | None = None  # not to be retried by an outer piece of work
    _observer: CallObserver | None = None
    _seen_counts: dict[tuple[str, str], int] | None = None  # of the requests that were seen, by method and URL

    def __init__(self, client: Client, operation: Operation, number: str | None, media_id: object) -> None:
        self.settings = settings = client.settings
        self.operation: Operation = operation
        self.timeouts = TransferTimeouts(  # of all its requests together
            connect=settings.connect_timeout,
            read=settings.read_timeout,
            write=settings.write_timeout,
            rate=settings.minimum_rate,
            deadline=settings.deadline,
        )
        self.deleted = client.shared.deleted  # ids of media
        self._client = client
        limits, account = client.shared.limits, settings.business_account_id or client.token.identity
        self._number = str(number) if isinstance(number, (str, int)) else None
        self._slot = Slot(client.shared.limiter(operation), limits.of_call(account, self._number))
        media_id = media_id.id if isinstance(media_id, HasMediaId) else media_id
        self._media_id = media_id if is_id(media_id) else None  # that its errors name

    async def __aenter__(self) -> Call:
        self._started = time.monotonic()
        if self._client.observer is not None:
            self._observer = self._client.observer.call(self.operation)
        try:
            if not self._client.shared.ready:
                await self._client.shared.load()
            if self.settings.uploads_per_second or not self._slot.take():
                await self._wait_for_slot()
        except BaseException as error:
            await self.__aexit__(None, error, None)
            raise
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._slot.release()
        if error is None:
            self._client.shared.limits.budget.earn(self._retry_cost)
        elif isinstance(error, MediaError) and error.operation is None:  # it has one if a call inside this one failed
            error.operation, error.elapsed = self.operation, time.monotonic() - self._started
            error.attempts = self.attempts
            error.media_id = error.media_id or self._media_id
        if self._observer is not None:
            self._observer.end(error, self.attempts)

    def share(self) -> Share:
        """Return the share of the client's memory of a transfer that is about to begin."""
        return self._client.shared.share(self.settings.chunk_size)

    # Waiting

    @property
    def unsent(self) -> bool:
        """Whether it failed before its first request because of `stop_waiting`."""
        return self._slot.interrupted and not self.attempts

    @property
    def token_failed(self) -> bool:
        """Whether the caller's token callable failed when it was last called."""
        return self._client.token.failed

    def stop_waiting(self) -> None:
        """Fail instead of waiting for a slot, for the throttle or for a retry. A request in progress goes on."""
        self._slot.stop_waiting()

    def limit_to(self, recipient: str) -> None:
        """Keep the limit of a message's recipient, too."""
        key = self._number, recipient.lstrip("+")
        self._slot.throttles["recipient"] = self._client.shared.limits.throttle(key, by_fours=True)

    def give_up_slot(self) -> None:
        """Give the slot back until the next request, because the work before that waits for a call of its own."""
        self._slot.release()

    def keep_slot(self) -> None:
        """Keep the slot while this call waits, because a call that holds another one waits for this call."""
        self._slot.kept = True

    def leave_context(self) -> None:
        """Leave the caller's context as it was, because the caller's code runs between the steps of this call."""
        if self._observer is not None:
            self._observer.leave_context()

    async def _wait_for_slot(self) -> None:
        per_second = self.settings.uploads_per_second
        if self.operation == "upload" and per_second:
            with self._slot.waiting():
                await self._slot.throttles["number"].upload_slot(per_second)
        await self._slot.acquire()

    # Requests

    async def request(
        self,
        request: Request,
        cls: type[T],
        content: Content = (),
        *,
        check: Callable[[T], None] | None = None,
        replayable: Callable[[], bool] = lambda: True,
    ) -> T:
        """
        Send a request to the Graph API, retry it if that may help, and decode its response.

        `content` is the body, or opens it for one attempt; see `open`. `check` raises if the response is not one to this request.
        `replayable` is whether the body can be opened again.
        """
        retry: RetryState | None = None
        while True:
            try:
                if isinstance(content, tuple):
                    async with await self.open(request, content) as response:
                        return await self.decoded(request, response, cls, check)
                async with content() as body, await self.open(request, body) as response:
                    return await self.decoded(request, response, cls, check)
            except MediaError as error:
                retry = retry or RetryState(replayable)
                await self.recover(error, retry)

    async def decoded(
        self, request: Request, response: Response, cls: type[T], check: Callable[[T], None] | None = None
    ) -> T:
        """Decode and check a response; raise the error that it stands for if it is one."""
        if not 200 <= response.status < 300:
            raise await self.refused(request, response)
        body = await response.read(MAX_RESPONSE_SIZE)
        if body is None:
            changes = request.method != "GET"
            what = f"Meta's response is longer than {MAX_RESPONSE_SIZE} bytes, which no response of its API is"
            raise ServerError(what, status=response.status, retryable=not changes, maybe_applied=changes)
        value = parse_response(request, cls, response.status, response.headers, body, response.secret)
        if check is not None:
            check(value)
        return value

    async def refused(self, request: Request, response: Response) -> MediaError:
        """Return the error that an unexpected response stands for. Its status is enough if the body cannot be read."""
        try:
            body = await response.read(_MAX_ERROR_SIZE)
        except (NetworkError, ServerError):
            body = None
        facts = response.status, response.headers, body or b""
        error = parse_error(request.operation, *facts, request.media_id, response.secret)
        if not response.request_sent:  # a request that was cut short is not applied
            error.maybe_applied = False
        return error

    async def open(self, request: Request, content: Any = ()) -> Response:
        """
        Send a request once, follow its redirects, and return the response. Each redirect is checked like the first URL.

        `content` is the body: an async iterable of as many bytes as its Content-Length, or pieces in memory.
        """
        status = 0
        for hop in range(1 + _MAX_REDIRECTS):
            if not self._slot.take():
                await self._slot.acquire()
            sender = self._client.shared.sender(through_client=self._client.through_client)
            url, headers, token = await self._signed(request)
            mapper = ExceptionMapper(request, content, hooked=sender.hooked, secret=token)
            self.timeouts.extend(int(request.headers.get("Content-Length", 0)))
            body = content if isinstance(content, tuple) else UntimedSource(content, self.timeouts)
            self.attempts += 1
            tickets, succeeded, seen = self._slot.enter(), False, None
            if self._observer is not None or _log.isEnabledFor(logging.DEBUG):
                seen = self._seen(request, sender, hop)
            try:
                with mapper, self.timeouts:
                    sending = sender.send(request.method, url, headers, body, self.timeouts)
                    cycle = await (sending if seen is None else seen.sent(sending))
                succeeded = cycle.status < 400
            except BaseException as error:
                if seen is not None:
                    seen.end(error)
                if isinstance(error, ConfigurationError):  # the certificates cannot be loaded, so nothing was sent
                    self.attempts -= 1
                raise
            finally:
                self._slot.leave(tickets, succeeded=succeeded)
            mapper.hooked = cycle.hooked
            share = functools.partial(self._share, request, token, tickets)
            response = Response(cycle, timeouts=self.timeouts, mapper=mapper, refused=share, seen=seen)
            status = response.status
            if not cycle.ended:
                media_size = response.length or self.settings.max_download_size
                self.timeouts.extend(0 if request.graph or status >= 300 else media_size)  # JSON is small
            if status not in _REDIRECTS or "location" not in response.headers:
                return response
            async with response:
                request = redirected_request(request, status, Secret(response.headers["location"]), self.settings)
        raise ServerError(f"Meta redirected more than {_MAX_REDIRECTS} times", status=status)

    def _seen(self, request: Request, sender: Any, hop: int) -> ObservedRequest:
        """Return what sees a request that is about to be sent, after `hop` redirects."""
        url = request.url.partition("?")[0]
        counts = self._seen_counts = self._seen_counts or {}
        counts[request.method, url] = count = counts.get((request.method, url), 0) + 1
        return ObservedRequest(request, hop + count, url, injected=sender.hooked, by=self._observer)

    async def _signed(self, request: Request) -> tuple[Secret, RequestHeaders, Secret]:
        """Return the URL, the headers and the token of one attempt. The token is empty if the host may not receive it."""
        if request.operation == "get_info" and self.settings.info_errors_per_hour:
            self._slot.throttles["number"].check_lookups(self.settings.info_errors_per_hour)
        self._token = Secret()
        if request.bearer:
            self._token = self._client.token.known or await self._client.token.get()
            request = with_proof(request, self._token, self.settings)
        shared = self._client.shared_headers(request, self._token)
        return Secret(request.url), RequestHeaders(shared, request.headers), self._token

    def _share(self, request: Request, token: Secret, tickets: dict[Throttle, int], error: ApiError) -> None:
        """Update what other calls share after an error response: the token, a throttle, the count of refused lookups."""
        if isinstance(error, AuthenticationError):
            self._client.token.invalidate(token)
        if isinstance(error, RateLimitError) and error.retryable:
            self._slot.shut(tickets, error, self.settings.backoff)
        if request.operation == "get_info" and (error.status or 0) >= 400:
            self._slot.throttles["number"].lookup_refused()

    # Retries

    async def recover(self, error: MediaError, retry: RetryState) -> None:
        """Wait after a failure until the work may be tried again; raise the error if it may not."""
        self.ambiguous = error.maybe_applied = self.ambiguous or error.maybe_applied
        tried_again = error is self._final or error.operation  # by an inner piece of work, or by a call in this one
        if tried_again or self._slot.interrupted:
            raise error
        try:
            refused = isinstance(error, AuthenticationError) and self._token and retry.may_renew_token()
            if not refused or await self._client.token.get() == self._token:
                await self._wait_for_retry(error, retry)
        except MediaError as final:
            self._final = final
            raise

    async def _wait_for_retry(self, error: MediaError, retry: RetryState) -> None:
        limits, self._retry_cost = self._client.shared.limits, cost(error)
        delay = retry.delay(error, self.operation, self.settings, limits)
        if isinstance(error, RateLimitError):
            delay = max(throttle.left for throttle in self._slot.throttles.values())
        if delay >= self.timeouts.left:
            what = f"{self.operation}: its deadline of {self.timeouts.deadline} leaves no time for another attempt"
            raise TransferTimeoutError(what, phase="deadline", maybe_applied=self.ambiguous) from error
        wait = {"delay": delay, "error": error}  # for handlers, such as the command line's
        _log.info("%s: trying again in %.1f s: %s", self.operation, delay, error, extra=wait)
        self._slot.pause()
        self._slot.failure = error
        if delay:
            with self._slot.waiting(), self.timeouts:
                await limits.sleep(delay)
        await self._wait_for_slot()
        self._slot.failure = None
