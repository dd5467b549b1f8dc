"""
360dialog in front of the Graph API: its header, its paths, its limits and its own errors.

Source: 360dialog's pages "Upload, retrieve or delete media" and "Error Code Reference". The form of its errors is that of its
earlier API, because the pages have their texts only.
"""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict, deque
from typing import Final

import attrs
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meta_media.emulator.download import PATH
from meta_media.emulator.responses import GraphError, PlainError
from meta_media.emulator.settings import Clock
from meta_media.emulator.state import State

__all__ = ["Dialog360"]

_VERSION: Final = "/v25.0"  # of the Graph API, which it chooses
_OF_NUMBER: Final = frozenset({"/media", "/messages"})
_OBJECT: Final = re.compile(r"/[0-9]{1,32}")
_GRAPH: Final = re.compile(r"/v[0-9]+\.[0-9]+(/.*)?|/[^/]+/(media|messages|uploads)")  # paths of Meta's own host
_UPLOADS: Final = 25  # a second and number
_ERRORS: Final = 20  # responses to lookups within an hour; above, all lookups are blocked
_HOUR: Final = 3600.0  # seconds
_BLOCKED: Final = 1800.0  # seconds


@attrs.define(eq=False)
class _Number:
    uploads: deque[float] = attrs.field(factory=lambda: deque(maxlen=_UPLOADS))  # when the latest ones came
    errors: deque[float] = attrs.field(factory=deque)  # when lookups failed
    blocked_until: float = 0.0


@attrs.frozen
class Dialog360:
    """An ASGI application that passes requests with an API key on to the Graph API's, as requests with an access token."""

    app: ASGIApp
    state: State
    clock: Clock
    _numbers: defaultdict[str, _Number] = attrs.field(init=False, factory=lambda: defaultdict(_Number))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one request. What is not of its API, such as the emulator's page, is passed on as it is."""
        path, headers, number, refused = scope["path"], scope["headers"], "", None
        served = path == PATH or path in _OF_NUMBER or _OBJECT.fullmatch(path) is not None
        if not served and not _GRAPH.fullmatch(path):
            await self.app(scope, receive, send)
            return
        key = next((value for name, value in headers if name == b"d360-api-key"), b"")
        lookup = served and path != PATH and scope["method"] in {"GET", "HEAD"}
        try:
            if not served:
                raise _refusal(404, "Not Found")
            number = self._number(key.decode("latin-1"))
            self._check_limits(number, upload=path == "/media", lookup=lookup)
        except PlainError as error:
            refused = error.response
        else:
            headers = [(name, value) for name, value in headers if name != b"authorization"]
            headers.append((b"authorization", b"Bearer " + key))

        async def send_counted(message: Message) -> None:
            if lookup and number and message.get("status", 0) >= 400:
                self._count_error(number)
            await send(message)

        told = (
            path if refused or path == PATH else f"{_VERSION}/{number}{path}" if path in _OF_NUMBER else _VERSION + path
        )
        state = {**scope["state"], "path": path, "refused": refused}
        await self.app({**scope, "path": told, "headers": headers, "state": state}, receive, send_counted)

    def _number(self, key: str) -> str:
        try:
            return min(self.state.authenticate(key).numbers)
        except GraphError:
            raise _refusal(401, "Invalid api_key") from None

    def _check_limits(self, number: str, *, upload: bool, lookup: bool) -> None:
        """Count a request; a `PlainError` if it is above a limit."""
        known, now = self._numbers[number], time.monotonic()
        if upload:
            if len(known.uploads) == _UPLOADS and now - known.uploads[0] < 1:
                raise _refusal(400, "You have exceeded the endpoint rate limit.")
            known.uploads.append(now)
        if lookup and self.clock.now() < known.blocked_until:
            raise _refusal(403, "The endpoint is blocked")

    def _count_error(self, number: str) -> None:
        known, now = self._numbers[number], self.clock.now()
        known.errors.append(now)
        while known.errors[0] <= now - _HOUR:
            known.errors.popleft()
        if len(known.errors) > _ERRORS:
            known.blocked_until = now + _BLOCKED
            known.errors.clear()


def _refusal(status: int, text: str) -> PlainError:
    meta = {"success": False, "http_code": status, "developer_message": text}
    return PlainError(Response(json.dumps({"meta": meta}), status, media_type="application/json"))
