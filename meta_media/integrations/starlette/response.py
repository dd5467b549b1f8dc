"""
A response whose body is a download: which part of it (RFC 9110, sections 13 and 14), and which of it a browser may show.

The sender of a message chooses the type of its media. A page or a script among them must not run in the origin of the
application that serves it, so a browser shows the types of `_SHOWN` only, and saves all others.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import ClassVar, Final
from urllib.parse import quote

import anyio
from starlette.background import BackgroundTask
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from meta_media.api import MediaApi
from meta_media.errors import (
    ConfigurationError,
    MediaError,
    MediaNotFoundError,
    RateLimitError,
    ServerError,
    TransferTimeoutError,
)
from meta_media.protocol.filenames import typed_filename
from meta_media.protocol.media_types import ACCEPTED, stated_type
from meta_media.protocol.models import HasMediaId, MediaInfo, media_id_of

__all__ = ["CLIENT_LEFT", "MediaResponse"]

_log: Final = logging.getLogger("meta_media")
CLIENT_LEFT: Final = 499  # nginx's status, for the access log: there is no client to receive it
_RETRY_AFTER: Final = 30.0  # seconds, where Meta names none
# Types that browsers decode without running a script in the page's origin.
_SHOWN: Final = frozenset(
    {
        *("audio/aac", "audio/amr", "audio/flac", "audio/mp4", "audio/mpeg", "audio/ogg", "audio/wav", "audio/webm"),
        *("image/avif", "image/bmp", "image/gif", "image/heic", "image/jpeg", "image/png", "image/webp"),
        *("video/3gpp", "video/mp4", "video/ogg", "video/quicktime", "video/webm", "video/x-matroska"),
        "application/pdf",
    }
)
_RANGE: Final = re.compile(r"bytes=[ \t]*(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))[ \t]*", re.IGNORECASE)
_ENTITY_TAG: Final = re.compile(r'"[^"]*"')  # without the W/ of a weak one


class MediaResponse(Response):
    """
    A response whose body is a media: `return MediaResponse(media, media_id)`, from a route of Starlette or FastAPI.

    It is streamed in constant memory and verified: the last bytes are sent only after length and SHA-256 hold. Otherwise the
    connection is cut, so that no client takes the body for complete. The download ends when the client leaves.

    - GET and HEAD are answered with the exact Content-Length; one `Range` with 206, or with 416 where it begins behind the
      end. Several ranges, and a `Range` whose `If-Range` is not the ETag, get the whole.
    - The ETag is the SHA-256. `If-None-Match` is answered with 304, for which only the media's info is looked up.
    - Images, sound, video and PDF are shown in the browser, all other types are saved to disk: a page that a stranger sent
      runs no script in your origin.
    - Errors before the first byte are an `HTTPException`, which your application turns into a page: 404 for media that Meta
      does not know, 503 with Retry-After for a limit, 504 for a timeout, 502 for all else. A `ConfigurationError` is raised.

    Let only users who may read the conversation call the route. Browsers keep a private copy, and ask each time whether they
    may use it (`Cache-Control: private, no-cache`).

    Args:
        media: The client.
        what: A media id, or a value that has one. A `MediaInfo` saves a lookup. A `str` that is no id gives 404, also a URL,
            of which neither size nor SHA-256 is known.
        filename: The name under which it is saved. Default: the name that `what` has, else the id.
        headers: Further headers. They replace ours of the same name, except those about the length and the part.
        background: As in Starlette: what to run at the end.
    """

    chunk_size: ClassVar[int] = 65536  # bytes that are sent at once
    send_timeout: ClassVar[float] = 60.0  # seconds for a chunk: a paused video must not hold a download slot for ever

    def __init__(
        self,
        media: MediaApi,
        what: str | HasMediaId,
        *,
        filename: str | None = None,
        headers: Mapping[str, str] | None = None,
        background: BackgroundTask | None = None,
    ) -> None:
        self.status_code = 200
        self.background = background
        self.init_headers(headers)
        self._media = media
        self._what = what
        self._filename = filename

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, until the client leaves."""
        sender = _Sender(send, self.send_timeout)
        answering = anyio.CancelScope()
        watching = asyncio.ensure_future(_cancel_on_disconnect(receive, answering))
        try:
            with answering:
                await self._answer(scope["method"], Headers(scope=scope), sender)
        except ClientDisconnect:
            pass
        except MediaError as error:
            if sender.started or isinstance(error, ConfigurationError):
                raise
            raise _http_error(error, getattr(self._what, "id", self._what)) from error
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        if answering.cancelled_caught and not sender.started:
            await sender.empty(CLIENT_LEFT, MutableHeaders())
        if self.background is not None:
            await self.background()

    async def _answer(self, method: str, asked: Headers, sender: _Sender) -> None:
        info = await self._info()
        etag = f'"{info.sha256}"' if info.sha256 else None
        headers = self._common_headers(info, etag)
        if etag and _is_listed(etag, asked.get("if-none-match")):
            await sender.empty(304, headers)
            return
        size = info.file_size
        part = None if method == "HEAD" or size is None else _requested_part(asked, size, etag)
        self._describe(headers, info)
        if method == "HEAD":
            if size is not None:
                headers["Content-Length"] = str(size)
            await sender.empty(200, headers)
            return
        start, end = part or (0, None)
        async with self._media.stream(info, start=start, end=end) as stream:
            if stream.size is None:
                # Below a BaseHTTPMiddleware, a chunked body that breaks off ends like a complete one.
                raise ServerError("Meta names no length of this media, without which a cut would not be seen")
            headers["Content-Length"] = str(stream.size)
            if part:
                headers["Content-Range"] = f"bytes {start}-{part[1] - 1}/{size}"
            await sender.start(206 if part else 200, headers)
            while chunk := await stream.read(self.chunk_size):  # of the last ones, only after they are verified
                await sender.send(chunk, more=True)
                await asyncio.sleep(0)  # where send never waits, others run here, and the client may have left
            await sender.send(b"", more=False)

    async def _info(self) -> MediaInfo:
        if isinstance(self._what, MediaInfo):
            return self._what
        if isinstance(self._what, str):
            try:
                media_id_of(self._what)
            except ConfigurationError as error:  # a visitor typed it into the address bar
                raise HTTPException(404) from error
        return await self._media.get_info(self._what)

    def _common_headers(self, info: MediaInfo, etag: str | None) -> MutableHeaders:
        """Return the headers that a 304 has, too."""
        headers = MutableHeaders(raw=list(self.raw_headers))
        headers.setdefault("Cache-Control", "private, no-cache")
        if etag:
            headers["ETag"] = etag
        if info.file_size is not None:
            headers["Accept-Ranges"] = "bytes"
        return headers

    def _describe(self, headers: MutableHeaders, info: MediaInfo) -> None:
        """Add the type and the name, and what keeps a stranger's file from acting in the page's origin."""
        # A type that a sender made up may not even be fit for a header.
        mime_type = stated_type(info.mime_type) or "application/octet-stream"
        shown = mime_type in _SHOWN
        kept = mime_type if shown or mime_type in ACCEPTED else "application/octet-stream"
        name = self._filename or getattr(self._what, "filename", None)
        name = typed_filename(name, mime_type, info.id, sent=False)
        headers.setdefault("Content-Type", kept)
        headers.setdefault("Content-Disposition", f"{'inline' if shown else 'attachment'}; {_named(name)}")
        headers.setdefault("X-Content-Type-Options", "nosniff")
        # Chromium fetches a video that has a tab of its own once more, which an opaque origin does not allow.
        headers.setdefault("Content-Security-Policy", "sandbox allow-same-origin" if shown else "sandbox")


class _Sender:
    """Sends the messages of a response."""

    def __init__(self, send: Send, timeout: float) -> None:
        self.started = False
        self._send = send
        self._timeout = timeout

    async def start(self, status: int, headers: MutableHeaders) -> None:
        self.started = True
        await self._pass({"type": "http.response.start", "status": status, "headers": headers.raw})

    async def empty(self, status: int, headers: MutableHeaders) -> None:
        await self.start(status, headers)
        await self.send(b"", more=False)

    async def send(self, chunk: bytes, *, more: bool) -> None:
        await self._pass({"type": "http.response.body", "body": chunk, "more_body": more})

    async def _pass(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._send(message)
        except TimeoutError as error:
            sentence = f"the client took nothing for {self._timeout:g} seconds: it may ask for the rest by Range"
            raise TransferTimeoutError(sentence, phase="write") from error
        except OSError as error:  # of ASGI 2.4: the client is gone
            raise ClientDisconnect from error


async def _cancel_on_disconnect(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _requested_part(headers: Headers, size: int, etag: str | None) -> tuple[int, int] | None:
    """
    Return the start and the exclusive end of the requested part.

    None stands for the whole: the header is missing, invalid, of another unit or of several ranges; or `If-Range` names
    another representation, which it does if it is a date, because nothing here has one.
    """
    match = _RANGE.fullmatch(headers.get("range", ""))
    if match is None or headers.get("if-range", etag) != etag:
        return None
    first, last, suffix = (None if digits in {None, ""} else int(digits) for digits in match.groups())
    if suffix is not None:
        start, end = max(0, size - suffix), size
    else:
        start, end = first or 0, size if last is None else min(size, last + 1)
        if last is not None and last < start:
            return None
    if start >= size:
        raise HTTPException(416, headers={"Content-Range": f"bytes */{size}"})
    return start, end


def _is_listed(etag: str, header: str | None) -> bool:
    """Return whether `If-None-Match` lists an ETag."""
    return header is not None and (header.strip() == "*" or etag in _ENTITY_TAG.findall(header))


def _named(name: str) -> str:
    """Return the parameter of Content-Disposition (RFC 6266) for a safe name."""
    quoted = quote(name, safe="")
    return f'filename="{name}"' if quoted == name else f"filename*=utf-8''{quoted}"


def _http_error(error: MediaError, media_id: object) -> HTTPException:
    """Return what the visitor gets for an error, without its text, which is logged."""
    retry_after = getattr(error, "retry_after", None)
    if isinstance(error, MediaNotFoundError):
        status = 404
    elif isinstance(error, RateLimitError) or retry_after is not None:
        status = 503
    else:
        status = 504 if isinstance(error, TransferTimeoutError) else 502
    _log.log(logging.INFO if status == 404 else logging.WARNING, "media %s: HTTP %d: %s", media_id, status, error)
    wait = {"Retry-After": f"{retry_after or _RETRY_AFTER:.0f}"} if status == 503 else None
    return HTTPException(status, headers=wait)
