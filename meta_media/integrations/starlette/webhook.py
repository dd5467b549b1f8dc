"""
A route for Meta's webhooks, and what an application keeps from its start to its end: one `MediaApi`, and work in the background.

Meta posts a webhook again until it gets 200, for up to seven days, and now and then after it did. So the response comes
first, the handlers run afterwards, and what a repeated webhook has is known by its ids.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from meta_media.api import MediaApi
from meta_media.errors import ConfigurationError, InvalidWebhookError, PermissionDeniedError
from meta_media.integrations.starlette.response import CLIENT_LEFT
from meta_media.protocol.models import InboundFailure, InboundMedia, MessageStatus, Webhook
from meta_media.protocol.webhooks import parse_webhook, verify_signature, verify_subscription

__all__ = ["WebhookEndpoint", "media_lifespan"]

Item = InboundMedia | MessageStatus | InboundFailure
Job = tuple[Callable[[MediaApi, Any], Awaitable[object]], Item]

_log: Final = logging.getLogger("meta_media")
_MAX_BODY: Final = 3 * 2**20  # bytes; Meta's page "Webhooks": payloads can be up to 3 MB
_MAX_RUNNING: Final = 1000  # webhooks at work: more are refused, and Meta posts them again
_MAX_KEYS: Final = 10_000  # of items that are known as handled
_MEDIA, _WORK = "media", "meta_media.work"  # in the state of the application


def media_lifespan(
    make_media: Callable[[], MediaApi] = MediaApi, *, drain_timeout: float = 20.0
) -> Callable[[Any], AbstractAsyncContextManager[dict[str, Any]]]:
    """
    Return the `lifespan` of an application: `Starlette(routes=…, lifespan=media_lifespan())`, `FastAPI(lifespan=…)`.

    One `MediaApi` is made at each start, and is `request.state.media` in the routes. At shutdown, the handlers of
    `WebhookEndpoint` have some time to end, and then it is closed. A lifespan of your own can enter this one:
    `async with media_lifespan()(app) as state`, and yield `{**state, …}`.

    Args:
        make_media: Makes the client. Default: `MediaApi()`, from the environment.
        drain_timeout: Seconds that handlers may take at shutdown. What is left is cancelled and logged as ERROR.

    Raises:
        ConfigurationError: `make_media` is a client.
    """
    given: object = make_media
    if isinstance(given, MediaApi):
        sentence = "each start of an app needs its own MediaApi: pass a function that makes one, such as the class"
        raise ConfigurationError(sentence)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[dict[str, Any]]:
        async with make_media() as media:
            work = _Work()
            try:
                yield {_MEDIA: media, _WORK: work}
            finally:
                await work.drain(drain_timeout)

    return lifespan


class WebhookEndpoint:
    """
    The route of Meta's webhooks, an ASGI application: `Route("/webhook", WebhookEndpoint(on_media))`.

    The application has `lifespan=media_lifespan()`, whose client is the first argument of a handler:
    `async def on_media(media, inbound)`.

    - GET is Meta's verification of the URL.
    - POST is answered with 200 at once; 403 if Meta did not sign it, 400 if it is no webhook of WhatsApp, 413 above 3 MB.
      While 1,000 webhooks are at work it is 503, and Meta posts it again later.
    - The items of one webhook are handled one after another, those of several at the same time. An error of a handler is
      logged as ERROR, with the ids of the item, and the next item follows.
    - An item that was handed to a handler is known by its ids: message and media, or message and status. It is not handed
      over again when Meta repeats it. By default this process keeps the last 10,000.

    What was responded to and is not yet handled is lost if the process is killed. Several processes know each other's items
    by a shared `is_new`, such as `SET key 1 NX EX 691200` of Redis.

    Args:
        on_media: Called with each `InboundMedia`, also with those whose `carrier` is not `"message"`, such as `"echo"`.
        on_status: Called with each `MessageStatus`. Default: they are ignored.
        on_failure: Called with each `InboundFailure`. Default: they are ignored.
        app_secret: Secret of the Meta app, or several while you change it. Default: the client's `Settings.app_secret`.
        verify_token: Verify token of the app's dashboard. Default: the environment's `WEBHOOK_VERIFICATION_TOKEN`.
        is_new: An async function that records a key, and returns whether it was new. If it raises, Meta posts again.

    Raises:
        ConfigurationError: A handler is no function.
    """

    def __init__(
        self,
        on_media: Callable[[MediaApi, InboundMedia], Awaitable[object]],
        *,
        on_status: Callable[[MediaApi, MessageStatus], Awaitable[object]] | None = None,
        on_failure: Callable[[MediaApi, InboundFailure], Awaitable[object]] | None = None,
        app_secret: str | Collection[str] | None = None,
        verify_token: str | None = None,
        is_new: Callable[[str], Awaitable[object]] | None = None,
    ) -> None:
        given: dict[str, object] = {"on_media": on_media, "on_status": on_status, "on_failure": on_failure}
        for name, handler in given.items():
            if not callable(handler) and (handler is not None or name == "on_media"):
                raise ConfigurationError(f"{name} must be an async function, not {type(handler).__name__}")
        self._handlers = {"media": on_media, "statuses": on_status, "failures": on_failure}  # by fields of `Webhook`
        self._app_secret = app_secret
        self._verify_token = verify_token
        self._is_new = _RecentKeys().is_new if is_new is None else is_new

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request."""
        request = Request(scope, receive)
        if request.method == "GET":
            response = self._verified(request)
        elif request.method == "POST":
            response = await self._taken(request)
        else:
            response = Response(status_code=405, headers={"Allow": "GET, POST"})
        await response(scope, receive, send)

    def _verified(self, request: Request) -> Response:
        token = self._verify_token or os.environ.get("WEBHOOK_VERIFICATION_TOKEN")
        if not token:
            raise ConfigurationError("there is no verify token: pass verify_token or set WEBHOOK_VERIFICATION_TOKEN")
        try:
            return PlainTextResponse(verify_subscription(request.query_params, token))
        except PermissionDeniedError as error:
            return _refused(403, str(error))

    async def _taken(self, request: Request) -> Response:
        """Judge a webhook, and hand over what is new in it."""
        state = request.scope.get("state", {})
        if _WORK not in state:
            raise ConfigurationError("the app has no MediaApi for its webhooks: make it with lifespan=media_lifespan()")
        media, work = state[_MEDIA], state[_WORK]
        try:
            body = await _body(request)
        except ClientDisconnect:
            return Response(status_code=CLIENT_LEFT)
        if body is None:
            return _refused(413, f"it has more than {_MAX_BODY} bytes")
        secret = self._app_secret or media.settings.app_secret or ""
        if not verify_signature(secret, body, request.headers.get("x-hub-signature-256")):
            return _refused(403, "it is not signed with this app's secret: compare WA_APP_SECRET with the dashboard's")
        try:
            received = parse_webhook(body)
        except InvalidWebhookError as error:
            return _refused(400, str(error))
        if work.is_full:
            return _refused(503, f"{_MAX_RUNNING} are at work: Meta posts it again")
        jobs: deque[Job] = deque()
        try:
            await self._select(received, jobs)
        finally:  # what `is_new` has recorded is handled, also if it fails for the next
            work.start(media, jobs)
        return Response()

    async def _select(self, received: Webhook, jobs: deque[Job]) -> None:
        """Add the items that no earlier webhook had."""
        for field, handler in self._handlers.items():
            if handler is None:
                continue
            for item in getattr(received, field):
                key = _key(item)
                if not key or await self._is_new(key):
                    jobs.append((handler, item))


class _RecentKeys:
    """The last keys, in memory."""

    def __init__(self) -> None:
        self._keys: dict[str, None] = {}

    async def is_new(self, key: str) -> bool:
        known = key in self._keys
        self._keys.pop(key, None)
        self._keys[key] = None
        if len(self._keys) > _MAX_KEYS:
            del self._keys[next(iter(self._keys))]
        return not known


class _Work:
    """The webhooks whose items are being handled."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_full(self) -> bool:
        return len(self._tasks) >= _MAX_RUNNING

    def start(self, media: MediaApi, jobs: deque[Job]) -> None:
        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            for _, item in jobs:
                _log.error("the handler of a webhook was cancelled before its end: %s", _shown(item))

        if jobs:
            task = asyncio.ensure_future(_handle(media, jobs))
            self._tasks.add(task)
            task.add_done_callback(ended)

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - what is left then is cancelled
        """Wait for the handlers, then cancel them."""
        try:
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=timeout)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)


async def _handle(media: MediaApi, jobs: deque[Job]) -> None:
    """Call the handlers one after another. A job is removed when its handler has ended."""
    while jobs:
        handler, item = jobs[0]
        try:
            await handler(media, item)
        except Exception:  # noqa: BLE001 - the handler is the user's code, and the next item follows
            _log.exception("the handler of a webhook failed: %s", _shown(item))
        jobs.popleft()


async def _body(request: Request) -> bytes | None:
    """Read the body; None if it is too large."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > _MAX_BODY:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            return None
    return bytes(body)


def _key(item: Item) -> str:
    """Name an item; an empty text for a failure that is about no message."""
    return " ".join(filter(None, (item.message_id, getattr(item, "id", None), getattr(item, "status", None))))


def _shown(item: Item) -> str:
    return f"{type(item).__name__} {_key(item)!r}"


def _refused(status: int, reason: str) -> Response:
    _log.warning("a webhook is refused with HTTP %d: %s", status, reason)
    return Response(status_code=status)
