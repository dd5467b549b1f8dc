"""
How a library finds the entry of a source, or uploads it.

Calls for the same content wait for each other: in one process by a lock, between processes by claims in the store.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import anyio
import attrs

from meta_media.api import MediaApi
from meta_media.bulk.ending import is_fatal
from meta_media.bulk.jobs import unrecorded
from meta_media.errors import ConfigurationError, MediaNotFoundError, StorageError
from meta_media.http.limits import backoff_delay
from meta_media.http.loop_bound import LoopBound
from meta_media.library.claims import CLAIM_SECONDS, Claims, checked_claim_seconds
from meta_media.library.entry import LibraryEntry, UnreadableEntryError, entry_key
from meta_media.library.memory_store import MemoryStore
from meta_media.library.sqlite_store import SQLiteStore
from meta_media.library.store import AsyncCloseable, MessageStore, Store
from meta_media.protocol.filenames import safe_filename
from meta_media.transfer.fingerprint import Fingerprint, RecentDigestCache, fingerprint
from meta_media.transfer.progress import ItemProgress
from meta_media.transfer.upload import UploadOptions, upload, upload_options

__all__ = ["Ensuring", "Item", "Keywords", "library_options"]

_log: Final = logging.getLogger("meta_media")
_FIRST_POLL: Final = 0.02  # seconds before the store is asked again while another process uploads; doubled each time
_LAST_POLL: Final = 0.5  # seconds
Keywords = Mapping[str, Any]
T = TypeVar("T")


class Ensuring(AsyncCloseable):
    """The base of `MediaLibrary`, which documents the constructor."""

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
        self._messages: MessageStore = self._store if isinstance(self._store, MessageStore) else MemoryStore()
        self._claims = Claims(self._store, checked_claim_seconds(claim_seconds))
        self._digests = RecentDigestCache()
        self._failure: Exception | None = None  # the latest of the store that a retry cannot help
        self._bound = LoopBound[dict[str, anyio.Lock]]("MediaLibrary", lambda _: {})
        media.shared.deleted.keepers.add(self)

    @property
    def _locks(self) -> dict[str, anyio.Lock]:
        """By key, while calls for it are in progress."""
        return self._bound.get()

    async def _ensure(
        self, source: Any, options: UploadOptions, number: str, progress: ItemProgress | None = None
    ) -> LibraryEntry:
        async with self._hashed(source, options) as hashed:
            return await self._entry_of(Item(hashed, options, number, progress))

    async def _entry_of(self, item: Item) -> LibraryEntry:
        """Return the entry of an item, under the item's own name."""
        locks = self._locks
        lock = locks.setdefault(item.key, anyio.Lock(fast_acquire=True))
        try:
            async with lock:
                entry = await self._find_or_upload(item)
        finally:
            if not lock.locked():  # no other call is waiting
                locks.pop(item.key, None)
        name = item.filename or entry.filename
        return entry if name == entry.filename else attrs.evolve(entry, filename=name)

    def _hashed(self, source: Any, options: UploadOptions) -> AbstractAsyncContextManager[Fingerprint]:
        self._bound.get()
        return fingerprint(source, options, self._digests, self._media)

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

    async def _find(self, item: Item, *, verify: bool = False) -> LibraryEntry | None:
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

    async def _find_or_upload(self, item: Item) -> LibraryEntry:
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

    async def _upload_claimed(self, item: Item, claim: int) -> LibraryEntry:
        """Upload an item, unless another process stored its entry just before the claim. End the claim in any case."""
        stored = False
        try:
            if (found := await self._find(item)) is not None:
                return found
            began, call = datetime.now(UTC), self._media.call("upload", item.number)
            async with self._claims.renewed(item.key, claim):
                async with item.progress.on(call) if item.progress else call:
                    uploaded = await upload(call, item.number, item.fingerprint.source, item.options, item.progress)
                facts = item.fingerprint.sha256, item.number, began, item.options.ttl, item.filename
                entry = LibraryEntry.of(uploaded, *facts, damaged=item.damaged)
                with unrecorded(uploaded, call.attempts):
                    stored = await self._ask(lambda: self._store.put(entry, claim), item.progress)
                    return entry if stored else await self._yield_to_successor(item, entry)
        finally:
            if not stored:
                await self._claims.release(item.key, claim)

    async def _yield_to_successor(self, item: Item, entry: LibraryEntry) -> LibraryEntry:
        """The claim ran out and another process took it over: return its entry, and delete our upload."""
        successor = await self._find(item)
        if successor is None:
            return entry
        with suppress(Exception):  # Meta deletes the media after 30 days anyway
            await self._media.delete(entry.id, missing_ok=True)
        return successor


def library_options(media: MediaApi, keywords: Keywords) -> tuple[UploadOptions, str]:
    """Return the checked options of an upload, and the phone number to upload on."""
    options = upload_options(media.settings, keywords)
    if options.use_case is not None:
        raise ConfigurationError(
            "a library cannot store media with a use_case, whose lifetime differs: upload it with MediaApi.upload"
        )
    return options, media.number_or(keywords.get("phone_number_id"))


@attrs.define
class Item:
    """A hashed source, how to upload it, and the progress of its item if it is part of a run."""

    fingerprint: Fingerprint
    options: UploadOptions
    number: str
    progress: ItemProgress | None = None
    damaged: bool = False  # whether the store had a damaged entry of it, whose media Meta may still have

    @property
    def key(self) -> str:
        """The key of its entry."""
        return entry_key(self.number, self.fingerprint.sha256, self.fingerprint.mime_type)

    @property
    def filename(self) -> str | None:
        """The name of the source, made safe; None if it has none."""
        return safe_filename(self.options.filename or self.fingerprint.source.name, "") or None
