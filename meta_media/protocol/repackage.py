"""
Opus in WebM, Matroska or MP4 becomes Opus in Ogg: the packets are untouched, only their container changes.

Browsers record voice as WebM or as MP4 in fragments, and WhatsApp accepts neither.
"""

from __future__ import annotations

from collections.abc import Generator

from meta_media.errors import CorruptedMediaError

__all__ = ["RepackageSteps", "repackage_steps"]

RepackageSteps = Generator[tuple[int, int] | bytes, bytes, None]


def repackage_steps() -> RepackageSteps:
    """
    Yield the pages of an Ogg file, and between them the reads that they need.

    A tuple is a read: an offset, and a size of 64 KiB or a little more. The generator is sent the bytes that are there; fewer
    than the size mean that the file ends. `bytes` are pages of the result, and the generator is sent `b""`. It goes back only
    before its first page, as in an MP4 whose index lies at its end: a later read lies ahead of all earlier ones, or in what
    was read or skipped before the first page.

    Raises:
        CorruptedMediaError: The file ends too early, or is damaged.
        UnsupportedMediaTypeError: It is not one track of mono or stereo Opus.
    """
    head = yield 0, 65536
    raise CorruptedMediaError(f"{len(head)} bytes cannot be repackaged yet")
