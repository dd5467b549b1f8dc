"""
Opus in WebM and Matroska (RFC 9559): the packets of its blocks.

Timestamps are not read. They are rounded, and players ignore their gaps. The pre-skip is that of the Opus header, and the end
is the discard padding of the last block.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Generator, Iterable, Iterator
from typing import Final

import attrs

from meta_media.protocol.ogg import OggWriter
from meta_media.protocol.opus import MAX_PACKET_SIZE, PacketFile, RepackageSteps, damaged, mono, opus_head, refused
from meta_media.protocol.secrets import excerpt

__all__ = ["matroska_voice"]

# Element IDs (RFC 9559, 5.1).
_EBML, _SEGMENT, _CLUSTER, _TRACKS, _TRACK = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0x1654AE6B, 0xAE
_BLOCK_GROUP, _BLOCK, _SIMPLE_BLOCK, _DISCARD_PADDING = 0xA0, 0xA1, 0xA3, 0x75A2
_NUMBER, _TYPE, _CODEC, _CODEC_PRIVATE, _CODEC_DELAY, _AUDIO, _CHANNELS = 0xD7, 0x83, 0x86, 0x63A2, 0x56AA, 0xE1, 0x9F
_ENCODINGS, _ENCODING, _SCOPE, _ENCODING_TYPE = 0x6D80, 0x6240, 0x5032, 0x5033
_COMPRESSION, _ALGORITHM, _SETTINGS = 0x5034, 0x4254, 0x4255
_VIDEO, _SOUND = 1, 2  # TrackType
_ZLIB, _HEADER_STRIPPING = 0, 3  # ContentCompAlgo
_XIPH, _FIXED_SIZE, _EBML_SIZES = 1, 2, 3  # lacing of a block
_MAX_SIZE: Final = 2**20  # bytes of a block, and of all tracks' headers
_MAX_PREFIX_SIZE: Final = 255  # bytes


@attrs.frozen
class _Track:
    number: int
    head: bytes
    compressed: bool = False
    prefix: bytes = b""  # that its writer left out of each packet


def matroska_voice(file: PacketFile) -> RepackageSteps:
    """Repackage the only track of a WebM or Matroska file."""
    ogg, padding = OggWriter(), 0
    track: _Track | None = None
    position = end = 0
    while header := (yield from file.at(position, 12)):
        name, size, length = _header(header, 0)
        position += length
        end = max(end, position + (size or 0))
        if name in {_SEGMENT, _CLUSTER}:  # what is inside follows; the size is unknown in a live recording
            continue
        if size is None:
            raise damaged(f"the element before byte {position:,} has no size")
        data = yield from _content(file, name, position, size)
        position += size
        if name == _EBML and track:
            raise refused("Matroska of several recordings")
        if name == _TRACKS:
            track = track or _track(data)
            ogg.start(track.head)
        elif data:
            packets, padding = _packets(track, name, data)
            for packet in packets:
                if pages := ogg.add(packet):
                    yield pages
    if position < end:
        raise damaged(f"it ends before byte {end:,}")
    yield ogg.finish(ogg.samples - padding)


def _content(file: PacketFile, name: int, position: int, size: int) -> Generator[tuple[int, int], bytes, bytes]:
    """Return the content of the tracks or of a block. Anything else is skipped, and must only be there."""
    if name not in {_TRACKS, _BLOCK_GROUP, _SIMPLE_BLOCK}:
        yield from file.exactly(position + size - 1, 1)
        return b""
    if size > _MAX_SIZE:
        raise damaged(f"the element before byte {position:,} has {size:,} bytes")
    return (yield from file.exactly(position, size))


def _track(data: bytes) -> _Track:
    """Return the only track of sound. There must be no video beside it, which would be lost."""
    entries = [dict(_children(entry)) for name, entry in _children(data) if name == _TRACK]
    kinds = [_unsigned(entry.get(_TYPE)) for entry in entries]
    if _VIDEO in kinds or kinds.count(_SOUND) != 1:
        found = f"Matroska with {kinds.count(_SOUND)} audio and {kinds.count(_VIDEO)} video tracks"
        raise refused(found, video=_VIDEO in kinds)
    entry = entries[kinds.index(_SOUND)]
    codec = entry.get(_CODEC, b"").rstrip(b"\0").decode("ascii", "replace")
    if codec != "A_OPUS":
        raise refused(f"Matroska with the codec {excerpt(codec)}")
    number = _unsigned(entry.get(_NUMBER))
    head = entry.get(_CODEC_PRIVATE)
    if head is None:
        channels = dict(_children(entry.get(_AUDIO, b""))).get(_CHANNELS)
        delay = round(_unsigned(entry.get(_CODEC_DELAY)) * 48 / 1_000_000)
        head = opus_head(channels=_unsigned(channels, 1), pre_skip=delay)
    track = _Track(number, mono(head))
    encodings = [dict(_children(encoding)) for _, encoding in _children(entry.get(_ENCODINGS, b""))]
    return _encoded(track, encodings) if encodings else track


def _encoded(track: _Track, encodings: list[dict[int, bytes]]) -> _Track:
    """Return a track whose frames are compressed (RFC 9559, 5.1.4.1.31)."""
    first = encodings[0]
    compression = dict(_children(first.get(_COMPRESSION, b"")))
    algorithm, prefix = _unsigned(compression.get(_ALGORITHM)), compression.get(_SETTINGS, b"")
    facts = len(encodings), _unsigned(first.get(_ENCODING_TYPE)), _unsigned(first.get(_SCOPE), 1)
    if facts != (1, 0, 1) or algorithm not in {_ZLIB, _HEADER_STRIPPING} or len(prefix) > _MAX_PREFIX_SIZE:
        raise refused("Matroska with encrypted sound, or an unknown compression")
    return attrs.evolve(track, compressed=algorithm == _ZLIB, prefix=prefix)


def _packets(track: _Track | None, name: int, data: bytes) -> tuple[Iterable[bytes], int]:
    """Return the packets of a block, and the samples at 48 kHz to cut off its end; none of other tracks, such as subtitles."""
    if track is None:
        raise damaged("its sound comes before its tracks")
    group = dict(_children(data)) if name == _BLOCK_GROUP else {_BLOCK: data}
    block = group.get(_BLOCK, b"")
    number, start = _vint(block, 0)
    if number != track.number:
        return [], 0
    padding = int.from_bytes(group.get(_DISCARD_PADDING, b""), "big", signed=True)
    frames, prefix = _frames(block[start:]), track.prefix
    packets = map(_inflated, frames) if track.compressed else (prefix + frame for frame in frames)
    return packets, round(padding * 48 / 1_000_000)


def _inflated(frame: bytes) -> bytes:
    inflate = zlib.decompressobj()
    try:
        packet = inflate.decompress(frame, MAX_PACKET_SIZE)
    except zlib.error as error:
        raise damaged("a packet of it cannot be decompressed") from error
    if not inflate.eof:
        raise damaged("a packet of it is too large, or incomplete")
    return packet


def _frames(block: bytes) -> list[bytes]:
    """Return the frames of a block: they follow a time, the flags, and, if it is laced, all sizes but the last (10.2, 10.3)."""
    lacing = _unsigned(block[2:3]) >> 1 & 3
    if not lacing:
        return [block[3:]]
    at, sizes = 4, [0] * _unsigned(block[3:4])
    if lacing == _FIXED_SIZE:
        sizes = [(len(block) - at) // (len(sizes) + 1)] * len(sizes)
    for index in range(len(sizes)):
        if lacing == _XIPH:
            while block[at : at + 1] == b"\xff":
                sizes[index], at = sizes[index] + 255, at + 1
            sizes[index], at = sizes[index] + _unsigned(block[at : at + 1]), at + 1
        elif lacing == _EBML_SIZES:
            start = at
            value, at = _vint(block, at)
            # All but the first are differences, whose range is centred on zero.
            sizes[index] = value if not index else sizes[index - 1] + value - (1 << 7 * (at - start) - 1) + 1
    ends = list(itertools.accumulate(sizes, initial=at))
    if min(sizes, default=0) < 0 or ends[-1] > len(block):
        raise damaged("a block of it is shorter than its packets")
    return [block[start:end] for start, end in itertools.pairwise([*ends, len(block)])]


def _children(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the ID and the content of each element in another one."""
    at = 0
    while at < len(data):
        name, size, start = _header(data, at)
        if size is None or start + size > len(data):
            raise damaged("one of its elements is larger than the one around it")
        at = start + size
        yield name, data[start:at]


def _header(data: bytes, at: int) -> tuple[int, int | None, int]:
    """Return the ID of an element, its size, None for an unknown one, and where its content begins (RFC 8794, 5 and 6)."""
    _, after = _vint(data, at)
    size, start = _vint(data, after)
    return _unsigned(data[at:after]), None if size == (1 << 7 * (start - after)) - 1 else size, start


def _vint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number whose leading zero bits give its width, without the mark behind them, and where it ends (RFC 8794, 4)."""
    first = data[at] if at < len(data) else 0
    if first > 0x7F:
        return first & 0x7F, at + 1
    end = at + 9 - first.bit_length()
    if not first or end > len(data):
        raise damaged("it is no valid Matroska")
    return int.from_bytes(data[at:end], "big") & (1 << 7 * (end - at)) - 1, end


def _unsigned(data: bytes | None, default: int = 0) -> int:
    return default if data is None else int.from_bytes(data, "big")
