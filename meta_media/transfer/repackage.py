"""The plain function that repackages a file without an event loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["repackage"]


def repackage(file: BinaryIO | bytes) -> Iterator[bytes]:
    """
    Yield Opus in WebM, Matroska, MP4 or Ogg as mono Opus in Ogg, which WhatsApp accepts as a voice note. Packets are untouched.

    Raises:
        CorruptedMediaError: The file ends too early, or is damaged.
        UnsupportedMediaTypeError: It is not one track of mono or stereo Opus.
    """
    raise NotImplementedError(type(file))
