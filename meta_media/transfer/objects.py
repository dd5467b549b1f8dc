"""
Objects in the stores of obstore: one that is read as a source, and what such a store raises.

obstore is not imported. The caller brings a store, whose methods are called. An object is read by ranges of one version: a
request that ends early is repeated by the store itself, and one response for all of it would have to outlast a slow upload.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

from meta_media.errors import ConfigurationError, CorruptedMediaError, MediaError, StorageError
from meta_media.protocol.media_types import HEAD_SIZE
from meta_media.protocol.secrets import excerpt
from meta_media.transfer.adapters import attribute
from meta_media.transfer.bodies import Body, MemoryBody, SeekableBody
from meta_media.transfer.threads import FileWork

__all__ = [
    "ObjectStore",
    "checked_store",
    "is_absent",
    "object_errors",
    "open_object",
    "raised",
    "store_location",
    "store_work",
]

_FIRST_SIZE: Final = 2**20  # bytes of the first range: one request is enough for most media
# Seconds that a cancelled caller waits for a range: one that is not wanted leaves nothing behind.
_READ_GRACE: Final = 0.01
_SETTLED: Final = 2.0  # seconds after which another change of an object cannot have the same ETag
_WITHOUT: Final = "an object needs a store of obstore's, such as obstore.store.S3Store"
_EXTRA: Final = "pip install '.[storage]' in a checkout"
_METHODS: Final = ("get_async", "put_async", "head_async", "delete_async")
_REFUSALS: Final = {  # exceptions of obstore, by the name of their class
    "FileNotFoundError": (errno.ENOENT, "there is no such object or bucket; look at the key and at the store's bucket"),
    "PermissionDeniedError": (errno.EACCES, "the store refuses it; look at the rights of its credentials"),
    "UnauthenticatedError": (errno.EACCES, "the store does not accept its credentials; renew them"),
    "AlreadyExistsError": (errno.EEXIST, "it exists already, and overwrite is off: choose another name"),
    "NotImplementedError": (errno.ENOTSUP, "the store cannot do that; pass another one"),
    "ValueError": (
        errno.EINVAL,
        "the store cannot have such a key; pass one without empty parts, dots or control characters",
    ),
}
_SYSTEM_ERROR: Final = re.compile(r"(?:\(os error |Os \{\s+code: )(\d+)")  # how Rust prints an error of the system
_SIGNED: Final = re.compile(r"://[^\s/]*@|://\S*\?")  # a URL that may have a password or a signature


class ObjectStore(Protocol):
    """What is called of a store of obstore's: `S3Store`, `GCSStore`, `AzureStore`, `LocalStore`, `MemoryStore`."""

    def get_async(self, path: str, *, options: Any = None) -> Awaitable[Any]:
        """Return a version of an object, or a range of it."""
        ...

    def put_async(
        self, path: str, file: Any, *, attributes: Any = None, mode: Any = None, use_multipart: bool | None = None
    ) -> Awaitable[Any]:
        """Write an object."""
        ...

    def head_async(self, path: str) -> Awaitable[Any]:
        """Return size and ETag of an object."""
        ...

    def delete_async(self, paths: str) -> Awaitable[Any]:
        """Delete an object."""
        ...


def checked_store(store: ObjectStore) -> ObjectStore:
    """Return a store; raise `ConfigurationError` for any other object."""
    if not all(callable(attribute(store, name)) for name in _METHODS):
        raise ConfigurationError(f"{_WITHOUT}, not a {type(store).__name__} ({_EXTRA} brings obstore)")
    return store


def store_location(store: ObjectStore) -> str | None:
    """Return the hash of what names a bucket in every process, which may be a signed URL; None for a store in memory."""
    if type(store).__repr__ is object.__repr__:
        return None
    config = attribute(store, "config")
    endpoint = config.get("endpoint") if isinstance(config, Mapping) else None
    return hashlib.sha256(f"{store!r} {endpoint}".encode()).hexdigest()


def store_work(key: str, grace: float) -> FileWork:
    """Return the work on an object, which has the deadline of files."""
    work = FileWork(key, limit=None, grace=grace)
    work.cure = "look at its store, or raise Settings.deadline"
    return work


# Errors


def raised(error: Exception, name: str) -> bool:
    """Return whether an exception is the one of this name among those of obstore."""
    return type(error).__name__ == name


async def is_absent(store: ObjectStore, key: str) -> bool | None:
    """Return whether there is no such object; None if the store does not say it, to one who may only write."""
    try:
        await store.head_async(key)
    except Exception as error:
        if raised(error, "PermissionDeniedError"):
            return None
        if raised(error, "FileNotFoundError"):
            return True
        raise
    return False


@contextlib.contextmanager
def object_errors(doing: str) -> Iterator[None]:
    """Turn what a store raises into an error that says what could not be done."""
    try:
        yield
    except MediaError:
        raise
    except Exception as error:  # noqa: BLE001 - obstore's have no common base, and a credential provider has its own
        failure = _failure(doing, error)
        failure.__cause__ = None if _SIGNED.search(str(error)) else error
    else:
        return
    raise failure


def _failure(doing: str, error: Exception) -> MediaError:
    if raised(error, "PreconditionError"):
        return CorruptedMediaError(f"could not {doing}: the object has changed meanwhile; upload it again")
    number, why = _REFUSALS.get(type(error).__name__, (None, None))
    if why is None and (found := _SYSTEM_ERROR.search(str(error))):
        number = int(found[1])
    why = why or f"the store failed ({os.strerror(number) if number else type(error).__name__}); try again later"
    return StorageError(f"could not {doing}: {why}", errno=number, retryable=type(error).__name__ not in _REFUSALS)


# Reading


@asynccontextmanager
async def open_object(store: ObjectStore, key: str) -> AsyncIterator[Body]:
    """Open an object to read it. A small one is read at once."""
    with object_errors(f"read {excerpt(key)}"):
        result, first = await _first_range(store, key)
    meta = result.meta
    if meta["size"] == len(first):
        body: Body = MemoryBody(first)
    else:
        reader = _ObjectReader(store, key, meta, first)
        work = store_work(key, _READ_GRACE)
        body = SeekableBody(reader, work, 0, meta["size"], first[:HEAD_SIZE], None)
        body.stamp = _stamp(store, key, meta)
    body.mime_type = result.attributes.get("Content-Type")
    yield body


async def _first_range(store: ObjectStore, key: str) -> tuple[Any, bytes]:
    try:
        result = await store.get_async(key, options={"range": (0, _FIRST_SIZE)})
        return result, bytes(await result.bytes_async())
    except Exception as error:
        if "range" not in str(error).lower():
            raise
        result = await store.get_async(key, options={"head": True})
        if result.meta["size"]:
            raise
        return result, b""  # an empty object has no range


def _stamp(store: ObjectStore, key: str, meta: Mapping[str, Any]) -> str | None:
    """Return text that changes with the object; None if it might not."""
    location = store_location(store)
    if location is None or meta["e_tag"] is None or time.time() - meta["last_modified"].timestamp() < _SETTLED:
        return None
    return f"{location} {key} {meta['size']} {meta['e_tag']}"


class _ObjectReader:
    """The handle of a `SeekableBody`: each read is a request for a range, of the version that was opened."""

    def __init__(self, store: ObjectStore, key: str, meta: Mapping[str, Any], first: bytes) -> None:
        self._store = store
        self._key = key
        self._size = meta["size"]
        self._first = first  # bytes that were read when it was opened
        self._offset = 0
        same = {"if_match": meta["e_tag"]} if meta["e_tag"] else {"if_unmodified_since": meta["last_modified"]}
        self._same_version: dict[str, Any] = same

    async def seek(self, offset: int) -> None:
        self._offset = offset

    async def read(self, size: int) -> bytes:
        start, stop = self._offset, min(self._offset + size, self._size)
        chunk = self._first[start:stop]
        if not chunk and start < stop:
            with object_errors(f"read {excerpt(self._key)}"):
                result = await self._store.get_async(self._key, options={"range": (start, stop), **self._same_version})
                chunk = bytes(await result.bytes_async())
        self._offset += len(chunk)
        return chunk
