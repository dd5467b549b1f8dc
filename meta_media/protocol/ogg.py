"""
One stream of Opus in Ogg: its pages are written, or are read to announce it as mono (RFC 3533, RFC 7845).

A packet of Opus says itself how many channels and samples it has. The channels of the header are those that a player is to
give out, and every player mixes stereo packets down to the one channel that is announced.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

from meta_media.protocol.opus import MAX_PRE_SKIP, PacketFile, RepackageSteps, damaged, duration, mono, refused

__all__ = ["OggWriter", "mono_ogg"]

_MAX_SAMPLES: Final = 48_000  # of a page: a second
_MAX_SEGMENTS: Final = 255  # of a page, of up to 255 bytes each (RFC 3533, 6)
_CONTINUED, _FIRST, _LAST = 1, 2, 4  # the flags of a page
_NO_GRANULE: Final = 2**64 - 1  # of a page on which no packet ends
_SERIAL: Final = 0x4F707573  # fixed, so that the same recording gives the same bytes
_TAGS: Final = b"OpusTags" + struct.pack("<I10sI", 10, b"meta_media", 0)  # vendor, and no comments (RFC 7845, 5.2)
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class OggWriter:
    """
    Collects packets into pages.

    Attributes:
        samples: Duration of the packets so far, at 48 kHz, the pre-skip and the packets that were left out included.
    """

    def __init__(self) -> None:
        self.samples = 0
        self._head = b""
        self._pre_skip = 0
        self._left_out = 0  # samples
        self._sequence = 0  # of the next page
        self._flags = 0
        self._lacing = b""  # of the next page, like the rest
        self._packets: list[bytes] = []
        self._page_start = 0  # samples before it

    def start(self, head: bytes, pre_skip: int = 0) -> None:
        """Take an `OpusHead`, and the samples at 48 kHz that a player is to leave out at the start, if they are more than its."""
        self._head, self._pre_skip = head, max(int.from_bytes(head[10:12], "little"), pre_skip)

    def add(self, packet: bytes) -> bytes:
        """Add a packet, and return the pages that are complete; often none."""
        size = duration(packet)
        self.samples += size
        # What is left of it is more than the 80 ms in which a decoder converges (RFC 7845, 4.6).
        if self._pre_skip > MAX_PRE_SKIP:
            self._pre_skip -= size
            self._left_out += size
            return b""
        pages = b"" if self._sequence else self._headers()
        lacing = b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255])
        granule = self.samples - self._left_out
        full = granule - self._page_start > _MAX_SAMPLES or len(self._lacing) + len(lacing) > _MAX_SEGMENTS
        if full and self._lacing:
            pages += self._page(self._flags, granule - size, self._lacing, b"".join(self._packets))
            self._page_start, self._flags, self._lacing, self._packets = granule - size, 0, b"", []
        while len(lacing) > _MAX_SEGMENTS:  # only a padded packet
            pages += self._page(self._flags, _NO_GRANULE, lacing[:_MAX_SEGMENTS], packet[: _MAX_SEGMENTS * 255])
            self._flags, lacing, packet = _CONTINUED, lacing[_MAX_SEGMENTS:], packet[_MAX_SEGMENTS * 255 :]
        self._lacing += lacing
        self._packets.append(packet)
        return pages

    def finish(self, samples: int) -> bytes:
        """Return the last page. Playing ends after `samples`, counted like the attribute, and with the last packet at the latest."""
        granule = max(min(samples, self.samples) - self._left_out, self._page_start)
        if granule <= self._pre_skip:  # decoders refuse what ends before its pre-skip
            raise damaged("it has no sound")
        return self._page(self._flags | _LAST, granule, self._lacing, b"".join(self._packets))

    def _headers(self) -> bytes:
        head = self._head[:10] + struct.pack("<H", self._pre_skip) + self._head[12:]
        return self._page(_FIRST, 0, bytes([len(head)]), head) + self._page(0, 0, bytes([len(_TAGS)]), _TAGS)

    def _page(self, flags: int, granule: int, lacing: bytes, data: bytes) -> bytes:
        fields = (b"OggS", 0, flags, granule, _SERIAL, self._sequence, 0, len(lacing))
        self._sequence += 1
        return _sealed(struct.pack("<4sBBQIIIB", *fields) + lacing + data)


def mono_ogg(file: PacketFile) -> RepackageSteps:
    """Pass the pages of Ogg/Opus on. Only the first one is changed: it announces one channel."""
    position, serial, count = 0, b"", 0
    while header := (yield from file.at(position, 27 + _MAX_SEGMENTS)):
        lacing = header[27 : 27 + int.from_bytes(header[26:27], "little")]
        if header[:5] != b"OggS\0" or len(header) < 27 or len(lacing) < header[26]:
            raise damaged(f"there is no Ogg page at byte {position:,}")
        size = 27 + len(lacing) + sum(lacing)
        page = yield from file.exactly(position, size)
        if not position:
            page, serial = _mono(page, 27 + len(lacing)), page[14:18]
        elif page[14:18] != serial:
            raise refused("Ogg with several streams")
        yield page
        position += size
        count += 1
    if count < 3:  # the first two are the headers (RFC 7845, 3)
        raise damaged("it has no sound")


def _mono(page: bytes, start: int) -> bytes:
    """Return the first page, which announces one channel."""
    if page[start : start + 8] != b"OpusHead":
        raise refused("Ogg with a codec other than Opus")
    head = mono(page[start:])
    return page if page[start + 9] == 1 else _sealed(page[:start] + head + page[start + len(head) :])


def _sealed(page: bytes) -> bytes:
    """
    Return a page with its checksum.

    Ogg's CRC-32 is zlib's, but for the order of the bits, the start and the end.
    """
    blank = page[:22] + bytes(4) + page[26:]
    crc = zlib.crc32(blank.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return page[:22] + crc.to_bytes(4, "big").translate(_REVERSED) + page[26:]
