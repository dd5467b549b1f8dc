"""What the tests of repackaging share: recordings of browsers, and WebM of any length."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from meta_media import repackage
from tests.support.boxes import box

MEDIA = Path(__file__).parents[1] / "media"
WEBM = (MEDIA / "voice.webm").read_bytes()  # of Chromium's MediaRecorder, mono
MP4 = (MEDIA / "voice.mp4").read_bytes()  # likewise, in fragments
STEREO = (MEDIA / "stereo.ogg").read_bytes()


def voice(recording: bytes) -> bytes:
    """Return a recording as a voice note."""
    return b"".join(repackage(recording))


def packets(count: int, size: int) -> Iterator[bytes]:
    """Yield packets of 20 ms, each of other bytes."""
    for number in range(count):
        yield b"\xf8" + hashlib.shake_128(number.to_bytes(4, "big")).digest(size - 1)


def element(name: bytes, content: bytes) -> bytes:
    """Build an element of EBML, with a size of eight bytes."""
    return name + struct.pack(">Q", len(content) | 1 << 56) + content


def webm(sound: Iterable[bytes], *more: bytes) -> Iterator[bytes]:
    """
    Yield WebM of unknown length, a cluster at a time, as a browser gives it to a page.

    `more` stands in the list of tracks, behind the one of the sound.
    """
    head = b"OpusHead" + struct.pack("<BBHIhB", 1, 1, 312, 48_000, 0, 0)
    audio = element(b"\xe1", element(b"\x9f", b"\1"))
    track = element(b"\xd7", b"\1") + element(b"\x83", b"\2") + element(b"\x86", b"A_OPUS") + element(b"\x63\xa2", head)
    unknown = b"\x01" + b"\xff" * 7
    tracks = element(b"\x16\x54\xae\x6b", element(b"\xae", track + audio) + b"".join(more))
    yield element(b"\x1a\x45\xdf\xa3", element(b"\x42\x82", b"webm")) + b"\x18\x53\x80\x67" + unknown + tracks
    for number, packet in enumerate(sound):
        start = b"" if number % 50 else b"\x1f\x43\xb6\x75" + unknown + element(b"\xe7", struct.pack(">I", number * 20))
        yield start + element(b"\xa3", b"\x81" + struct.pack(">hB", number % 50 * 20, 0x80) + packet)


CAMERA = b"".join(webm(packets(2, 100), element(b"\xae", element(b"\x83", b"\1") + element(b"\x86", b"V_VP8"))))


def mp4(sound: Iterable[bytes]) -> bytes:
    """Build an MP4 whose index lies behind its sound, as ffmpeg writes it."""
    start, whole = box(b"ftyp", b"isom", bytes(4)), list(sound)
    opus = box(b"Opus", bytes(28), box(b"dOps", struct.pack(">BBHIhB", 0, 1, 312, 48_000, 0, 0)))
    tables = [
        box(b"stsd", struct.pack(">II", 0, 1), opus),
        box(b"stts", struct.pack(">4I", 0, 1, len(whole), 960)),
        box(b"stsc", struct.pack(">5I", 0, 1, 1, len(whole), 1)),
        box(b"stsz", struct.pack(">3I", 0, 0, len(whole)), *(struct.pack(">I", len(packet)) for packet in whole)),
        box(b"stco", struct.pack(">3I", 0, 1, len(start) + 8)),
    ]
    clock = bytes(12) + struct.pack(">I", 48_000) + bytes(84)
    described = box(b"minf", box(b"stbl", *tables))
    media = box(b"mdia", box(b"mdhd", clock), box(b"hdlr", bytes(8), b"soun", bytes(13)), described)
    track = box(b"trak", box(b"tkhd", bytes(12), b"\0\0\0\1", bytes(68)), media)
    return start + box(b"mdat", *whole) + box(b"moov", box(b"mvhd", clock), track)
