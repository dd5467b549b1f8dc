"""Ogg, MP3, AAC and ID3 tags: the codec of a sound file."""

from __future__ import annotations

import re
from typing import Final

from meta_media.protocol.formats import Flaw, PartialFile, Signature, Steps, number

__all__ = ["ADTS_FRAME", "MP3_FRAME", "id3", "ogg"]

_OGG_CODECS: Final = ((b"\x01vorbis", "Vorbis"), (b"\x7fFLAC", "FLAC"), (b"Speex", "Speex"))


def ogg(head: bytes, _complete: bool) -> Signature:
    """Read the first packet of the first page (RFC 3533, 6): "OpusHead", then a version and the channels (RFC 7845, 5.1)."""
    start = 27 + number(head, 26, 1)
    packet = head[start : start + 10]
    if packet.startswith(b"\x80theora"):
        return Signature(candidates=("video/ogg",))
    if packet.startswith(b"OpusHead"):
        channels = number(packet, 9, 1)
        found = None if channels == 1 else f"Opus of {channels} channels"
    else:
        found = next((codec for magic, codec in _OGG_CODECS if packet.startswith(magic)), "a codec other than Opus")
    # Meta's Media page: "OPUS codecs only; base audio/ogg not supported", mono input only.
    fix = "re-encode it as mono Opus (ffmpeg -c:a libopus -ac 1)"
    flaw = Flaw(found=f"Ogg with {found}", allowed="mono Opus in Ogg", fix=fix) if found else None
    return Signature(candidates=("audio/ogg",), flaw=flaw)


MP3_FRAME: Final = rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x00-\xef]"  # sync, a real version, layer III, a real bit rate
ADTS_FRAME: Final = rb"\xff[\xf0\xf1\xf8\xf9]"  # sync, layer 0 (ISO/IEC 13818-7, 6.2)
_TAGGED: Final = (
    (re.compile(MP3_FRAME), "audio/mpeg"),
    (re.compile(ADTS_FRAME), "audio/aac"),
    (re.compile(rb"fLaC"), "audio/flac"),
)


def id3(head: bytes, _complete: bool) -> Steps[Signature]:
    """Look behind the tag, whose size has seven bits per byte (ID3v2.4, 3.1). Cover art often fills the whole head."""
    size = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    frame = yield from PartialFile(head).at(10 + size, 4)
    for pattern, mime_type in _TAGGED:
        if pattern.match(frame):
            return Signature(candidates=(mime_type,))
    return Signature(candidates=("audio/mpeg", "audio/aac"))
