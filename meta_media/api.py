"""Every public verb, in one place to read: what each checks, which request it makes, what it gives."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import anyio

from . import downloads, uploads
from .bodies import Buffer
from .connections import Connections, Token
from .destinations import Destination
from .downloads import MediaStream
from .errors import ConfigurationError, MediaError, Operation
from .http import Call, Http
from .lookups import forget, look_up
from .models import DeletedMedia, DownloadedMedia, InboundMedia, MediaInfo, SentMessage, UploadedMedia
from .progress import ProgressCallback
from .settings import Secret, Settings, checked_id, checked_number
from .sources import Source
from .wire import graph, message

if TYPE_CHECKING:
    import httpx

__all__ = ["MediaApi"]

T = TypeVar("T")
_CLEAN_UP: Final = 30.0  # seconds that deleting at the end of `uploaded` may take when the block was cancelled


class MediaApi:
    """
    The media endpoints of WhatsApp's Cloud API.

    Use it as `async with MediaApi() as media`, or without and call `aclose()`. One object serves any number of tasks;
    `with_options` makes cheap copies for other numbers and tokens over the same connections.

    Args:
        access_token: A string, or an async callable that gives one and is asked again after Meta has refused it.
            Default: the environment's `CLOUD_API_ACCESS_TOKEN`.
        phone_number_id: The business number's id (not the number). Default: `WA_PHONE_NUMBER_ID`.
        settings: Everything else.
        http_client: Any `httpx.AsyncClient`; it is not closed, and none of its default headers, cookies or parameters
            are sent. Default: connections of our own, made at first need.

    Raises:
        ConfigurationError: The token or number cannot be one. Missing ones are told of when first needed.
    """

    def __init__(
        self,
        access_token: str | Callable[[], Awaitable[str]] | None = None,
        phone_number_id: str | None = None,
        *,
        settings: Settings | None = None,
        http_client: httpx.AsyncClient | None = None,
    ) -> None:
        settings = settings or Settings()
        token = Token(access_token or os.environ.get("CLOUD_API_ACCESS_TOKEN") or None)
        number = phone_number_id or os.environ.get("WA_PHONE_NUMBER_ID") or None
        self._number = checked_id(number, "phone_number_id") if number else None
        self._http = Http(settings, token, Connections(http_client, settings.concurrency, settings.proxy))
        self._owner = True

    def __repr__(self) -> str:
        return f"MediaApi(phone_number_id={self._number!r}, base_url={self.settings.base_url!r})"

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._http.settings

    def with_options(
        self,
        *,
        access_token: str | Callable[[], Awaitable[str]] | None = None,
        phone_number_id: str | None = None,
        **changes: Any,
    ) -> MediaApi:
        """
        Return a copy for another token, number or setting. It lives as long as the original, whose connections it uses.

        Args:
            access_token: As for the constructor; default the original's.
            phone_number_id: Likewise.
            **changes: Fields of `Settings`, except `concurrency` and `proxy`, which belong to the connections.
        """
        if shared := {"concurrency", "proxy"}.intersection(changes):
            raise ConfigurationError(f"{min(shared)} belongs to the connections, which a copy shares")
        twin = copy.copy(self)
        token = self._http.token if access_token is None else Token(access_token)
        http = Http(self.settings.changed(changes), token, self._http.connections)
        twin.__dict__.update(_http=http, _number=self._number_if(phone_number_id) or self._number, _owner=False)
        return twin

    async def __aenter__(self) -> MediaApi:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections we opened. Once is enough, twice does no harm; later calls are `ConfigurationError`s."""
        if self._owner:
            await self._http.connections.aclose()

    async def upload(
        self,
        source: str | os.PathLike[str] | Buffer | Source | AsyncIterable[Buffer] | Iterable[Buffer] | Any,
        *,
        filename: str | None = None,
        mime_type: str | None = None,
        size: int | None = None,
        validate: bool = True,
        verify: bool = False,
        ttl: timedelta | None = None,
        use_case: str | None = None,
        phone_number_id: str | None = None,
        progress: ProgressCallback | None = None,
    ) -> UploadedMedia:
        """
        Upload a file: `POST /{PHONE_NUMBER_ID}/media`.

        Args:
            source: A path (a `str` always is one); bytes; an async file handle or a binary file object, read from
                where it stands; an iterable or async iterable of bytes; an `httpx.Response` being streamed; a `Source`.
            filename: What to call it. Default: the source's own name. Made harmless before it is sent.
            mime_type: Default: told from the first bytes, else from the name. Yours wins, but is checked.
            size: Bytes, for a source that cannot tell; without it such a source is spooled first (memory, then a
                private temporary file).
            validate: Check type, variant and size against what WhatsApp takes before anything is sent.
            verify: Ask Meta afterwards for the SHA-256 it stored, and compare.
            ttl: How long a "No Storage" number keeps it: one hour to thirty days, in whole minutes.
            use_case: Meta's field of that name, such as `call_voicemail_announcement`.
            phone_number_id: Another number than the client's own.
            progress: Called with `Progress(transferred, total)`, in bytes, after each chunk; plain or async.

        Returns:
            The media id, good for thirty days on this number, and what was sent.

        Raises:
            InvalidMediaError: The file, before any request; or Meta's verdict on it.
            StorageError: The source cannot be read.
            IntegrityError: With `verify`, Meta stored something else.
            ApiError: Meta said no.
            NetworkError: It did not get through; `maybe_applied` tells whether it may have.
        """
        async with self._call("upload", phone_number_id) as call:
            options = uploads.UploadOptions(
                filename=filename,
                mime_type=mime_type,
                size=size,
                validate=validate and self.settings.validate,
                verify=verify,
                ttl=ttl,
                use_case=use_case,
                progress=progress,
            )
            return await uploads.upload(call, self._number_or(phone_number_id), source, options)

    @asynccontextmanager
    async def uploaded(self, source: Any, **options: Any) -> AsyncIterator[UploadedMedia]:
        """
        Upload for as long as a block lasts: the media is deleted when it ends, also by an error or a cancellation.

        Takes what `upload` takes.
        """
        uploaded = await self.upload(source, **options)
        number = options.get("phone_number_id")
        try:
            yield uploaded
        except BaseException as error:
            with anyio.move_on_after(_CLEAN_UP, shield=True):
                try:
                    await self.delete(uploaded.id, missing_ok=True, phone_number_id=number)
                except MediaError as failed:
                    error.add_note(f"media {uploaded.id} was not deleted: {failed}")
            raise
        await self.delete(uploaded.id, missing_ok=True, phone_number_id=number)

    async def get_info(self, media_id: str, *, phone_number_id: str | None = None) -> MediaInfo:
        """
        Ask what Meta knows of a media id, and for a fresh URL: `GET /{MEDIA_ID}`.

        Args:
            media_id: From an upload or a webhook.
            phone_number_id: If given, Meta answers only if the media was uploaded on this number.

        Raises:
            MediaNotFoundError: Unknown, expired, deleted, or not for this token to see.
            ServerError: Meta answered about another id, or with something else.
        """
        async with self._call("get_info", phone_number_id, media_id) as call:
            return await look_up(call, checked_id(media_id, "the media id"), self._number_if(phone_number_id))

    async def download(
        self,
        what: str | MediaInfo | InboundMedia,
        destination: Destination,
        *,
        overwrite: bool = True,
        progress: ProgressCallback | None = None,
    ) -> DownloadedMedia:
        """
        Download to a file, a folder or a handle, verified.

        A path changes only once all bytes have come and been verified; whatever goes wrong, the old file is as it was
        and no temporary file remains. A folder gets a safe name that is still free. What was written to a handle before
        an error stays written.

        Args:
            what: A media id, a `MediaInfo`, an `InboundMedia` from a webhook, or a media URL.
            destination: A path; an existing folder; an async handle or anything with `async write(bytes)`; a binary
                file object, written off the event loop. Handles are not closed.
            overwrite: Whether a path may replace a file.
            progress: Called with `Progress(transferred, total)`, in bytes, after each chunk; plain or async.

        Raises:
            IntegrityError: Length or SHA-256 are not what Meta promised.
            UntrustedUrlError: The URL is not on a trusted host; nothing was sent there.
            DownloadTooLargeError: Over `Settings.max_download_size`.
            StorageError: The destination refused; for a path, mostly before any request.
            MediaNotFoundError: Unknown, expired or deleted, also after asking for a fresh URL.
            ApiError: Meta said no.
            NetworkError: It did not come through.
        """
        what = _shy(what)
        async with self._call("download", None, _id_of(what)) as call:
            return await downloads.download(call, what, destination, overwrite=overwrite, progress=progress)

    @asynccontextmanager
    async def stream(self, what: str | MediaInfo | InboundMedia) -> AsyncIterator[MediaStream]:
        """
        Stream a download: `async with media.stream(what) as stream`, then `async for chunk in stream`.

        Memory stays at a chunk or two. Only when the iteration ends without an error are the bytes verified.

        Args:
            what: As for `download`.

        Raises:
            IntegrityError: From the iteration, at its end; otherwise as `download`.
        """
        what = _shy(what)
        async with self._call("download", None, _id_of(what)) as call, downloads.open_stream(call, what) as stream:
            yield stream

    async def read(self, what: str | MediaInfo | InboundMedia, *, max_size: int | None = None) -> bytes:
        """
        Download into memory, verified.

        Args:
            what: As for `download`.
            max_size: Bytes at most. Default: `Settings.max_download_size`.

        Raises:
            DownloadTooLargeError: Over `max_size`; otherwise as `download`.
        """
        what = _shy(what)
        async with self._call("download", None, _id_of(what)) as call:
            return await downloads.read(call, what, max_size)

    async def delete(
        self, media_id: str, *, missing_ok: bool = False, phone_number_id: str | None = None
    ) -> DeletedMedia:
        """
        Delete a media: `DELETE /{MEDIA_ID}`.

        Args:
            media_id: From an upload or a webhook.
            missing_ok: Whether media that Meta does not know is a result (`success=False`) rather than an error.
            phone_number_id: If given, Meta deletes only if the media was uploaded on this number.

        Raises:
            MediaNotFoundError: Unknown, expired, already deleted, or not for this token to see.
        """
        async with self._call("delete", phone_number_id, media_id) as call:
            media_id, number = checked_id(media_id, "the media id"), self._number_if(phone_number_id)
            return await forget(call, media_id, missing_ok=missing_ok, phone_number_id=number)

    async def send(
        self,
        to: str,
        media_id: str,
        *,
        kind: Literal["audio", "document", "image", "sticker", "video"] = "image",
        caption: str | None = None,
        filename: str | None = None,
        voice: bool | None = None,
        reply_to: str | None = None,
        phone_number_id: str | None = None,
    ) -> SentMessage:
        """
        Send media by id: `POST /{PHONE_NUMBER_ID}/messages`. One id may go to any number of people.

        Args:
            to: The recipient's phone number, with country code.
            media_id: From an upload on the same number.
            kind: The sort of message.
            caption: At most 1024 characters; image, video and document.
            filename: Document only. Meta does not remember the name of the upload; its extension picks the icon.
            voice: Audio only: shown as a voice note (Ogg/Opus).
            reply_to: The id of the message that this one answers (`wamid.…`).
            phone_number_id: Another number than the client's own.

        Returns:
            Meta's receipt. What becomes of the message is told by webhook.

        Raises:
            ConfigurationError: An argument that this kind of message does not take.
            MediaNotFoundError: The id is unknown or has expired.
            ApiError: Meta said no.
        """
        async with self._call("send", phone_number_id, media_id) as call:
            extras = {"caption": caption, "filename": filename, "voice": voice}
            body = message(checked_number(to), checked_id(media_id, "the media id"), kind, extras, reply_to)
            number = self._number_or(phone_number_id)
            json_body = {"Content-Type": "application/json", "Content-Length": str(len(body))}
            request = graph("send", "POST", self.settings, number, "messages", media_id=media_id, headers=json_body)
            return await call.ask(request, SentMessage, lambda: contextlib.nullcontext(body))

    def _call(self, operation: Operation, phone_number_id: str | None, media_id: object = None) -> Call:
        return self._http.call(operation, phone_number_id or self._number, media_id)

    def _number_or(self, phone_number_id: str | None) -> str:
        number = self._number_if(phone_number_id) or self._number
        if number is None:
            raise ConfigurationError("there is no phone number id: pass phone_number_id or set WA_PHONE_NUMBER_ID")
        return number

    def _number_if(self, phone_number_id: str | None) -> str | None:
        return None if phone_number_id is None else checked_id(phone_number_id, "phone_number_id")


def _shy(what: T) -> T | Secret:
    """Keep a URL, which is signed, out of tracebacks that show local variables."""
    return Secret(what) if isinstance(what, str) and "://" in what else what


def _id_of(what: object) -> str | None:
    if isinstance(what, MediaInfo | InboundMedia):
        return what.id
    return what if isinstance(what, str) and "://" not in what else None
