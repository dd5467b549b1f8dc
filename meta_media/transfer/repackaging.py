"""A source whose Opus becomes a voice note: it is repackaged when it is opened, and any other file is left as it is."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Final

import attrs

from meta_media.protocol.filenames import typed_filename
from meta_media.protocol.media_types import HEAD_SIZE, MAX_SIZE, Inspection, check_size
from meta_media.protocol.repackage import RepackageSteps, repackage_steps
from meta_media.transfer.bodies import Body, make_replayable
from meta_media.transfer.opening import open_stream
from meta_media.transfer.sources import Source
from meta_media.transfer.threads import FileWork

__all__ = ["repackaged"]

_CONTAINER: Final = re.compile(rb"\x1a\x45\xdf\xa3|OggS|....(?:ftyp|styp|moov|mdat|free|wide)", re.DOTALL)
_MATROSKA: Final = frozenset({"audio/webm", "video/webm", "video/x-matroska"})


def repackaged(source: Source, mime_type: str | None) -> Source:
    """
    Return a source of the same file, with its Opus in Ogg, if it is Opus that WhatsApp does not take as it is.

    `mime_type` is what the caller declares: the bytes of a declared document or picture are left as they are, and refused.
    """
    declared = (mime_type or "audio").strip().lower()
    return _Repackaged(source=source) if declared.startswith(("application/ogg", "audio", "video")) else source


@attrs.frozen(kw_only=True)
class _Repackaged(Source):
    source: Source

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Body]:
        """See `Source`. Name, type and SHA-256 are those of the body."""
        async with self.source.open() as body:
            name = self.source.name or body.name
            if not await _is_opus(body, name):
                body.name, body.mime_type = name, self.source.mime_type or body.mime_type
                body.sha256 = self.source.sha256 or body.sha256
                yield body
                return
            async with aclosing(_pages(body)) as pages, open_stream(pages, None) as result:
                result.name = name and typed_filename(name, "audio/ogg", "media", sent=True)
                result.repackaged_size = body.size
                yield result

    @property
    def again(self) -> Callable[[int], Awaitable[Source]] | None:
        """See `Source`."""
        if (again := self.source.again) is None:
            return None

        async def repackaged_again(size: int) -> Source:
            return attrs.evolve(self, source=await again(size))

        return repackaged_again


async def _is_opus(body: Body, name: str | None) -> bool:
    """Return whether a file may be Opus that must be repackaged. A stream that may be is spooled, to be read anywhere."""
    if not _CONTAINER.match(body.head):
        return False
    streamed = not body.seekable
    make_replayable(body)
    size = await body.measure(MAX_SIZE, HEAD_SIZE)
    signature, _ = await body.signature()
    flaw = signature and signature.flaw
    if signature is None or (_MATROSKA.isdisjoint(signature.candidates) and not (flaw and flaw.repackable)):
        return False
    if streamed:  # it ends where the spool does
        check_size(Inspection(mime_type=signature.candidates[0], kind="audio", max_size=MAX_SIZE), size, filename=name)
    return True


async def _pages(body: Body) -> AsyncGenerator[bytes, None]:
    """Yield the pages of the Ogg file, which are computed on a thread."""
    steps, work, data = repackage_steps(), FileWork("the source", limit=None), None
    while True:
        pages, place = await work.run(_advance, steps, data)
        if pages:
            yield pages
        if place is None:
            return
        data = await _read(body, *place)


def _advance(steps: RepackageSteps, data: bytes | None) -> tuple[bytes, tuple[int, int] | None]:
    """Return the pages until the next read, and that read; None at the end."""
    pages: list[bytes] = []
    try:
        step = next(steps) if data is None else steps.send(data)
        while isinstance(step, bytes):
            pages.append(step)
            step = steps.send(b"")
    except StopIteration:
        step = None
    return b"".join(pages), step


async def _read(body: Body, offset: int, size: int) -> bytes:
    """Read from an offset. The bytes are fewer than the size only at the end."""
    data = b""
    while len(data) < size and (chunk := await body.at(offset + len(data), size - len(data))):
        data += chunk
    return data
