"""Downloads: one engine that finds, fetches and verifies, behind the three verbs `download`, `stream` and `read`."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final
from urllib.parse import urljoin

import attrs

from .destinations import Destination, open_sink
from .errors import ConfigurationError, DownloadTooLargeError, IntegrityError, ServerError
from .filenames import safe_filename
from .http import Http, Reply
from .lanes import Lane
from .lookups import look_up
from .media_types import extension_for
from .models import DownloadedMedia, InboundMedia, MediaInfo
from .progress import Meter, ProgressCallback
from .settings import checked_id
from .wire import Request, disposition_filename, fetch

__all__ = ["MediaStream", "download", "open_stream"]

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS: Final = 5
_BUFFERS: Final = 3  # one to fill, one to hash and write, one between, so that neither waits for the other
_EXPIRED: Final = frozenset({401, 403, 404, 410})  # how the hosts that serve media say that a URL has died


@attrs.frozen(kw_only=True)
class _Target:
    """What to fetch and what is known of it; `renewed` once its URL comes from Meta's own answer to this call."""

    url: str | None
    media_id: str | None = None
    info: MediaInfo | None = None
    mime_type: str | None = None
    sha256: str | None = None
    size: int | None = None
    filename: str | None = None
    renewed: bool = False


def _target(what: object) -> _Target:
    if isinstance(what, MediaInfo):
        return _Target(
            url=what.url,
            media_id=checked_id(what.id, "the media id"),
            info=what,
            mime_type=what.mime_type,
            sha256=what.sha256,
            size=what.file_size,
        )
    if isinstance(what, InboundMedia):
        return _Target(
            url=what.url,
            media_id=checked_id(what.id, "the media id"),
            mime_type=what.mime_type,
            sha256=what.sha256,
            filename=what.filename,
        )
    if isinstance(what, str) and "://" in what:
        return _Target(url=what)
    return _Target(url=None, media_id=checked_id(what, "the media id"))


async def _renewed(http: Http, target: _Target, media_id: str) -> _Target:
    """Get a new URL, which must be of the same bytes."""
    info = await look_up(http, media_id)
    for known, now in ((target.sha256, info.sha256), (target.size, info.file_size)):
        if known is not None and now is not None and known != now:
            raise IntegrityError(f"media {media_id} is no longer what it was", expected=known, actual=now)
    renewed = _target(info)
    size = target.size if renewed.size is None else renewed.size
    sha256 = renewed.sha256 or target.sha256
    return attrs.evolve(renewed, sha256=sha256, size=size, filename=target.filename, renewed=True)


@asynccontextmanager
async def open_stream(http: Http, what: object, *, max_size: int | None = None) -> AsyncIterator[MediaStream]:
    """Open a download, with a new URL if the one at hand has died."""
    target = _target(what)
    if target.media_id and target.url is None:
        target = await _renewed(http, target, target.media_id)
    async with AsyncExitStack() as stack:
        request, reply = await _followed(http, target, stack)
        if reply.status in _EXPIRED and target.media_id and not target.renewed:
            await stack.aclose()
            target = await _renewed(http, target, target.media_id)
            request, reply = await _followed(http, target, stack)
        if reply.status != 200:
            raise await http.refused(request, reply)
        limit = http.settings.max_download_size if max_size is None else max_size
        stream = MediaStream(reply, target, http.settings.chunk_size, limit)
        async with contextlib.aclosing(stream):
            yield stream


async def _followed(http: Http, target: _Target, stack: AsyncExitStack) -> tuple[Request, Reply]:
    """Fetch a URL; every redirect is judged like a new one, and gets the token only if its own host may see it."""
    url, status = target.url or "", None
    for _ in range(1 + _MAX_REDIRECTS):
        request = fetch(url, http.settings, media_id=target.media_id)
        reply = await stack.enter_async_context(await http.send(request))
        location = reply.headers.get("location")
        status = reply.status
        if status not in _REDIRECTS or location is None:
            return request, reply
        await stack.aclose()
        try:
            url = urljoin(url, location)
        except ValueError:
            url = location  # which is no URL, as will be found
    raise ServerError(f"the media URL redirects more than {_MAX_REDIRECTS} times", status=status)


class MediaStream:
    """
    A download in progress: iterate once over its chunks of bytes, of `Settings.chunk_size` but for the last.

    When the iteration ends without an error, the length and, where Meta gave one, the SHA-256 have been verified over
    exactly the bytes that were handed over.

    Attributes:
        info: What Meta said of it, where it was asked.
        media_id: None when only a URL was known.
        mime_type: As Meta says.
        size: Bytes, where Meta says.
        filename: A safe name for it.
    """

    def __init__(self, reply: Reply, target: _Target, chunk_size: int, max_size: int) -> None:
        served_type = reply.headers.get("content-type")
        self.info = target.info
        self.media_id = target.media_id
        self.mime_type = target.mime_type or served_type or "application/octet-stream"
        self.size = reply.length if target.size is None else target.size
        fallback = f"{target.media_id or 'media'}{extension_for(self.mime_type) or ''}"
        self.filename = safe_filename(target.filename or disposition_filename(reply.headers), fallback)
        self._expected_sha256 = target.sha256
        self._max_size = max_size
        self._digest = hashlib.sha256()
        self._reply = reply
        self._chunk_size = chunk_size
        self._chunks = self._copied()
        self._over = False
        if (served_type or "").lower().startswith("text/html") and not self.mime_type.startswith("text/html"):
            raise ServerError("Meta served an HTML page where the media should be", status=reply.status, retryable=True)
        if reply.length is not None and reply.length != self.size:
            raise IntegrityError(
                f"{reply.length} bytes are served where Meta promised {self.size}",
                expected=self.size,
                actual=reply.length,
            )
        self._check_limit(self.size or 0)

    @property
    def sha256(self) -> str:
        """The SHA-256 of the bytes handed over, once the iteration has ended."""
        return self._digest.hexdigest()

    def __aiter__(self) -> AsyncIterator[bytes]:
        if self._over:
            raise ConfigurationError("a MediaStream is iterated once, inside its block: there is nothing left to give")
        return self._chunks

    async def aclose(self) -> None:
        """Stop; what has not been read is not."""
        self._over = True
        await self._chunks.aclose()

    def _check_limit(self, size: int) -> None:
        if size > self._max_size:
            raise DownloadTooLargeError(
                f"the media has {size} bytes or more, and {self._max_size} are allowed",
                limit=self._max_size,
                actual=size,
            )

    async def _copied(self) -> AsyncGenerator[bytes, None]:
        async with contextlib.aclosing(self.views()) as views:
            async for view in views:
                yield bytes(view)

    async def views(self, work: Callable[[memoryview], None] | None = None) -> AsyncGenerator[memoryview, None]:
        """
        Yield the chunks in three buffers, by turns: one is filled while others are hashed.

        Each is the receiver's until the next is asked for.

        Args:
            work: What else to do with each, on the thread that hashes it.
        """
        room = (
            self._chunk_size if self.size is None else min(self._chunk_size, self.size + 1)
        )  # so that the end is seen
        buffers = [memoryview(bytearray(room))]
        received = 0

        def worked(view: memoryview) -> None:
            self._digest.update(view)
            if work is not None:
                work(view)

        try:
            async with Lane(worked, depth=_BUFFERS - 1) as lane:
                while count := await self._reply.readinto(buffers[0]):
                    received += count
                    self._check_limit(received)
                    if self.size is not None and received > self.size:
                        break
                    await lane.put(buffers[0][:count])
                    yield buffers[0][:count]
                    if count < room:
                        break
                    if len(buffers) < _BUFFERS:
                        buffers.append(memoryview(bytearray(room)))
                    buffers.insert(0, buffers.pop())  # the one that was handed over first
        finally:
            self._over = True  # also after an error: to iterate again must not look like a good end
        self._check(received)

    def _check(self, received: int) -> None:
        if self.size is not None and received != self.size:
            raise IntegrityError(
                f"{received} bytes arrived where Meta promised {self.size}", expected=self.size, actual=received
            )
        if self._expected_sha256 and not hmac.compare_digest(self._expected_sha256, self.sha256):
            raise IntegrityError(
                "the bytes that arrived do not have the SHA-256 that Meta promised",
                expected=self._expected_sha256,
                actual=self.sha256,
            )


async def download(
    http: Http, what: object, destination: Destination, *, overwrite: bool, progress: ProgressCallback | None
) -> DownloadedMedia:
    """Write a verified download to a destination."""
    async with open_sink(destination, overwrite=overwrite) as sink:
        async with open_stream(http, what) as stream:
            meter = Meter(progress, stream.size)
            async with contextlib.aclosing(stream.views(sink.blocking)) as views:
                async for view in views:
                    await sink.write(view)
                    await meter.add(len(view))
        return DownloadedMedia(
            path=await sink.commit(stream.filename),
            size=meter.transferred,
            sha256=stream.sha256,
            mime_type=stream.mime_type,
            media_id=stream.media_id,
        )
