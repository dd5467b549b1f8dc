"""Signed download URLs, which expire, and the bytes behind them."""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote, urlencode

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from meta_media.emulator.responses import PlainError, problem
from meta_media.emulator.settings import EmulatorSettings
from meta_media.emulator.state import State, StoredMedia

__all__ = ["PATH", "FileResponse", "UrlSigner", "cancel_on_disconnect", "file_response", "requested_range"]

PATH: Final = "/whatsapp_business/attachments/"
_PIECE_SIZE: Final = 512 * 1024  # bytes read at once
_RANGE: Final = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class UrlSigner:
    """Makes and checks download URLs."""

    def __init__(self, secret: str, host: str | None = None) -> None:
        self._secret = secret.encode()
        self._host = host  # scheme and host of all URLs; None for those that `url` is given

    def url(self, base_url: str, media_id: str, source: Literal["getMedia", "webhook"], expires: int) -> str:
        """Return a signed URL, in the recorded form."""
        signature = self._signature(media_id, source, str(expires))
        query = urlencode({"mid": media_id, "source": source, "ext": expires, "hash": signature})
        return f"{self._host or base_url}{PATH}?{query}"

    def check(self, query: Mapping[str, str], settings: EmulatorSettings, now: float) -> str:
        """Return the media id of a URL; a `PlainError` if the signature is wrong or has expired."""
        media_id, expires = query.get("mid", ""), query.get("ext", "")
        expected = self._signature(media_id, query.get("source", ""), expires)
        if not hmac.compare_digest(expected.encode(), query.get("hash", "").encode()):
            raise PlainError(problem(404, "Not Found"))
        if int(expires) <= now:
            if settings.expired_url_status == 403:  # recorded on fbcdn hosts
                raise PlainError(Response("URL signature expired", 403, media_type="text/plain"))
            raise PlainError(problem(settings.expired_url_status, "Not Found"))
        return media_id

    def _signature(self, media_id: str, source: str, expires: str) -> str:
        digest = hmac.new(self._secret, f"{media_id}|{source}|{expires}".encode(), hashlib.sha256).digest()
        return ("AT" if source == "getMedia" else "AR") + urlsafe_b64encode(digest).decode().rstrip("=")


def requested_range(header: str | None, size: int) -> tuple[int, int] | Literal["unsatisfiable"] | None:
    """
    Return the start and the exclusive end of a `Range` (RFC 9110, section 14.1.2).

    None: the header is missing, or to be ignored, because it is invalid, of another unit or of several ranges.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or match[0] == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    return (start, end) if start < min(end, size) else "unsatisfiable"


def file_response(
    media: StoredMedia, headers: Mapping[str, str], method: str, *, state: State, settings: EmulatorSettings
) -> FileResponse:
    """Return the response to a download: which bytes, and with which headers."""
    plain = {"content-type": media.mime_type}
    if settings.accept_ranges:
        plain["accept-ranges"] = "bytes"
    if settings.etag:
        plain["etag"] = f'"{media.sha256}"'
    if settings.content_disposition and media.filename:
        plain["content-disposition"] = _disposition(media.filename)
    honoured = method == "GET" and settings.range_requests and headers.get("if-range") in {None, plain.get("etag")}
    size = media.file_size
    match requested_range(headers.get("range"), size) if honoured else None:
        case (start, end):
            place = {"content-range": f"bytes {start}-{end - 1}/{size}"}
            return FileResponse(206, plain | place, state, media.id, start, end)
        case "unsatisfiable":
            return FileResponse(416, {"content-range": f"bytes */{size}"}, state, media.id, 0, 0)
    return FileResponse(200, plain, state, media.id, 0, size)


class FileResponse(Response):
    """Part of a stored file, read on a thread piece by piece until the client hangs up."""

    def __init__(self, status: int, headers: dict[str, str], state: State, media_id: str, start: int, end: int) -> None:
        super().__init__(None, status, headers | {"content-length": str(end - start)})
        self._state = state
        self._path = state.path(media_id)
        self._range = (start, end)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        start, end = self._range if scope["method"] != "HEAD" else (0, 0)
        try:
            file, piece = await self._state.in_thread(_begin, self._path, start, end)
        except FileNotFoundError:
            await problem(404, "Not Found")(scope, receive, send)
            return
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cancel_on_disconnect, receive, tasks.cancel_scope)
                while (start := start + len(piece)) < end:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                    piece = await self._state.in_thread(_read, file, start, end)
                await send({"type": "http.response.body", "body": piece, "more_body": False})
                tasks.cancel_scope.cancel()
        finally:
            if not file.closed:
                with anyio.CancelScope(shield=True):
                    await self._state.in_thread(file.close)


async def cancel_on_disconnect(receive: Receive, scope: anyio.CancelScope) -> None:
    """Wait until the client hangs up, and then cancel what responds to it."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _begin(path: Path, start: int, end: int) -> tuple[FileIO, bytes]:
    file = FileIO(path)
    piece = _read(file, start, end) if end > start else b""
    if start + len(piece) >= end:
        file.close()
    return file, piece


def _read(file: FileIO, start: int, end: int) -> bytes:
    file.seek(start)
    piece = file.read(min(_PIECE_SIZE, end - start))
    if not piece:
        file.close()
        raise OSError("a stored file has been truncated")
    return piece


def _disposition(filename: str) -> str:
    name = _UNSAFE.sub("", filename.replace("\\", "/").rpartition("/")[2])
    plain = name.encode("ascii", "replace").decode().replace('"', "'")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
