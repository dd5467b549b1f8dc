"""What is done with each item of a run: an upload, a download or a delete, and a line in the journal before and after it."""

from __future__ import annotations

import abc
import errno
import hashlib
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import attrs

from meta_media.bulk.journal import Journal
from meta_media.bulk.outcomes import Done
from meta_media.errors import (
    AccountRestrictedError,
    AuthenticationError,
    ConfigurationError,
    MediaError,
    NetworkError,
    RateLimitError,
    StorageError,
)
from meta_media.http.client import Client
from meta_media.http.limits import MAX_RETRY_AFTER
from meta_media.protocol.models import DeletedMedia, DownloadedMedia, UploadedMedia
from meta_media.protocol.validators import checked_id
from meta_media.transfer import download as downloads
from meta_media.transfer import upload as uploads
from meta_media.transfer.fingerprint import fingerprint
from meta_media.transfer.info import delete
from meta_media.transfer.progress import ItemProgress, delta_callback
from meta_media.transfer.resume import as_secret, media_id_of
from meta_media.transfer.threads import run_in_thread, storage_errors
from meta_media.transfer.upload import UploadOptions, upload_options

__all__ = ["Deletes", "Downloads", "Uploads", "is_fatal", "split_item"]

T = TypeVar("T")
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})  # what the next file would meet as well


def is_fatal(error: Exception) -> bool:
    """Tell whether every other item would meet the same error: a dead token, a locked account, no trust, a full disk."""
    asked = isinstance(error, RateLimitError) and (error.retry_after or 0) > MAX_RETRY_AFTER
    untrusted = isinstance(error, NetworkError) and error.lasting
    full = isinstance(error, StorageError) and error.errno in _FULL
    return isinstance(error, AuthenticationError | AccountRestrictedError) or asked or untrusted or full


def split_item(item: Any) -> tuple[Any, Mapping[str, Any]]:
    """Tell a source with keywords of its own from one without."""
    if isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], Mapping):
        return item
    return item, {}


class _Journaled(Generic[T], abc.ABC):
    """A job whose items are noted in a journal, where there is one."""

    def __init__(self, http: Client, journal: str | os.PathLike[str] | None) -> None:
        self._http = http
        self._journal = None if journal is None else Journal(journal)

    async def open(self) -> None:
        """See `bulk.Job`."""
        await self._http.token.get()
        if self._journal is not None:
            await self._journal.open()

    async def aclose(self) -> None:
        """See `bulk.Job`."""
        if self._journal is not None:
            await self._journal.aclose()

    def is_fatal(self, error: Exception) -> bool:
        """See `bulk.Job`."""
        return (self._journal is not None and self._journal.failed) or self._http.closed or is_fatal(error)

    async def _run_once(self, key: str, work: Callable[[bool], Awaitable[Done[T]]]) -> Done[T]:
        """Do what has not been done; `work` is told whether it may have been."""
        if self._journal is None:
            return await work(False)
        async with self._journal.item(key) as record:
            if record.value is not None and (value := await self._restore(record.value)) is not None:
                return Done(value=value, skipped=True)
            again = record.started and record.value is None
            try:
                done = await work(again)
            except MediaError as error:
                if not (again or error.maybe_applied):
                    await self._journal.undo(key)
                raise
            await self._end(self._journal, key, done)
            return done

    async def _end(self, journal: Journal, key: str, done: Done[T]) -> None:
        try:
            await journal.done(key, _plain(done.value))
        except MediaError as error:
            error.maybe_applied, error.attempts = True, done.attempts
            error.media_id = getattr(done.value, "id", None)
            raise

    @abc.abstractmethod
    async def _restore(self, value: Mapping[str, Any]) -> T | None:
        """Make again what the verb returned; None if it has to be done again all the same."""


class Uploads(_Journaled[UploadedMedia]):
    """
    Uploads of sources, or of pairs of a source and keywords of its own.

    Args:
        http: By what.
        journal: Path, if there is one.
        keywords: Of `MediaApi.upload`, for all.
    """

    def __init__(self, http: Client, journal: str | os.PathLike[str] | None, keywords: Mapping[str, Any]) -> None:
        super().__init__(http, journal)
        self._options = upload_options(http.settings, keywords)  # raises now what each item would raise
        self._keywords = keywords

    async def open(self) -> None:
        """See `bulk.Job`."""
        if (number := self._keywords.get("phone_number_id")) is not None:
            self._http.number_or(number)
        await super().open()

    async def __call__(self, item: Any, move: ItemProgress) -> Done[UploadedMedia]:
        """See `bulk.Job`."""
        source, own = split_item(item)
        keywords = {**self._keywords, **own}
        number = self._http.number_or(keywords.get("phone_number_id"))
        options = upload_options(self._http.settings, keywords) if own else self._options
        options = attrs.evolve(options, progress=delta_callback(move, options.progress))
        if self._journal is None:
            return await self._upload(number, source, options, move)
        async with fingerprint(source, options, self._journal, self._http.settings.chunk_size) as identity:
            key = f"upload {number} {identity.sha256} {identity.mime_type} {options.ttl} {options.use_case}"

            async def work(again: bool) -> Done[UploadedMedia]:
                done = await self._upload(number, identity.source, options, move)
                duplicate = again or done.value.maybe_duplicate
                value = attrs.evolve(done.value, maybe_duplicate=duplicate, sha256=identity.sha256)
                return attrs.evolve(done, value=value)

            return await self._run_once(key, work)

    async def _upload(
        self, number: str, source: object, options: UploadOptions, move: ItemProgress
    ) -> Done[UploadedMedia]:
        async with move.on(self._http.call("upload", number)) as call:
            value = await uploads.upload(call, number, source, options)
            return Done(value=value, attempts=value.attempts)

    async def _restore(self, value: Mapping[str, Any]) -> UploadedMedia | None:
        return UploadedMedia(**value)


class Downloads(_Journaled[DownloadedMedia]):
    """
    Downloads of whatever `MediaApi.download` takes, or of pairs of that and a mapping with its `progress`, into one folder.

    Args:
        http: By what.
        journal: Path, if there is one.
        directory: An existing folder.
    """

    def __init__(self, http: Client, journal: str | os.PathLike[str] | None, directory: str | os.PathLike[str]) -> None:
        super().__init__(http, journal)
        self._directory = Path(os.fsdecode(directory))

    async def open(self) -> None:
        """See `bulk.Job`."""
        with storage_errors(f"download to {str(self._directory)!r}"):
            if not await run_in_thread(self._directory.is_dir):
                raise NotADirectoryError(errno.ENOTDIR, "it is no folder")
        await super().open()

    async def __call__(self, item: Any, move: ItemProgress) -> Done[DownloadedMedia]:
        """See `bulk.Job`."""
        what, own = split_item(item)
        if unknown := sorted(set(own) - {"progress"}):
            raise ConfigurationError(f"a download's own keyword is progress, not {', '.join(map(str, unknown))}")
        what = as_secret(what)
        media_id = media_id_of(what)

        async def work(_: bool) -> Done[DownloadedMedia]:
            async with move.on(self._http.call("download", None, media_id)) as call:
                progress = delta_callback(move, own.get("progress"))
                value = await downloads.download(call, what, self._directory, overwrite=True, progress=progress)
                return Done(value=value, attempts=value.attempts)

        key = media_id or hashlib.sha256(str.encode(what if isinstance(what, str) else repr(what))).hexdigest()
        return await self._run_once(f"download {key} {self._directory.absolute()}", work)

    async def _restore(self, value: Mapping[str, Any]) -> DownloadedMedia | None:
        saved = DownloadedMedia(**{**value, "path": Path(value["path"])})
        return saved if await run_in_thread(_has, saved.path, saved.size) else None


class Deletes(_Journaled[DeletedMedia]):
    """
    Deletes of media ids.

    Args:
        http: By what.
        journal: Path, if there is one.
        missing_ok: As for `MediaApi.delete`.
        phone_number_id: Likewise.
    """

    def __init__(
        self, http: Client, journal: str | os.PathLike[str] | None, *, missing_ok: bool, phone_number_id: str | None
    ) -> None:
        super().__init__(http, journal)
        self._missing_ok = missing_ok
        self._number = None if phone_number_id is None else http.number_or(phone_number_id)

    async def __call__(self, item: Any, move: ItemProgress) -> Done[DeletedMedia]:
        """See `bulk.Job`."""
        media_id = checked_id(item, "the media id")

        async def work(again: bool) -> Done[DeletedMedia]:
            async with move.on(self._http.call("delete", self._number, media_id)) as call:
                missing_ok = again or self._missing_ok
                deleted = await delete(call, media_id, missing_ok=missing_ok, phone_number_id=self._number)
                if again:  # then it was deleted by the run that was killed
                    deleted = attrs.evolve(deleted, success=True)
                return Done(value=deleted, attempts=deleted.attempts)

        return await self._run_once(f"delete {media_id}", work)

    async def _restore(self, value: Mapping[str, Any]) -> DeletedMedia | None:
        return DeletedMedia(**value)


def _plain(value: Any) -> dict[str, Any]:
    """Return a result as JSON's types, without what a reply may have held besides."""
    fields = attrs.asdict(value, filter=lambda field, _: field.name != "extra")
    return {name: os.fspath(field) if isinstance(field, Path) else field for name, field in fields.items()}


def _has(path: Path | None, size: int) -> bool:
    return path is not None and path.is_file() and path.stat().st_size == size
