"""The jobs of bulk runs: upload, download or delete one item, and record it in a journal before and after."""

from __future__ import annotations

import abc
import errno
import hashlib
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from stat import S_ISREG
from typing import Any, Final, Generic, TypeVar

import attrs

from meta_media.bulk.ending import is_fatal, split_item
from meta_media.bulk.journal import Journal, deletion_key, usable_for
from meta_media.bulk.keywords import SendKeywords
from meta_media.errors import ConfigurationError, MediaError, MediaNotFoundError, StorageError
from meta_media.http.call import Call
from meta_media.http.client import Client
from meta_media.protocol.models import DeletedMedia, DownloadedMedia, SentMessage, UploadedMedia, media_id_of
from meta_media.protocol.recipient import Recipient
from meta_media.protocol.requests import MediaMessage
from meta_media.protocol.secrets import excerpt
from meta_media.transfer import download as downloads
from meta_media.transfer import upload as uploads
from meta_media.transfer.atomic_file import make_folder
from meta_media.transfer.destinations import StoredDestination
from meta_media.transfer.fingerprint import file_stamp, fingerprint, just_changed
from meta_media.transfer.info import delete, get_info
from meta_media.transfer.progress import ItemProgress, delta_callback
from meta_media.transfer.resume import as_secret, known_id
from meta_media.transfer.send import send
from meta_media.transfer.threads import FileWork, await_completion, run_in_thread, storage_errors
from meta_media.transfer.upload import upload_options

__all__ = ["DeleteJob", "DownloadJob", "SendJob", "UploadJob", "unrecorded"]

T = TypeVar("T", bound=UploadedMedia | DownloadedMedia | DeletedMedia | SentMessage)
StrPath = str | os.PathLike[str]
_REFUSED_ERRNOS: Final = frozenset({errno.EACCES, errno.ENOENT})
_ANYONE: Final = Recipient.phone("+15550001111")  # in whose place each recipient is put


@contextmanager
def unrecorded(done: object, attempts: int) -> Iterator[None]:
    """Make an error of a block say that the work is done, and could not be recorded."""
    try:
        yield
    except MediaError as error:
        error.maybe_applied, error.attempts = True, attempts
        error.media_id = done.id if isinstance(done, UploadedMedia) else None
        raise


class _JournaledJob(Generic[T], abc.ABC):
    """A `Job` whose items are recorded in a journal, if there is one."""

    _result: type[T]

    def __init__(self, http: Client, journal: StrPath | None) -> None:
        self._http = http
        self._journal = None if journal is None else Journal(journal, http.shared.deleted)

    async def open(self) -> None:
        """Get the token and open the journal, so that a run that cannot work reads no item."""
        await self._http.token.get()
        if self._journal is not None:
            await self._journal.open()

    async def aclose(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            await self._journal.aclose()

    def is_fatal(self, error: Exception) -> bool:
        """Return whether every other item would meet the same error, a failed journal and a closed client included."""
        return (self._journal is not None and self._journal.failed) or self._http.closed or is_fatal(error)

    async def _run_once(
        self,
        key: str,
        work: Callable[[bool], Awaitable[T]],
        progress: ItemProgress,
        *,
        still_holds: Callable[[T], Awaitable[bool]] | None = None,
        lifetime: timedelta | None = None,
    ) -> T:
        """
        Do the work unless the journal has its result. `work` gets whether an earlier, unfinished try may have been applied.

        `still_holds` checks a recorded result. A result is recorded for `lifetime`, or without one for ever.
        """
        if self._journal is None:
            return await work(False)
        async with self._journal.item(key, self._result) as record:
            if record.value is not None:
                if still_holds is None or await still_holds(record.value):
                    progress.skipped = True
                    return record.value
                await self._journal.restart(key)
            valid_until = None if lifetime is None else time.time() + lifetime.total_seconds()
            try:
                value = await work(record.unfinished)
            except BaseException as error:
                if not (record.unfinished or getattr(error, "maybe_applied", progress.attempts > 0)):
                    await await_completion(self._journal.undo(key))
                raise
            with unrecorded(value, progress.attempts):
                await self._journal.done(key, value, valid_until)
            return value


class UploadJob(_JournaledJob[UploadedMedia]):
    """Uploads sources, or pairs of a source and its own keywords. Keywords for all items are checked at once."""

    _result = UploadedMedia

    def __init__(self, http: Client, journal: StrPath | None, keywords: Mapping[str, Any]) -> None:
        super().__init__(http, journal)
        self._options = upload_options(http.settings, keywords)
        self._keywords = keywords
        if keywords.get("phone_number_id") is not None:
            http.number_or(keywords["phone_number_id"])

    async def open(self) -> None:
        """Listen to deletes as well, so that a recorded id whose media is deleted during the run is not returned by the next."""
        await super().open()
        if self._journal is not None:
            self._http.shared.deleted.keepers.add(self._journal)

    async def aclose(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._http.shared.deleted.keepers.discard(self._journal)
        await super().aclose()

    async def __call__(self, item: Any, progress: ItemProgress) -> UploadedMedia:
        """Upload an item. Bytes, type and number identify it in the journal."""
        source, own = split_item(item)
        keywords = {**self._keywords, **own}
        number = self._http.number_or(keywords.get("phone_number_id"))
        options = upload_options(self._http.settings, keywords) if own else self._options

        async def upload(source: object) -> UploadedMedia:
            async with progress.on(self._http.call("upload", number)) as call:
                return await uploads.upload(call, number, source, options, progress)

        if self._journal is None:
            return await upload(source)
        async with fingerprint(source, options, self._journal, self._http) as identity:

            async def work(again: bool) -> UploadedMedia:
                value = await upload(identity.source)
                return attrs.evolve(value, maybe_duplicate=again or value.maybe_duplicate, sha256=identity.sha256)

            async def exists(value: UploadedMedia) -> bool:
                with suppress(MediaNotFoundError):
                    async with progress.on(self._http.call("get_info", number, value.id)) as call:
                        return bool(await get_info(call, value.id))
                return False

            key = f"upload {number} {identity.sha256} {identity.mime_type} {options.ttl} {options.use_case}"
            still_holds, lifetime = exists if options.verify else None, usable_for(options.ttl)
            return await self._run_once(key, work, progress, still_holds=still_holds, lifetime=lifetime)


class DownloadJob(_JournaledJob[DownloadedMedia]):
    """
    Downloads media into a folder or a bucket. An item is an argument of `MediaApi.download`, or a pair of it and `{"progress": …}`.

    With a journal, a file and its name are on the disk before the journal says so, whatever `Settings.fsync` is.
    """

    _result = DownloadedMedia

    def __init__(self, http: Client, journal: StrPath | None, directory: StrPath | StoredDestination) -> None:
        super().__init__(http if journal is None else http.with_options(fsync=True), journal)
        self._directory = directory

    async def open(self) -> None:
        """Make the folder as well, if it is missing."""
        self._folder: str | StoredDestination
        if isinstance(self._directory, StoredDestination):
            self._folder = self._directory.folder()
            self._identity, self._still_holds = self._folder.identity, self._folder.holds
        else:
            folder = await FileWork(self._directory).run(make_folder, self._directory)
            self._folder = f"{folder}{os.sep}"  # it stays a folder even if it is removed during the run
            self._identity = str(await run_in_thread(folder.absolute))  # asks the system for the current folder
            self._still_holds = self._has_file
        await super().open()

    def is_fatal(self, error: Exception) -> bool:
        """Return likewise whether a bucket is missing, or refuses to be written."""
        refused = isinstance(error, StorageError) and error.errno in _REFUSED_ERRNOS
        return (refused and isinstance(self._directory, StoredDestination)) or super().is_fatal(error)

    async def __call__(self, item: Any, progress: ItemProgress) -> DownloadedMedia:
        """Download an item. Its media id and the folder identify it in the journal; a hash stands for a URL, which is secret."""
        what, own = split_item(item)
        if unknown := sorted(map(str, set(own) - {"progress"})):
            raise ConfigurationError(f"a download's own keyword is progress, not {', '.join(unknown)}")
        what = as_secret(what)
        media_id = known_id(what)

        async def work(_: bool) -> DownloadedMedia:
            async with progress.on(self._http.call("download", None, media_id)) as call:
                report = delta_callback(progress, own.get("progress"))
                value = await downloads.download(call, what, self._folder, overwrite=True, progress=report)
            if self._journal is not None and (stat := await _file_stat(value)) is not None:
                await self._journal.remember(file_stamp(stat), value.sha256)
            return value

        key = media_id or hashlib.sha256(str.encode(what if isinstance(what, str) else repr(what))).hexdigest()
        return await self._run_once(f"download {key} {self._identity}", work, progress, still_holds=self._still_holds)

    async def _has_file(self, value: DownloadedMedia) -> bool:
        """Return whether the file has the recorded bytes. It is read only if its size, times or inode have changed."""
        stat = await _file_stat(value)
        if self._journal is None or stat is None or stat.st_size != value.size:
            return False
        stamp = file_stamp(stat)
        sha256 = await self._journal.find(stamp)
        if sha256 is None:
            sha256 = await FileWork(value.path).run(_sha256, value.path)
            if not just_changed(stat):
                await self._journal.remember(stamp, sha256)
        return sha256 == value.sha256


async def _file_stat(value: DownloadedMedia) -> os.stat_result | None:
    """Return the status of a downloaded file; None if there is no file any more, or if it is an object."""
    if value.path is None:
        return None
    with suppress(OSError, ValueError):  # ValueError: a NUL in the path
        found = await FileWork(value.path).run(os.stat, value.path)
        return found if S_ISREG(found.st_mode) else None
    return None


def _sha256(path: Path) -> str:
    with storage_errors(f"read {excerpt(str(path))}"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class DeleteJob(_JournaledJob[DeletedMedia]):
    """Deletes media ids; see `MediaApi.delete` for the keywords."""

    _result = DeletedMedia

    def __init__(self, http: Client, journal: StrPath | None, *, missing_ok: bool, phone_number_id: str | None) -> None:
        super().__init__(http, journal)
        self._missing_ok = missing_ok
        self._number = None if phone_number_id is None else http.number_or(phone_number_id)

    async def __call__(self, item: Any, progress: ItemProgress) -> DeletedMedia:
        """Delete an item. Where an earlier run may have deleted it, a missing media is a success."""
        media_id = media_id_of(item)

        async def work(again: bool) -> DeletedMedia:
            async with progress.on(self._http.call("delete", self._number, media_id)) as call:
                missing_ok = again or self._missing_ok
                deleted = await delete(call, media_id, self._number, missing_ok=missing_ok)
                return attrs.evolve(deleted, success=deleted.success or again)

        return await self._run_once(deletion_key(media_id), work, progress)


class SendJob(_JournaledJob[SentMessage]):
    """Sends one media to recipients, or to pairs of a recipient and its own keywords of `MediaApi.send`."""

    _result = SentMessage

    def __init__(self, http: Client, journal: StrPath | None, media: object, keywords: Mapping[str, Any]) -> None:
        super().__init__(http, journal)
        self._media = media
        self._keywords = _send_keywords(keywords)
        self._message = _message(MediaMessage(to=_ANYONE, media_id=media_id_of(media)), self._keywords)
        if keywords.get("phone_number_id") is not None:
            http.number_or(keywords["phone_number_id"])

    async def open(self) -> None:
        """Look up the type of the media, if it is needed and not known, once for all recipients."""
        await super().open()
        try:
            await self._look_up(self._keywords)
        except MediaError as error:
            if not (error.retryable or is_fatal(error)):
                raise
            # else the recipients meet it: it ends the run like any other

    async def _look_up(self, keywords: Mapping[str, Any], on: Callable[[Call], Call] = lambda call: call) -> None:
        if keywords.get("kind") is None and getattr(self._media, "mime_type", None) is None:
            async with on(self._http.call("get_info", None, self._message.media_id)) as call:
                self._media = await get_info(call, self._message.media_id)

    async def __call__(self, item: Any, progress: ItemProgress) -> SentMessage:
        """Send to a recipient. With a journal, nothing is sent that an earlier run has sent, or may have sent."""
        to, own = split_item(item)
        keywords = {**self._keywords, **_send_keywords(own)}
        message = attrs.evolve(_message(self._message, own), to=Recipient.of(to))
        number = self._http.number_or(keywords.get("phone_number_id"))
        await self._look_up(keywords, progress.on)

        async def work(again: bool) -> SentMessage:
            if again:
                unknown = "an earlier run was sending to this recipient when it ended, and may have sent"
                cure = "read the statuses in your webhooks, then send it by itself"
                raise MediaError(f"{unknown}: {cure}", maybe_applied=True)
            async with progress.on(self._http.call("send", number, self._media)) as call:
                return await send(call, number, self._media, keywords.get("kind"), message)

        key = f"send {number} {message.to.kind} {message.to.id.removeprefix('+')}"
        return await self._run_once(key, work, progress)


def _send_keywords(keywords: Mapping[str, Any]) -> Mapping[str, Any]:
    if unknown := sorted(set(map(str, keywords)) - SendKeywords.__annotations__.keys()):
        raise ConfigurationError(f"send takes no keyword named {', '.join(unknown)}")
    return keywords


def _message(message: MediaMessage, keywords: Mapping[str, Any]) -> MediaMessage:
    fields = {name: value for name, value in keywords.items() if name not in {"kind", "phone_number_id"}}
    return attrs.evolve(message, **fields)
