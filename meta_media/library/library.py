"""Upload once, reuse the id: the same bytes, as the same type and on the same phone number, have one media id."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Unpack

import attrs

from meta_media.bulk.ending import split_item
from meta_media.bulk.keywords import EnsureKeywords
from meta_media.bulk.outcomes import BulkReport
from meta_media.bulk.run import BulkOptions, BulkRun, checked_concurrency
from meta_media.errors import ConfigurationError, MediaError, MediaNotFoundError, UploadRejectedError
from meta_media.library.ensuring import Ensuring, Item, Keywords, library_options
from meta_media.library.entry import LibraryEntry, UnreadableEntryError
from meta_media.protocol.media_types import Kind, kind_of
from meta_media.protocol.models import HasMediaId, MessageStatus, SentMessage, media_id_of
from meta_media.protocol.recipient import Recipient
from meta_media.protocol.requests import MediaMessage
from meta_media.transfer.progress import ItemProgress, ProgressCallback
from meta_media.transfer.upload import UploadOptions

__all__ = ["MediaLibrary"]

_log: Final = logging.getLogger("meta_media")
_ABOUT_MEDIA: Final = (UploadRejectedError, MediaNotFoundError)  # the classes of errors that another upload may help
_DELAYS: Final = (0.0, 0.1, 0.4, 1.5)  # seconds: a status may come before `send` has stored its message


class MediaLibrary(Ensuring):
    """
    A library of media ids: `entry = await library.ensure("logo.png")`, then send `entry.id` as often as you like.

    Args:
        media: The client that uploads.
        store: Where entries are stored. Default: `SQLiteStore()`, a file in the user's cache folder, which `aclose` closes.
            A store that is passed stays open: close it yourself, or enter it with `async with`.
        claim_seconds: If a process dies while it uploads, the others wait this long, and then upload the content themselves.
            From 0.01 to 86,400; default: 30.
    """

    async def aclose(self) -> None:
        """Close the default store. A store that was passed stays open."""
        self._media.shared.deleted.keepers.discard(self)
        if self._owns_store:
            await self._store.aclose()

    async def ensure(
        self, source: Any, *, progress: ProgressCallback | None = None, **keywords: Unpack[EnsureKeywords]
    ) -> LibraryEntry:
        """
        Return the media id of a source. The source is uploaded if the library has no valid id for its bytes.

        The source is hashed first. A file above 64 KiB is hashed again only if its size, times or inode have changed.

        Args:
            source: As for `MediaApi.upload`. A stream is first stored in memory or a temporary file.
            progress: As for `MediaApi.upload`.
            **keywords: As for `MediaApi.upload`, except `use_case`. `size` only affects an upload. `filename` is also the
                entry's. With `verify`, Meta is also asked whether a stored id still exists; if not, the source is uploaded
                again.

        Raises:
            MediaError: As `MediaApi.upload`.
            StorageError: Also if the store fails. If it was away, it is asked again, `Settings.max_retries` times. If it fails
                after the upload, `media_id` and `maybe_applied` are set.
        """
        return await self._ensure(source, *library_options(self._media, {**keywords, "progress": progress}))

    def ensure_many(
        self,
        sources: AsyncIterable[Any] | Iterable[Any],
        *,
        concurrency: int | None = None,
        stop_on_error: bool = False,
        in_order: bool = False,
        progress: Callable[[BulkReport], Any] | None = None,
        **keywords: Unpack[EnsureKeywords],
    ) -> BulkRun[LibraryEntry]:
        """
        Ensure many sources, as `MediaApi.upload_many` uploads them. The four keywords of the run are those of `upload_many`.

        A source is as for `ensure`, or a pair of a source and a mapping of keywords. The other keywords are those of `ensure`,
        for all sources. The keywords of a pair win.
        """
        most = self._media.settings.concurrency
        run = BulkOptions(checked_concurrency(concurrency, most), stop_on_error, in_order, progress)

        def options(own: Keywords) -> tuple[UploadOptions, str]:
            return library_options(self._media, {**keywords, **own})

        common = options({})  # a keyword that cannot work is an error here, not of each item
        return BulkRun(sources, _EnsureJob(self._ensure, self._check_store, self._is_fatal, options, common), run)

    async def send(
        self,
        to: str | Recipient,
        source: Any,
        *,
        kind: Kind | None = None,
        caption: str | None = None,
        voice: bool | None = None,
        reply_to: str | None = None,
        extra: Mapping[str, Any] | None = None,
        progress: ProgressCallback | None = None,
        **keywords: Unpack[EnsureKeywords],
    ) -> SentMessage:
        """
        Ensure a source, and send it. If Meta no longer knows the id of an earlier upload, the source is uploaded once more.

        The recipient never gets two messages: only a refusal of the id leads to a second try. `failed` finds the entry of
        the message by its status.

        Args:
            to: As for `MediaApi.send`.
            source: As for `ensure`.
            kind: As for `MediaApi.send`, and so are `caption`, `voice`, `reply_to` and `extra`.
            caption: At most 1024 characters; image, video and document.
            voice: Shown as a voice note: Opus in Ogg only.
            reply_to: The id of the message that this one answers.
            extra: Further keys of Meta's message.
            progress: As for `MediaApi.upload`.
            **keywords: As for `ensure`. A document is shown under its `filename`, by default the source's own name.

        Raises:
            ConfigurationError: An argument that this kind of message does not take. Nothing was uploaded.
            MediaError: As `ensure` and `MediaApi.send`. `maybe_applied` says whether the message may have been sent.
        """
        fields: dict[str, Any] = {"caption": caption, "voice": voice, "reply_to": reply_to, "extra": extra}
        message = MediaMessage(to=Recipient.of(to), media_id="", **fields)
        options, number = library_options(self._media, {**keywords, "progress": progress})
        async with self._hashed(source, options) as hashed:
            item = Item(hashed, options, number)
            message.body(kind or kind_of(hashed.mime_type), hashed.mime_type)
            send = functools.partial(self._media.send, message.to, kind=kind, phone_number_id=item.number, **fields)
            entry = await self._entry_of(item)
            try:
                sent = await send(media=entry)
            except MediaNotFoundError as error:
                if error.maybe_applied or not entry.reused:
                    raise
                await self._remove(entry)
                entry = await self._entry_of(item)
                sent = await send(media=entry)
        try:
            await self._ask(lambda: self._messages.put_message(sent.id, entry))
        except MediaError as error:  # not an error of `send`: its caller would send again
            _log.warning("message %s is sent, but a status of it will not lead to its file: %s", sent.id, error)
        return sent

    async def failed(self, status: MessageStatus) -> LibraryEntry | None:
        """
        Return what a failed status of a webhook is about: the entry of a message of `send`, with the file's name.

        If the failure is about the media, such as Meta's code 131053, its id is not returned any more, in no process: the
        next `ensure` uploads again. Meta converts media after the upload, so a changed file may be needed. After any other
        failure, such as a recipient without WhatsApp, the entry stays.

        Args:
            status: Of `Webhook.statuses`. Other processes may have sent the message, within the last eight days.

        Returns:
            None if the status is not `"failed"`, or the message is unknown.

        Raises:
            StorageError: The store fails.
        """
        given: object = status
        if not isinstance(given, MessageStatus):
            kind = type(given).__name__
            raise ConfigurationError(f"failed needs one of the statuses of parse_webhook, not {kind}")
        if status.status != "failed":
            return None
        about_media = any(isinstance(error, _ABOUT_MEDIA) for error in status.errors)
        for delay in _DELAYS if about_media else _DELAYS[:1]:
            await self._media.shared.limits.sleep(delay)
            if (entry := await self._sent_entry(status.message_id)) is not None:
                if about_media:
                    await self._remove(entry)
                return entry
        return None

    async def _sent_entry(self, message_id: str) -> LibraryEntry | None:
        try:
            return await self._ask(lambda: self._messages.get_message(message_id))
        except UnreadableEntryError as error:
            _log.warning("message %s: %s", message_id, error)
            return None

    async def _remove(self, entry: LibraryEntry) -> None:
        """Remove an entry whose id is of no use. This process does not return it even if the store fails."""
        await self._media.shared.deleted.add(entry.id)
        await self._ask(lambda: self._store.remove(entry))

    async def get(self, source: Any, **keywords: Unpack[EnsureKeywords]) -> LibraryEntry | None:
        """Return the valid entry of a source, or None. Nothing is uploaded. The arguments are those of `ensure`."""
        options, number = library_options(self._media, keywords)
        async with self._hashed(source, options) as hashed:
            return await self._find(Item(hashed, options, number), verify=options.verify)

    async def forget(self, entry: HasMediaId | str) -> bool:
        """
        Remove an entry, for example after a `MediaNotFoundError`. Return whether the library had it. The media stays at Meta.

        The entry may be given by its media id, or by a value that has one. All entries are then searched.
        """
        if isinstance(entry, LibraryEntry):
            return await self._store.remove(entry)
        media_id = media_id_of(entry)
        async for known in self._store.entries():
            if known.id == media_id:
                return await self._store.remove(known)
        return False

    async def strike_out(self, media_id: str) -> None:
        """Remove the entry of media that this client is about to delete. It is found if the store has a method `find`."""
        find = getattr(self._store, "find", None)
        if find is not None and (entry := await find(media_id)) is not None:
            await self._store.remove(entry)

    async def purge(self, *, unused_for: timedelta = timedelta()) -> BulkReport:
        """
        Delete unused media, at Meta and in the library. Expired entries are removed without a request.

        Args:
            unused_for: Delete media not returned for this long; precise to the hour. Default: delete all.

        Returns:
            The report of the deletes. If one failed, its entry is gone, and Meta deletes the media after 30 days.

        Raises:
            ConfigurationError: `unused_for` is no `timedelta`.
        """
        return await self._media.delete_many(self._remove_unused(_checked_age(unused_for)), missing_ok=True).report()

    async def _remove_unused(self, unused_for: timedelta) -> AsyncIterator[str]:
        """Remove unused entries and yield their ids. An entry goes before its media, so that no call returns a dead id."""
        now = datetime.now(UTC)
        async for entry in self._store.entries():
            if (
                (now - entry.used_at >= unused_for or not entry.alive)
                and await self._store.remove(entry)
                and entry.alive
            ):
                yield entry.id

    def __aiter__(self) -> AsyncIterator[LibraryEntry]:
        return self._store.entries()


def _checked_age(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    raise ConfigurationError(f"unused_for must be a timedelta such as timedelta(days=7), not {type(value).__name__}")


@attrs.frozen
class _EnsureJob:
    """The job of `ensure_many`; see `bulk.Job`."""

    _ensure: Callable[..., Awaitable[LibraryEntry]]
    open: Callable[[], Coroutine[Any, Any, None]]
    is_fatal: Callable[[Exception], bool]
    _options: Callable[[Keywords], tuple[UploadOptions, str]]  # for an item's own keywords
    _common: tuple[UploadOptions, str]  # for an item without any

    async def aclose(self) -> None:
        """Do nothing. The store belongs to the library."""

    async def __call__(self, item: Any, move: ItemProgress) -> LibraryEntry:
        source, own = split_item(item)
        options, number = self._options(own) if own else self._common
        return await self._ensure(source, options, number, move)
