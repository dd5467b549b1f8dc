"""The routes: who may do what, and what every request and every reply has in common."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from email.utils import formatdate
from typing import Any, Final

import attrs
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meta_media.emulator.accounts import Accounts, Token
from meta_media.emulator.download import PATH, UrlSigner, file_response
from meta_media.emulator.fault_queue import Faults, operation_of
from meta_media.emulator.inject import inject, scripted
from meta_media.emulator.messages import accepted, check_attachment, parse_message
from meta_media.emulator.replies import GraphError, GraphResponse, PlainError, problem
from meta_media.emulator.settings import Clock, EmulatorSettings
from meta_media.emulator.store import Store, StoredMedia
from meta_media.emulator.upload import receive_upload

__all__ = ["Application", "ReceivedRequest"]

_VERSION: Final = re.compile(r"v(1[7-9]|[2-9][0-9])\.0")
_ID: Final = re.compile(r"[0-9]{1,32}")
_HOST: Final = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?")
_MAX_JSON: Final = 2**20
_Handler = Callable[[Request, Token], Awaitable[Mapping[str, Any]]]


@attrs.frozen(kw_only=True)
class ReceivedRequest:
    """
    What the emulator saw of a request.

    Attributes:
        method: As sent.
        path: Without the query.
        query: Without repeated names.
        authorization: Whether the header was there. Its value is not kept.
        user_agent: As sent.
        range: As sent.
        content_type: As sent.
        content_length: What was announced.
        transfer_encoding: As sent.
    """

    method: str
    path: str
    query: Mapping[str, str] = attrs.field(repr=False)
    authorization: bool
    user_agent: str | None
    range: str | None
    content_type: str | None
    content_length: int | None
    transfer_encoding: str | None


class Application:
    """The emulator as an ASGI application."""

    def __init__(
        self,
        *,
        store: Store,
        accounts: Accounts,
        signer: UrlSigner,
        clock: Clock,
        settings: EmulatorSettings,
        app_secret: str,
        faults: Faults,
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._signer = signer
        self._clock = clock
        self._settings = settings
        self._app_secret = app_secret
        self._faults = faults
        self.requests: deque[ReceivedRequest] = deque(maxlen=settings.remembered)
        self.messages: deque[dict[str, Any]] = deque(maxlen=settings.remembered)
        self.base_url = ""
        graph = self._graph
        routes = [
            Route(PATH, self._download, methods=["GET"]),
            Route("/{version}/{object_id}/media", graph(self._upload), methods=["POST"]),
            Route("/{version}/{object_id}/messages", graph(self._send), methods=["POST"]),
            Route("/{version}/{object_id}", graph(self._show), methods=["GET"]),
            Route("/{version}/{object_id}", graph(self._delete), methods=["DELETE"]),
        ]
        app = Starlette(routes=routes, exception_handlers={HTTPException: _no_route, Exception: _broken})
        app.router.redirect_slashes = False
        self._app: ASGIApp = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or do what a fault says."""
        request = Request(scope)
        self.requests.append(_received(request))
        fault = self._faults.take(operation_of(request.method, scope["path"]))
        try:
            if fault is None:
                await self._dated(self._app)(scope, receive, send)
            else:
                scope["state"]["expired_url"] = fault.expired_url
                app, instead = self._dated(self._app), self._dated(scripted(fault))
                await inject(fault, app, instead, scope, receive, send)
        except ClientDisconnect:
            return  # nobody is left to be told

    def _dated(self, app: ASGIApp) -> ASGIApp:
        """Let replies be dated by the emulator's clock."""

        async def dated(scope: Scope, receive: Receive, send: Send) -> None:
            date = formatdate(self._clock.now(), usegmt=True).encode()

            async def send_dated(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _add_header(message, (b"date", date))
                await send(message)

            await app(scope, receive, send_dated)

        return dated

    def _graph(self, handler: _Handler) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            version = request.path_params["version"]
            try:
                if not _VERSION.fullmatch(version):
                    raise GraphError.unknown_path(request.scope["path"])
                return GraphResponse(await handler(request, self._authorize(request)), version)
            except GraphError as parse_error:
                return GraphResponse(parse_error, version)
            except PlainError as parse_error:
                return parse_error.response

        return endpoint

    def _authorize(self, request: Request) -> Token:
        value = _bearer(request) or request.query_params.get("access_token")
        if not value and request.path_params["object_id"] == "me":
            raise GraphError.no_user()
        token = self._accounts.authenticate(value)
        required = self._settings.require_appsecret_proof
        self._accounts.check_proof(token.value, self._app_secret, request.query_params, required=required)
        return token

    async def _upload(self, request: Request, token: Token) -> Mapping[str, Any]:
        number = _own_number(request, token)
        if self._settings.require_content_length and "content-length" not in request.headers:
            raise PlainError(Response("Length Required", 411, media_type="text/plain"))
        try:
            media = await receive_upload(
                request.headers.get("content-type", ""),
                request.stream(),
                number,
                store=self._store,
                settings=self._settings,
                now=self._clock.now(),
            )
        except GraphError as parse_error:
            if "error_user_title" in parse_error.error and self._settings.oversize_reply == "proxy":
                raise PlainError(Response("Request Entity Too Large", 413, media_type="text/html")) from None
            raise
        return {"id": media.id}

    async def _show(self, request: Request, token: Token) -> Mapping[str, Any]:
        object_id = request.path_params["object_id"]
        if object_id in token.numbers:
            name = {"verified_name": "Emulated number", "display_phone_number": "+1 555-000-2222"}
            return name | {"quality_rating": "GREEN", "id": object_id}
        media = await self._own_media(request, token, "get")
        host = request.headers.get("host", "")
        base_url = f"http://{host}" if _HOST.fullmatch(host) else self.base_url
        lifetime = 0 if request.scope["state"].get("expired_url") else self._settings.url_lifetime
        expires = int(self._clock.now()) + lifetime
        size = media.file_size
        return {
            "url": self._signer.url(base_url, media.id, "getMedia", expires),
            "mime_type": media.mime_type,
            "sha256": media.sha256,
            "file_size": str(size) if self._settings.file_size_as_string else size,
            "id": media.id,
            "messaging_product": "whatsapp",
        }

    async def _delete(self, request: Request, token: Token) -> Mapping[str, Any]:
        try:
            media = await self._own_media(request, token, "delete")
        except GraphError:
            if self._settings.repeated_delete == "error":
                raise
        else:
            await self._store.remove(media.id)
        return {"success": True}

    async def _send(self, request: Request, token: Token) -> Mapping[str, Any]:
        number = _own_number(request, token)
        kind, media, message = parse_message(await _small_body(request))
        if media.get("id"):
            check_attachment(kind, await self._find(media["id"]), number)
        reply = accepted(message)
        self.messages.append(message | {"message_id": reply["messages"][0]["id"], "phone_number_id": number})
        return reply

    async def _own_media(self, request: Request, token: Token, verb: str) -> StoredMedia:
        media = await self._find(request.path_params["object_id"])
        asked = request.query_params.get("phone_number_id")
        mismatch = media and asked not in {None, media.phone_number_id} and self._settings.wrong_number == "error"
        if media is None or media.phone_number_id not in token.numbers or mismatch:
            raise GraphError.gone(verb, request.path_params["object_id"])
        return media

    async def _find(self, media_id: str) -> StoredMedia | None:
        return await self._store.find(media_id, self._clock.now()) if _ID.fullmatch(media_id) else None

    async def _download(self, request: Request) -> Response:
        status = self._settings.missing_user_agent_status
        if status is not None and not request.headers.get("user-agent"):
            return problem(status, "Bad Request")
        try:
            token = self._accounts.authenticate(_bearer(request))
            now = math.inf if request.scope["state"].get("expired_url") else self._clock.now()
            media_id = self._signer.check(request.query_params, self._settings, now)
        except GraphError:
            return problem(401, "Authentication Error")
        except PlainError as parse_error:
            return parse_error.response
        media = await self._find(media_id)
        if media is None or media.phone_number_id not in token.numbers:
            return problem(404, "Not Found")
        return file_response(media, request.headers, request.method, store=self._store, settings=self._settings)


def _add_header(message: MutableMapping[str, Any], header: tuple[bytes, bytes]) -> None:
    message["headers"] = [*message.get("headers", ()), header]


def _received(request: Request) -> ReceivedRequest:
    headers = request.headers
    length = headers.get("content-length", "")
    return ReceivedRequest(
        method=request.method,
        path=request.scope["path"],
        query=dict(request.query_params),
        authorization="authorization" in headers,
        user_agent=headers.get("user-agent"),
        range=headers.get("range"),
        content_type=headers.get("content-type"),
        content_length=int(length) if length else None,
        transfer_encoding=headers.get("transfer-encoding"),
    )


def _bearer(request: Request) -> str | None:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() in {"bearer", "oauth"} else None


def _own_number(request: Request, token: Token) -> str:
    number = str(request.path_params["object_id"])
    if number not in token.numbers:
        raise GraphError.gone("post", number)
    return number


async def _small_body(request: Request) -> bytes:
    body = b""
    async for piece in request.stream():
        body = (body + piece)[: _MAX_JSON + 1]
    return body if len(body) <= _MAX_JSON else b""


async def _no_route(request: Request, exc: Exception) -> Response:
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    parts = request.scope["path"].split("/")
    if status == 405 and len(parts) > 2:
        return GraphResponse(GraphError.gone(request.method.lower(), parts[2]))
    return GraphResponse(GraphError.unknown_path(request.scope["path"]))


async def _broken(_request: Request, _exc: Exception) -> Response:
    return GraphResponse(GraphError.broken())
