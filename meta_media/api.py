"""Every public verb, in one place to read: what each checks, which request it makes, what it gives."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Literal

from meta_media.bulk.jobs import DeleteJob, DownloadJob, UploadJob
from meta_media.bulk.outcomes import BulkReport
from meta_media.bulk.run import BulkOptions, BulkRun, checked_concurrency
from meta_media.http.client import Client
from meta_media.protocol.models import (
    DeletedMedia,
    DownloadedMedia,
    InboundMedia,
    MediaInfo,
    SentMessage,
    UploadedMedia,
)
from meta_media.protocol.validators import checked_id
from meta_media.transfer import download as downloads
from meta_media.transfer import messages
from meta_media.transfer import upload as uploads
from meta_media.transfer.bodies import Buffer
from meta_media.transfer.destinations import Destination
from meta_media.transfer.download import MediaStream
from meta_media.transfer.info import delete, deleted_after, get_info
from meta_media.transfer.progress import ProgressCallback
from meta_media.transfer.resume import as_secret, media_id_of
from meta_media.transfer.sources import Source

__all__ = ["MediaApi"]


class MediaApi(Client):
    """
    The media endpoints of WhatsApp's Cloud API.

    Use it as `async with MediaApi() as media`, or without and call `aclose()`. One object serves any number of tasks;
    `with_options` makes cheap copies for other numbers and tokens over the same connections.

    Args:
        access_token: A string, or an async callable that gives one and is asked again after Meta has refused it.
            Default: the environment's `CLOUD_API_ACCESS_TOKEN`.
        phone_number_id: The business number's id (not the number). Default: `WA_PHONE_NUMBER_ID`.
        settings: Everything else.
        http_client: Any `httpx.AsyncClient`; it is not closed. Default: our own. Either one is `client`.

    Raises:
        ConfigurationError: The token or number cannot be one. Missing ones are told of when first needed.
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
            )
            return await uploads.upload(call, self.number_or(phone_number_id), source, options)

    @asynccontextmanager
    async def uploaded(self, source: Any, **options: Any) -> AsyncIterator[UploadedMedia]:
        """Upload, as `upload` does, for as long as a block lasts: however it ends, the media is deleted."""
        uploaded = await self.upload(source, **options)
        number = options.get("phone_number_id")
        async with deleted_after(
            lambda: self.delete(uploaded.id, missing_ok=True, phone_number_id=number), uploaded.id
        ):
            yield uploaded

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
        async with self.call("get_info", phone_number_id, media_id) as call:
            return await get_info(call, checked_id(media_id, "the media id"), self._number_if(phone_number_id))

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

        A path is replaced only after all bytes have arrived and were verified. On an error the old file stays, and no
        temporary one. A folder gets a safe name that is still free. Bytes written to a handle stay written.

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
        what = as_secret(what)
        async with self.call("download", None, media_id_of(what)) as call:
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
        what = as_secret(what)
        async with (
            self.call("download", None, media_id_of(what)) as call,
            downloads.open_stream(call, what) as stream,
        ):
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
        what = as_secret(what)
        async with self.call("download", None, media_id_of(what)) as call:
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
        async with self.call("delete", phone_number_id, media_id) as call:
            media_id, number = checked_id(media_id, "the media id"), self._number_if(phone_number_id)
            return await delete(call, media_id, missing_ok=missing_ok, phone_number_id=number)

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
        Send media by id: `POST /{PHONE_NUMBER_ID}/messages`. What becomes of the message is told by webhook.

        Args:
            to: The recipient's phone number, with country code.
            media_id: From an upload on the same number.
            kind: The sort of message.
            caption: At most 1024 characters; image, video and document.
            filename: Document only. Meta does not remember the name of the upload; its extension picks the icon.
            voice: Audio only: shown as a voice note (Ogg/Opus).
            reply_to: The id of the message that this one answers (`wamid.…`).
            phone_number_id: Another number than the client's own.

        Raises:
            ConfigurationError: An argument that this kind of message does not take.
            MediaNotFoundError: The id is unknown or has expired.
            ApiError: Meta said no.
        """
        async with self.call("send", phone_number_id, media_id) as call:
            extras = {"caption": caption, "filename": filename, "voice": voice}
            return await messages.send(call, self.number_or(phone_number_id), to, media_id, kind, extras, reply_to)

    def upload_many(
        self,
        sources: AsyncIterable[Any] | Iterable[Any],
        *,
        concurrency: int | None = None,
        journal: str | os.PathLike[str] | None = None,
        stop_on_error: bool = False,
        in_order: bool = False,
        progress: Callable[[BulkReport], Any] | None = None,
        **keywords: Any,
    ) -> BulkRun[UploadedMedia]:
        """
        Upload many files: `async with media.upload_many(paths) as run`, then `async for outcome in run`.

        Args:
            sources: Whatever `upload` takes, or pairs of that and a mapping of `upload` keywords; any iterable or async
                iterable, read as it is needed. A generator is advanced off the event loop.
            concurrency: Files at a time. Default: `Settings.concurrency`, which is also the most.
            journal: A file (SQLite) that notes what is done: after a crash, the same call goes on where it was. A source is
                known again by its bytes, so the same bytes twice are uploaded once; a file is hashed again only if size,
                times or inode have changed. What was under way is uploaded again, and said to be `maybe_duplicate`.
            stop_on_error: Whether the first error ends the run.
            in_order: Whether outcomes come in the order of the input.
            progress: Called with a `BulkReport` after each outcome and as bytes move; plain or async.
            **keywords: Of `upload`, for all; a pair's own win.

        Raises:
            ConfigurationError: A keyword that cannot work; on entering, a journal that another process has.
        """
        how = self._bulk(concurrency, stop_on_error, in_order, progress)
        return BulkRun(sources, UploadJob(self, journal, keywords), how)

    def download_many(
        self,
        items: AsyncIterable[Any] | Iterable[Any],
        directory: str | os.PathLike[str],
        *,
        concurrency: int | None = None,
        journal: str | os.PathLike[str] | None = None,
        stop_on_error: bool = False,
        in_order: bool = False,
        progress: Callable[[BulkReport], Any] | None = None,
    ) -> BulkRun[DownloadedMedia]:
        """
        Download many media into a folder, each under a safe name that is still free; no file is replaced.

        Args:
            items: Whatever `download` takes, or pairs of that and a mapping with its own `progress`.
            directory: An existing folder.
            concurrency: As for `upload_many`.
            journal: What it has of this folder is skipped while its file is there; an item is known by its media id.
            stop_on_error: As for `upload_many`.
            in_order: As for `upload_many`.
            progress: As for `upload_many`.

        Raises:
            StorageError: On entering: there is no such folder.
        """
        how = self._bulk(concurrency, stop_on_error, in_order, progress)
        return BulkRun(items, DownloadJob(self, journal, directory), how)

    def delete_many(
        self,
        media_ids: AsyncIterable[str] | Iterable[str],
        *,
        missing_ok: bool = False,
        phone_number_id: str | None = None,
        concurrency: int | None = None,
        journal: str | os.PathLike[str] | None = None,
        stop_on_error: bool = False,
        in_order: bool = False,
        progress: Callable[[BulkReport], Any] | None = None,
    ) -> BulkRun[DeletedMedia]:
        """
        Delete many media.

        Args:
            media_ids: From uploads or webhooks.
            missing_ok: As for `delete`.
            phone_number_id: As for `delete`.
            concurrency: As for `upload_many`.
            journal: An item is known again by its media id.
            stop_on_error: As for `upload_many`.
            in_order: As for `upload_many`.
            progress: As for `upload_many`.
        """
        how = self._bulk(concurrency, stop_on_error, in_order, progress)
        job = DeleteJob(self, journal, missing_ok=missing_ok, phone_number_id=phone_number_id)
        return BulkRun(media_ids, job, how)

    def _bulk(self, concurrency: int | None, *how: Any) -> BulkOptions:
        return BulkOptions(checked_concurrency(concurrency, self.settings.concurrency), *how)

    def _number_if(self, phone_number_id: str | None) -> str | None:
        return None if phone_number_id is None else self.number_or(phone_number_id)
