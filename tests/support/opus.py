"""Opus in Ogg, WebM and MP4: files are built part by part, and the pages of an Ogg are read back."""

from __future__ import annotations

import struct

from tests.support.boxes import box

HEAD = b"OpusHead\1\1" + struct.pack("<HIhB", 312, 48_000, 0, 0)
STEREO = HEAD[:9] + b"\2" + HEAD[10:]
PACKETS = [bytes([8, number]) + b"voice" * (number % 7) for number in range(120)]  # of 20 ms, or 960 samples


# Ogg


def checksum(data: bytes) -> int:
    """Compute the CRC-32 of Ogg bit by bit, as RFC 3533 states it."""
    crc = 0
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


def pages(ogg: bytes) -> list[tuple[int, int, list[int], bytes]]:
    """Return flags, granule position, lacing values and content of each page. Checksum, serial and sequence must be right."""
    found: list[tuple[int, int, list[int], bytes]] = []
    while ogg:
        magic, version, flags, granule, serial, sequence, crc, count = struct.unpack_from("<4sBBqIIIB", ogg)
        lacing = list(ogg[27 : 27 + count])
        size = 27 + count + sum(lacing)
        assert (magic, version, serial, sequence) == (b"OggS", 0, 0x4F707573, len(found))
        assert crc == checksum(ogg[:22] + bytes(4) + ogg[26:size])
        found.append((flags, granule, lacing, ogg[27 + count : size]))
        ogg = ogg[size:]
    return found


def packets(ogg: bytes) -> list[bytes]:
    """Return the packets of an Ogg file, without the two of its headers."""
    found, packet = [], b""
    for _, _, lacing, content in pages(ogg):
        for size in lacing:
            packet, content = packet + content[:size], content[size:]
            if size < 255:
                found.append(packet)
                packet = b""
    assert packet == b"", "the last packet is complete"
    return found[2:]


def facts(ogg: bytes) -> tuple[int, int]:
    """Return the pre-skip, and the granule position of the last page."""
    return int.from_bytes(ogg[38:40], "little"), pages(ogg)[-1][1]


# WebM


def element(name: int, *parts: bytes, size: int | None = None) -> bytes:
    """Build an element with an ID and a size of 8 bytes."""
    content = b"".join(parts)
    length = len(content) if size is None else size
    return name.to_bytes((name.bit_length() + 7) // 8, "big") + (1 << 56 | length).to_bytes(8, "big") + content


UNKNOWN = (1 << 56) - 1  # the size of what is being recorded
EBML = element(0x1A45DFA3, element(0x4282, b"webm"))


def entry(
    *parts: bytes, number: int = 1, kind: int = 2, codec: bytes = b"A_OPUS", head: bytes | None = HEAD
) -> bytes:
    """Build the entry of a track."""
    private = b"" if head is None else element(0x63A2, head)
    named = element(0xD7, bytes([number])), element(0x83, bytes([kind])), element(0x86, codec)
    return element(0xAE, *named, private, *parts)


def block(*frames: bytes, number: int = 1, lacing: bytes = b"", flags: int = 0) -> bytes:
    """Build a block. `lacing` are the number of its frames and their sizes."""
    return bytes([0x80 | number]) + b"\0\0" + bytes([flags]) + lacing + b"".join(frames)


def simple(*frames: bytes, **how: int) -> bytes:
    """Build a simple block of one frame."""
    return element(0xA3, block(*frames, **how))  # type: ignore[arg-type]  # a number or flags


def webm(*blocks: bytes, tracks: bytes = entry(), size: int = UNKNOWN) -> bytes:  # noqa: B008 - bytes do not change
    """Build a file of one cluster."""
    cluster = element(0x1F43B675, element(0xE7, b"\0"), *blocks, size=UNKNOWN)
    return EBML + element(0x18538067, element(0xEC, bytes(10)), element(0x1654AE6B, tracks), cluster, size=size)


# MP4


def full(name: bytes, form: str, *numbers: int, version: int = 0, flags: int = 0) -> bytes:
    """Build a box with a version and flags, of numbers."""
    return box(name, struct.pack(">I", version << 24 | flags), struct.pack(">" + form, *numbers))


DOPS = box(b"dOps", struct.pack(">BBHIhB", 0, 1, 312, 48_000, 0, 0))


def track(  # the boxes that Opus is read from
    *table: bytes, kind: bytes = b"Opus", handler: bytes = b"soun", dops: bytes = DOPS, edit: bytes = b"", clock: int = 48_000
) -> bytes:
    """Build a track with number 1."""
    described = box(b"stsd", struct.pack(">II", 0, 1), box(kind, bytes(28), dops))
    media = full(b"mdhd", "IIIII", 0, 0, clock, 0, 0), box(b"hdlr", bytes(8), handler, bytes(13))
    content = box(b"mdia", *media, box(b"minf", box(b"stbl", described, *table)))
    return box(b"trak", full(b"tkhd", "IIIII", 0, 0, 1, 0, 0), edit and box(b"edts", edit), content)


def movie(*parts: bytes, clock: int = 1000) -> bytes:
    """Build `moov`."""
    return box(b"moov", full(b"mvhd", "IIIII", 0, 0, clock, 0, 0), *parts)
