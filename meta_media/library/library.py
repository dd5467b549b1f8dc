"""
Upload once, reuse the id: whoever asks for the same bytes, as the same type and on the same number, gets the same id.

Callers of one process wait for each other on a lock; processes and machines, by claims in the store. A claim is renewed while
the upload lasts, so that the claim of a process that died can be taken over soon; and it has a number, so that who lost it
cannot overwrite what its successor did.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self, TypeVar

import anyio
import attrs

from meta_media.api import MediaApi
from meta_media.bulk.caught import Caught
from meta_media.bulk.jobs import is_fatal, split_item
from meta_media.bulk.outcomes import BulkReport, Done
from meta_media.bulk.run import BulkOptions, BulkRun, checked_concurrency
from meta_media.errors import ConfigurationError, MediaError, MediaNotFoundError
from meta_media.library.entry import LibraryEntry, entry_key
from meta_media.library.sqlite_store import SQLiteStore
from meta_media.library.store import Store
from meta_media.protocol.models import UploadedMedia
from meta_media.transfer.fingerprint import Fingerprint, RecentDigestCache, fingerprint
from meta_media.transfer.progress import ItemProgress, delta_callback
from meta_media.transfer.threads import await_completion
from meta_media.transfer.upload import UploadOptions, upload, upload_options

__all__ = ["MediaLibrary"]

T = TypeVar("T")
_CLAIM: Final = 30.0  # seconds after which the claim of a process that died can be taken over
_CLEAN_UP: Final = 5.0  # seconds that giving a claim back may take
_FIRST_LOOK: Final = 0.02  # seconds until the store is looked at again while another process uploads; doubling, up to
_LAST_LOOK: Final = 0.5


class MediaLibrary:
    """
    Media ids by what they stand for: `entry = await library.ensure("logo.png")`, then send `entry.id` to whom you like.

    Args:
        media: By what to upload.
        store: Where the ids are kept. Default: `SQLiteStore()`, a file in the user's cache folder, which `aclose` then
            closes; a store that is passed stays open.
        claim_seconds: After how many seconds a process that died with an upload under way is no longer waited for.
    """

    def __init__(self, media: MediaApi, store: Store | None = None, *, claim_seconds: float = _CLAIM) -> None:
        self._media = media
        self._store: Store = SQLiteStore() if store is None else store
        self._owner = store is None
        self._claim_seconds = claim_seconds
        self._digests = RecentDigestCache()
        self._under_way: dict[str, anyio.Lock] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the store, if it is the library's own."""
        if self._owner:
            await self._store.aclose()

    async def ensure(self, source: Any, *, verify: bool = False, **keywords: Any) -> LibraryEntry:
        """
        Return the media id of a source, which is uploaded if its bytes are not there yet.

        It is hashed first; a file that was hashed before is not hashed again unless size, times or inode have changed.

        Args:
            source: Whatever `MediaApi.upload` takes; a stream is spooled.
            verify: Whether to ask Meta if it still knows an id that is there already, and upload again if not; and what it
                stored of a new one.
            **keywords: Of `MediaApi.upload`. `filename`, `size` and `progress` are about the upload only; `use_case` cannot
                be kept.

        Raises:
            MediaError: As `MediaApi.upload`.
            StorageError: Also when the store failed; if it did after the upload, `media_id` and `maybe_applied` are set.
        """
        return await self.ensured(source, {**keywords, "verify": verify})

    def ensure_many(
        self,
        sources: AsyncIterable[Any] | Iterable[Any],
        *,
        concurrency: int | None = None,
        stop_on_error: bool = False,
        in_order: bool = False,
        progress: Callable[[BulkReport], Any] | None = None,
        **keywords: Any,
    ) -> BulkRun[LibraryEntry]:
        """
        Ensure many sources; see `ensure`, and `MediaApi.upload_many` for the rest.

        Args:
            sources: Whatever `ensure` takes, or pairs of that and a mapping of its keywords.
            concurrency: As for `upload_many`.
            stop_on_error: As for `upload_many`.
            in_order: As for `upload_many`.
            progress: As for `upload_many`.
            **keywords: Of `ensure`, for all; a pair's own win.
        """
        _checked(self._media, keywords)  # raises now what each item would raise
        most = self._media.settings.concurrency
        options = BulkOptions(checked_concurrency(concurrency, most), stop_on_error, in_order, progress)
        return BulkRun(sources, _Ensures(self, self._media, self._store, keywords), options)

    async def get(self, source: Any, **keywords: Any) -> LibraryEntry | None:
        """
        Return the entry of a source if there is one, and upload nothing.

        Args:
            source: As for `ensure`.
            **keywords: Of `ensure`.
        """
        async with self._known(source, keywords) as wanted:
            return await self._kept(wanted.key, verify=wanted.options.verify)

    async def forget(self, entry: LibraryEntry | str) -> bool:
        """
        Drop an entry, as when Meta does not know its id any more; at Meta, nothing is deleted.

        Args:
            entry: The entry, or its media id, which is searched for.

        Returns:
            Whether there was such an entry.
        """
        if isinstance(entry, LibraryEntry):
            return await self._store.remove(entry)
        async for known in self._store.entries():
            if known.id == entry:
                return await self._store.remove(known)
        return False

    async def purge(self, *, unused_for: timedelta = timedelta()) -> BulkReport:
        """
        Delete, at Meta and here, what nobody has used for a while. What has expired is dropped.

        Args:
            unused_for: For how long, to the hour.

        Returns:
            What became of the deletes. One that failed leaves its media at Meta, until that forgets it after 30 days.
        """
        return await self._media.delete_many(self._removed(unused_for), missing_ok=True).report()

    async def _removed(self, unused_for: timedelta) -> AsyncIterator[str]:
        """Drop first and delete then, so that nobody is handed an id that is gone."""
        before = datetime.now(UTC) - unused_for
        async for entry in self._store.entries():
            if (entry.used_at <= before or not entry.alive) and await self._store.remove(entry) and entry.alive:
                yield entry.id

    def __aiter__(self) -> AsyncIterator[LibraryEntry]:
        return self._store.entries()

    # How an id is found, or made

    @asynccontextmanager
    async def _known(
        self, source: Any, keywords: Mapping[str, Any], move: ItemProgress | None = None
    ) -> AsyncIterator[_Wanted]:
        options, number = _checked(self._media, keywords)
        async with fingerprint(source, options, self._digests, self._media.settings.chunk_size) as identity:
            yield _Wanted(identity, options, number, move)

    async def ensured(self, source: Any, keywords: Mapping[str, Any], move: ItemProgress | None = None) -> LibraryEntry:
        """Do what `ensure` does, perhaps as an item of a run."""
        async with self._known(source, keywords, move) as wanted:
            lock = self._under_way.setdefault(wanted.key, anyio.Lock())
            try:
                async with lock:
                    return await self._found_or_made(wanted)
            finally:
                if not lock.locked():  # else it is somebody else's by now
                    self._under_way.pop(wanted.key, None)

    async def _found_or_made(self, wanted: _Wanted) -> LibraryEntry:
        if (entry := await self._kept(wanted.key, verify=wanted.options.verify)) is not None:
            return entry
        claim = await self._claim(wanted.key)
        return claim if isinstance(claim, LibraryEntry) else await self._uploaded(wanted, claim)

    async def _kept(self, key: str, *, verify: bool = False) -> LibraryEntry | None:
        entry = await self._store.get(key)
        if entry is None or not entry.alive:
            return None
        if verify:
            try:
                await self._media.get_info(entry.id)
            except MediaNotFoundError:
                await self._store.remove(entry)
                return None
        if entry.stale_use:
            entry = attrs.evolve(entry, used_at=datetime.now(UTC))
            await self._store.touch(entry)
        return attrs.evolve(entry, reused=True)

    async def _claim(self, key: str) -> int | LibraryEntry:
        """Wait until this process may upload, or another one has."""
        wait = _FIRST_LOOK
        while (claim := await self._claimed(key)) is None:
            await anyio.sleep(wait)
            wait = min(wait * 2, _LAST_LOOK)
            if (entry := await self._kept(key)) is not None:
                return entry
        entry = None
        try:
            entry = await self._kept(key)  # which may have come between the last look and the claim
        except BaseException:
            await self._give_back(key, claim)
            raise
        if entry is not None:
            await self._give_back(key, claim)
        return entry or claim

    async def _claimed(self, key: str) -> int | None:
        """Claim a key; a caller who is cancelled meanwhile leaves no claim behind, for which others would wait."""
        claim = self._store.claim(key, self._claim_seconds)
        return await await_completion(claim, undo=lambda number: self._give_back(key, number))

    async def _give_back(self, key: str, claim: int | None) -> None:
        """End a claim, if that can be done at once; else it runs out by itself."""
        if claim is not None:
            with anyio.move_on_after(_CLEAN_UP, shield=True), Caught():
                await self._store.release(key, claim)

    async def _uploaded(self, wanted: _Wanted, claim: int) -> LibraryEntry:
        began, kept = datetime.now(UTC), False
        try:
            uploaded = await self._renewing(wanted.key, claim, lambda: self._upload(wanted))
            entry = LibraryEntry.of(uploaded, wanted.identity.sha256, wanted.number, began, wanted.options.ttl)
            try:
                kept = await self._store.put(entry, claim)
            except MediaError as error:
                error.media_id, error.maybe_applied = uploaded.id, True
                raise
        finally:
            if not kept:
                await self._give_back(wanted.key, claim)
        return entry if kept else await self._overtaken(entry)

    async def _upload(self, wanted: _Wanted) -> UploadedMedia:
        call = self._media.http.call("upload", wanted.number)
        async with call if wanted.move is None else wanted.move.on(call):
            return await upload(call, wanted.number, wanted.identity.source, wanted.options)

    async def _renewing(self, key: str, claim: int, work: Callable[[], Awaitable[T]]) -> T:
        """Work for as long as it takes, without losing the claim."""
        renewing = anyio.CancelScope()  # not the group's, whose end would be thrown through this task as well

        async def renew() -> None:
            with renewing:
                while True:
                    await anyio.sleep(self._claim_seconds / 3)
                    with Caught():  # a store that is away for a moment
                        await self._store.renew(key, claim, self._claim_seconds)

        results, caught = [], Caught()
        async with anyio.create_task_group() as group:
            group.start_soon(renew)
            with caught:
                results.append(await work())
            renewing.cancel()
        if caught.error is not None:
            raise caught.error
        return results[0]

    async def _overtaken(self, entry: LibraryEntry) -> LibraryEntry:
        """Give way to whoever took the claim over while this process was asleep: theirs is kept, so ours is deleted."""
        theirs = await self._kept(entry.key)
        if theirs is None:
            return entry
        with Caught():  # it expires by itself
            await self._media.delete(entry.id, missing_ok=True)
        return theirs


def _checked(media: MediaApi, keywords: Mapping[str, Any]) -> tuple[UploadOptions, str]:
    options = upload_options(media.settings, keywords)
    if options.use_case is not None:
        raise ConfigurationError("a library cannot keep media with a use_case: it has a life of its own")
    return options, media.http.number_or(keywords.get("phone_number_id"))


@attrs.frozen
class _Wanted:
    """What is to be ensured: bytes, options, a number; and by which item of a run, if it is one."""

    identity: Fingerprint
    options: UploadOptions
    number: str
    move: ItemProgress | None

    @property
    def key(self) -> str:
        return entry_key(self.number, self.identity.sha256, self.identity.mime_type)


class _Ensures:
    """The job of `ensure_many`; see `bulk.Job`."""

    def __init__(self, library: MediaLibrary, media: MediaApi, store: Store, keywords: Mapping[str, Any]) -> None:
        self._library = library
        self._media = media
        self._store = store
        self._keywords = keywords

    async def open(self) -> None:
        """Make sure that the store works, lest each item finds out."""
        await self._store.get("")

    async def aclose(self) -> None:
        """Do nothing."""

    def is_fatal(self, error: Exception) -> bool:
        """Tell whether all others would meet the same error."""
        return self._media.http.connections.closed or is_fatal(error)

    async def __call__(self, item: Any, move: ItemProgress) -> Done[LibraryEntry]:
        """Ensure an item."""
        source, own = split_item(item)
        keywords = {**self._keywords, **own}
        keywords["progress"] = delta_callback(move, keywords.get("progress"))
        entry = await self._library.ensured(source, keywords, move)
        return Done(value=entry, attempts=move.call.attempts if move.call else 0)
