"""
The bytes of a download: a URL that is looked up and renewed, and responses that may break off.

A broken transfer is resumed only where Meta promised a SHA-256. Nothing else proves that the two parts belong together.
"""

from __future__ import annotations

import re
import time
from contextlib import AsyncExitStack
from typing import Any, Final, TypeVar

import attrs

from meta_media.errors import (
    ApiError,
    ConfigurationError,
    IntegrityError,
    MediaError,
    MediaNotFoundError,
    NetworkError,
    ServerError,
    UntrustedUrlError,
)
from meta_media.http.call import Call
from meta_media.http.response import Response
from meta_media.http.retry import RetryState
from meta_media.protocol.models import HasMediaId, InboundMedia, MediaInfo, media_id_of
from meta_media.protocol.requests import Request, media_request
from meta_media.protocol.secrets import Secret, hide_query, shown
from meta_media.transfer.info import get_info

__all__ = ["MediaLocation", "ResumableBody", "as_secret", "known_id", "wrong_size"]

T = TypeVar("T")
_GIVEN, _LOOKED_UP, _RENEWED = range(3)  # where a URL is from: the caller, a first lookup, a lookup after it had failed
_GONE: Final = frozenset({404, 410})  # status of a URL that leads to nothing
_URL_LIFETIME: Final = 240.0  # seconds in which a URL is tried; Meta's Media guide gives it five minutes
_NO_RANGES: Final = frozenset({400, 416})  # status by which a server may refuse a Range
_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,15})-([0-9]{1,15})|\*)/([0-9]{1,15})")  # RFC 9110, section 14.4
_CUT: Final = (
    "the server hung up in the middle of TLS, so the bytes may not be all: pass the media id, which has a SHA-256"
)
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
                url=Secret(what.url) if what.url else None,
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
    """
    The bytes of a download, or of a part of it, over as many responses as needed. `open` it first, `aclose` it at the end.

    The id outranks the URL. While the URL is not one of this call's own, an answer that is not the media leads to one lookup
    of the id, and to its fresh URL. A fresh URL that leads to nothing (404, 410) is replaced once, too.
    """

    def __init__(self, call: Call, what: object, start: int = 0, end: int | None = None) -> None:
        self.location = MediaLocation.of(what)  # updated when the URL is renewed
        self._start, self._end = _checked_range(start, end)  # offsets in the media; `end` is exclusive
        self._call = call
        self._retry = RetryState()
        self._offset = start  # of the next byte to deliver
        self._served_size: int | None = None  # of the whole media, by a response
        self._of_another_type = False  # whether the last response was of another type than the media's
        self._use_ranges = True  # until the server turned out not to serve parts
        self._url_is = _GIVEN
        self._renew = False  # before the next request
        self._stack = AsyncExitStack()

    @property
    def size(self) -> int | None:
        """Bytes to deliver; None if no response has said it."""
        return None if self._stop is None else self._stop - self._start

    @property
    def whole(self) -> bool:
        """Whether these are all bytes of the media."""
        size = self._media_size
        return not self._start and (self._end is None or (size is not None and size <= self._end))

    @property
    def _media_size(self) -> int | None:
        return self._served_size if self.location.size is None else self.location.size

    @property
    def _stop(self) -> int | None:
        """The offset in the media at which the bytes end."""
        size = self._media_size
        return size if size is None or self._end is None else min(size, self._end)

    async def open(self) -> None:
        """Open a response at the first byte. Call it again to begin anew."""
        self._offset = self._start
        await self._open_rest()

    async def _open_rest(self) -> None:
        """Open a response whose next byte is the one at the offset. Retry, and renew a URL that may have expired."""
        while True:
            if self._renew or self.location.expired:
                fresh = _RENEWED if self._renew else max(self._url_is, _LOOKED_UP)
                self._url_is = _RENEWED  # a lookup that fails is final
                self.location = await self.location.renewed(self._call)
                self._renew, self._url_is = False, fresh
            use_ranges = self._use_ranges
            try:
                self._check_start()
                async with AsyncExitStack() as stack:
                    request = self._request()
                    response = await stack.enter_async_context(await self._call.open(request))
                    await self._accept(request, response)
                    self.response, self._stack = response, stack.pop_all()
                    return
            except MediaError as error:
                await self.recover(error, about_url=use_ranges == self._use_ranges)

    async def recover(self, error: MediaError, *, about_url: bool = True) -> None:
        """Wait until the transfer may be tried again, with a fresh URL where that may help; raise the error if it may not."""
        gone = isinstance(error, MediaNotFoundError) and error.status in _GONE
        renewable = self._url_is == _GIVEN or (self._url_is == _LOOKED_UP and gone)
        not_the_media = isinstance(error, ApiError | UntrustedUrlError)
        not_the_media |= isinstance(error, IntegrityError) and self._of_another_type  # such as an error in JSON
        renew = self.location.media_id is not None and renewable and about_url and not_the_media
        if error.retryable or not renew:  # a host that is busy is given time as well
            await self._call.recover(error, self._retry)
        self._renew = renew

    async def aclose(self) -> None:
        """Close the current response."""
        await self._stack.aclose()

    async def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer with the next bytes, and return their count: less than its length only at the end."""
        begin = self._offset
        buffer = buffer if self._end is None else buffer[: self._end - begin]
        while buffer:
            try:
                self._offset += await self.response.readinto(buffer[self._offset - begin :])
                if self._offset - begin == len(buffer) or self._stop is None or self._offset >= self._stop:
                    break
                raise wrong_size(self._offset - self._start, self.size)
            except (NetworkError, IntegrityError) as error:
                if isinstance(error, NetworkError):
                    self._offset += self.response.filled
                    if self._offset == self._stop:  # every byte has come, and the SHA-256 shows whether they are right
                        break
                if self.location.sha256 is None:
                    raise
                await self.aclose()
                await self._call.recover(error, self._retry)
                await self._open_rest()
        checked = self.whole and self.location.sha256 is not None
        if self._offset - begin < len(buffer) and self._stop is None and self.response.cut and not checked:
            raise NetworkError(_CUT, retryable=True)
        return self._offset - begin

    def _request(self) -> Request:
        """Build the request for the bytes from the offset on, or for all if the server serves no parts."""
        start, end = (self._offset, None if self.whole else self._end) if self._use_ranges else (0, None)
        url, media_id = self.location.url, self.location.media_id
        return media_request(url, self._call.settings, media_id=media_id, start=start, end=end)

    def _check_start(self) -> None:
        if self._media_size is not None and 0 < self._start >= self._media_size:
            raise ConfigurationError(f"start must be below the media's {self._media_size} bytes, not {self._start}")

    async def _accept(self, request: Request, response: Response) -> None:
        """Check the headers of a response and read up to the offset; raise if it is not the media."""
        part = "Range" in request.headers
        if part and response.status in _NO_RANGES | {206} and not self._is_asked_part(response):
            self._check_start()
            self._use_ranges = False
            raise ServerError("Meta serves no parts of this media", status=response.status, retryable=True)
        if response.status != 200 and not (part and response.status == 206):
            raise await self._call.refused(request, response)
        expected = _essence(self.location.mime_type or "")
        served_types = {_essence(part) for part in response.headers.get("content-type", "").split(",")}  # if repeated
        self._of_another_type = bool(expected) and not served_types <= {"", expected}
        if self._of_another_type and "text/html" in served_types:
            raise ServerError("Meta served an HTML page where the media should be", status=response.status)
        if response.status == 206:
            return
        if self._served_size is None:
            self._served_size = response.length
        if response.length not in {None, self._media_size}:
            raise wrong_size(response.length, self._media_size)
        self._check_start()
        await self._skip(response, self._offset)

    def _is_asked_part(self, response: Response) -> bool:
        """Return whether a response has, by its own headers, all bytes from the offset to the end."""
        part = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        if part is None:
            return False
        first, last, size = (None if number is None else int(number) for number in part.groups())
        if self._media_size is None:
            self._served_size = size
        if response.status != 206 or self._stop is None or size != self._media_size:
            return False
        length = self._stop - self._offset
        return (first, last) == (self._offset, self._stop - 1) and response.length in {None, length}

    async def _skip(self, response: Response, count: int) -> None:
        """Read bytes that were delivered already. The SHA-256 shows whether the bytes that follow belong to them."""
        scratch = memoryview(bytearray(min(count, _SKIP_SIZE)))
        while count:
            got = await response.readinto(scratch[:count])
            if not got:
                raise IntegrityError(f"the bytes end before byte {self._offset}", expected=self.size)
            count -= got


def _essence(mime_type: str) -> str:
    """Return a Content-Type in lower case, without its parameters."""
    return mime_type.partition(";")[0].strip().lower()


def _checked_range(start: int, end: int | None) -> tuple[int, int | None]:
    """Return the offsets of a part, which has at least one byte."""
    checked_count(start, "start")
    checked_count(0 if end is None else end, "end")
    if end is not None and end <= start:
        raise ConfigurationError(f"end is exclusive and must be above start: {end} is not above {start}")
    return start, end


def checked_count(value: Any, name: str) -> int:
    """Return a number of bytes."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigurationError(f"{name} must be a number of bytes, a whole number from 0, not {shown(value)}")
    return value


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
