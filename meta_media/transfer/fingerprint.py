"""What a source is, by its bytes: the SHA-256 by which what was uploaded before is known again."""

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

from meta_media.transfer.bodies import Body, make_replayable
from meta_media.transfer.sources import OpenedSource, Source
from meta_media.transfer.threads import BackgroundWriter, run_in_thread
from meta_media.transfer.upload import UploadOptions, prepare

__all__ = ["DigestCache", "Fingerprint", "RecentDigestCache", "fingerprint"]

_RECENT: Final = 10_000  # files whose SHA-256 is remembered, at 200 bytes each
_UNSETTLED: Final = 2.0  # seconds in which a file system may not tell two changes apart


class DigestCache(Protocol):
    """Remembers the SHA-256 of files on disk, each by a stamp that changes with its bytes."""

    async def find(self, stamp: str) -> str | None:
        """Return the SHA-256 of a file that was hashed before."""
        ...

    async def remember(self, stamp: str, sha256: str) -> None:
        """Note the SHA-256 of a file."""
        ...


class RecentDigestCache:
    """The last ten thousand, in memory."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, str] = OrderedDict()

    async def find(self, stamp: str) -> str | None:
        """See `Digests`."""
        if stamp in self._known:
            self._known.move_to_end(stamp)
        return self._known.get(stamp)

    async def remember(self, stamp: str, sha256: str) -> None:
        """See `Digests`."""
        self._known[stamp] = sha256
        if len(self._known) > _RECENT:
            self._known.popitem(last=False)


@attrs.frozen(kw_only=True)
class Fingerprint:
    """
    What will be uploaded, as far as Meta can tell.

    Attributes:
        source: What to upload. It is open already, and what might have changed since it was hashed is hashed again as it is sent.
        sha256: 64 hex digits.
        mime_type: As it will be sent.
        size: Bytes.
    """

    source: Source
    sha256: str
    mime_type: str
    size: int


@asynccontextmanager
async def fingerprint(
    source: object, options: UploadOptions, digests: DigestCache, chunk_size: int
) -> AsyncIterator[Fingerprint]:
    """
    Open a source and hash it, unless it is a file that was hashed before and has not changed since.

    Raises:
        InvalidMediaError: WhatsApp is known to refuse it.
        StorageError: It cannot be read.
    """
    origin = Source.of(source, size=options.size)
    async with origin.open() as opened, make_replayable(opened) as body:
        mime_type, size = await prepare(origin, body, options)
        stamp = _stamp(body.stat) if body.stat else None
        sha256 = await digests.find(stamp) if stamp else None
        known = sha256 is None and body.immutable
        if sha256 is None:
            sha256 = await _hashed(body, size, chunk_size)
            if stamp:
                await digests.remember(stamp, sha256)
        again = OpenedSource(body=body, name=origin.name, mime_type=origin.mime_type, sha256=None if known else sha256)
        yield Fingerprint(source=again, sha256=sha256, mime_type=mime_type, size=size)


async def _hashed(body: Body, size: int, chunk_size: int) -> str:
    if body.immutable and size == len(body.head):
        return (await run_in_thread(hashlib.sha256, body.head)).hexdigest()
    digest = hashlib.sha256()
    async with contextlib.aclosing(body.chunks(chunk_size)) as chunks, BackgroundWriter(digest.update) as writer:
        async for chunk in chunks:
            await writer.put(chunk)
    return digest.hexdigest()


def _stamp(stat: os.stat_result) -> str | None:
    """Describe a file's state; one that has only just changed has none, because the next change might look the same."""
    if time.time() - stat.st_mtime < _UNSETTLED:
        return None
    return f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"
