"""
Downloads into the stores of obstore: S3, Google Cloud Storage, Azure, a folder, memory.

The bytes wait in a private temporary file until length and SHA-256 are verified. One request then writes all of them, so that
an object is there whole or not at all. There is no multipart upload: a killed process would leave its parts, and so does a
cancelled one with obstore. The file is mapped into memory, and its pages are given back while they are sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import itertools
import mmap
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final

import attrs

from meta_media.errors import ConfigurationError, StorageError
from meta_media.http.loop_bound import outwait
from meta_media.protocol.filenames import numbered
from meta_media.protocol.models import DownloadedMedia
from meta_media.protocol.secrets import excerpt
from meta_media.transfer.destinations import FileSink, StoredDestination, TemporaryCopy, open_file_sink
from meta_media.transfer.objects import (
    ObjectStore,
    checked_store,
    is_absent,
    object_errors,
    raised,
    store_location,
    store_work,
)
from meta_media.transfer.threads import FileWork, storage_errors

__all__ = ["ObjectDestination"]

_GRACE: Final = 10.0  # seconds that a cancelled caller waits for the request that writes an object
_UNDO_TIMEOUT: Final = 5.0  # seconds that it then waits for the object to be deleted
# Seconds for obstore's threads: Python 3.13 and earlier abort if one is in the interpreter at its end.
_LET_GO: Final = 0.001
_GIVE_BACK: Final = 0.02  # seconds after which the pages that were sent are given back
_DONT_NEED: Final[int | None] = getattr(mmap, "MADV_DONTNEED", None)  # not on Windows
_KEY: Final = re.compile(r"(?:(?!\.\.?(?:/|$))[^/\x00-\x1f\x7f]+(?:/|$))*")  # parts that every store can have


def _check_store(_: object, __: object, store: ObjectStore) -> None:
    checked_store(store)


def _check_key(_: object, __: object, key: object) -> None:
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        shown = excerpt(key) if isinstance(key, str) else f"a {type(key).__name__}"
        cure = "pass text such as 'inbox/photo.jpg', or 'inbox/' for a folder"
        raise ConfigurationError(f"{shown} cannot be the key of an object: {cure}")


@attrs.frozen
class ObjectDestination(StoredDestination):
    """
    An object in a bucket, as a destination of `MediaApi.download` and `download_many`: extra `storage`.

    The object appears after length and SHA-256 are verified, in one request. An error or a kill leaves nothing in the store. A
    cancelled download waits up to 10 s for that request, and deletes an object that was not there before. Content-Type and
    SHA-256 (metadata `sha256`, 64 hex digits) are attributes of the object, unless the store has none. Timeouts and retries
    are those of the store.

    Attributes:
        store: A store of obstore's, such as `obstore.store.S3Store`.
        key: Key of the object. One that is empty or ends in a slash is a folder: an object in it gets a safe name that is
            still free, like a file in a folder, and `DownloadedMedia.key` has it.

    Raises:
        ConfigurationError: The store is none, or could not have such a key.
    """

    store: ObjectStore = attrs.field(validator=_check_store, repr=lambda store: type(store).__name__)
    key: str = attrs.field(default="", validator=_check_key)

    @property
    def is_folder(self) -> bool:
        """Whether names are chosen below the key."""
        return self.key == "" or self.key.endswith("/")

    @property
    def identity(self) -> str:
        return f"{store_location(self.store) or repr(self.store)} {self.key}"

    def folder(self) -> ObjectDestination:
        return self if self.is_folder else attrs.evolve(self, key=f"{self.key}/")

    @asynccontextmanager
    async def open(self, *, overwrite: bool) -> AsyncIterator[FileSink]:
        absent = None
        if not self.is_folder:
            with object_errors(f"write to {excerpt(self.key)}"):
                absent = await is_absent(self.store, self.key)
            if absent is False and not overwrite:
                raise _exists(self.key)
        sink = None
        try:
            opening = functools.partial(_ObjectSink, self, absent=absent, overwrite=overwrite)
            async with open_file_sink(FileWork(), opening) as sink:
                yield sink
            await asyncio.sleep(_LET_GO)
        except BaseException as error:  # a cancellation may arrive when the object is there already
            if sink is not None and not await sink.undo():
                error.add_note(f"{excerpt(sink.created or '')} is in its store, whole: it could not be deleted")
            raise

    async def holds(self, value: DownloadedMedia) -> bool:
        key = str(value.key)
        with object_errors(f"look for {excerpt(key)}"):
            try:
                found = await self.store.get_async(key, options={"head": True})
            except FileNotFoundError:
                return False
        sha256: str = found.attributes.get("sha256", value.sha256)
        return sha256 == value.sha256 and value.size == found.meta["size"]


def _exists(key: str) -> StorageError:
    return StorageError(f"{excerpt(key)} exists already, and overwrite is off: choose another name", errno=errno.EEXIST)


class _ObjectSink(FileSink):
    created: str | None = None  # the key of an object that was not there before

    def __init__(self, destination: ObjectDestination, *, absent: bool | None, overwrite: bool) -> None:
        errors = functools.partial(storage_errors, "keep the download in a temporary file")
        with errors():
            super().__init__(TemporaryCopy(), errors)
        self._store, self._place = destination.store, destination
        self._absent = absent
        self._overwrite = overwrite

    async def commit(self, name: str, mime_type: str = "", sha256: str = "") -> None:
        """Write the object, in a folder under this name, with a number if the name is taken."""
        with self._errors():
            content = await self.work.run(self._mapped)
        try:
            await self._commit(name, content, {"Content-Type": mime_type, "sha256": sha256})
        finally:
            if isinstance(content, mmap.mmap):
                with contextlib.suppress(BufferError):  # a request that was cancelled just now lets go of it soon
                    content.close()

    async def _commit(self, name: str, content: mmap.mmap | bytes, attributes: dict[str, str]) -> None:
        taken = False
        for key, mode in self._attempts(name):
            with object_errors(f"write to {excerpt(key)}"):
                if taken and mode == "create" and await is_absent(self._store, key) is False:
                    continue  # found out without sending all bytes once more
                if await self._put(key, content, mode, attributes):
                    self.key = key
                    return
            taken = True
        raise _exists(self._place.key)

    def _mapped(self) -> mmap.mmap | bytes:
        self.file.file.flush()
        empty = self.file.file.tell() == 0
        return b"" if empty else mmap.mmap(self.file.file.fileno(), 0, access=mmap.ACCESS_READ)

    def _attempts(self, name: str) -> Iterator[tuple[str, str]]:
        """Yield keys and modes: what was absent is created, so that another writer's object is never taken for ours."""
        if self._place.is_folder:
            yield from ((self._place.key + numbered(name, number), "create") for number in itertools.count(1))
        if self._absent or not self._overwrite:
            yield self._place.key, "create"
        if self._overwrite:
            yield self._place.key, "overwrite"

    async def _put(self, key: str, content: mmap.mmap | bytes, mode: str, attributes: dict[str, str]) -> bool:
        """Write an object. Return False if one is there that must not be replaced."""
        try:
            try:
                await self._send(key, content, mode, attributes)
            except NotImplementedError:  # a `LocalStore` has no attributes
                await self._send(key, content, mode, {})
        except Exception as error:
            may_replace = self._absent and self._overwrite and mode == "create"
            if raised(error, "AlreadyExistsError") or (may_replace and _cannot_create(error)):
                return False
            raise
        return True

    async def _send(self, key: str, content: mmap.mmap | bytes, mode: str, attributes: dict[str, str]) -> None:
        putting = asyncio.ensure_future(
            self._store.put_async(key, content, mode=mode, attributes=attributes, use_multipart=False)
        )
        try:
            with _given_back(content):
                await store_work(key, _GRACE).settled(putting)
        finally:
            if not putting.done():  # after a deadline, or after a cancellation and its grace
                putting.cancel()  # closes its connection
            elif mode == "create" and not putting.cancelled() and putting.exception() is None:
                self.created = key
        putting.result()

    async def undo(self) -> bool:
        """Delete the object, unless it has replaced another one. Return False if that fails."""
        if self.created is None:
            return True
        deleting = asyncio.ensure_future(self._store.delete_async(self.created))
        deleting.add_done_callback(lambda done: done.cancelled() or done.exception())
        await outwait(deleting, _UNDO_TIMEOUT)
        return deleting.done() and deleting.exception() is None


def _cannot_create(error: Exception) -> bool:
    """Return whether a store refuses the condition that there is no object yet, as some that resemble S3 do."""
    return isinstance(error, NotImplementedError) or "501 Not Implemented" in str(error)


@contextlib.contextmanager
def _given_back(content: mmap.mmap | bytes) -> Iterator[None]:
    """Give the pages of a mapped file back again and again: what is read once more comes from the file."""
    if _DONT_NEED is None or isinstance(content, bytes):
        yield
        return
    giving = asyncio.ensure_future(_give_back(content, _DONT_NEED))
    try:
        yield
    finally:
        giving.cancel()


async def _give_back(content: mmap.mmap, advice: int) -> None:
    while True:
        await asyncio.sleep(_GIVE_BACK)
        content.madvise(advice)
