"""
Where a download's bytes come from: a URL that is looked up, renewed and followed, and replies that may break off.

What broke off is taken up again only where Meta promised a SHA-256, because nothing else proves that the two parts belong
to each other.
"""

from __future__ import annotations

import re
import time
from contextlib import AsyncExitStack
from typing import Final, TypeVar

import attrs

from meta_media.errors import IntegrityError, MediaError, NetworkError, ServerError
from meta_media.http.call import Call
from meta_media.http.response import Response
from meta_media.http.retry import RetryState
from meta_media.protocol.models import InboundMedia, MediaInfo
from meta_media.protocol.requests import media_request
from meta_media.protocol.secrets import Secret, hide_query
from meta_media.protocol.validators import checked_id
from meta_media.transfer.info import get_info

__all__ = ["ResumableBody", "as_secret", "media_id_of"]

T = TypeVar("T")
_EXPIRED: Final = frozenset({401, 403, 404, 410})  # how the hosts that serve media say that a URL has died
_OLD: Final = 240.0  # seconds after which a URL is not tried any more: Meta's Media guide gives it five minutes
_NO_RANGES: Final = frozenset({400, 416})  # how a server may say that it serves no parts
_PART = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15})")  # RFC 9110, section 14.4
_SKIPPED: Final = 2**16  # bytes read at a time of what is there already


@attrs.frozen(kw_only=True)
class MediaLocation:
    """
    What to fetch, and what is known of it.

    Attributes:
        given_out: When Meta gave the URL out, by the monotonic clock; None where that is not known.
    """

    url: str | None = attrs.field(default=None, repr=lambda url: repr(hide_query(url or "")))
    media_id: str | None = None
    info: MediaInfo | None = None
    mime_type: str | None = None
    sha256: str | None = None
    size: int | None = None
    filename: str | None = None
    given_out: float | None = None

    @classmethod
    def of(cls, what: object) -> MediaLocation:
        """Make a target of anything that a download takes."""
        if isinstance(what, MediaInfo):
            return cls(
                url=Secret(what.url),
                media_id=checked_id(what.id, "the media id"),
                info=what,
                mime_type=what.mime_type,
                sha256=what.sha256,
                size=what.file_size,
                given_out=what.received_at,
            )
        if isinstance(what, InboundMedia):
            return cls(
                url=None if what.url is None else Secret(what.url),
                media_id=checked_id(what.id, "the media id"),
                mime_type=what.mime_type,
                sha256=what.sha256,
                filename=what.filename,
                given_out=what.received_at,
            )
        if isinstance(what, str) and "://" in what:
            return cls(url=Secret(what))
        return cls(media_id=checked_id(what, "the media id"))

    @property
    def dead(self) -> bool:
        """Whether there is no URL, or one that is too old to be tried."""
        old = self.given_out is not None and not 0 <= time.monotonic() - self.given_out < _OLD
        return self.url is None or old

    async def renewed(self, call: Call, media_id: str) -> MediaLocation:
        """Get a new URL, which must be of the same bytes."""
        info = await get_info(call, media_id)
        for known, now in ((self.sha256, info.sha256), (self.size, info.file_size)):
            if known is not None and now is not None and known != now:
                changed = IntegrityError(f"media {media_id} is no longer what it was", expected=known, actual=now)
                changed.retryable = False
                raise changed
        new = MediaLocation.of(info)
        size = self.size if new.size is None else new.size
        return attrs.evolve(new, sha256=new.sha256 or self.sha256, size=size, filename=self.filename)


class ResumableBody:
    """
    The bytes of a download, from the first to the last; `async with`.

    Args:
        call: Whose requests it makes.
        what: See `MediaApi.download`.
        tries: What this transfer has been through.

    Attributes:
        target: What is known by now.
        size: Bytes in all, where known.
        served_type: The Content-Type that the bytes came under.
        headers: Of the first reply.
    """

    def __init__(self, call: Call, what: object, retry: RetryState) -> None:
        self.target = MediaLocation.of(what)
        self.size: int | None = None
        self._call = call
        self._tries = retry
        self._at = 0  # the first byte that is wanted now
        self._in_parts = True  # whether parts may be asked for
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> ResumableBody:
        await self._reach(None)
        self.headers = self._reply.headers
        self.served_type = self.headers.get("content-type")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def readinto(self, wanted: memoryview) -> int:
        """Fill a buffer with the next bytes, over as many replies as it takes; return how many: fewer only at the end."""
        begun = self._at
        while True:
            try:
                self._at += await self._reply.readinto(wanted[self._at - begun :])
                if self._at - begun == len(wanted) or self.size is None or self._at >= self.size:
                    return self._at - begun
                raise IntegrityError(
                    f"{self._at} bytes arrived where Meta promised {self.size}", expected=self.size, actual=self._at
                )
            except NetworkError as error:
                self._at += self._reply.filled
                if self._at == self.size:  # all that was promised has come; the SHA-256 will tell the rest
                    return self._at - begun
                await self._resume(error)
            except IntegrityError as error:
                await self._resume(error)

    async def _resume(self, error: MediaError) -> None:
        if self.target.sha256 is None:
            raise error
        await self._reach(error)

    async def _reach(self, error: MediaError | None) -> None:
        """Get a reply that stands at the next byte wanted, as often as it takes."""
        while True:
            if error is not None:
                await self._stack.aclose()
                await self._call.recover(error, self._tries)
            try:
                await self._reached()
            except MediaError as failed:
                error = failed
            else:
                return

    async def _reached(self) -> None:
        media_id, renewable = self.target.media_id, self.target.media_id is not None
        if media_id and self.target.dead:
            self.target, renewable = await self.target.renewed(self._call, media_id), False
        if not await self._opened(final=not renewable) and media_id:
            self.target = await self.target.renewed(self._call, media_id)
            await self._opened(final=True)

    async def _opened(self, *, final: bool) -> bool:
        """Ask for the bytes; say no if the URL has died and that need not be the end."""
        start = self._at if self._in_parts else 0
        request = media_request(self.target.url, self._call.settings, media_id=self.target.media_id, start=start)
        async with AsyncExitStack() as stack:
            reply = await stack.enter_async_context(self._call.open(request))
            if reply.status in _EXPIRED and not final:
                return False
            if start and reply.status in _NO_RANGES | {206} and not self._is_the_rest(reply):
                self._in_parts = False
                raise ServerError("Meta serves no parts of this media", status=reply.status, retryable=True)
            if reply.status != 200 and not (start and reply.status == 206):
                raise await self._call.refused(request, reply)
            self._check(reply)
            await self._skip(reply, 0 if reply.status == 206 else self._at)
            self._reply = reply
            self._stack = stack.pop_all()
        return True

    def _is_the_rest(self, reply: Response) -> bool:
        """Tell whether it has the bytes from where we stand to the end, as it says itself."""
        part = _PART.fullmatch(reply.headers.get("content-range", ""))
        if part is None or reply.status != 206:
            return False
        first, last, total = map(int, part.groups())
        length = total - first if reply.length is None else reply.length
        return (first, last, length) == (self._at, total - 1, total - first) and self.size in {None, total}

    def _check(self, reply: Response) -> None:
        """Refuse what is not the media before a byte of it is used."""
        served_type = reply.headers.get("content-type", "").lower()
        if served_type.startswith("text/html") and not (self.target.mime_type or served_type).startswith("text/html"):
            raise ServerError("Meta served an HTML page where the media should be", status=reply.status)
        self.size = self.size if self.target.size is None else self.target.size
        if reply.status == 206 or reply.length is None:
            return
        if self.size is None:
            self.size = reply.length
        if reply.length != self.size:
            raise IntegrityError(
                f"{reply.length} bytes are served where Meta promised {self.size}",
                expected=self.size,
                actual=reply.length,
            )

    async def _skip(self, reply: Response, count: int) -> None:
        """Read past what is there already; the SHA-256 will tell whether what follows belongs to it."""
        scratch = memoryview(bytearray(min(count, _SKIPPED)))
        while count:
            got = await reply.readinto(scratch[:count])
            if not got:
                raise IntegrityError(f"the bytes end before byte {self._at}", expected=self.size)
            count -= got


def as_secret(what: T) -> T | Secret:
    """Keep a URL, which is signed, out of tracebacks that show local variables."""
    return Secret(what) if isinstance(what, str) and "://" in what else what


def media_id_of(what: object) -> str | None:
    """Return the id of what is to be downloaded; None for a bare URL."""
    if isinstance(what, MediaInfo | InboundMedia):
        return what.id
    return what if isinstance(what, str) and "://" not in what else None
