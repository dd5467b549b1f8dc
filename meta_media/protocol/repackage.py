"""
Opus in WebM, Matroska or MP4 becomes Opus in Ogg: the packets are untouched, only their container changes.

Browsers record voice as WebM or as MP4 in fragments, and WhatsApp accepts neither.
"""

from __future__ import annotations

import re
from typing import Final

from meta_media.errors import InvalidMediaError
from meta_media.protocol.matroska import matroska_voice
from meta_media.protocol.media_types import subject
from meta_media.protocol.ogg import mono_ogg
from meta_media.protocol.opus import UNNAMED, PacketFile, RepackageSteps, damaged, refused
from meta_media.protocol.opus_mp4 import mp4_voice

__all__ = ["RepackageSteps", "repackage_steps"]

_READERS: Final = (
    (re.compile(rb"\x1a\x45\xdf\xa3"), matroska_voice),
    (re.compile(rb"OggS"), mono_ogg),
    (re.compile(rb".{4}(?:ftyp|styp|moov|moof|mdat|free|skip|wide)", re.DOTALL), mp4_voice),
)


def repackage_steps(filename: str | None = None) -> RepackageSteps:
    """
    Yield the pages of an Ogg file, and between them the reads that they need.

    A tuple is a read: an offset, and a size of 64 KiB, or as much as an MP4's index has, 16 MiB at most. The generator is sent
    the bytes that are there; fewer than the size mean that the file ends. `bytes` are pages of the result, and the generator
    is sent `b""`. Each read begins where all earlier ones ended, or later. Only an MP4 whose index lies behind its sound goes
    back, and only before the first page.

    Raises:
        CorruptedMediaError: The file ends too early, or is damaged. The error has the name, if it is given.
        UnsupportedMediaTypeError: It is not one track of mono or stereo Opus.
    """
    try:
        yield from _steps()
    except InvalidMediaError as error:
        error.message = error.message.replace(UNNAMED, subject(filename), 1)
        error.args = (error.message,)
        raise


def _steps() -> RepackageSteps:
    file = PacketFile()
    head = yield from file.at(0, 8)
    if not head:
        raise damaged("it is empty")
    for pattern, reader in _READERS:
        if pattern.match(head):
            yield from reader(file)
            return
    raise refused("neither WebM, Matroska, MP4 nor Ogg")
