"""Builds the boxes of MP4 files, as ISO/IEC 14496-12 defines them."""

from __future__ import annotations

import struct

__all__ = ["box", "entry", "movie", "mp4", "sound", "track", "video"]


def box(name: bytes, *contents: bytes, wide: bool = False) -> bytes:
    """Build a box, with a size of 32 or 64 bits."""
    content = b"".join(contents)
    if wide:
        return struct.pack(">I4sQ", 1, name, 16 + len(content)) + content
    return struct.pack(">I4s", 8 + len(content), name) + content


def entry(codec: bytes, object_type: int | None = None, *, long_sizes: bool = False) -> bytes:
    """Build a sample entry, of which readers of codecs need the type, and in MPEG-4 the objectTypeIndication."""
    fields = bytes(78) if codec in {b"avc1", b"hvc1", b"mp4v", b"vp09", b"av01"} else bytes(28)
    if object_type is None:
        return box(codec, fields)
    size = b"\x80\x80\x80\x14" if long_sizes else b"\x14"  # its value plays no part
    descriptor = b"\x03" + size + b"\0\1\0" + b"\x04" + size + bytes([object_type, 0x15]) + bytes(11)
    return box(codec, fields, box(b"esds", bytes(4), descriptor))


def track(handler: bytes, *entries: bytes, before: bytes = b"") -> bytes:
    """Build a track; `before` stands between its header and its media."""
    described = box(b"stsd", struct.pack(">II", 0, len(entries)), *entries)
    information = box(b"minf", box(b"dinf", bytes(20)), box(b"stbl", described, box(b"stts", bytes(8))))
    media = box(b"mdia", box(b"mdhd", bytes(24)), box(b"hdlr", bytes(8), handler, bytes(12), b"x\0"), information)
    return box(b"trak", box(b"tkhd", bytes(84)), before, media)


def video(codec: bytes = b"avc1", object_type: int | None = None) -> bytes:
    """Build a video track."""
    return track(b"vide", entry(codec, object_type))


def sound(codec: bytes = b"mp4a", object_type: int | None = None) -> bytes:
    """Build an audio track, of AAC by default."""
    return track(b"soun", entry(codec, 0x40 if codec == b"mp4a" and object_type is None else object_type))


def movie(*tracks: bytes) -> bytes:
    """Build the box with all tracks."""
    return box(b"moov", box(b"mvhd", bytes(100)), *tracks, box(b"udta", bytes(12)))


def mp4(*tracks: bytes, brand: bytes = b"isom", compatible: bytes = b"", media: int = 0, last: bool = False) -> bytes:
    """Build a file with `media` bytes of media, and its tracks before or behind it."""
    start = box(b"ftyp", brand, bytes(4), compatible)
    content = box(b"mdat", bytes(media))
    return start + (content + movie(*tracks) if last else movie(*tracks) + content)
