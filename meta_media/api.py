"""Every public verb: its arguments, the request it makes, its result and its errors."""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from meta_media.bulk.verbs import BulkVerbs
from meta_media.http.client import Client
from meta_media.protocol.handles import UploadHandle
from meta_media.protocol.media_types import Kind
from meta_media.protocol.models import (
    DeletedMedia,
    DownloadedMedia,
    HasMediaId,
    MediaInfo,
    SentMessage,
    UploadedMedia,
    media_id_of,
)
from meta_media.protocol.recipient import Recipient
from meta_media.protocol.requests import MediaMessage
from meta_media.protocol.validators import checked_id
from meta_media.transfer import download as downloads
from meta_media.transfer import upload as uploads
from meta_media.transfer.adapters import Buffer
from meta_media.transfer.destinations import Destination
from meta_media.transfer.handle import upload_handle
from meta_media.transfer.info import delete, deleted_after, get_info
from meta_media.transfer.media_stream import MediaStream
from meta_media.transfer.progress import ProgressCallback
from meta_media.transfer.resume import as_secret, known_id
from meta_media.transfer.send import send
from meta_media.transfer.sources import Source

__all__ = ["MediaApi"]


class MediaApi(BulkVerbs):
    """
    The media endpoints of WhatsApp's Cloud API.

    Use it as `async with MediaApi() as media`, or call `aclose()` at the end. One object serves any number of tasks.
    `with_options` makes cheap copies over the same connections.

    Args:
        access_token: A string, or an async callable that returns one. The callable is called again, once for all calls that
            wait, after Meta has refused its token. Default: the environment's `CLOUD_API_ACCESS_TOKEN`.
        phone_number_id: The id of the business phone number, not the number itself. Default: `WA_PHONE_NUMBER_ID`.
        settings: Timeouts, retries, limits, hosts. Default: `Settings()`.
        http_client: An `httpx.AsyncClient` to send over, which is never closed here. Default: our own, see `client`.

    Raises:
        ConfigurationError: An argument cannot be used. A missing token or number raises it at the first call that needs it.
    """

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
        repackage: bool = False,
    ) -> UploadedMedia:
        """
        Upload a file: `POST /{PHONE_NUMBER_ID}/media`. The id is valid for thirty days, on this number.

        Args:
            source: A path (a `str` is always one, and must never come from the network); bytes or any buffer; a handle, plain
                or async, read from its position; the file of a web form, read whole; the response of any HTTP client; an
                iterable or async iterable of bytes; an object with `__media_source__`. `Source` documents the rule.
            filename: The name to send, made safe, with an extension of the type. Default: the source's own name.
            mime_type: The media type, which is checked. Default: from the bytes, else from the name.
            size: Bytes of a source whose length is not known. Without it such a source is first stored in memory or in a
                private temporary file, because Meta needs an exact Content-Length.
            validate: Whether type, variant and size are checked against WhatsApp's limits before anything is sent. What is
                accepted, but may not play on some phones, is logged as INFO.
            verify: Whether Meta is asked afterwards for the SHA-256 that it stored, which is compared.
            ttl: How long a "No Storage" number keeps the media: one hour to thirty days, in whole minutes.
            use_case: Meta's field of that name. Media with `call_voicemail_announcement` does not expire (Meta's page "Calling
                settings").
            phone_number_id: Another number than the client's.
            progress: Called with `Progress(transferred, total)`, in bytes, after each chunk; plain or async.
            repackage: Whether Opus in WebM, Matroska or MP4, as browsers record it, and stereo Opus in Ogg are sent as mono
                Opus in Ogg. No packet is touched. `mime_type` and `size` are those of `source`. Other files stay as they are.

        Raises:
            InvalidMediaError: The file is not one that WhatsApp takes: found before any request, or by Meta.
            StorageError: The source cannot be read.
            IntegrityError: With `verify`: Meta stored other bytes.
            ApiError: Meta refused.
            NetworkError: The request or its response was lost. `maybe_applied` says whether the upload may exist.
        """
        async with self.call("upload", phone_number_id) as call:
            options = uploads.UploadOptions(
                filename=filename,
                mime_type=mime_type,
                size=size,
                validate=validate and self.settings.validate,
                verify=verify,
                ttl=ttl,
                use_case=use_case,
                progress=progress,
                repackage=repackage,
            )
            return await uploads.upload(call, self.number_or(phone_number_id), source, options)

    @asynccontextmanager
    async def uploaded(self, source: Any, **options: Any) -> AsyncIterator[UploadedMedia]:
        """Upload like `upload`, and delete the media when the block ends, also by an error or a cancellation."""
        uploaded = await self.upload(source, **options)
        number = options.get("phone_number_id")
        async with deleted_after(
            lambda: self.delete(uploaded.id, missing_ok=True, phone_number_id=number), uploaded.id
        ):
            yield uploaded

    async def upload_handle(
        self,
        source: Any,
        *,
        app_id: str | None = None,
        filename: str | None = None,
        mime_type: str | None = None,
        progress: ProgressCallback | None = None,
    ) -> UploadHandle:
        """
        Upload a file for a template's header or a profile picture: Meta's page "Resumable Upload API".

        The file belongs to the app, not to a number. After a cut, Meta is asked how much it has, and only the rest is sent.

        Args:
            source: As for `upload`. One that can be read only once is first stored in memory or in a temporary file.
            app_id: Id of the Meta app. Default: `Settings.app_id`.
            filename: As for `upload`, and so are the arguments below.
            mime_type: JPEG, PNG, MP4 or PDF.
            progress: `transferred` goes back where Meta has less than was sent.

        Raises:
            InvalidMediaError: The file is not of these types, or larger than WhatsApp takes for its type.
            StorageError: The source cannot be read.
            ApiError: Meta refused.
            NetworkError: The connection failed, and could not be resumed.
        """
        async with self.call("upload_handle", None) as call:
            fields: dict[str, Any] = {"filename": filename, "mime_type": mime_type, "progress": progress}
            options = uploads.UploadOptions(validate=self.settings.validate, **fields)
            return await upload_handle(call, app_id, source, options)

    async def get_info(self, media_id: str | HasMediaId, *, phone_number_id: str | None = None) -> MediaInfo:
        """
        Look up a media id, and get a fresh URL for it: `GET /{MEDIA_ID}`.

        Args:
            media_id: From an upload or a webhook; or a value that has one, such as `UploadedMedia`.
            phone_number_id: If given, Meta responds only if the media was uploaded on this number. Leave it out for media from
                a webhook, which was uploaded on none.

        Raises:
            MediaNotFoundError: The media is unknown, expired or deleted, or this token may not see it.
            ServerError: The response is about another id, or is not one of Meta's API.
        """
        async with self.call("get_info", phone_number_id, media_id) as call:
            return await get_info(call, media_id_of(media_id), self._checked_number(phone_number_id))

    async def download(
        self,
        what: str | HasMediaId,
        destination: Destination,
        *,
        overwrite: bool = True,
        progress: ProgressCallback | None = None,
    ) -> DownloadedMedia:
        """
        Download to a file, a folder or a handle, and verify length and SHA-256.

        A path is replaced only after all bytes were verified. On an error the old file stays, and no temporary one. A folder
        gets a safe name that is still free. Bytes written to a handle stay written.

        Args:
            what: A media id; a value that has one: `InboundMedia`, `MediaInfo`, `UploadedMedia`; or a media URL.
            destination: A path; a folder, which exists or is a `str` that ends in a separator; an `ObjectDestination` in a
                bucket; a binary file object, written off the event loop; any other object with `write(bytes)`. Handles
                are not closed.
            overwrite: Whether a path may replace a file.
            progress: Called with `Progress(transferred, total)`, in bytes, after each chunk; plain or async.

        Raises:
            IntegrityError: Length or SHA-256 are not those that Meta promised.
            UntrustedUrlError: The URL is not on a trusted host; nothing was sent there.
            DownloadTooLargeError: The media is larger than `Settings.max_download_size`.
            StorageError: The destination cannot be written. For a path this is mostly found before any request.
            MediaNotFoundError: The media is unknown, expired or deleted, and a fresh URL did not help.
            ApiError: Meta refused.
            NetworkError: The connection failed, and could not be resumed.
        """
        what = as_secret(what)
        async with self.call("download", None, known_id(what)) as call:
            return await downloads.download(call, what, destination, overwrite=overwrite, progress=progress)

    def stream(self, what: str | HasMediaId, *, start: int = 0, end: int | None = None) -> MediaStream:
        """
        Stream a download: `async with media.stream(what) as stream`, then `async for chunk in stream` or `stream.read(n)`.

        Args:
            what: As for `download`.
            start: Offset of the first byte. Of a part, only the length is verified; see `MediaStream.verified`.
            end: Offset after the last byte. Default: the end of the media.

        Raises:
            IntegrityError: At the end of the iteration. Other errors are those of `download`.
        """
        what = as_secret(what)
        return MediaStream(lambda: self.call("download", None, known_id(what)), what, start, end)

    async def read(self, what: str | HasMediaId, *, max_size: int | None = None) -> bytes:
        """
        Download into memory, and verify length and SHA-256.

        Args:
            what: As for `download`.
            max_size: Bytes at most. Default: `Settings.max_download_size`.

        Raises:
            DownloadTooLargeError: The media is larger than `max_size`. Other errors are those of `download`.
        """
        what = as_secret(what)
        async with self.call("download", None, known_id(what)) as call:
            return await downloads.read(call, what, max_size)

    async def delete(
        self, media_id: str | HasMediaId, *, missing_ok: bool = False, phone_number_id: str | None = None
    ) -> DeletedMedia:
        """
        Delete a media: `DELETE /{MEDIA_ID}`.

        Args:
            media_id: As for `get_info`.
            missing_ok: Whether an id that Meta does not know gives `success=False` instead of an error.
            phone_number_id: If given, Meta deletes only if the media was uploaded on this number.

        Raises:
            MediaNotFoundError: The media is unknown, expired or already deleted, or this token may not see it.
        """
        async with self.call("delete", phone_number_id, media_id) as call:
            known, number = media_id_of(media_id), self._checked_number(phone_number_id)
            return await delete(call, known, number, missing_ok=missing_ok)

    async def send(
        self,
        to: str | Recipient,
        media: str | HasMediaId,
        *,
        kind: Kind | None = None,
        caption: str | None = None,
        filename: str | None = None,
        voice: bool | None = None,
        reply_to: str | None = None,
        extra: Mapping[str, Any] | None = None,
        phone_number_id: str | None = None,
    ) -> SentMessage:
        """
        Send a media by its id: `POST /{PHONE_NUMBER_ID}/messages`. Webhooks report what becomes of the message.

        Args:
            to: A phone number with country code, a business-scoped user id (`US.…`), or a `Recipient`.
            media: A media id from an upload on the same number; or a value that has one, such as `UploadedMedia`.
            kind: The type of message. Default: the one for the media's type. For a bare id, Meta is asked for the type.
            caption: At most 1024 characters; image, video and document.
            filename: Document only; its extension picks the icon. Default: the name of the upload, where `media` has it.
            voice: Shown as a voice note: Opus in Ogg only. It has a play icon if it has at most 512 KB.
            reply_to: The id of the message that this one answers (`wamid.…`).
            extra: Further keys of Meta's message, such as `biz_opaque_callback_data`. They replace none of the others.
            phone_number_id: Another number than the client's.

        Raises:
            ConfigurationError: An argument that this kind of message does not take.
            MediaNotFoundError: The id is unknown or has expired.
            ApiError: Meta refused.
        """
        async with self.call("send", phone_number_id, media) as call:
            fields: dict[str, Any] = {"caption": caption, "filename": filename, "voice": voice, "reply_to": reply_to}
            message = MediaMessage(to=Recipient.of(to), media_id=media_id_of(media), extra=extra, **fields)
            return await send(call, self.number_or(phone_number_id), media, kind, message)

    async def move(
        self,
        media: str | HasMediaId,
        to_number: str,
        *,
        phone_number_id: str | None = None,
        progress: ProgressCallback | None = None,
    ) -> UploadedMedia:
        """
        Copy media to another phone number. An id can only be sent from the number on which it was uploaded.

        The bytes are downloaded and uploaded at the same time, in constant memory, and their SHA-256 is verified on both
        ways. Their type is kept, and their name where `media` has one. The first media stays: delete it if it is not needed.

        Args:
            media: As for `get_info`. Media from a webhook gets an id that lives for thirty days, on any number.
            to_number: The phone number id on which to upload.
            phone_number_id: As for `get_info`.
            progress: As for `upload`.

        Raises:
            MediaNotFoundError: The media is unknown, expired or deleted, or this token may not see it.
            IntegrityError: The bytes that arrived, or those that Meta stored, are not those that Meta promised.
            InvalidMediaError: WhatsApp takes no upload of this type: people may send others.
            ApiError: Meta refused.
            NetworkError: The connection failed. `maybe_applied` says whether the upload may exist.
        """
        number = checked_id(to_number, "to_number")
        info = await self.get_info(media, phone_number_id=phone_number_id)
        return await self.upload(
            self.stream(info),
            filename=getattr(media, "filename", None) or None,
            mime_type=info.mime_type,
            verify=True,
            phone_number_id=number,
            progress=progress,
        )

    def _checked_number(self, phone_number_id: str | None) -> str | None:
        return None if phone_number_id is None else self.number_or(phone_number_id)


for _base in (Client, BulkVerbs):
    for _name, _function in vars(_base).items():
        if inspect.isfunction(_function):
            _function.__qualname__ = f"MediaApi.{_name}"  # by which Python names it in its own errors
