"""
What the readers of file formats share: their result, and a file of which only the head is known.

A reader that needs more than the head is a generator, so that it does no I/O: it yields an offset and a size, is sent the
bytes that are there, and returns its result. Where nothing can be read, as in a stream, it is sent no bytes, and decides by
the head.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final, TypeVar

import attrs

__all__ = ["PLAYED_VIDEO", "REPACKAGE", "Flaw", "PartialFile", "Signature", "Steps", "head_only", "number"]

_T = TypeVar("_T")
Steps = Generator[tuple[int, int], bytes, _T]

PLAYED_VIDEO: Final = "-c:v libx264 -profile:v main -bf 0 -pix_fmt yuv420p"  # options of ffmpeg
REPACKAGE: Final = "pass repackage=True (upload --repackage)"
_WINDOW_SIZE: Final = 1024  # bytes of a read: programs write a track's headers, up to its codec, into less
_MAX_READS: Final = 8


@attrs.frozen(kw_only=True)
class Flaw:
    """A variant of an accepted type that WhatsApp does not accept, as the three parts of an error's sentence."""

    found: str  # the variant of the file
    allowed: str  # the variants that WhatsApp accepts
    fix: str  # what to do

    @property
    def repackable(self) -> bool:
        """Whether `repackage` mends it."""
        return self.fix.startswith(REPACKAGE)


@attrs.frozen(kw_only=True)
class Signature:
    """The types that a head may be."""

    candidates: tuple[str, ...]  # MIME types, the likeliest first; a single one is certain
    flaw: Flaw | None = None
    animated: bool = False  # of a WebP, which decides its maximum size
    remarks: tuple[str, ...] = ()  # sentences on what WhatsApp accepts, but some phones do not play


class PartialFile:
    """The bytes of a file: the head, and the parts beyond it that were read."""

    def __init__(self, head: bytes) -> None:
        self._parts = [(0, head)]

    def at(self, offset: int, size: int) -> Steps[bytes]:
        """Return `size` bytes from `offset`. They are fewer at the end of the file, and none after eight reads."""
        for start, part in self._parts:
            if start <= offset and offset + size <= start + len(part):
                return part[offset - start : offset - start + size]
        if len(self._parts) > _MAX_READS:
            return b""
        part = yield offset, max(size, _WINDOW_SIZE)
        self._parts.append((offset, part))
        return part[:size]


def head_only(steps: Steps[_T], head: bytes) -> _T:
    """Return a reader's result, by the head alone."""
    try:
        offset, size = next(steps)
        while True:
            offset, size = steps.send(head[offset : offset + size])
    except StopIteration as stop:
        result: _T = stop.value
        return result


def number(head: bytes, start: int, size: int) -> int:
    """Read a little-endian number. Bytes beyond the head read as zero."""
    return int.from_bytes(head[start : start + size], "little")
