"""
What the readers and the writer of Opus share: packets, the header, the file, and the errors.

The readers do no I/O. They are generators that yield the reads that they need, and are sent the bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from typing import Final

from meta_media.errors import CorruptedMediaError, UnsupportedMediaTypeError
from meta_media.protocol.formats import PLAYED_VIDEO

__all__ = [
    "MAX_PACKET_SIZE",
    "MAX_PRE_SKIP",
    "UNNAMED",
    "PacketFile",
    "RepackageSteps",
    "damaged",
    "duration",
    "mono",
    "opus_head",
    "refused",
]

RepackageSteps = Generator[tuple[int, int] | bytes, bytes, None]

UNNAMED: Final = "the file"  # what the errors call it, because the readers do not know its name
_READ_SIZE: Final = 2**16
MAX_PACKET_SIZE: Final = 2**18  # bytes; without padding a packet has 61,298 at most (RFC 6716, 3.2.5)
MAX_PRE_SKIP: Final = 0xFFFF  # samples, a 16-bit field (RFC 7845, 5.1)
_MAX_DURATION: Final = 5760  # samples at 48 kHz: 120 ms (RFC 6716, 3.2.5)
_ALLOWED: Final = "one track of mono or stereo Opus"


class PacketFile:
    """The bytes of a file, which is read forward in pieces of 64 KiB."""

    def __init__(self) -> None:
        self._window, self._start = b"", 0

    def at(self, offset: int, size: int) -> Generator[tuple[int, int], bytes, bytes]:
        """Return `size` bytes from `offset`; fewer at the end of the file."""
        at = offset - self._start
        if at < 0 or at + size > len(self._window):
            known = self._window[at:] if 0 <= at <= len(self._window) else b""
            start = offset + len(known)
            self._window, self._start = known + (yield start, max(size - len(known), _READ_SIZE)), offset
            at = 0
        return self._window[at : at + size]

    def exactly(self, offset: int, size: int) -> Generator[tuple[int, int], bytes, bytes]:
        """Return `size` bytes from `offset`."""
        data = yield from self.at(offset, size)
        if len(data) < size:
            raise damaged(f"it ends before byte {offset + size:,}")
        return data


# Samples of a frame at 48 kHz, by the configuration of a packet (RFC 6716, 3.1).
_FRAME_SIZES: Final = (480, 960, 1920, 2880) * 3 + (480, 960) * 2 + (120, 240, 480, 960) * 4


def duration(packet: bytes) -> int:
    """Return the duration of a packet, in samples at 48 kHz (RFC 6716, 3.2)."""
    first = packet[0] if packet else 3
    count = (1, 2, 2)[first & 3] if first & 3 < 3 else (packet[1] & 63 if len(packet) > 1 else 0)
    samples = _FRAME_SIZES[first >> 3] * count
    if not 0 < samples <= _MAX_DURATION:
        raise damaged("a packet of it is not Opus")
    return samples


def opus_head(*, channels: int, pre_skip: int, rate: int = 48_000, gain: int = 0, family: int = 0) -> bytes:
    """Return an `OpusHead` (RFC 7845, 5.1), whose numbers are little-endian."""
    return b"OpusHead" + struct.pack("<BBHIhB", 1, channels & 0xFF, min(pre_skip, MAX_PRE_SKIP), rate, gain, family)


def mono(head: bytes) -> bytes:
    """Return an `OpusHead` that announces one channel."""
    if len(head) < 19 or head[:8] != b"OpusHead" or head[8] >= 16:
        raise damaged("it has no valid header of Opus")
    if head[18] or head[9] not in {1, 2}:  # another mapping family has several streams in each packet
        raise refused(f"Opus of {head[9]} channels in mapping family {head[18]}")
    return head[:9] + b"\1" + head[10:19]


def refused(found: str, *, video: bool = False) -> UnsupportedMediaTypeError:
    """Return the error for a file that can only be encoded anew."""
    fix = "re-encode its first audio track (ffmpeg -i IN -map 0:a:0 -c:a libopus -ac 1 OUT.ogg)"
    if video:
        fix = f"re-encode it as MP4 (ffmpeg -i IN {PLAYED_VIDEO} -c:a aac -movflags +faststart OUT.mp4), or {fix}"
    message = f"{UNNAMED} is {found}, but only {_ALLOWED} can be repackaged: {fix}"
    return UnsupportedMediaTypeError(message, kind="audio", limit=_ALLOWED, actual=found)


def damaged(why: str) -> CorruptedMediaError:
    """Return the error for a file that cannot be read to its end."""
    message = f"{UNNAMED} is damaged, {why}: send the complete original file"
    return CorruptedMediaError(message, kind="audio", limit=_ALLOWED)
