"""
A file handle, by Meta's page "Resumable Upload API": a session is begun, and the file is sent to it.

After a cut, Meta is asked how many bytes the session has, and only the others are sent.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import attrs

from meta_media.errors import (
    ConfigurationError,
    InvalidRequestError,
    MediaError,
    ServerError,
    UnsupportedMediaTypeError,
)
from meta_media.http.call import Call
from meta_media.http.retry import RetryState
from meta_media.protocol.filenames import typed_filename
from meta_media.protocol.handles import FileHandle, UploadHandle, UploadSession
from meta_media.protocol.media_types import normalise, subject
from meta_media.protocol.multipart import Form
from meta_media.protocol.requests import Request, graph_request
from meta_media.protocol.validators import checked_id
from meta_media.transfer.bodies import make_replayable
from meta_media.transfer.sources import source_for
from meta_media.transfer.threads import file_deadline
from meta_media.transfer.upload import SPOOL_MEMORY_SIZE, FileContent, UploadOptions, prepare

__all__ = ["upload_handle"]

_TYPES: Final = ("application/pdf", "image/jpeg", "image/png", "video/mp4")
_FIXES: Final = {  # by the first half of a type that has no handle
    "audio": "pass a picture, a video or a PDF, because no header and no profile has sound",
    "image": "convert it to JPEG or PNG",
    "video": "convert it to MP4 with H.264 and AAC",
}
_BARE: Final = Form(content_type="application/octet-stream", head=b"", tail=b"")  # the file alone is the body


async def upload_handle(call: Call, app_id: str | None, source: object, options: UploadOptions) -> UploadHandle:
    """Send a source to an app, by default that of the settings."""
    app = call.settings.app_id if app_id is None else checked_id(app_id, "app_id")
    if app is None:
        raise ConfigurationError("there is no app id: pass app_id or set WA_APP_ID")
    origin = source_for(call.settings, source)
    if origin.again is not None:  # as in `upload`
        call.give_up_slot()
    async with file_deadline(call.settings.deadline), call.share() as chunk_size, origin.open() as body:
        make_replayable(body)
        name = options.filename or origin.name or body.name
        if options.validate:  # first, because `prepare` advises what is right for a message
            signature, _ = await body.signature()
            _check_types(signature.candidates if signature else (), name)
            _check_types((normalise(options.mime_type),) if options.mime_type else (), name)
        mime_type, size = await prepare(origin, body, options, chunk_size(SPOOL_MEMORY_SIZE))
        if options.validate:
            _check_types((mime_type,), name)
        filename = typed_filename(name, mime_type, "media", sent=True)
        about = {"file_name": filename, "file_length": str(size), "file_type": mime_type}
        content = functools.partial(FileContent(_BARE, size, origin.sha256, options, chunk_size).open, body)
        handle = await _sent(call, app, about, size, content)
    return UploadHandle(handle=handle, mime_type=mime_type, file_size=size, filename=filename, attempts=call.attempts)


def _check_types(types: tuple[str, ...], name: str | None) -> None:
    """Refuse a file whose possible types, if any are known, have no handle."""
    if types and not set(types) & set(_TYPES):
        fix = _FIXES.get(types[0].partition("/")[0], "export it as PDF")
        sentence = f"{subject(name)} is {types[0]}, but a handle is made of JPEG, PNG, MP4 or PDF only: {fix}"
        raise UnsupportedMediaTypeError(sentence, limit=", ".join(_TYPES), actual=types[0])


async def _sent(
    call: Call, app: str, about: dict[str, str], size: int, content: Callable[[int], AbstractAsyncContextManager[Any]]
) -> str:
    """Send what Meta does not have, until it has all. `content` opens the file from an offset."""
    retry, session, no_bytes = RetryState(), "", {"Content-Length": "0"}
    begin = graph_request("upload_handle", "POST", call.settings, app, "uploads", headers=no_bytes, **about)
    while True:
        resumed, start = bool(session), 0
        try:
            if resumed:
                start = await _offset(call, session, size)
            else:
                session = (await call.request(begin, UploadSession)).id
            headers = {"Content-Type": _BARE.content_type, "Content-Length": str(size - start)}
            request = _to_session(call, "POST", session, headers | {"file_offset": str(start)})
            async with content(start) as body, await call.open(request, body) as response:
                return (await call.decoded(request, response, FileHandle)).h
        except MediaError as error:
            if resumed and isinstance(error, InvalidRequestError):
                session = ""  # Meta does not go on with it
            else:
                await call.recover(error, retry)


async def _offset(call: Call, session: str, size: int) -> int:
    """Ask how many bytes of the file Meta has."""
    found = (await call.request(_to_session(call, "GET", session), UploadSession)).file_offset
    if found is None or found > size:
        raise ServerError(f"Meta has {found} bytes of a file of {size}: upload it again", status=200)
    return found


def _to_session(call: Call, method: str, session: str, headers: Mapping[str, str] | None = None) -> Request:
    request = graph_request("upload_handle", method, call.settings, session, headers=headers)
    return attrs.evolve(request, auth_scheme="OAuth")  # which the page asks for in these requests
