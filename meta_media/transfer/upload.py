"""An upload from its source to its id: examine, measure, frame, stream."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, Final

import attrs

from meta_media.errors import ConfigurationError, CorruptedMediaError, IntegrityError, MediaError
from meta_media.http.call import Call
from meta_media.protocol.filenames import safe_filename
from meta_media.protocol.media_types import check_size, extension_for, inspect_media
from meta_media.protocol.models import UploadedMedia
from meta_media.protocol.multipart import Form, encode
from meta_media.protocol.requests import graph_request
from meta_media.protocol.settings import Settings
from meta_media.transfer.bodies import Body, Buffer
from meta_media.transfer.info import get_info
from meta_media.transfer.progress import ProgressCallback, ProgressReporter
from meta_media.transfer.sources import Source
from meta_media.transfer.threads import BackgroundWriter

__all__ = ["UploadOptions", "prepare", "upload", "upload_options"]

_SHORTEST_TTL: Final = timedelta(hours=1)  # Meta's page "No Storage": 60 to 43,200 minutes
_SMALL: Final = 2**17  # bytes up to which a file is sent in one piece
_LONGEST_TTL: Final = timedelta(days=30)


def _ttl(_: UploadOptions, __: attrs.Attribute[timedelta | None], value: object) -> None:
    if value is not None and not (isinstance(value, timedelta) and _SHORTEST_TTL <= value <= _LONGEST_TTL):
        raise ConfigurationError(f"ttl must be a timedelta from one hour to thirty days, not {value}")


def _use_case(_: UploadOptions, __: attrs.Attribute[str | None], value: object) -> None:
    if value is not None and not (isinstance(value, str) and value.replace("_", "").isalnum()):
        raise ConfigurationError(f"use_case must be a word such as call_voicemail_announcement, not {value!r}")


def _text(_: UploadOptions, attribute: attrs.Attribute[str | None], value: object) -> None:
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"{attribute.name} must be text, not a {type(value).__name__}")


def _size(_: UploadOptions, __: attrs.Attribute[int | None], value: object) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise ConfigurationError(f"size must be a number of bytes, not {value!r}")


@attrs.frozen(kw_only=True)
class UploadOptions:
    """The keywords of `MediaApi.upload`."""

    filename: str | None = attrs.field(default=None, validator=_text)
    mime_type: str | None = attrs.field(default=None, validator=_text)
    size: int | None = attrs.field(default=None, validator=_size)
    validate: bool = True
    verify: bool = False
    ttl: timedelta | None = attrs.field(default=None, validator=_ttl)
    use_case: str | None = attrs.field(default=None, validator=_use_case)
    progress: ProgressCallback | None = None


def upload_options(settings: Settings, keywords: Mapping[str, Any]) -> UploadOptions:
    """Check the keywords of an upload, of which the phone number is not one of the options."""
    known = {field.name for field in attrs.fields(UploadOptions)} | {"phone_number_id"}
    if unknown := sorted(set(keywords) - known):
        raise ConfigurationError(f"upload takes no keyword named {', '.join(map(str, unknown))}")
    options = UploadOptions(**{name: value for name, value in keywords.items() if name != "phone_number_id"})
    return attrs.evolve(options, validate=options.validate and settings.validate)


async def prepare(source: Source, body: Body, options: UploadOptions) -> tuple[str, int]:
    """Return what an opened source is sent as, its type and its size; raise if WhatsApp is known to refuse it."""
    name = options.filename or source.name
    inspection = inspect_media(
        body.head,
        filename=name,
        mime_type=options.mime_type,
        hint=source.mime_type,
        validate=options.validate,
        complete=body.size == len(body.head),
    )
    size = await body.measure(inspection.max_size)
    if options.validate or size > inspection.max_size:
        check_size(inspection, size, filename=name)
    if options.size not in {None, size}:
        raise CorruptedMediaError(f"the source has {size} bytes, not the declared {options.size}", actual=size)
    return inspection.mime_type, size


async def upload(call: Call, phone_number_id: str, source: object, options: UploadOptions) -> UploadedMedia:
    """Send a source to a number's media, and with `options.verify` make sure that it arrived as it was sent."""
    origin = Source.of(source, size=options.size)
    async with origin.open() as body:
        mime_type, size = await prepare(origin, body, options)
        form = encode(
            _fields(mime_type, options),
            filename=safe_filename(options.filename or origin.name, "media" + (extension_for(mime_type) or "")),
            mime_type=mime_type,
        )
        headers = {"Content-Type": form.content_type, "Content-Length": str(form.length(size))}
        request = graph_request("upload", "POST", call.settings, phone_number_id, "media", headers=headers)
        contents: list[_Content] = []  # the latest try's

        def content() -> AbstractAsyncContextManager[_Content]:
            contents[:] = [_Content(form, body, call.settings.chunk_size, size, origin, options)]
            return contextlib.aclosing(contents[0])

        uploaded = await call.ask(request, UploadedMedia, content, replayable=lambda: body.replayable)
    duplicate, sha256 = call.ambiguous, contents[0].sha256
    if options.verify:
        await _verify(call, uploaded.id, sha256)
    return attrs.evolve(
        uploaded,
        mime_type=mime_type,
        file_size=size,
        sha256=sha256,
        maybe_duplicate=duplicate,
        attempts=call.attempts,
    )


async def _verify(call: Call, media_id: str, sha256: str | None) -> None:
    try:
        info = await get_info(call, media_id)
        if info.sha256 != sha256:
            raise IntegrityError(
                f"Meta stored other bytes than were sent, as media {media_id}", expected=sha256, actual=info.sha256
            )
    except MediaError as error:
        error.media_id, error.maybe_applied = media_id, True  # whatever went wrong now, the upload is there
        raise


def _fields(mime_type: str, options: UploadOptions) -> dict[str, str]:
    fields = {"messaging_product": "whatsapp", "type": mime_type}
    if options.ttl is not None:
        fields["ttl_minutes"] = str(options.ttl // timedelta(minutes=1))
    if options.use_case is not None:
        fields["use_case"] = options.use_case
    return fields


class _Content:
    """The request's body, sent once: the file in its frame."""

    def __init__(
        self, form: Form, body: Body, chunk_size: int, size: int, source: Source, options: UploadOptions
    ) -> None:
        self._form = form
        self._body = body
        self._chunk_size = chunk_size
        self._size = size
        self._meter = ProgressReporter(options.progress, size)
        self._digest = hashlib.sha256()
        self._expected = source.sha256
        self._hashes = options.verify or source.sha256 is not None
        self._generator = self._generate()
        self._failure: tuple[Exception, BaseException | None, bool] | None = None

    @property
    def sha256(self) -> str | None:
        return self._digest.hexdigest() if self._hashes else None

    def __aiter__(self) -> AsyncIterator[Buffer]:
        return self._generator

    async def aclose(self) -> None:
        """Let the file go: httpx's requests and responses refer to each other, and may stay for a while."""
        await self._generator.aclose()
        del self._generator, self._body

    def raise_source_error(self) -> None:
        """Raise what the source or the progress callback raised, if it did, as it was: httpcore cuts its cause off."""
        if self._failure is not None:
            error, cause, suppressed = self._failure
            error.__cause__, error.__suppress_context__ = cause, suppressed
            raise error

    async def _whole(self) -> bytes:
        """Join a small file with its frame: one piece leaves at a third of the cost of three."""
        async with contextlib.aclosing(self._body.chunks(_SMALL)) as chunks:
            content = [chunk async for chunk in chunks]
        if self._hashes:
            for chunk in content:
                self._digest.update(chunk)
        self._check()
        return b"".join([self._form.head, *content, self._form.tail])

    def _check(self) -> None:
        """Stop before the end of the request if these are not the bytes that they were known to be."""
        if self._expected not in {None, self.sha256}:
            what = "the source changed: it no longer has the SHA-256 that it was known by"
            raise CorruptedMediaError(what, limit=self._expected, actual=self.sha256)

    async def _generate(self) -> AsyncGenerator[Buffer, None]:
        try:
            if self._size <= _SMALL:
                yield await self._whole()
                await self._meter.add(self._size)
                return
            yield self._form.head
            chunks = self._body.chunks(self._chunk_size)
            async with contextlib.aclosing(chunks), BackgroundWriter(self._digest.update) as writer:
                async for chunk in chunks:
                    if self._hashes:
                        await writer.put(chunk)
                    yield chunk
                    await self._meter.add(len(chunk))
            self._check()
            yield self._form.tail
        except Exception as error:
            self._failure = error, error.__cause__, error.__suppress_context__
            raise
