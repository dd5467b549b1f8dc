"""The routes of the page."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args
from urllib.parse import urlsplit

import anyio
import attrs
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from meta_media.emulator.download import cancel_on_disconnect, file_response
from meta_media.emulator.faults import Fault, FaultOperation, PlannedFault
from meta_media.emulator.feed import FeedKind
from meta_media.emulator.graph import read_parameters
from meta_media.emulator.messages import USER_ID
from meta_media.emulator.page.guard import refusal
from meta_media.emulator.responses import GraphError
from meta_media.emulator.settings import EmulatorSettings
from meta_media.emulator.state import State, StoredMedia
from meta_media.emulator.webhooks import default_kind
from meta_media.errors import ConfigurationError, MediaError, Operation

if TYPE_CHECKING:
    from meta_media.emulator.app import Application
    from meta_media.emulator.emulator import Emulator

__all__ = ["Page"]

_PREFIX: Final = "/emulator/page/"
_MEDIA: Final = _PREFIX + "media/{media_id:str}"
_FOLDER: Final = Path(__file__).parent
_FILES: Final = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
# The types that a browser shows or plays, none of which can run a script. All others are bytes to it.
_SHOWN: Final = frozenset(
    {
        *("image/avif", "image/gif", "image/jpeg", "image/png", "image/webp"),
        *("audio/aac", "audio/amr", "audio/mp4", "audio/mpeg", "audio/ogg", "audio/opus", "audio/wav"),
        *("video/3gpp", "video/mp4", "video/ogg", "video/webm"),
    }
)
_LISTED: Final = 1000  # media, the newest ones
_LONGEST_NAME: Final = 200  # characters
_LARGEST: Final = 100 * 2**20  # bytes of a customer's file; the service's limit
_TICK: Final = 1.0  # seconds in which faults and the clock, which any thread may change, are looked at again
_PAUSE: Final = 0.1  # seconds between two events, so that a thousand requests a second do not redraw the page as often
_PLAYS: Final = EmulatorSettings(
    content_disposition=True, etag=True
)  # how files are served, whatever the emulator's own
_FAULTS: Final[Mapping[str, Fault]] = {
    "Server error: HTTP 500, code 131000": Fault.error(131000, 500),
    "Too many requests: code 130429": Fault.throttle(retry_after=2),
    "Token refused: HTTP 401, code 190": Fault.error(190, 401),
    "A proxy's HTML page: HTTP 502": Fault.html(502),
    "5 seconds of silence": Fault(delay=5),
    "Silence without end": Fault(end="stall"),
    "Connection reset": Fault(end="reset"),
    "Connection reset after 1,000 bytes": Fault(at=1000, end="reset"),
    "Response cut after 1,000 bytes": Fault(truncate=1000),
    "One bit flipped": Fault(flip_at=0),
    "20,000 bytes per second": Fault(rate=20_000),
    "Download URL expired": Fault(expired_url=True),
}


class Page:
    """The page as an ASGI application; `local_url` is its scheme, host and port once these are known."""

    def __init__(self, emulator: Emulator, application: Application) -> None:
        self.local_url = ""
        self._emulator, self._application = emulator, application
        self._state: State = application.state
        self._app = Starlette(
            routes=[
                Route("/", self._file, methods=["GET"]),
                Route(_PREFIX + "events", self._events, methods=["GET"]),
                Route(_PREFIX + "receive", self._answer(self._receive), methods=["POST"]),
                Route(_PREFIX + "fault", self._answer(self._fault), methods=["POST"]),
                Route(_PREFIX + "heal", self._answer(self._heal), methods=["POST"]),
                Route(_MEDIA, self._media, methods=["GET"]),
                Route(_MEDIA + "/verdict", self._answer(self._verdict), methods=["GET"]),
                Route(_MEDIA + "/send", self._answer(self._send), methods=["POST"]),
                Route(_MEDIA + "/expire", self._answer(self._expire), methods=["POST"]),
                Route(_MEDIA + "/delete", self._answer(self._delete), methods=["POST"]),
                Route(_PREFIX + "{name}", self._file, methods=["GET"]),
            ]
        )
        self._app.router.redirect_slashes = False

    @staticmethod
    def serves(scope: Scope) -> bool:
        """Return whether a request is the page's. A client of the Graph API that asks for / does not accept HTML."""
        path: str = scope["path"]
        if path == "/":
            return any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])
        return path.startswith(_PREFIX)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request, or refuse it."""
        why = refusal(Request(scope), self.local_url)
        app = self._app if why is None else _guarded(PlainTextResponse(why, 403), self.local_url)
        await app(scope, receive, send)

    def _answer(self, handler: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            status, content = 200, None
            try:
                content = await handler(request)
            except GraphError as error:
                status, content = 400, {"error": error.error.get("error_data", {}).get("details") or str(error)}
            except (MediaError, ValueError) as error:
                status, content = 400, {"error": str(error)}
            # Not JSONResponse: a name may have half of a surrogate pair, which only the escapes of ASCII can carry.
            return _guarded(Response(json.dumps(content), status, media_type="application/json"), self.local_url)

        return endpoint

    async def _file(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in _FILES:
            return _guarded(PlainTextResponse("the page has no such file", 404), self.local_url)
        content = await self._state.in_thread((_FOLDER / name).read_bytes)
        return _guarded(Response(content, headers={"content-type": _FILES[name]}), self.local_url)

    async def _media(self, request: Request) -> Response:
        """Serve a file, or a part of it. Its declared type is passed on only if it is harmless."""
        found = await self._state.in_thread(self._state.describe, request.path_params["media_id"])
        if found is None:
            return _guarded(PlainTextResponse("there is no such media", 404), self.local_url)
        media, kind = found[0], _essence(found[0].mime_type)
        served = attrs.evolve(
            media, mime_type=kind if kind in _SHOWN else "application/octet-stream", filename=media.filename or media.id
        )
        response = file_response(served, request.headers, request.method, state=self._state, settings=_PLAYS)
        return _guarded(response, self.local_url, policy="sandbox; default-src 'none'")

    async def _events(self, _request: Request) -> Response:
        return _guarded(_Events(self._write_events), self.local_url)

    async def _write_events(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Write what there is, and from then on what changes."""
        with self._application.feed.reader() as reader:
            facts: Mapping[str, Any] = {}
            while True:
                keys = reader.take()
                event: dict[str, Any] = await self._everything() if keys is None else await self._changes(keys)
                if facts != (facts := self._facts()):
                    event["facts"] = facts
                if event.get("changes") != [] or len(event) > 1:
                    await write(f"data: {json.dumps(event)}\n\n".encode())
                await reader.wait(_TICK)
                await asyncio.sleep(_PAUSE)

    async def _everything(self) -> dict[str, Any]:
        media, stored = await self._state.in_thread(self._state.newest, _LISTED)
        kept = self._application.feed.kept
        keys: list[tuple[FeedKind, str]] = [("media", key) for key in media]
        keys.extend((kind, key) for kind in kept for key in kept[kind])
        return {**await self._changes(keys), "stored": stored}

    async def _changes(self, keys: Sequence[tuple[FeedKind, str]]) -> dict[str, Any]:
        """Return kind, key and entry of each key; the entry is None if there is none any more."""
        ids, feed = [key for kind, key in keys if kind == "media"], self._application.feed
        media = await self._state.in_thread(lambda: {key: _described(self._state.describe(key)) for key in ids})
        return {
            "changes": [(kind, key, media[key] if kind == "media" else feed.entry(kind, key)) for kind, key in keys]
        }

    def _facts(self) -> dict[str, Any]:
        emulator, webhook = self._emulator, self._emulator.webhook
        token = emulator.access_token
        return {
            "address": emulator.base_url,
            "number": emulator.phone_number_id,
            "token": f"{token[:4]}…{token[-4:]}" if len(token) >= 24 else "…",
            "webhook": None if webhook is None else _without_query(webhook),
            "ahead": round(self._application.clock.now() - time.time()),
            "faults": [_named(planned) for planned in emulator.faults],
            "choices": {"operation": ["any", "graph", *get_args(Operation)], "fault": list(_FAULTS)},
        }

    async def _receive(self, request: Request) -> Any:
        query = request.query_params
        if not 0 <= int(request.headers.get("content-length", "-1")) <= _LARGEST:
            raise ConfigurationError("the file has more than 100 MiB: choose a smaller one")
        given = {name: query[name] for name in ("caption", "filename", "sender") if query.get(name)}
        kind = query.get("mime_type") or "application/octet-stream"
        kind = "audio/ogg; codecs=opus" if kind == "audio/ogg" else kind  # as a voice message has it
        number = self._emulator.phone_number_id
        return await self._application.play_customer(
            await request.body(), kind, phone_number_id=number, twice=False, **given
        )

    async def _fault(self, request: Request) -> None:
        given = await read_parameters(request)
        fault, times = _FAULTS.get(str(given.get("fault"))), str(given.get("times", "1"))
        if fault is None or not (times == "always" or (times.isascii() and times.isdecimal() and len(times) < 7)):
            raise ConfigurationError("there is no such fault, or its times are no number: choose others")
        operation: FaultOperation = given.get("operation", "any")  # PlannedFault checks it
        left = None if times == "always" else int(times)
        self._emulator.plan([PlannedFault(operation=operation, fault=fault, times=left)])

    async def _heal(self, _request: Request) -> None:
        self._emulator.clear_faults()

    async def _send(self, request: Request) -> Any:
        given, media = await read_parameters(request), await self._found(request)
        to, kind = str(given.get("to", "")).strip(), default_kind(_essence(media.mime_type))
        content = {"id": media.id, "caption": given.get("caption") or None}
        content["filename"] = media.filename if kind == "document" else None
        message = {
            "messaging_product": "whatsapp",
            "recipient" if USER_ID.fullmatch(to) else "to": to,
            "type": kind,
            kind: {name: value for name, value in content.items() if value},
        }
        return await self._application.accept(message, media.phone_number_id)

    async def _verdict(self, request: Request) -> Any:
        """Return why `MediaApi.upload` refuses the file, as the command `check` does; None if it takes it."""
        media = await self._found(request)
        error = await self._application.judge.refusal(media, self._state.path(media.id))
        return {"kind": default_kind(_essence(media.mime_type)), "refusal": error and str(error)}

    async def _expire(self, request: Request) -> None:
        media = await self._found(request)
        await self._state.in_thread(self._state.expire, media.id)

    async def _delete(self, request: Request) -> None:
        media = await self._found(request)
        await self._state.in_thread(self._state.remove, media.id)

    async def _found(self, request: Request) -> StoredMedia:
        if found := await self._state.in_thread(self._state.describe, request.path_params["media_id"]):
            return found[0]
        raise ConfigurationError("there is no such media: it has been deleted")


class _Events(Response):
    """Server-sent events (HTML Standard, section 9.2), until the client hangs up."""

    media_type = "text/event-stream"

    def __init__(self, write_events: Callable[[Callable[[bytes], Awaitable[None]]], Awaitable[None]]) -> None:
        super().__init__()
        self._write_events = write_events
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""

        async def write(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_on_disconnect, receive, tasks.cancel_scope)
            await self._write_events(write)


def _guarded(response: Response, local_url: str, *, policy: str = "") -> Response:
    """Add the headers that keep a browser from doing more with a response than the page needs."""
    own = local_url + _PREFIX
    page = {
        "default-src": "'none'",
        "script-src": own + "page.js",
        "style-src": own + "page.css",
        "img-src": own,
        "media-src": own,
        "connect-src": own,
        **dict.fromkeys(("base-uri", "form-action", "frame-ancestors"), "'none'"),
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    response.headers.update(
        {
            "content-security-policy": policy or "; ".join(f"{name} {value}" for name, value in page.items()),
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
            "cache-control": "no-store",
        }
    )
    return response


def _described(found: tuple[StoredMedia, float] | None) -> dict[str, Any] | None:
    if found is None:
        return None
    media, stored_at = found
    kind = _essence(media.mime_type)
    return {
        "name": (media.filename or "")[:_LONGEST_NAME],
        "type": media.mime_type[:_LONGEST_NAME],
        "shown": kind.partition("/")[0] if kind in _SHOWN else None,
        "size": media.file_size,
        "sha256": media.sha256,
        "number": media.phone_number_id,
        "at": stored_at,
        "expires": media.expires_at,
    }


def _essence(mime_type: str) -> str:
    return mime_type.partition(";")[0].strip().lower()


def _named(planned: PlannedFault) -> dict[str, Any]:
    fault = planned.fault
    other = f"HTTP {fault.status or 200}" if fault.replaces else repr(fault)
    name = next((name for name, known in _FAULTS.items() if known == fault), other)
    return {"operation": planned.operation, "name": name[:_LONGEST_NAME], "times": planned.times}


def _without_query(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
