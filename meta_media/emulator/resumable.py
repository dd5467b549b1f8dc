"""
`POST /{app}/uploads`, and `POST` and `GET /upload:{session}`: Meta's page "Resumable Upload API".

Of a file, its size and its SHA-256 are kept, but not its bytes. Errors have the pattern of their neighbours: Meta publishes none.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from meta_media.emulator.graph import Access, bearer, read_parameters
from meta_media.emulator.responses import GraphError

__all__ = ["APP_ID", "ResumableUpload", "ResumableUploads"]

APP_ID: Final = "2040608010305"
_PARAMETERS: Final = {  # that are required, and what they may be
    "file_length": re.compile(r"[1-9][0-9]{0,17}"),
    "file_type": re.compile(r"application/pdf|image/(jpeg|jpg|png)|video/mp4"),
}
_MAX_COUNT: Final = 1000  # sessions that are kept
Handler = Callable[[Request], Awaitable[Mapping[str, Any]]]


@attrs.define(eq=False)
class ResumableUpload:
    """A session, and what is known of its file."""

    id: str = attrs.field(repr=False)  # with its signature, as in `upload:MTph…?sig=ARaN…`
    numbers: frozenset[str] = attrs.field(repr=False)  # of the token that began it
    mime_type: str  # that was declared
    file_length: int  # bytes that were announced
    filename: str | None  # that was declared, if any
    file_offset: int = 0  # bytes that have arrived
    handle: str | None = None  # once all have
    turn: int = attrs.field(default=0, repr=False)  # of the latest request: an earlier one adds no more bytes
    digest: Any = attrs.field(factory=hashlib.sha256, repr=False)  # of the bytes that have arrived

    def add(self, piece: bytes) -> None:
        """Add bytes; a `GraphError` for more than were announced."""
        if self.file_offset + len(piece) > self.file_length:
            raise GraphError.of("invalid", problem=f"file_length is {self.file_length}, but there are more bytes")
        self.digest.update(piece)
        self.file_offset += len(piece)

    def response(self) -> Mapping[str, Any]:
        """Return the handle of a complete file; otherwise how much has arrived."""
        if self.file_offset < self.file_length:
            return {"id": self.id, "file_offset": str(self.file_offset)}
        kind = base64.b64encode(self.mime_type.encode()).decode()
        self.handle = self.handle or f"4::{kind}:ARZ{secrets.token_urlsafe(48)}:e:{APP_ID}"
        return {"h": self.handle}


class ResumableUploads:
    """The latest sessions, by id."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self.by_id: dict[str, ResumableUpload] = {}

    def routes(self, graph: Callable[[Handler], Callable[[Request], Awaitable[Response]]]) -> list[Route]:
        """Return the routes. `graph` makes an endpoint of the Graph API of a handler."""
        return [
            Route("/{object_id}/uploads", graph(self._begin), methods=["POST"]),
            Route("/upload:{object_id:path}", graph(self._receive), methods=["POST"]),
            Route("/upload:{object_id:path}", graph(self._show), methods=["GET"]),
        ]

    async def _begin(self, request: Request) -> Mapping[str, Any]:
        app, given = request.path_params["object_id"], await read_parameters(request)
        token = self._access.token(request, given)
        if app not in {APP_ID, "app"}:  # the word stands for the token's own app
            raise GraphError.of("gone", verb="post", id=app)
        for name, pattern in _PARAMETERS.items():
            if name not in given:
                raise GraphError.of("required", parameter=name)
            if not pattern.fullmatch(str(given[name])):
                raise GraphError.of("invalid", problem=f"{name} must match {pattern.pattern}")
        length, mime_type = given["file_length"], given["file_type"]
        about = f"1:attachment:{uuid.uuid4()}?file_length={length}&file_type={mime_type}"  # as recorded
        session = f"upload:{base64.b64encode(about.encode()).decode()}?sig=AR{secrets.token_urlsafe(24)}"
        self.by_id[session] = ResumableUpload(session, token.numbers, mime_type, int(length), given.get("file_name"))
        if len(self.by_id) > _MAX_COUNT:
            del self.by_id[next(iter(self.by_id))]
        return {"id": session}

    async def _show(self, request: Request) -> Mapping[str, Any]:
        upload = self._take(request)
        return {"id": upload.id, "file_offset": str(upload.file_offset)}

    async def _receive(self, request: Request) -> Mapping[str, Any]:
        upload = self._take(request)
        turn, offset = upload.turn, request.headers.get("file_offset", "0")  # meta-cloud-api sends none
        if offset != str(upload.file_offset):
            raise GraphError.of("invalid", problem=f"file_offset must be {upload.file_offset}")
        async for piece in request.stream():
            if turn != upload.turn:
                raise GraphError.of("invalid", problem="file_offset is now that of a later request")
            upload.add(piece)
        return upload.response()

    def _take(self, request: Request) -> ResumableUpload:
        """Return the session of a request, if the token is of the account that began it, and end earlier requests to it."""
        if bearer(request) is None:  # documented: a token in the query is not enough
            raise GraphError.of("no_token")
        token = self._access.token(request, request.query_params)
        name = f"upload:{request.path_params['object_id']}"
        upload = self.by_id.get(f"{name}?sig={request.query_params.get('sig')}")
        if upload is None or not upload.numbers & token.numbers:
            raise GraphError.of("gone", verb=request.method.lower(), id=name)
        upload.turn += 1
        return upload
