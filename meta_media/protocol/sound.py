"""Ogg, MPEG audio, AAC and ID3 tags: the codec of a sound file."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Final

from meta_media.protocol.formats import REPACKAGE, Flaw, PartialFile, Signature, Steps, number

__all__ = ["ADTS_FRAME", "MP3_FRAME", "behind_tags", "frames", "ogg"]

_OGG_SOUND: Final = {
    b"OpusHead": "Opus",
    b"\x01vorbis": "Vorbis",
    b"\x7fFLAC": "FLAC",
    b"Speex": "Speex",
    b"CELT": "CELT",
    b"PCM ": "PCM",
}
_OGG_VIDEO: Final = (b"\x80theora", b"OVP80", b"BBCD\0")
_COVER_RATE: Final = (90_000).to_bytes(4, "big") + (1).to_bytes(4, "big")  # pictures per second
_MONO_OPUS: Final = "re-encode it as mono Opus (ffmpeg -i IN -vn -c:a libopus -ac 1 OUT.ogg)"


def ogg(head: bytes, _complete: bool) -> Signature:
    """
    Read the first packet of each stream: "OpusHead", then a version and the channels (RFC 7845, 5.1).

    ffmpeg writes the cover of an MP3 as a Theora video of 90,000 pictures per second, which no film has. Other pictures beside
    Opus may be a film's, and the name decides; those beside Vorbis are a film's.
    """
    sound: list[str] = []
    mono = repackable = cover = film = False
    for packet in _first_packets(head):
        if packet.startswith(_OGG_VIDEO):
            cover, film = True, film or packet[22:30] != _COVER_RATE  # Theora specification, 6.2
        for name in (codec for magic, codec in _OGG_SOUND.items() if packet.startswith(magic)):
            channels, family = number(packet, 9, 1), number(packet, 18, 1)
            mono, repackable = name == "Opus" and channels == 1, name == "Opus" and (channels, family) == (2, 0)
            sound.append(name if mono or name != "Opus" else f"Opus of {channels} channels")
    if film and not any(name.startswith("Opus") for name in sound):
        return Signature(candidates=("video/ogg",))
    if mono and len(sound) == 1 and not cover:
        return Signature(candidates=("audio/ogg",))
    # Meta's Media page: "OPUS codecs only; base audio/ogg not supported", mono input only.
    fix = _MONO_OPUS
    if cover:
        fix = "leave the cover out (ffmpeg -i IN -vn -c:a copy OUT.ogg)" if mono else f"leave the cover out and {fix}"
        fix += ", or convert it to MP4 with H.264 and AAC, if it is a film" * film
    elif repackable:
        fix = f"{REPACKAGE}, which announces it as mono without re-encoding, or {fix}"
    found = " and ".join(sound or ["a codec other than Opus"]) + " and a cover" * cover
    flaw = Flaw(found=f"Ogg with {found}", allowed="mono Opus in Ogg", fix=fix)
    return Signature(candidates=("audio/ogg", "video/ogg") if film else ("audio/ogg",), flaw=flaw)


def _first_packets(head: bytes) -> Iterator[bytes]:
    """Yield the start of the first packet of each stream. Their pages come before all others, and have a flag (RFC 3533, 6)."""
    page = 0
    while head.startswith(b"OggS", page) and number(head, page + 5, 1) & 0x02:
        start = page + 27 + number(head, page + 26, 1)
        page = start + sum(head[page + 27 : start])
        yield head[start:page]


MP3_FRAME: Final = rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x00-\xef]"  # sync, a real version, layer III, a real bit rate
ADTS_FRAME: Final = rb"\xff[\xf0\xf1\xf8\xf9]"  # sync, layer 0 (ISO/IEC 13818-7, 6.2)


def _frames_of(mime_type: str, found: str = "", allowed: str = "", options: str = "") -> Signature:
    fix = f"re-encode it (ffmpeg -i IN -vn -c:a {options})"
    return Signature(candidates=(mime_type,), flaw=Flaw(found=found, allowed=allowed, fix=fix) if found else None)


_FRAMES: Final = {
    "ADTS": _frames_of("audio/aac"),
    "LATM": _frames_of("audio/aac", "AAC in LATM", "AAC in ADTS or M4A", "aac OUT.m4a"),
    "II": _frames_of("audio/mpeg", "MPEG audio of layer II", "MP3, which is layer III", "libmp3lame OUT.mp3"),
    "III": _frames_of("audio/mpeg"),
}
# How frames begin: of LATM (ISO/IEC 14496-3, 1.7.2); of ADTS, or of layer III or II at a known bit rate.
_LATM_FRAME: Final = re.compile(rb"V[\xe0-\xff]")
_FRAME: Final = re.compile(ADTS_FRAME + rb"|\xff[\xe2-\xe5\xf2-\xf5\xfa-\xfd][\x10-\xef]")
# Thousands of bits per second, in version 1 by the layer, and in all others (ISO/IEC 11172-3 and 13818-3, 2.4.2.3).
_BIT_RATES: Final = {
    "II": (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    "III": (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
_LOW_BIT_RATES: Final = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_FREQUENCIES: Final = (44100, 48000, 32000)  # in hertz; half and a quarter of them in versions 2 and 2.5


def frames(head: bytes, _complete: bool) -> Signature | None:
    """Find a frame that is followed by a second of its kind, as players do. LATM counts at the start, because text has its letters."""
    for found in itertools.chain(_LATM_FRAME.finditer(head, 0, 2), _FRAME.finditer(head)):
        kind, size = _frame(head[found.start() : found.start() + 6])
        following = head[found.start() + size : found.start() + size + 3]
        if size and found.re.match(following) and (kind == "LATM" or following[1] == found[0][1]):
            return _FRAMES[kind]
    return None


def _frame(header: bytes) -> tuple[str, int]:
    """Return the kind of a frame, and its size in bytes, which is 0 for no frame."""
    first, second, third, *_ = header.ljust(6, b"\0")
    if first != 0xFF:
        return "LATM", 3 + (int.from_bytes(header[1:3], "big") & 0x1FFF)
    version, layer, frequency = second >> 3 & 3, second >> 1 & 3, third >> 2 & 3  # version 3 is 1, 2 is 2, and 0 is 2.5
    if layer == 0:
        return "ADTS", int.from_bytes(header[3:6], "big") >> 5 & 0x1FFF
    kind = "III" if layer == 1 else "II"
    if frequency == 3:
        return kind, 0
    bits = 1000 * (_BIT_RATES[kind] if version == 3 else _LOW_BIT_RATES)[(third >> 4) - 1]
    slots = 144 if kind == "II" or version == 3 else 72
    return kind, slots * bits // (_FREQUENCIES[frequency] >> (2, 0, 1, 0)[version]) + (third >> 1 & 1)


def behind_tags(head: bytes) -> Steps[bytes]:
    """
    Return what follows the ID3 tags and their padding.

    The size of a tag has seven bits per byte, and leaves out its header and its footer (ID3v2.4, 3.1 and 3.4).
    """
    file, offset, rest = PartialFile(head), 0, head
    for _ in range(4):
        found = rest.lstrip(b"\0")
        offset += len(rest) - len(found)
        if found.startswith(b"ID3"):
            size = sum(byte << shift for byte, shift in zip(found[6:10], (21, 14, 7, 0), strict=False))
            offset += 10 + size + (10 if number(found, 5, 1) & 0x10 else 0)
        elif found or not rest:
            break
        rest = yield from file.at(offset, 2048)
    return rest.lstrip(b"\0")
