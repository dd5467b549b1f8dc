"""
A file at a public URL, which is sent while it is fetched.

A transfer that breaks off goes on: by Range, if the server has named the file by a strong ETag (RFC 9110, 13.1.5), else from
the start, whose SHA-256 must be that of the bytes before.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import unquote

import anyio

from meta_media.errors import CorruptedMediaError, DownloadError, DownloadTooLargeError, MediaError, NetworkError
from meta_media.http.client import Client
from meta_media.http.limits import Limits
from meta_media.http.log import LOGGER
from meta_media.http.retry import RetryState
from meta_media.http.timeouts import TransferTimeouts
from meta_media.protocol.media_types import MAX_SIZE
from meta_media.protocol.public_urls import PublicUrl
from meta_media.protocol.requests import common_headers
from meta_media.protocol.settings import Settings
from meta_media.transfer.bodies import Body, make_replayable
from meta_media.transfer.opening import open_stream
from meta_media.transfer.readers import BATCH_SIZE
from meta_media.transfer.threads import run_in_thread

if TYPE_CHECKING:
    from meta_media.http.fetch import Fetcher
    from meta_media.http.response import Response

__all__ = ["open_url"]

_BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})  # status of a server that may respond otherwise later
_ADVICE: Final = {
    401: "pass headers={'Authorization': …}, or a URL that is public",
    403: "the URL may have expired, or need headers={'Authorization': …}",
    404: "check the URL",
    410: "the file was removed, so pass another URL",
}
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]*"')
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")  # RFC 9110, section 14.4
_NO_RANGES: Final = frozenset({206, 412, 416})  # status of a server that does not serve the part that was asked for


@asynccontextmanager
async def open_url(
    url: str, settings: Settings, *, max_size: int | None, headers: Mapping[str, str]
) -> AsyncIterator[Body]:
    """Open a file at a URL. Its body is replayable: it is fetched again."""
    async with contextlib.aclosing(_RemoteFile(PublicUrl.of(url), settings, max_size, headers)) as file:
        await file.open()
        async with open_stream(file, file.size, file.again) as body:
            body.name, body.mime_type = file.name, file.mime_type
            _, seen = await body.signature()
            if not seen:  # bytes behind the first ones decide, such as the list of tracks at the end of an MP4
                make_replayable(body)
            yield body


class _RemoteFile:
    """The bytes of a file, in pieces, over as many responses as needed."""

    def __init__(self, url: PublicUrl, settings: Settings, max_size: int | None, headers: Mapping[str, str]) -> None:
        self._known = False  # whether a first response has said what follows
        self.size: int | None = None  # in bytes, by the Content-Length
        self.name: str | None = PurePath(unquote(url.target.partition("?")[0])).name or None
        self.mime_type: str | None = None
        self._url = url
        self._settings = settings
        self._max_size = max_size
        self._headers = headers  # of the caller
        self._fetcher: Fetcher | None = None  # from the first request on
        self._etag: str | None = None  # if it is a strong one, and the server has served the parts that were asked for
        self._stack = AsyncExitStack()
        self._limits = Limits()  # which has a retry budget
        self._started = time.monotonic()
        self.again()

    def again(self) -> Self:
        """Begin at the first byte."""
        self._offset = 0  # of the next byte
        self._digest = hashlib.sha256()  # of the bytes before
        self._retry = RetryState()
        self._response: Response | None = None
        return self

    async def aclose(self) -> None:
        """Close the connection."""
        self._response = None
        await self._stack.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece."""
        while True:
            response = self._response or await self.open()
            buffer, error = memoryview(bytearray(BATCH_SIZE)), None
            try:
                await response.readinto(buffer)
            except NetworkError as failed:
                error = failed
            piece = bytes(buffer[: response.filled])
            self._offset += len(piece)
            self._digest.update(piece)
            self._check_limit(self._offset)
            if error is None and len(piece) < len(buffer) and (response.cut or self._offset < (self.size or 0)):
                error = NetworkError(f"{self._url.host} hung up before the end of the file", retryable=True)
            if error is not None:
                await self.open(error)
            if piece:
                return piece
            if error is None:
                raise StopAsyncIteration

    async def open(self, error: MediaError | None = None) -> Response:
        """Open a response at the next byte, after an error if there was one. It is retried."""
        while True:
            await self.aclose()
            if error is not None:
                await self._wait(error)
            try:
                self._response = await self._open()
            except MediaError as failed:
                error = failed
            else:
                return self._response

    async def _wait(self, error: MediaError) -> None:
        """Wait until another attempt; raise the error if there is to be none. No outer work repeats what has an operation."""
        error.operation, error.elapsed = "download", time.monotonic() - self._started
        if self._fetcher is None:  # it could not be made
            raise error
        error.attempts, timeouts = self._fetcher.requests, self._fetcher.timeouts
        delay = self._retry.delay(error, "download", self._settings, self._limits)
        if delay >= timeouts.left:
            raise error
        LOGGER.info("%s: fetching again in %.1f s: %s", self._url.host, delay, error)
        with timeouts:
            await anyio.sleep(delay)

    async def _open(self) -> Response:
        if self._fetcher is None:
            self._fetcher = await run_in_thread(_fetcher, self._settings)
        part = self._etag if self._offset else None
        headers = common_headers(self._settings)
        if part is not None:
            headers |= {"Range": f"bytes={self._offset}-", "If-Range": part}
        async with AsyncExitStack() as stack:
            limit = MAX_SIZE if self._max_size is None else self._max_size
            response = await stack.enter_async_context(
                await self._fetcher.open(self._url, headers, self._headers, limit)
            )
            self._check_status(response, part)
            if response.status == 200:
                await self._check_whole(response)
            self._stack = stack.pop_all()
            return response

    def _check_status(self, response: Response, part: str | None) -> None:
        status, host = response.status, self._url.host
        if part is not None and status in _NO_RANGES and not self._is_rest(response):
            self._etag = None
            raise DownloadError(f"{host} did not serve the rest of the file: try again", retryable=True)
        if status != 200 and (part is None or status != 206):
            advice = "try again later" if status in _BUSY else _ADVICE.get(status, "pass a URL that leads to the file")
            sentence = f"{host} responded with HTTP {status} where the file should be: {advice}"
            raise DownloadError(sentence, retryable=status in _BUSY)
        if response.headers.get("content-encoding", "").lower() not in {"", "identity"}:
            sentence = f"{host} compressed the file, although the request accepts `identity` only"
            raise DownloadError(f"{sentence}: fetch it with an HTTP client, and pass the response")

    def _is_rest(self, response: Response) -> bool:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        return found is not None and int(found[1]) == self._offset and found[2] in {"*", str(self.size)}

    async def _check_whole(self, response: Response) -> None:
        """Note what the first response says of the file. A later one must say the same, and begin with the same bytes."""
        if not self._known:
            self._known, self.size = True, response.length
            self.name, self.mime_type = response.filename or self.name, response.mime_type
            etag = response.headers.get("etag", "")
            self._etag = etag if _STRONG_ETAG.fullmatch(etag) else None
            self._check_limit(self.size or 0)
        elif response.length != self.size or not await self._begins_alike(response):
            raise CorruptedMediaError(f"the file at {self._url.host} changed while it was fetched: upload it again")

    async def _begins_alike(self, response: Response) -> bool:
        """Read the bytes that were delivered already, and return whether they are the same."""
        buffer, digest, left = memoryview(bytearray(BATCH_SIZE)), hashlib.sha256(), self._offset
        while left and (count := await response.readinto(buffer[:left])):
            digest.update(buffer[:count])
            left -= count
        return digest.digest() == self._digest.digest()

    def _check_limit(self, size: int) -> None:
        if self._max_size is not None and size > self._max_size:
            sentence = (
                f"the file at {self._url.host} has at least {size} bytes, more than max_size, which is {self._max_size}"
            )
            raise DownloadTooLargeError(sentence, limit=self._max_size, actual=size)


def _fetcher(settings: Settings) -> Fetcher:
    from meta_media.http.fetch import Fetcher

    limits = {name: getattr(settings, f"{name}_timeout") for name in ("connect", "read", "write")}
    timeouts = TransferTimeouts(**limits, rate=settings.minimum_rate, deadline=settings.deadline)
    return Fetcher(settings.proxy, timeouts, Client.observer)
