"""
Upload once, reuse the id: the same bytes, as the same type and on the same phone number, have one media id.

Calls for the same content wait for each other: in one process by a lock, between processes by claims in the store.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar, Unpack

import anyio
import attrs

from meta_media.api import MediaApi
from meta_media.bulk.ending import is_fatal, split_item
from meta_media.bulk.jobs import unrecorded
from meta_media.bulk.keywords import EnsureKeywords
from meta_media.bulk.outcomes import BulkReport, Done
from meta_media.bulk.run import BulkOptions, BulkRun, checked_concurrency
from meta_media.errors import ConfigurationError, MediaNotFoundError, StorageError
from meta_media.http.limits import backoff_delay
from meta_media.http.loop_bound import LoopBound
from meta_media.library.claims import CLAIM_SECONDS, Claims, checked_claim_seconds
from meta_media.library.entry import LibraryEntry, UnreadableEntryError, entry_key
from meta_media.library.sqlite_store import SQLiteStore
from meta_media.library.store import AsyncCloseable, Store
from meta_media.protocol.models import HasMediaId, media_id_of
from meta_media.transfer.fingerprint import Fingerprint, RecentDigestCache, fingerprint
from meta_media.transfer.progress import ItemProgress, ProgressCallback, delta_callback
from meta_media.transfer.upload import UploadOptions, upload, upload_options

__all__ = ["MediaLibrary"]

_log: Final = logging.getLogger("meta_media")
_FIRST_POLL: Final = 0.02  # seconds before the store is asked again while another process uploads; doubled each time
_LAST_POLL: Final = 0.5  # seconds
Keywords = Mapping[str, Any]
T = TypeVar("T")


class MediaLibrary(AsyncCloseable):
    """
    A library of media ids: `entry = await library.ensure("logo.png")`, then send `entry.id` as often as you like.

    Args:
        media: The client that uploads.
        store: Where entries are stored. Default: `SQLiteStore()`, a file in the user's cache folder, which `aclose` closes.
            A store that is passed stays open: close it yourself, or enter it with `async with`.
        claim_seconds: If a process dies while it uploads, the others wait this long, and then upload the content themselves.
            From 0.01 to 86,400; default: 30.
    """

    def __init__(self, media: MediaApi, store: Store | None = None, *, claim_seconds: float = CLAIM_SECONDS) -> None:
        usable = store is None or (hasattr(store, "claim") and not isinstance(store, type))
        if not (usable and isinstance(media, MediaApi)):
            given = f"{type(media).__name__} and {type(store).__name__}"
            raise ConfigurationError(
                f"a MediaLibrary needs a MediaApi and a store such as SQLiteStore(path), not {given}"
            )
        self._media = media
        self._store: Store = SQLiteStore() if store is None else store
        self._owns_store = store is None
        self._claims = Claims(self._store, checked_claim_seconds(claim_seconds))
        self._digests = RecentDigestCache()
        self._failure: Exception | None = None  # the latest of the store that a retry cannot help
        self._bound = LoopBound[dict[str, anyio.Lock]]("MediaLibrary", lambda _: {})
        media.shared.deleted.keepers.add(self)

    @property
    def _locks(self) -> dict[str, anyio.Lock]:
        """By key, while calls for it are in progress."""
        return self._bound.get()

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

        The source is hashed first. A file is hashed again only if its size, times or inode have changed.

        Args:
            source: As for `MediaApi.upload`. A stream is first stored in memory or a temporary file.
            progress: As for `MediaApi.upload`.
            **keywords: As for `MediaApi.upload`, except `use_case`. `filename` and `size` only affect an upload. With `verify`,
                Meta is also asked whether a stored id still exists; if not, the source is uploaded again.

        Raises:
            MediaError: As `MediaApi.upload`.
            StorageError: Also if the store fails. If it was away, it is asked again, `Settings.max_retries` times. If it fails
                after the upload, `media_id` and `maybe_applied` are set.
        """
        return await self._ensure(source, {**keywords, "progress": progress})

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
        _upload_options(self._media, keywords)  # a keyword that cannot work is an error here, not of each item
        most = self._media.settings.concurrency
        options = BulkOptions(checked_concurrency(concurrency, most), stop_on_error, in_order, progress)
        return BulkRun(sources, _EnsureJob(self._ensure, self._check_store, self._is_fatal, keywords), options)

    async def get(self, source: Any, **keywords: Unpack[EnsureKeywords]) -> LibraryEntry | None:
        """Return the valid entry of a source, or None. Nothing is uploaded. The arguments are those of `ensure`."""
        async with self._hashed(source, keywords, None) as item:
            return await self._find(item, verify=item.options.verify)

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

    async def _ensure(self, source: Any, keywords: Keywords, progress: ItemProgress | None = None) -> LibraryEntry:
        locks = self._locks
        async with self._hashed(source, keywords, progress) as item:
            lock = locks.setdefault(item.key, anyio.Lock())
            try:
                async with lock:
                    return await self._find_or_upload(item)
            finally:
                if not lock.locked():  # no other call is waiting
                    locks.pop(item.key, None)

    @asynccontextmanager
    async def _hashed(self, source: Any, keywords: Keywords, progress: ItemProgress | None) -> AsyncIterator[_Item]:
        self._bound.get()
        options, number = _upload_options(self._media, keywords)
        async with fingerprint(source, options, self._digests, self._media) as hashed:
            yield _Item(hashed, options, number, progress)

    async def _ask(self, work: Callable[[], Awaitable[T]], progress: ItemProgress | None = None) -> T:
        """Use the store. While it is away, try again as often, and after the same waits, as a request."""
        settings, limits, count = self._media.settings, self._media.shared.limits, 0
        while True:
            try:
                return await work()
            except (StorageError, ConfigurationError) as error:
                if not (error.retryable or isinstance(error, UnreadableEntryError)):
                    self._failure = error
                count += 1
                delay = backoff_delay(count, settings.backoff, limits.jitter)
                if not error.retryable or count > settings.max_retries:
                    raise
                _log.info("ensure: trying again in %.1f s: %s", delay, error, extra={"delay": delay, "error": error})
                wait = limits.sleep if progress is None else progress.wait
                if await wait(delay) is False:  # the run has ended
                    raise

    async def _check_store(self) -> None:
        """Check that the store works, so that a broken one ends a run before its first item."""
        await self._ask(lambda: self._store.get(""))

    def _is_fatal(self, error: Exception) -> bool:
        """Return whether every other item would meet the same error, also of a store that is broken or closed."""
        return error is self._failure or self._media.closed or is_fatal(error)

    async def _find(self, item: _Item, *, verify: bool = False) -> LibraryEntry | None:
        try:
            entry = await self._ask(lambda: self._store.get(item.key), item.progress)
        except UnreadableEntryError as error:
            if not item.damaged:
                _log.warning("%s", error)
            item.damaged, entry = True, None
        if entry is None or not entry.alive:
            return None
        if entry.id in self._media.shared.deleted or (verify and not await self._exists(entry.id)):
            await self._ask(functools.partial(self._store.remove, entry), item.progress)
            return None
        if entry.stale_use:
            entry = attrs.evolve(entry, used_at=datetime.now(UTC))
            await self._ask(functools.partial(self._store.touch, entry), item.progress)
        return attrs.evolve(entry, reused=True)

    async def _exists(self, media_id: str) -> bool:
        with suppress(MediaNotFoundError):
            return bool(await self._media.get_info(media_id))
        return False

    async def _find_or_upload(self, item: _Item) -> LibraryEntry:
        """Return the entry of an item. While another process uploads it, wait for its entry or for its claim to end."""
        wait = _FIRST_POLL
        entry = await self._find(item, verify=item.options.verify)
        while entry is None:
            claim = await self._ask(lambda: self._claims.acquire(item.key), item.progress)
            if claim is not None:
                return await self._upload_claimed(item, claim)
            await anyio.sleep(wait)
            wait = min(wait * 2, _LAST_POLL)
            entry = await self._find(item)
        return entry

    async def _upload_claimed(self, item: _Item, claim: int) -> LibraryEntry:
        """Upload an item, unless another process stored its entry just before the claim. End the claim in any case."""
        stored = False
        try:
            if (found := await self._find(item)) is not None:
                return found
            began, call = datetime.now(UTC), self._media.call("upload", item.number)
            async with self._claims.renewed(item.key, claim):
                async with item.progress.on(call) if item.progress else call:
                    uploaded = await upload(call, item.number, item.fingerprint.source, item.options)
                entry = LibraryEntry.of(uploaded, item.fingerprint.sha256, item.number, began, item.options.ttl)
                entry = attrs.evolve(entry, maybe_duplicate=entry.maybe_duplicate or item.damaged)
                with unrecorded(uploaded, call.attempts):
                    stored = await self._ask(lambda: self._store.put(entry, claim), item.progress)
                    return entry if stored else await self._yield_to_successor(item, entry)
        finally:
            if not stored:
                await self._claims.release(item.key, claim)

    async def _yield_to_successor(self, item: _Item, entry: LibraryEntry) -> LibraryEntry:
        """The claim ran out and another process took it over: return its entry, and delete our upload."""
        successor = await self._find(item)
        if successor is None:
            return entry
        with suppress(Exception):  # Meta deletes the media after 30 days anyway
            await self._media.delete(entry.id, missing_ok=True)
        return successor


def _checked_age(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    raise ConfigurationError(f"unused_for must be a timedelta such as timedelta(days=7), not {type(value).__name__}")


def _upload_options(media: MediaApi, keywords: Keywords) -> tuple[UploadOptions, str]:
    """Return the checked options of an upload, and the phone number to upload on."""
    options = upload_options(media.settings, keywords)
    if options.use_case is not None:
        raise ConfigurationError(
            "a library cannot store media with a use_case, whose lifetime differs: upload it with MediaApi.upload"
        )
    return options, media.number_or(keywords.get("phone_number_id"))


@attrs.define
class _Item:
    """A hashed source, how to upload it, and the progress of its item if it is part of a run."""

    fingerprint: Fingerprint
    options: UploadOptions
    number: str
    progress: ItemProgress | None
    damaged: bool = False  # whether the store had a damaged entry of it, whose media Meta may still have

    @property
    def key(self) -> str:
        return entry_key(self.number, self.fingerprint.sha256, self.fingerprint.mime_type)


@attrs.frozen
class _EnsureJob:
    """The job of `ensure_many`; see `bulk.Job`."""

    _ensure: Callable[..., Awaitable[LibraryEntry]]
    open: Callable[[], Coroutine[Any, Any, None]]
    is_fatal: Callable[[Exception], bool]
    _keywords: Keywords

    async def aclose(self) -> None:
        """Do nothing. The store belongs to the library."""

    async def __call__(self, item: Any, move: ItemProgress) -> Done[LibraryEntry]:
        source, own = split_item(item)
        keywords = {**self._keywords, **own}
        keywords["progress"] = delta_callback(move, keywords.get("progress"))
        entry = await self._ensure(source, keywords, move)
        return Done(value=entry, attempts=move.attempts)
