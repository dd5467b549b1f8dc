"""Opus in Ogg, WebM and MP4: files are built part by part, and the pages of an Ogg are read back."""

from __future__ import annotations

import struct
from typing import Any

from meta_media.protocol.repackage import repackage_steps
from tests.support.boxes import box

HEAD = b"OpusHead\1\1" + struct.pack("<HIhB", 312, 48_000, 0, 0)
STEREO = HEAD[:9] + b"\2" + HEAD[10:]
PACKETS = [bytes([8, number]) + b"voice" * (number % 7) for number in range(120)]  # of 20 ms, or 960 samples


LARGEST_READ = 2**24


def repackaged(data: bytes, reads: list[tuple[int, int]] | None = None) -> bytes:
    """
    Return the pages of a file in memory, and list its reads.

    After the first page, each read lies ahead of all earlier ones, or in what was read or skipped before that page.
    """
    steps, result, end, kept = repackage_steps(), [], 0, None
    step = next(steps)
    try:
        while True:
            sent = b""
            if isinstance(step, bytes):
                result.append(step)
                kept = end if kept is None else kept
            else:
                offset, size = step
                sent = data[offset : offset + size]
                assert size <= LARGEST_READ
                assert kept is None or offset >= end or end == kept, "it goes back to what is gone"
                end = max(end, offset + len(sent))
                if reads is not None:
                    reads.append((offset, len(sent)))
            step = steps.send(sent)
    except StopIteration:
        return b"".join(result)


# Ogg


def _remainder(byte: int) -> int:
    """Divide the bits of a byte by the polynomial of Ogg (RFC 3533, 6)."""
    crc = byte << 24
    for _ in range(8):
        crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


REMAINDERS = [_remainder(byte) for byte in range(256)]


def checksum(data: bytes) -> int:
    """Compute the CRC-32 of Ogg byte by byte, without zlib."""
    crc = 0
    for byte in data:
        crc = (crc << 8 & 0xFFFFFFFF) ^ REMAINDERS[crc >> 24 ^ byte]
    return crc


def pages(ogg: bytes) -> list[tuple[int, int, list[int], bytes]]:
    """Return flags, granule position, lacing values and content of each page. Checksum, serial and sequence must be right."""
    found: list[tuple[int, int, list[int], bytes]] = []
    whole = ogg
    while ogg:
        magic, version, flags, granule, serial, sequence, crc, count = struct.unpack_from("<4sBBqIIIB", ogg)
        lacing = list(ogg[27 : 27 + count])
        size = 27 + count + sum(lacing)
        assert (magic, version, serial, sequence) == (b"OggS", 0, int.from_bytes(whole[14:18], "little"), len(found))
        assert crc == checksum(ogg[:22] + bytes(4) + ogg[26:size])
        found.append((flags, granule, lacing, ogg[27 + count : size]))
        ogg = ogg[size:]
    return found


def packets(ogg: bytes) -> list[bytes]:
    """Return the packets of an Ogg file, without the two of its headers."""
    found, packet = [], b""
    for _, _, lacing, content in pages(ogg):
        at = 0
        for size in lacing:
            packet, at = packet + content[at : at + size], at + size
            if size < 255:
                found.append(packet)
                packet = b""
    assert packet == b"", "the last packet is complete"
    return found[2:]


def facts(ogg: bytes) -> tuple[int, int]:
    """Return the pre-skip, and the granule position of the last page."""
    return int.from_bytes(ogg[38:40], "little"), pages(ogg)[-1][1]


def ogg(*content: bytes, serial: int = 1) -> bytes:
    """Build a file with a page for each packet, whose granule positions play no part."""
    whole = b""
    for sequence, packet in enumerate(content):
        lacing = b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255])
        page = struct.pack("<4sBBqIIIB", b"OggS", 0, 0, 0, serial, sequence, 0, len(lacing)) + lacing + packet
        whole += page[:22] + struct.pack("<I", checksum(page)) + page[26:]
    return whole


# WebM


def element(name: int, *parts: bytes, size: int | None = None) -> bytes:
    """Build an element with an ID and a size of 8 bytes."""
    content = b"".join(parts)
    length = len(content) if size is None else size
    return name.to_bytes((name.bit_length() + 7) // 8, "big") + (1 << 56 | length).to_bytes(8, "big") + content


UNKNOWN = (1 << 56) - 1  # the size of what is being recorded
EBML = element(0x1A45DFA3, element(0x4282, b"webm"))


def entry(*parts: bytes, number: int = 1, kind: int = 2, codec: bytes = b"A_OPUS", head: bytes | None = HEAD) -> bytes:
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


def webm(*blocks: bytes, tracks: bytes = entry(), size: int = UNKNOWN) -> bytes:
    """Build a file of one cluster."""
    cluster = element(0x1F43B675, element(0xE7, b"\0"), *blocks, size=UNKNOWN)
    return EBML + element(0x18538067, element(0xEC, bytes(10)), element(0x1654AE6B, tracks), cluster, size=size)


def encoding(*parts: bytes, settings: bytes = b"", algorithm: bytes = b"\3") -> bytes:
    """Build the list of a track's encodings, of one."""
    compression = element(0x5034, element(0x4254, algorithm), element(0x4255, settings))
    return element(0x6D80, element(0x6240, compression, *parts))


# MP4


def full(name: bytes, form: str, *numbers: int, version: int = 0, flags: int = 0) -> bytes:
    """Build a box with a version and flags, of numbers."""
    return box(name, struct.pack(">I", version << 24 | flags), struct.pack(">" + form, *numbers))


DOPS = box(b"dOps", struct.pack(">BBHIhB", 0, 1, 312, 48_000, 0, 0))


def track(  # the boxes that Opus is read from
    *table: bytes,
    kind: bytes = b"Opus",
    handler: bytes = b"soun",
    dops: bytes = DOPS,
    edit: bytes = b"",
    clock: int = 48_000,
) -> bytes:
    """Build a track with number 1."""
    described = box(b"stsd", struct.pack(">II", 0, 1), box(kind, bytes(28), dops))
    media = full(b"mdhd", "IIIII", 0, 0, clock, 0, 0), box(b"hdlr", bytes(8), handler, bytes(13))
    content = box(b"mdia", *media, box(b"minf", box(b"stbl", described, *table)))
    return box(b"trak", full(b"tkhd", "IIIII", 0, 0, 1, 0, 0), edit and box(b"edts", edit), content)


def movie(*parts: bytes, clock: int = 1000) -> bytes:
    """Build `moov`."""
    return box(b"moov", full(b"mvhd", "IIIII", 0, 0, clock, 0, 0), *parts)


DURATIONS = [960] * len(PACKETS)


def table(name: bytes, form: str, *rows: tuple[int, ...]) -> bytes:
    """Build a box of a table."""
    return full(name, "I" + form * len(rows), len(rows), *(number for row in rows for number in row))


def mp4(
    content: list[bytes] = PACKETS,
    durations: list[int] = DURATIONS,
    *,
    edit: bytes = b"",
    fragments: bool = False,
    last: bool = False,
    **how: Any,
) -> bytes:
    """Build a file whose index is first or `last`. `how` is of its track."""
    start = box(b"ftyp", b"isom", bytes(4))
    media = box(b"mdat", *content)
    rows = list(zip([len(packet) for packet in content], durations, strict=True))
    if fragments:
        index = movie(track(edit=edit, **how), box(b"mvex", full(b"trex", "IIIII", 1, 1, 960, 0, 0)))
        parts = [rows[at : at + 50] for at in range(0, len(rows), 50)]
        whole = b"".join(fragment(part, content[at * 50 : at * 50 + 50]) for at, part in enumerate(parts))
        return start + index + whole

    def index_of(offset: int) -> bytes:
        """Build the index of samples from an offset, in chunks of 50."""
        chunks = [sum(size for size, _ in rows[:at]) + offset for at in range(0, len(rows), 50)]
        sizes = full(b"stsz", f"II{len(rows)}I", 0, len(rows), *(size for size, _ in rows))
        tables = table(b"stts", "II", *((1, ticks) for _, ticks in rows)), table(b"stsc", "III", (1, 50, 1))
        return movie(track(*tables, sizes, table(b"stco", "I", *((chunk,) for chunk in chunks)), edit=edit, **how))

    before = len(start) if last else len(start) + len(index_of(0))
    return start + media + index_of(before + 8) if last else start + index_of(before + 8) + media


def fragment(rows: list[tuple[int, int]], content: list[bytes]) -> bytes:
    """Build a fragment of samples, of a size and a duration each, as Chromium does."""
    numbers = [number for size, ticks in rows for number in (ticks, size)]

    def header(offset: int) -> bytes:
        run = full(b"trun", f"Ii{len(numbers)}I", len(rows), offset, *numbers, flags=0x301)
        return box(b"moof", box(b"traf", full(b"tfhd", "I", 1, flags=0x20000), run))

    return header(len(header(0)) + 8) + box(b"mdat", *content)
