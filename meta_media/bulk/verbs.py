"""The verbs of `MediaApi` for many items."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Callable, Iterable
from typing import Any, Unpack

from meta_media.bulk.jobs import DeleteJob, DownloadJob, SendJob, UploadJob
from meta_media.bulk.keywords import SendKeywords, UploadKeywords
from meta_media.bulk.outcomes import BulkReport
from meta_media.bulk.run import BulkOptions, BulkRun, checked_concurrency
from meta_media.http.client import Client
from meta_media.protocol.models import DeletedMedia, DownloadedMedia, HasMediaId, SentMessage, UploadedMedia
from meta_media.transfer.destinations import StoredDestination

__all__ = ["BulkVerbs"]


class BulkVerbs(Client):
    """The methods of `MediaApi` that return a `BulkRun`."""

    def upload_many(
        self,
        sources: AsyncIterable[Any] | Iterable[Any],
        *,
        concurrency: int | None = None,
        journal: str | os.PathLike[str] | None = None,
        stop_on_error: bool = False,
        in_order: bool = False,
        progress: Callable[[BulkReport], Any] | None = None,
        **keywords: Unpack[UploadKeywords],
    ) -> BulkRun[UploadedMedia]:
        """
        Upload many files: `async with media.upload_many(paths) as run`, then `async for outcome in run`.

        Args:
            sources: Sources for `upload`, or pairs of a source and a mapping of `upload` keywords. Any iterable or async
                iterable, read on demand. A generator is advanced off the event loop.
            concurrency: Files at a time, at most `Settings.concurrency`, which is the default.
            journal: An SQLite file that records results. After a crash, the same call goes on where it was. A source is
                known by its bytes, so the same bytes are uploaded once; a file above 64 KiB is hashed again only if its
                size, times or inode have changed. Items in progress at the crash are uploaded again, and marked
                `maybe_duplicate`.
            stop_on_error: Whether the first error ends the run.
            in_order: Whether outcomes come in the order of the input.
            progress: Called with a `BulkReport` after each outcome and when bytes have moved; plain or async.
            **keywords: Of `upload`, for all items. The keywords of a pair take precedence.

        Raises:
            ConfigurationError: A keyword is unknown or has a wrong value; on entering: another process uses the journal.
        """
        options = self._bulk(concurrency, stop_on_error, in_order, progress)
        return BulkRun(sources, UploadJob(self, journal, keywords), options)

    def download_many(
        self,
        items: AsyncIterable[Any] | Iterable[Any],
        directory: str | os.PathLike[str] | StoredDestination,
        *,
        concurrency: int | None = None,
        journal: str | os.PathLike[str] | None = None,
        stop_on_error: bool = False,
        in_order: bool = False,
        progress: Callable[[BulkReport], Any] | None = None,
    ) -> BulkRun[DownloadedMedia]:
        """
        Download many media into a folder, or into a bucket, each under a safe name that is still free. No file is replaced.

        Args:
            items: What `download` takes, or pairs of that and a mapping with a `progress` of its own.
            directory: A folder, which is made if it is missing; or an `ObjectDestination`, whose key is taken for one.
            concurrency: As for `upload_many`.
            journal: As for `upload_many`. An item is known by its media id, and skipped while its file has its bytes. The
                file is on the disk before the journal says so, whatever `Settings.fsync` is.
            stop_on_error: As for `upload_many`.
            in_order: As for `upload_many`.
            progress: As for `upload_many`.

        Raises:
            StorageError: On entering: the folder cannot be made.
        """
        options = self._bulk(concurrency, stop_on_error, in_order, progress)
        return BulkRun(items, DownloadJob(self, journal, directory), options)

    def delete_many(
        self,
        media_ids: AsyncIterable[str | HasMediaId] | Iterable[str | HasMediaId],
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
            media_ids: From uploads or webhooks; or values that have one, such as `UploadedMedia`.
            missing_ok: As for `delete`.
            phone_number_id: As for `delete`.
            concurrency: As for `upload_many`.
            journal: As for `upload_many`. An item is known by its media id.
            stop_on_error: As for `upload_many`.
            in_order: As for `upload_many`.
            progress: As for `upload_many`.
        """
        options = self._bulk(concurrency, stop_on_error, in_order, progress)
        job = DeleteJob(self, journal, missing_ok=missing_ok, phone_number_id=phone_number_id)
        return BulkRun(media_ids, job, options)

    def send_many(
        self,
        recipients: AsyncIterable[Any] | Iterable[Any],
        media: str | HasMediaId,
        *,
        concurrency: int | None = None,
        journal: str | os.PathLike[str] | None = None,
        stop_on_error: bool = False,
        in_order: bool = False,
        progress: Callable[[BulkReport], Any] | None = None,
        **keywords: Unpack[SendKeywords],
    ) -> BulkRun[SentMessage]:
        """
        Send one media to many recipients. A recipient that Meta refuses does not disturb the others.

        Args:
            recipients: What `send` takes as `to`, or pairs of that and a mapping of `send` keywords.
            media: As for `send`. For a bare id without a `kind`, Meta is asked for the type once.
            concurrency: As for `upload_many`.
            journal: As for `upload_many`, but each recipient gets one message for each journal: use a new file for another
                message. A recipient who may have got it when an earlier run ended gets an error with `maybe_applied`.
            stop_on_error: As for `upload_many`.
            in_order: As for `upload_many`.
            progress: As for `upload_many`.
            **keywords: Of `send`, for all recipients. The keywords of a pair take precedence.

        Raises:
            ConfigurationError: A keyword is unknown or has a wrong value; on entering: another process uses the journal.
            MediaNotFoundError: On entering: Meta was asked for the type, and does not know the media.
        """
        options = self._bulk(concurrency, stop_on_error, in_order, progress)
        return BulkRun(recipients, SendJob(self, journal, media, keywords), options)

    def _bulk(self, concurrency: int | None, *options: Any) -> BulkOptions:
        return BulkOptions(checked_concurrency(concurrency, self.settings.concurrency), *options)
