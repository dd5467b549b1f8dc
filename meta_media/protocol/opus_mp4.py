"""
Opus in MP4, in fragments or not: its samples (ISO/IEC 14496-12, and Encapsulation of Opus in ISO Base Media File Format).

Writers disagree about the start and the end of the sound. The pre-skip is the larger one of `dOps` and the edit list. The end
is that of the edit, or else of the last sample's duration, if the durations of the samples before it are those of their
packets: Chromium takes them from its clock.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator
from typing import Final

import attrs

from meta_media.protocol.ogg import OggWriter
from meta_media.protocol.opus import MAX_PACKET_SIZE, PacketFile, RepackageSteps, damaged, mono, opus_head, refused
from meta_media.protocol.secrets import excerpt

__all__ = ["mp4_voice"]

_MAX_INDEX_SIZE: Final = 2**24  # bytes of moov or moof; moov has 8 MB in ten hours of packets of 20 ms
_RATES: Final = range(8_000, 384_001)  # Hz, of what was encoded
_PICTURES: Final = frozenset({b"jpeg", b"png "})  # a cover is a video track, too

_Sample = tuple[int, int, int]  # offset and size in bytes, and duration in ticks of the track


@attrs.define
class _Voice:
    """The only track of a file, and how much of it was taken."""

    track: int
    table: memoryview  # stbl
    timescale: int  # ticks a second
    fragmented: bool
    defaults: tuple[int, int]  # duration and size of a fragment's samples
    cut: int | None  # samples at 48 kHz where the edit ends; None if the track ends there as well
    ogg: OggWriter = attrs.field(factory=OggWriter)
    _end: int = 0  # offset of the first byte after the last sample
    _count: int = 0
    _lag: int = 0  # the duration of the last packet above that of its sample, times 48,000 times the timescale
    _exact: bool = True  # whether the samples between the first and the last one have the durations of their packets

    def take(self, file: PacketFile, samples: Iterable[_Sample]) -> RepackageSteps:
        """Yield the pages of some samples."""
        for offset, size, ticks in samples:
            if self.cut is not None and self.ogg.samples >= self.cut:
                return
            if offset < self._end or size > MAX_PACKET_SIZE:
                raise damaged(f"its index has an impossible sample at byte {offset:,}")
            packet = yield from file.exactly(offset, size)
            before, self._end = self.ogg.samples, offset + size
            if pages := self.ogg.add(packet):
                yield pages
            if self._count > 1:
                self._exact = self._exact and abs(self._lag) <= 48_000
            self._lag = (self.ogg.samples - before) * self.timescale - ticks * 48_000
            self._count += 1

    def last(self) -> bytes:
        """Return the last page."""
        stated = self._exact and (self._count > 2 or not self.fragmented)
        trim = round(self._lag / self.timescale) if stated else 0
        return self.ogg.finish(self.ogg.samples - trim if self.cut is None else self.cut)


def mp4_voice(file: PacketFile) -> RepackageSteps:
    """Repackage the only track of an MP4. Its index may lie at its end."""
    voice: _Voice | None = None
    samples: Iterable[_Sample] = ()
    position = 0
    while header := (yield from file.at(position, 16)):
        kind, start, size = _header(header)
        end = position + size
        data = memoryview(b"")
        if kind in {b"moov", b"moof"}:
            if size > _MAX_INDEX_SIZE:
                raise damaged(f"its index has {size:,} bytes")
            data = memoryview((yield from file.exactly(position + start, size - start)))
        if kind == b"moov" and voice is None:
            voice = _voice(data)
            samples = _samples(voice.table)
        elif kind in {b"moof", b"mdat"} and voice is not None:
            yield from voice.take(file, samples)
            samples = _fragment(voice, data, position) if kind == b"moof" else ()
        if not size or (voice is not None and not voice.fragmented):
            break
        if not data:
            yield from file.exactly(end - 1, 1)
        position = end
    if voice is None:
        raise damaged("it has no index (moov), as if its recording was cut off")
    yield from voice.take(file, samples)
    yield voice.last()


def _voice(moov: memoryview) -> _Voice:
    """Return the only track of sound. There must be no video beside it, which would be lost."""
    tracks: dict[bytes, list[tuple[bytes, memoryview, memoryview]]] = {b"soun": [], b"vide": []}
    for trak in (content for kind, content in _boxes(moov) if kind == b"trak"):
        entries = _find(trak, b"mdia", b"minf", b"stbl", b"stsd")[8:]
        kind, entry = next(_boxes(entries), (b"", entries))
        if kind not in _PICTURES:
            tracks.get(bytes(_find(trak, b"mdia", b"hdlr")[8:12]), []).append((kind, entry, trak))
    sound, video = tracks.values()
    if video or len(sound) != 1:
        raise refused(f"MP4 with {len(sound)} audio and {len(video)} video tracks", video=bool(video))
    codec, entry, trak = sound[0]
    if codec != b"Opus":
        raise refused(f"MP4 with {'AAC' if codec == b'mp4a' else excerpt(codec.decode('ascii', 'replace'))} sound")
    timescale, table = _after_dates(_find(trak, b"mdia", b"mdhd")), _find(trak, b"mdia", b"minf", b"stbl")
    track, movie_scale = _after_dates(_find(trak, b"tkhd")), _after_dates(_find(moov, b"mvhd"))
    if not timescale or not movie_scale:
        raise damaged("its index has no clock")
    start, length = _edit(_find(trak, b"edts", b"elst"))
    fragmented = any(kind == b"mvex" for kind, _ in _boxes(moov))
    defaults = [box for kind, box in _boxes(_find(moov, b"mvex")) if kind == b"trex" and _number(box, 4) == track]
    head = _head(_find(entry[28:], b"dOps"))
    edited, whole = start * movie_scale + length * timescale, _ticks(table) * movie_scale
    # Less than a tick of the movie's clock is its rounding.
    is_cut = length and not fragmented and whole - edited > timescale
    voice = _Voice(
        track=track,
        table=table,
        timescale=timescale,
        fragmented=fragmented,
        defaults=(_number(defaults[0], 12), _number(defaults[0], 16)) if defaults else (0, 0),
        cut=round(edited * 48_000 / (timescale * movie_scale)) if is_cut else None,
    )
    voice.ogg.start(head, round(start * 48_000 / timescale))
    return voice


def _head(box: memoryview) -> bytes:
    """Return the `OpusHead` of `dOps`, whose numbers are big-endian; those of GStreamer are little-endian."""
    if len(box) < 11:
        raise damaged("it has no header of Opus")
    order = "<" if _number(box, 4) not in _RATES and int.from_bytes(box[4:8], "little") in _RATES else ">"
    _, channels, pre_skip, rate, gain, family = struct.unpack_from(f"{order}BBHIhB", box)
    return mono(opus_head(channels=channels, pre_skip=pre_skip, rate=rate, gain=gain, family=family))


def _edit(box: memoryview) -> tuple[int, int]:
    """Return where the edit starts, in ticks of the track, and its length, in ticks of the movie; 0 is the whole track."""
    edits = _table(box, ">QqI" if bytes(box[:1]) == b"\1" else ">IiI")
    parts = list(itertools.islice(((start, length) for length, start, _ in edits if start >= 0), 2))
    if len(parts) > 1:
        raise refused("MP4 of several parts of a recording")
    return parts[0] if parts else (0, 0)


def _ticks(table: memoryview) -> int:
    """Return the duration of all samples that `moov` lists."""
    return sum(count * ticks for count, ticks in _table(_find(table, b"stts"), ">II"))


def _samples(table: memoryview) -> Iterator[_Sample]:
    """Yield the samples that `moov` lists. In an MP4 of fragments these may be none."""
    sizes_box = _find(table, b"stsz")
    same, count = _number(sizes_box, 4), _number(sizes_box, 8)
    sizes = itertools.repeat((same,), count) if same else _table(sizes_box, ">I", 8)
    ticks = (itertools.repeat(ticks, count) for count, ticks in _table(_find(table, b"stts"), ">II"))
    samples = zip(sizes, itertools.chain(itertools.chain.from_iterable(ticks), itertools.repeat(0)), strict=False)
    runs = itertools.pairwise(itertools.chain(_table(_find(table, b"stsc"), ">III"), [(2**31 - 1, 0, 0)]))
    counts = (itertools.repeat(count, following - first) for (first, count, _), (following, _, _) in runs)
    offsets = itertools.chain(_table(_find(table, b"stco"), ">I"), _table(_find(table, b"co64"), ">Q"))
    for (chunk,), number in zip(offsets, itertools.chain.from_iterable(counts), strict=False):
        offset = chunk
        for (size,), duration in itertools.islice(samples, number):
            yield offset, size, duration
            offset += size
    if next(samples, None) is not None:
        raise damaged("its index has samples that lie nowhere")


def _fragment(voice: _Voice, moof: memoryview, position: int) -> Iterator[_Sample]:
    """Yield the samples of a fragment (ISO/IEC 14496-12, 8.8)."""
    for index, traf in enumerate(content for kind, content in _boxes(moof) if kind == b"traf"):
        header = _find(traf, b"tfhd")
        flags, at = _number(header, 1, 3), 8
        if _number(header, 4) != voice.track:
            continue
        offset = position
        if flags & 0x1:
            offset, at = _number(header, 8, 8), 16
        elif index and not flags & 0x20000:
            raise refused("MP4 whose fragments are placed by those of other tracks")
        _, ticks, size = _optional(header, at, flags, (0x2, 0x8, 0x10))
        defaults = (voice.defaults[0] if ticks is None else ticks, voice.defaults[1] if size is None else size)
        base = offset
        for run in (content for kind, content in _boxes(traf) if kind == b"trun"):
            relative, _ = _optional(run, 8, _number(run, 1, 3), (0x1, 0x4))
            if relative is not None:
                offset = base + (relative ^ 2**31) - 2**31  # a signed number
            if offset < position:
                raise damaged(f"the fragment at byte {position:,} has samples before it")
            for size, ticks in _run(run, defaults):
                yield offset, size, ticks
                offset += size


def _run(run: memoryview, defaults: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield the size and the duration of each sample of a run, whose fields are there if their flag is set."""
    flags, count = _number(run, 1, 3), _number(run, 4)
    start = 8 + 4 * (flags & 0x1) + (flags & 0x4)
    fields = [flag for flag in (0x100, 0x200, 0x400, 0x800) if flags & flag]
    ticks, size = defaults
    if not fields:
        yield from itertools.repeat((size, ticks), count)
        return
    for row in _rows(run, f">{len(fields)}I", start, count):
        values = dict(zip(fields, row, strict=True))
        yield values.get(0x200, size), values.get(0x100, ticks)


def _optional(box: memoryview, at: int, flags: int, masks: Iterable[int]) -> Iterator[int | None]:
    """Yield the 32-bit number of each flag, from `at`; None if the flag is not set."""
    for mask in masks:
        yield _number(box, at) if flags & mask else None
        at += 4 if flags & mask else 0


def _table(box: memoryview, entry: str, at: int = 4) -> Iterator[tuple[int, ...]]:
    """Return the entries of a table behind their number."""
    return _rows(box, entry, at + 4, _number(box, at))


def _rows(box: memoryview, entry: str, start: int, count: int) -> Iterator[tuple[int, ...]]:
    end = start + count * struct.calcsize(entry)
    if end > max(len(box), start):
        raise damaged(f"a table of its index has {count:,} entries, more than there are")
    return struct.iter_unpack(entry, box[start:end])


def _find(data: memoryview, *path: bytes) -> memoryview:
    """Return the content of a box in a box, by its path; none is empty, and its numbers are zero."""
    for name in path:
        data = next((content for kind, content in _boxes(data) if kind == name), data[:0])
    return data


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the type and the content of each box."""
    while data:
        kind, start, size = _header(bytes(data[:16]))
        if size > len(data):
            raise damaged("a box of its index is larger than the one around it")
        yield kind, data[start : size or None]
        data = data[size or len(data) :]


def _header(header: bytes) -> tuple[bytes, int, int]:
    """Return the type of a box, the size of its header, and its own; 0 is up to the end (ISO/IEC 14496-12, 4.2)."""
    size, start = int.from_bytes(header[:4], "big"), 8
    if size == 1:
        size, start = int.from_bytes(header[8:16], "big"), 16
    if len(header) < start or 0 < size < start:
        raise damaged("a box of it has an impossible size")
    return header[4:8], start, size


def _after_dates(box: memoryview) -> int:
    """Return the number behind the two dates of a box: they have 32 bits each, or 64 in version 1."""
    return _number(box, 20 if _number(box, 0, 1) == 1 else 12)


def _number(box: memoryview, at: int, size: int = 4) -> int:
    return int.from_bytes(box[at : at + size], "big")
