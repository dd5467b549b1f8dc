"""An upload: inspect the source, measure it, and stream it in a multipart body."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import attrs
from attrs.validators import optional

from meta_media.errors import ConfigurationError, CorruptedMediaError, IntegrityError, MediaError
from meta_media.http.call import Call, Content, Pieces
from meta_media.protocol.filenames import typed_filename
from meta_media.protocol.media_types import HEAD_SIZE, Inspection, check_size, inspect_media, subject
from meta_media.protocol.models import UploadedMedia
from meta_media.protocol.multipart import Form, encode
from meta_media.protocol.requests import graph_request
from meta_media.protocol.settings import Settings
from meta_media.protocol.validators import text, time_to_live, whole, word
from meta_media.transfer.adapters import Buffer
from meta_media.transfer.background_writer import BackgroundWriter
from meta_media.transfer.bodies import Body, ChunkSize, MemoryBody
from meta_media.transfer.info import get_info
from meta_media.transfer.progress import ItemProgress, ProgressCallback, ProgressReporter, delta_callback
from meta_media.transfer.repackaging import repackaged
from meta_media.transfer.sources import OpenableSource, Source, source_for
from meta_media.transfer.threads import file_deadline

__all__ = ["SPOOL_MEMORY_SIZE", "FileContent", "UploadOptions", "inspect", "prepare", "upload", "upload_options"]

_log: Final = logging.getLogger("meta_media")
_SMALL_SIZE: Final = 2**17  # bytes up to which a file is sent in one piece
_UNSEEN: Final = (
    f"it is judged by its first {HEAD_SIZE:,} bytes, because a stream of declared size is sent as it is read: "
    "pass a path or a file, or leave the size out, to have all of it judged"
)
_STATE: Final = (
    "__traceback__",
    "__context__",
    "__cause__",
    "__suppress_context__",
)  # to set a cause suppresses the context
_BYTES: Final = Source.bytes(b"")  # bytes in memory have neither name nor type
SPOOL_MEMORY_SIZE: Final = 2**20  # bytes of a spooled source that are kept in memory, before a temporary file is used


@attrs.define(kw_only=True)  # never changed; a frozen one takes twice the time to make
class UploadOptions:
    """The keywords of `MediaApi.upload`."""

    filename: str | None = attrs.field(default=None, validator=optional(text))
    mime_type: str | None = attrs.field(default=None, validator=optional(text))
    size: int | None = attrs.field(default=None, validator=optional(whole))
    validate: bool = True
    verify: bool = False
    ttl: timedelta | None = attrs.field(default=None, validator=optional(time_to_live))
    use_case: str | None = attrs.field(default=None, validator=optional(word))
    progress: ProgressCallback | None = None
    repackage: bool = False


def upload_options(settings: Settings, keywords: Mapping[str, Any]) -> UploadOptions:
    """Check the keywords of `MediaApi.upload`. `phone_number_id` is accepted, but is not one of the options."""
    known = {field.name for field in attrs.fields(UploadOptions)} | {"phone_number_id"}
    if unknown := sorted(set(keywords) - known):
        raise ConfigurationError(f"upload takes no keyword named {', '.join(map(str, unknown))}")
    options = UploadOptions(**{name: value for name, value in keywords.items() if name != "phone_number_id"})
    return attrs.evolve(options, validate=options.validate and settings.validate)


async def inspect(
    source: Source, body: Body, options: UploadOptions, memory: int = SPOOL_MEMORY_SIZE
) -> tuple[Inspection, int]:
    """Return the decision of `inspect_media` for an opened source, and its size in bytes, which may be above the maximum."""
    inspection, streamed = await _decide(source, body, options), not body.seekable
    size = await body.measure(inspection.max_size, memory)
    if streamed and body.seekable and size <= inspection.max_size:  # it is spooled now
        inspection = await _decide(source, body, options)
    return inspection, size


async def _decide(source: Source, body: Body, options: UploadOptions) -> Inspection:
    """Decide by the head, and by the few bytes beyond it that decide."""
    name, complete = options.filename or source.name or body.name, body.size == len(body.head)
    if body.spent is not None:
        raise CorruptedMediaError(f"{subject(name)} has nothing left to read: {body.spent}", limit=1, actual=0)
    signature, seen = await body.signature()
    inspection = inspect_media(
        body.head,
        filename=name,
        mime_type=None if body.repackaged_size else options.mime_type,
        hint=source.mime_type or body.mime_type,
        validate=options.validate,
        complete=complete,
        signature=signature,
    )
    return inspection if seen else attrs.evolve(inspection, remarks=(*inspection.remarks, _UNSEEN))


async def prepare(source: Source, body: Body, options: UploadOptions, memory: int) -> tuple[str, int]:
    """Return the MIME type and the size in bytes that an opened source is sent with, unless it must be refused."""
    if body.prepared is not None:
        return body.prepared
    inspection, size = await inspect(source, body, options, memory)
    name = options.filename or source.name or body.name
    if options.validate or size > inspection.max_size:
        check_size(inspection, size, filename=name)
    for remark in inspection.remarks:
        _log.info("%s: %s", subject(name), remark)
    if options.size not in (None, read := body.repackaged_size or size):
        raise CorruptedMediaError(f"the source has {read} bytes, not the declared {options.size}", actual=read)
    return inspection.mime_type, size


async def upload(
    call: Call, phone_number_id: str, source: object, options: UploadOptions, item: ItemProgress | None = None
) -> UploadedMedia:
    """Send a source, as an `item` of a run, to a number's media. With `options.verify`, compare the SHA-256 that Meta stored."""
    held = source.opened if isinstance(source, OpenableSource) else None
    held = MemoryBody(source) if type(source) is bytes else held
    if held is not None and held.in_memory(_SMALL_SIZE) and not options.repackage:  # nothing needs to be opened
        origin = source if isinstance(source, Source) else _BYTES
        return await _send(call, phone_number_id, origin, held, options, lambda _=0: _SMALL_SIZE, item)
    origin = source_for(call.settings, source, options.size)
    origin = repackaged(origin, options.mime_type, options.filename) if options.repackage else origin
    if origin.again is not None:  # downloads wait for uploads, and an upload must not wait for a download
        call.give_up_slot()
    async with file_deadline(call.settings.deadline), call.share() as chunk_size, origin.open() as body:
        return await _send(call, phone_number_id, origin, body, options, chunk_size, item)


async def _send(
    call: Call,
    phone_number_id: str,
    origin: Source,
    body: Body,
    options: UploadOptions,
    chunk_size: Callable[..., int],
    item: ItemProgress | None,
) -> UploadedMedia:
    """Send an opened source."""
    mime_type, size = await prepare(origin, body, options, chunk_size(SPOOL_MEMORY_SIZE))
    filename = typed_filename(options.filename or origin.name or body.name, mime_type, "media", sent=True)
    form = encode(_fields(mime_type, options), filename=filename, mime_type=mime_type)
    headers = {"Content-Type": form.content_type, "Content-Length": str(form.length(size))}
    request = graph_request("upload", "POST", call.settings, phone_number_id, "media", headers=headers)
    content = FileContent(form, size, origin.sha256 or body.sha256, options, chunk_size, item)
    begin: Content
    again, small = origin.again, size <= _SMALL_SIZE
    if small:
        begin = await content.read(body)
    elif again is not None:
        begin = functools.partial(content.fetch, body, again, call)
    else:
        begin = functools.partial(content.open, body)
    replayable = small or again is not None  # else by reading the body once more
    uploaded = await call.request(request, UploadedMedia, begin, replayable=lambda: replayable or body.replayable)
    uploaded = UploadedMedia(  # what `attrs.evolve` does, in a fifth of its time
        id=uploaded.id,
        mime_type=mime_type,
        file_size=size,
        filename=filename,
        sha256=content.sha256,
        maybe_duplicate=call.ambiguous,
        attempts=call.attempts,
        extra=uploaded.extra,
    )
    return await _verified(call, uploaded) if options.verify else uploaded


async def _verified(call: Call, uploaded: UploadedMedia) -> UploadedMedia:
    try:
        info = await get_info(call, uploaded.id)
        if info.sha256 != uploaded.sha256:
            sentence = f"Meta stored other bytes than were sent, as media {uploaded.id}"
            raise IntegrityError(sentence, expected=uploaded.sha256, actual=info.sha256)
    except MediaError as error:
        error.media_id, error.maybe_applied = uploaded.id, True  # the upload itself has succeeded
        raise
    return attrs.evolve(uploaded, attempts=call.attempts)


def _fields(mime_type: str, options: UploadOptions) -> dict[str, str]:
    fields = {"messaging_product": "whatsapp", "type": mime_type}
    if options.ttl is not None:
        fields["ttl_minutes"] = str(options.ttl // timedelta(minutes=1))
    if options.use_case is not None:
        fields["use_case"] = options.use_case
    return fields


class FileContent:
    """
    The request's body: the file between head and tail of its form. `open` starts it anew for each attempt.

    The bytes before an offset are then read, and hashed, but not sent.
    """

    def __init__(
        self,
        form: Form,
        size: int,
        sha256: str | None,
        options: UploadOptions,
        chunk_size: ChunkSize,
        item: ItemProgress | None = None,
    ) -> None:
        self._form = form
        self._size = size
        self._expected = sha256
        self._hashes = options.verify or sha256 is not None
        self._progress = options.progress if item is None else delta_callback(item, options.progress)
        self._chunk_size = chunk_size
        self._digest: Any = None

    def open(self, body: Body, start: int = 0) -> AbstractAsyncContextManager[FileContent]:
        """Start an attempt to send the bytes from the offset `start` on."""
        self._digest = hashlib.sha256()
        self._reporter = ProgressReporter(self._progress, self._size)
        self._reporter.transferred = self._start = start
        self._failure: tuple[Exception, dict[str, Any]] | None = None
        self._generator = self._generate(body)
        return contextlib.aclosing(self)

    @asynccontextmanager
    async def fetch(
        self, body: Body, again: Callable[[int], Awaitable[Source]], call: Call
    ) -> AsyncIterator[FileContent]:
        """Start an attempt with a download: the open one, or another one if that was read by an earlier attempt."""
        async with contextlib.AsyncExitStack() as stack:
            if not body.replayable:
                call.give_up_slot()  # as in `upload`
                body = await stack.enter_async_context((await again(self._size)).open())
            yield await stack.enter_async_context(self.open(body))

    @property
    def sha256(self) -> str | None:
        """SHA-256 of the file as it was sent; None if neither `verify` nor the source asks for it."""
        return self._digest.hexdigest() if self._hashes else None

    def __aiter__(self) -> AsyncIterator[Buffer]:
        return self._generator

    async def aclose(self) -> None:
        """End the attempt, and drop the file: httpx keeps the content alive in a reference cycle for a while."""
        await self._generator.aclose()
        del self._generator

    def raise_source_error(self) -> None:
        """Raise the error of the source or of the progress callback, if one failed, as it was before it left them."""
        if self._failure is not None:
            error, state = self._failure
            try:
                raise error
            finally:  # frames and causes of the request have the token, and are no concern of the caller's
                for name, value in state.items():
                    setattr(error, name, value)

    async def read(self, body: Body) -> Pieces:
        """Read a small file before it is sent, so that it is sent with its form and the request's head in one piece."""
        content: list[Buffer] = [b"" if body.content is None else body.content]
        if not body.immutable:  # what the caller may change is copied, for another attempt to send the same
            async with contextlib.aclosing(body.chunks(lambda: _SMALL_SIZE)) as chunks:
                content = [bytes(chunk) async for chunk in chunks]
        if self._hashes:
            self._digest = hashlib.sha256()
            for chunk in content:
                self._digest.update(chunk)
            self._check()
        if self._progress is not None:
            await ProgressReporter(self._progress, self._size).add(self._size)
        return self._form.head, *content, self._form.tail

    def _check(self) -> None:
        """Raise before the end of the request if the SHA-256 is not the expected one."""
        if self._expected is not None and self._expected != self.sha256:
            sentence = "the source changed: it no longer has the SHA-256 that it was hashed with"
            raise CorruptedMediaError(sentence, limit=self._expected, actual=self.sha256)

    async def _generate(self, body: Body) -> AsyncGenerator[Buffer, None]:
        try:
            yield self._form.head
            chunks, skipped = body.chunks(self._chunk_size), self._start
            async with contextlib.aclosing(chunks), BackgroundWriter(self._digest.update) as writer:
                async for chunk in chunks:
                    if self._hashes:
                        await writer.put(chunk)
                    rest, skipped = chunk[skipped:], max(skipped - len(chunk), 0)
                    yield rest
                    await self._reporter.add(len(rest))
            self._check()
            yield self._form.tail
        except Exception as error:  # the caller's source may raise anything
            self._failure = error, {name: getattr(error, name) for name in _STATE}
            raise
