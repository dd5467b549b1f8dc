"""The SHA-256 of a source, by which an earlier upload of the same bytes is recognised."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

import attrs

from meta_media.http.client import Client
from meta_media.transfer.background_writer import BackgroundWriter
from meta_media.transfer.bodies import Body, ChunkSize, make_replayable
from meta_media.transfer.repackaging import repackaged
from meta_media.transfer.sources import OpenableSource, Source, source_for
from meta_media.transfer.threads import file_deadline
from meta_media.transfer.upload import SPOOL_MEMORY_SIZE, UploadOptions, prepare

__all__ = ["DigestCache", "Fingerprint", "RecentDigestCache", "file_stamp", "fingerprint", "just_changed"]

_RECENT_COUNT: Final = 10_000  # files whose SHA-256 is kept in memory, 200 bytes for each
_MTIME_RESOLUTION: Final = 2.0  # seconds in which two changes of a file may get the same time stamp (FAT)


class DigestCache(Protocol):
    """A cache of the SHA-256 of files and objects. The key is a stamp that changes with the bytes."""

    async def find(self, stamp: str) -> str | None:
        """Return the SHA-256 of a file, or None."""
        ...

    async def remember(self, stamp: str, sha256: str) -> None:
        """Store the SHA-256 of a file."""
        ...


class RecentDigestCache:
    """The digests of the ten thousand files that were used last, in memory."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, str] = OrderedDict()

    async def find(self, stamp: str) -> str | None:
        """See `DigestCache`."""
        if stamp in self._known:
            self._known.move_to_end(stamp)
        return self._known.get(stamp)

    async def remember(self, stamp: str, sha256: str) -> None:
        """See `DigestCache`."""
        self._known[stamp] = sha256
        if len(self._known) > _RECENT_COUNT:
            self._known.popitem(last=False)


@attrs.frozen(kw_only=True)
class Fingerprint:
    """An opened source and what identifies its content at Meta."""

    source: Source  # unless its bytes are immutable, they are hashed again while they are sent
    sha256: str  # 64 hex digits
    mime_type: str  # that it is sent with
    size: int  # in bytes


@asynccontextmanager
async def fingerprint(
    source: object, options: UploadOptions, digests: DigestCache, client: Client
) -> AsyncIterator[Fingerprint]:
    """
    Open a source and hash it. A file that has not changed since it was hashed is not hashed again.

    A small file was read when it was opened. To hash it takes no longer than to look its hash up.
    """
    settings = client.settings
    origin = source_for(settings, source, options.size)
    origin = repackaged(origin, options.mime_type, options.filename) if options.repackage else origin
    async with contextlib.AsyncExitStack() as stack:
        async with file_deadline(settings.deadline), client.shared.share(settings.chunk_size) as chunk_size:
            body = await stack.enter_async_context(origin.open())
            make_replayable(body)
            body.prepared = mime_type, size = await prepare(origin, body, options, chunk_size(SPOOL_MEMORY_SIZE))
            if body.immutable and size == len(body.head):
                sha256, expected = hashlib.sha256(body.head).hexdigest(), None
            else:
                sha256, expected = await _known_or_hashed(body, digests, chunk_size)
        opened_source = OpenableSource(
            opening=lambda: contextlib.nullcontext(body),  # this block closes it
            opened=body,
            name=origin.name or body.name,
            mime_type=origin.mime_type,
            sha256=expected,
        )
        yield Fingerprint(source=opened_source, sha256=sha256, mime_type=mime_type, size=size)


async def _known_or_hashed(body: Body, digests: DigestCache, chunk_size: ChunkSize) -> tuple[str, str | None]:
    """Return the SHA-256, and the one to check while it is sent: if it comes from the cache, or of bytes that can change."""
    stamp = file_stamp(body.stat) if body.stat and not just_changed(body.stat) else body.stamp
    if stamp and (known := await digests.find(stamp)) is not None:
        return known, known
    digest = hashlib.sha256()
    async with contextlib.aclosing(body.chunks(chunk_size)) as chunks, BackgroundWriter(digest.update) as writer:
        async for chunk in chunks:
            await writer.put(chunk)
    sha256 = digest.hexdigest()
    if stamp:
        await digests.remember(stamp, sha256)
    return sha256, None if body.immutable else sha256


def file_stamp(stat: os.stat_result) -> str:
    """Return text that describes the state of a file."""
    return f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"


def just_changed(stat: os.stat_result) -> bool:
    """Return whether a file has changed so recently that the next change might have the same stamp."""
    return time.time() - stat.st_mtime < _MTIME_RESOLUTION
