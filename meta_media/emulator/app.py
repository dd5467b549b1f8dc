"""The routes, the permissions, and the parts that all requests and responses share."""

from __future__ import annotations

import functools
import math
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from typing import Any, Final

import attrs
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meta_media.emulator import customer, graph
from meta_media.emulator.business import number_node, show_profile, update_profile
from meta_media.emulator.delivery import LOGGER
from meta_media.emulator.download import PATH, UrlSigner, file_response
from meta_media.emulator.faults import FaultQueue
from meta_media.emulator.feed import Feed
from meta_media.emulator.judgement import Judge
from meta_media.emulator.messages import accepted, check_attachment, mark_as_read, parse_message
from meta_media.emulator.page.app import Page
from meta_media.emulator.responses import BUSINESS_ACCOUNT_ID, GraphError, GraphResponse, PlainError, problem
from meta_media.emulator.resumable import ResumableUploads
from meta_media.emulator.server import inject, scripted
from meta_media.emulator.settings import Clock, EmulatorSettings
from meta_media.emulator.state import State, StoredMedia, Token
from meta_media.emulator.upload import receive_upload
from meta_media.emulator.webhooks import Failure
from meta_media.errors import ConfigurationError

__all__ = ["Application"]

_ID: Final = re.compile(r"[0-9]{1,32}")
_HOST: Final = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?")
_CUSTOMER_FIELDS: Final = ("caption", "filename", "sender", "username", "group_id", "kind", "carrier", "failure")
_Handler = Callable[[Request], Awaitable[Mapping[str, Any]]]


@attrs.define(eq=False)
class Application:
    """The emulator as an ASGI application."""

    state: State
    signer: UrlSigner
    clock: Clock
    settings: EmulatorSettings
    app_secret: str = attrs.field(repr=False)
    faults: FaultQueue
    play_customer: Callable[..., Awaitable[Mapping[str, Any]]]
    on_accepted: Callable[[Mapping[str, Any], Failure | None], None]
    feed: Feed
    public_url: str | None = None  # of download URLs; None for the host that a client has named
    base_url: str = ""  # for requests without a usable `Host`
    requests: deque[graph.ReceivedRequest] = attrs.field(init=False)  # the latest, the newest last
    messages: deque[dict[str, Any]] = attrs.field(init=False)  # the latest accepted ones, the newest last
    resumable: ResumableUploads = attrs.field(init=False)
    page: Page = attrs.field(init=False)  # set before the first request
    judge: Judge = attrs.field(init=False, factory=Judge)
    _access: graph.Access = attrs.field(init=False)
    _app: Starlette = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.requests = deque(maxlen=self.settings.remembered)
        self.messages = deque(maxlen=self.settings.remembered)
        self._access = graph.Access(self.state, self.app_secret, self.settings.require_appsecret_proof)
        self.resumable = ResumableUploads(self._access)
        routes = [
            Route(PATH, self._download, methods=["GET"]),
            Route(customer.PATH, self._receive, methods=["POST"]),
            *self.resumable.routes(self._graph),
            Route("/{object_id}/media", self._graph(self._upload), methods=["POST"]),
            Route("/{object_id}/messages", self._graph(self._send), methods=["POST"]),
            Route("/{object_id}/whatsapp_business_profile", self._graph(self._show_profile), methods=["GET"]),
            Route("/{object_id}/whatsapp_business_profile", self._graph(self._update_profile), methods=["POST"]),
            Route("/{object_id}/phone_numbers", self._graph(self._list_numbers), methods=["GET"]),
            Route("/{object_id}", self._graph(self._show), methods=["GET"]),
            Route("/{object_id}", self._graph(self._delete), methods=["DELETE"]),
        ]
        self._app = Starlette(routes=routes, exception_handlers={HTTPException: _failed, Exception: _failed})
        self._app.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one request, or act out the fault that was planned for it."""
        if self.page.serves(scope):
            await self.page(scope, receive, send)
            return
        request, started = Request(scope), time.monotonic()
        received = None if scope["path"] == customer.PATH else graph.ReceivedRequest.of(request)
        if received is not None:
            self.requests.append(received)
        fault = self.faults.take(graph.operation_of(request.method, scope["path"]))
        try:
            if fault is None:
                await self._dated(self._routed, scope, receive, send)
            else:
                scope["state"]["expired_url"] = fault.expired_url
                app, instead = (functools.partial(self._dated, app) for app in (self._routed, scripted(fault)))
                await inject(fault, app, instead, scope, receive, send)
        except ClientDisconnect:
            return  # there is no connection left to respond on
        finally:
            # The path as it was sent: without the query, which may hold a token, and without line breaks.
            where, status = scope["raw_path"].decode("latin-1"), scope["state"].get("status", "no response")
            seconds = time.monotonic() - started
            how = f"{seconds:.3f} s{', fault injected' * (fault is not None)}"
            LOGGER.info("%s %s: %s, %s", request.method, where, status, how)
            if received is not None:
                self.feed.requested(received, where, status, seconds, fault)

    async def _dated(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the emulator's time to an application's response."""
        date = formatdate(self.clock.now(), usegmt=True).encode()

        async def send_dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                scope["state"]["status"] = message["status"]
                message["headers"] = [*message["headers"], (b"date", date)]
            await send(message)

        await app(scope, receive, send_dated)

    async def _routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take the version out of a path of the Graph API, and find its route."""
        if (refused := scope["state"].get("refused")) is not None:  # by a provider in front
            await refused(scope, receive, send)
            return
        version, path = graph.graph_path(scope["path"])
        if scope["path"] in (PATH, customer.PATH):
            path = scope["path"]
        await self._app({**scope, "path": path, "version": version}, receive, send)

    def _graph(self, handler: _Handler) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                return GraphResponse(await handler(request), request.scope["version"])
            except GraphError as error:
                return GraphResponse(error, request.scope["version"])
            except PlainError as error:
                return error.response

        return endpoint

    async def _upload(self, request: Request) -> Mapping[str, Any]:
        self._access.check_early(request)
        if self.settings.require_content_length and "content-length" not in request.headers:
            raise PlainError(Response("Length Required", 411, media_type="text/plain"))
        try:
            media = await receive_upload(request, self._access.number, self.state, self.settings, self.clock.now())
        except GraphError as error:
            if "error_user_title" in error.error and self.settings.oversize_reply == "proxy":
                raise PlainError(Response("Request Entity Too Large", 413, media_type="text/html")) from None
            raise
        return {"id": media.id}

    async def _show(self, request: Request) -> Mapping[str, Any]:
        object_id, token = request.path_params["object_id"], self._access.token(request, request.query_params)
        if object_id in token.numbers:
            return number_node(object_id)
        media = await self._own_media(request, token, "get")
        host = request.headers.get("host", "")
        # A proxy in front that speaks TLS says so. What a client writes there itself changes only its own response.
        secure = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip() == "https"
        scheme = "https" if secure else request.url.scheme
        base_url = self.public_url or (f"{scheme}://{host}" if _HOST.fullmatch(host) else self.base_url)
        lifetime = 0 if request.scope["state"].get("expired_url") else self.settings.url_lifetime
        expires = int(self.clock.now()) + lifetime
        size = media.file_size
        return {
            "url": self.signer.url(base_url, media.id, "getMedia", expires),
            "mime_type": media.mime_type,
            "sha256": media.sha256,
            "file_size": str(size) if self.settings.file_size_as_string else size,
            "id": media.id,
            "messaging_product": "whatsapp",
        }

    async def _delete(self, request: Request) -> Mapping[str, Any]:
        token = self._access.token(request, request.query_params)
        try:
            media = await self._own_media(request, token, "delete")
        except GraphError:
            if self.settings.repeated_delete == "error":
                raise
        else:
            await self.state.in_thread(self.state.remove, media.id)
        return {"success": True}

    async def _send(self, request: Request) -> Mapping[str, Any]:
        given = await graph.read_parameters(request)
        number = self._access.number(request, given)
        message = {name: value for name, value in given.items() if name not in graph.CREDENTIALS}
        if "status" in message:
            return mark_as_read(message)
        return await self.accept(message, number)

    async def accept(self, message: dict[str, Any], number: str) -> Mapping[str, Any]:
        """Accept a message from a number, and return the response; a `GraphError` if Meta would not accept it."""
        failure = None
        for place, kind, media_id in parse_message(message):
            media = check_attachment(place, kind, await self._find(media_id), number)
            if self.settings.judge_media:
                failure = failure or await self.judge.failure(kind, media, self.state.path(media_id))
        response = accepted(message)
        message |= {"message_id": response["messages"][0]["id"], "phone_number_id": number}
        self.messages.append(message)
        self.on_accepted(message, failure)
        return response

    async def _show_profile(self, request: Request) -> Mapping[str, Any]:
        query = request.query_params
        return show_profile(self.state, self._access.number(request, query), query.get("fields"))

    async def _update_profile(self, request: Request) -> Mapping[str, Any]:
        given, uploads = await graph.read_parameters(request), self.resumable.by_id.values()
        return await update_profile(self.state, self._access.number(request, given), given, uploads)

    async def _list_numbers(self, request: Request) -> Mapping[str, Any]:
        token = self._access.token(request, request.query_params)
        if (object_id := request.path_params["object_id"]) != BUSINESS_ACCOUNT_ID:
            raise GraphError.of("gone", verb="get", id=object_id)
        return {"data": [number_node(number) for number in sorted(token.numbers)]}

    async def _receive(self, request: Request) -> Response:
        """Play a customer for another process; see `customer`."""
        query, mime_type = request.query_params, request.headers.get("content-type", "application/octet-stream")
        given = {name: query[name] for name in _CUSTOMER_FIELDS if name in query}
        try:
            token = self.state.authenticate(graph.bearer(request))
            if (number := query.get("phone_number_id", "")) not in token.numbers:
                raise GraphError.of("gone", verb="post", id=number)
            received = self.play_customer(
                await request.body(), mime_type, phone_number_id=number, twice="twice" in query, **given
            )
            return GraphResponse(await received)
        except GraphError as error:
            return GraphResponse(error)
        except ConfigurationError as error:
            return GraphResponse(GraphError.of("invalid", problem=error))

    async def _own_media(self, request: Request, token: Token, verb: str) -> StoredMedia:
        media = await self._find(request.path_params["object_id"])
        asked = request.query_params.get("phone_number_id")
        mismatch = media and asked not in {None, media.phone_number_id} and self.settings.wrong_number == "error"
        if media is None or media.phone_number_id not in token.numbers or mismatch:
            raise GraphError.of("gone", verb=verb, id=request.path_params["object_id"])
        return media

    async def _find(self, media_id: str) -> StoredMedia | None:
        return await self.state.find(media_id) if _ID.fullmatch(media_id) else None

    async def _download(self, request: Request) -> Response:
        status = self.settings.missing_user_agent_status
        if status is not None and not request.headers.get("user-agent"):
            return problem(status, "Bad Request")
        try:
            token = self.state.authenticate(graph.bearer(request))
            now = math.inf if request.scope["state"].get("expired_url") else self.clock.now()
            media_id = self.signer.check(request.query_params, self.settings, now)
        except GraphError:
            return problem(401, "Authentication Error")
        except PlainError as error:
            return error.response
        media = await self._find(media_id)
        if media is None or media.phone_number_id not in token.numbers:
            return problem(404, "Not Found")
        return file_response(media, request.headers, request.method, state=self.state, settings=self.settings)


async def _failed(request: Request, exc: Exception) -> Response:
    version, (_, object_id, *rest) = request.scope["version"], request.scope["path"].split("/")
    if not isinstance(exc, HTTPException):
        error = GraphError.of("broken")
    elif exc.status_code == 405:
        error = GraphError.of("gone", verb=request.method.lower(), id=object_id)
    else:
        error = GraphError.of("unknown_path", path="/" + "/".join(rest))
    return GraphResponse(error, version)
