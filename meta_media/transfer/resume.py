"""
The bytes of a download: a URL that is looked up and renewed, and responses that may break off.

A broken transfer is resumed only where Meta promised a SHA-256. Nothing else proves that the two parts belong together.
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
from meta_media.protocol.models import HasMediaId, InboundMedia, MediaInfo, media_id_of
from meta_media.protocol.requests import Request, media_request
from meta_media.protocol.secrets import Secret, hide_query
from meta_media.transfer.info import get_info

__all__ = ["ResumableBody", "as_secret", "known_id", "wrong_size"]

T = TypeVar("T")
_EXPIRED: Final = frozenset({401, 403, 404, 410})  # status of a URL that has expired, by the hosts that serve media
_URL_LIFETIME: Final = 240.0  # seconds in which a URL is tried; Meta's Media guide gives it five minutes
_NO_RANGES: Final = frozenset({400, 416})  # status by which a server may refuse a Range
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15})")  # RFC 9110, section 14.4
_SKIP_SIZE: Final = 2**16  # bytes read at a time to get past what was delivered


@attrs.frozen(kw_only=True)
class MediaLocation:
    """Where the media is, and what is known about it."""

    url: str | None = attrs.field(default=None, repr=lambda url: repr(hide_query(url or "")))
    media_id: str | None = None  # None if only a URL is known: it cannot be renewed
    info: MediaInfo | None = None  # Meta's answer to `get_info`, where there was one
    mime_type: str | None = None
    sha256: str | None = None
    size: int | None = None
    filename: str | None = None
    received_at: float | None = None  # when Meta issued the URL, by the monotonic clock

    @classmethod
    def of(cls, what: object) -> MediaLocation:
        """Locate any argument that `MediaApi.download` takes."""
        if isinstance(what, MediaInfo | InboundMedia):
            info = what if isinstance(what, MediaInfo) else None
            return cls(
                url=None if what.url is None else Secret(what.url),
                media_id=media_id_of(what),
                info=info,
                mime_type=what.mime_type,
                sha256=what.sha256,
                size=None if info is None else info.file_size,
                filename=what.filename if isinstance(what, InboundMedia) else None,
                received_at=what.received_at,
            )
        if isinstance(what, str) and "://" in what:
            return cls(url=Secret(what))
        return cls(media_id=media_id_of(what))

    @property
    def expired(self) -> bool:
        """Whether there is no URL, or one too old to be tried."""
        old = self.received_at is not None and not 0 <= time.monotonic() - self.received_at < _URL_LIFETIME
        return self.url is None or old

    async def renewed(self, call: Call) -> MediaLocation:
        """Ask Meta for a new URL. `IntegrityError`: it is of other bytes."""
        info = await get_info(call, str(self.media_id))
        for known, now in ((self.sha256, info.sha256), (self.size, info.file_size)):
            if known is not None and now is not None and known != now:
                sentence = f"media {info.id} has other bytes than before: get its info again"
                raise IntegrityError(sentence, expected=known, actual=now, retryable=False)
        new = MediaLocation.of(info)
        size = self.size if new.size is None else new.size
        return attrs.evolve(new, sha256=new.sha256 or self.sha256, size=size, filename=self.filename)


class ResumableBody:
    """The bytes of a download, over as many responses as needed. Call `open` first and `aclose` at the end."""

    def __init__(self, call: Call, what: object, retry: RetryState) -> None:
        self.location = MediaLocation.of(what)  # updated when the URL is renewed
        self.size: int | None = None  # of the media, in bytes
        self._call = call
        self._retry = retry
        self._offset = 0  # of the next byte to deliver
        self._use_ranges = True  # until the server turned out not to serve parts
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        """Open a response whose next byte is the one at the offset. Retry, and renew an expired URL."""
        renew = self.location.expired
        while True:
            try:
                if renew:
                    self.location = await self.location.renewed(self._call)
                start, media_id = self._offset if self._use_ranges else 0, self.location.media_id
                request = media_request(self.location.url, self._call.settings, media_id=media_id, start=start)
                async with AsyncExitStack() as stack:
                    response = await stack.enter_async_context(self._call.open(request))
                    renew = response.status in _EXPIRED and media_id is not None and not renew
                    if not renew:
                        await self._accept(request, response, start)
                        self._response, self.headers, self._stack = response, response.headers, stack.pop_all()
                        return
            except MediaError as error:
                await self._call.recover(error, self._retry)
                renew = self.location.expired

    async def aclose(self) -> None:
        """Close the current response."""
        await self._stack.aclose()

    async def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer with the next bytes, and return their count: less than its length only at the end."""
        begin = self._offset
        while True:
            try:
                self._offset += await self._response.readinto(buffer[self._offset - begin :])
                if self._offset - begin == len(buffer) or self.size is None or self._offset >= self.size:
                    return self._offset - begin
                raise wrong_size(self._offset, self.size)
            except (NetworkError, IntegrityError) as error:
                if isinstance(error, NetworkError):
                    self._offset += self._response.filled
                    if self._offset == self.size:  # every byte has come, and the SHA-256 shows whether they are right
                        return self._offset - begin
                if self.location.sha256 is None:
                    raise
                await self.aclose()
                await self._call.recover(error, self._retry)
                await self.open()

    async def _accept(self, request: Request, response: Response, start: int) -> None:
        """Check the headers of a response and read up to the offset; raise if it is not the media."""
        if start and response.status in _NO_RANGES | {206} and not self._is_the_rest(response):
            self._use_ranges = False
            raise ServerError("Meta serves no parts of this media", status=response.status, retryable=True)
        if response.status != 200 and not (start and response.status == 206):
            raise await self._call.refused(request, response)
        served_type = response.headers.get("content-type", "").lower()
        if served_type.startswith("text/html") and not (self.location.mime_type or served_type).startswith("text/html"):
            raise ServerError("Meta served an HTML page where the media should be", status=response.status)
        self.size = self.size if self.location.size is None else self.location.size
        if response.status == 206:
            return
        if self.size is None:
            self.size = response.length
        if response.length not in {None, self.size}:
            raise wrong_size(response.length, self.size)
        await self._skip(response, self._offset)

    def _is_the_rest(self, response: Response) -> bool:
        """Return whether a response has, by its own headers, all bytes from the offset to the end."""
        part = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        if part is None or response.status != 206:
            return False
        first, last, total = map(int, part.groups())
        length = total - first if response.length is None else response.length
        return (first, last, length) == (self._offset, total - 1, total - first) and self.size in {None, total}

    async def _skip(self, response: Response, count: int) -> None:
        """Read bytes that were delivered already. The SHA-256 shows whether the bytes that follow belong to them."""
        scratch = memoryview(bytearray(min(count, _SKIP_SIZE)))
        while count:
            got = await response.readinto(scratch[:count])
            if not got:
                raise IntegrityError(f"the bytes end before byte {self._offset}", expected=self.size)
            count -= got


def wrong_size(actual: int | None, expected: int | None) -> IntegrityError:
    """Make the error for a number of bytes other than promised."""
    return IntegrityError(f"Meta sent {actual} bytes, not the promised {expected}", expected=expected, actual=actual)


def as_secret(what: T) -> T | Secret:
    """Hide a URL, which is signed, from tracebacks that show local variables."""
    return Secret(what) if isinstance(what, str) and "://" in what else what


def known_id(what: object) -> str | None:
    """Return the media id of an argument of `download`, unchecked; None for a URL."""
    if isinstance(what, HasMediaId):
        return what.id
    return what if isinstance(what, str) and "://" not in what else None
