"""Opus from MP4: every form in which its index states where samples lie, and how long they are."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from tests.support.boxes import box
from tests.support.opus import DOPS, PACKETS, facts, fragment, full, movie, mp4, packets, repackaged, table, track

FTYP = box(b"ftyp", b"isom", bytes(4))
SIZES = [len(packet) for packet in PACKETS]
MEDIA = b"".join(PACKETS)
TICKS = table(b"stts", "II", (len(PACKETS), 960))
ALL_SIZES = full(b"stsz", f"II{len(SIZES)}I", 0, len(SIZES), *SIZES)


@pytest.mark.parametrize("how", [{}, {"last": True}, {"fragments": True}])
@pytest.mark.parametrize("size", [10, 3000])
def test_the_index_may_lie_anywhere(how: dict[str, Any], size: int) -> None:
    """The index lies before the sound, behind it, or in front of each fragment, which may be larger than a read."""
    content = [packet + bytes(size) for packet in PACKETS]
    ogg = repackaged(mp4(content, **how))
    assert (packets(ogg), *facts(ogg)) == (content, 312, 115_200)


def test_few_reads() -> None:
    """A file is read in pieces of 64 KiB, and what is not sound is skipped."""
    large = [b"\x08" + bytes(1000)] * 1000
    reads: list[tuple[int, int]] = []
    before = FTYP + box(b"free", bytes(10_000_000))
    index = movie(
        track(
            full(b"stsz", "II", 1001, 1000),
            table(b"stsc", "III", (1, 1000, 1)),
            table(b"stco", "I", (len(before) + 8,)),
        )
    )
    assert packets(repackaged(before + box(b"mdat", *large) + index, reads)) == large
    assert len(reads) <= 20
    assert sum(size for _, size in reads) < 1_001_000 + 4 * 65_536


def test_chunks_of_different_numbers() -> None:
    """Chunks of one, then of two samples, with other data between them; their offsets have 64 bits."""
    content = FTYP + box(b"mdat", *(packet + b"other track" * (number % 2) for number, packet in enumerate(PACKETS)))
    starts, at = [], len(FTYP) + 8
    for number, size in enumerate(SIZES):
        if number % 2 == 0:
            starts.append(at)
        at += size + len(b"other track") * (number % 2)
    tables = table(b"stsc", "III", (1, 2, 1)), full(b"co64", f"I{len(starts)}Q", len(starts), *starts)
    assert packets(repackaged(content + movie(track(TICKS, ALL_SIZES, *tables)))) == PACKETS
    first = (
        table(b"stsc", "III", (1, 1, 1), (3, 2, 1)),
        full(b"co64", "I4Q", 4, starts[0], starts[0] + SIZES[0], starts[1], starts[2]),
    )
    four = full(b"stsz", "II6I", 0, 6, *SIZES[:6])
    assert packets(repackaged(content + movie(track(TICKS, four, *first)))) == PACKETS[:6]


def test_boxes_of_version_1() -> None:
    """Dates, durations and edits may have 64 bits."""
    file = mp4(edit=full(b"elst", "IQqI", 1, 1000, 624, 0x10000, version=1), last=True)
    for name, numbers in ((b"mdhd", (48_000, 0, 0)), (b"mvhd", (1000, 0, 0)), (b"tkhd", (1, 0, 0))):
        short = full(name, "IIIII", 0, 0, *numbers)
        start = file.index(short)
        for outer in (b"moov", b"trak", b"mdia"):  # they grow with what is in them
            at = file.index(outer) - 4
            size = int.from_bytes(file[at : at + 4], "big")
            if at < start < at + size:
                file = file[:at] + struct.pack(">I", size + 12) + file[at + 4 :]
        file = file.replace(short, full(name, "QQIQI", 0, 0, *numbers, version=1)[: len(short) + 12])
    assert facts(repackaged(file)) == (624, 48_624)


def test_sizes_of_64_bits_and_none() -> None:
    """A box may have a size of 64 bits, and the last one none."""
    file = bytearray(box(b"ftyp", b"isom", bytes(4), wide=True) + mp4(fragments=True)[16:])
    at = file.rindex(b"mdat") - 4
    file[at : at + 4] = bytes(4)
    assert packets(repackaged(bytes(file))) == PACKETS


@pytest.mark.parametrize(
    ("rate", "order"), [(48_000, "<"), (44_100, "<"), (8_000, ">"), (384_000, ">"), (0, ">"), (500_000, ">")]
)
def test_numbers_of_gstreamer(rate: int, order: str) -> None:
    """GStreamer writes the header of Opus little-endian. A rate that is none shows it, where the other order gives one."""
    dops = box(b"dOps", struct.pack(f"{order}BBHIhB", 0, 2, 312, rate, -256, 0))
    ogg = repackaged(mp4(dops=dops))
    assert ogg[28:47] == b"OpusHead\1\1" + struct.pack("<HIhB", 312, rate, -256, 0)


def test_a_cover_is_no_video() -> None:
    """The picture of a song, or a track of text, is left out."""
    others = track(handler=b"vide", kind=b"jpeg"), track(handler=b"text", kind=b"tx3g")
    plain = mp4(fragments=True)
    at = plain.index(b"moov") - 4
    end = at + int.from_bytes(plain[at : at + 4], "big")
    assert packets(repackaged(plain[:at] + box(b"moov", plain[at + 8 : end], *others) + plain[end:])) == PACKETS


# Fragments


def live(*fragments: bytes, defaults: tuple[int, int] = (960, 0)) -> bytes:
    """Build a file of fragments."""
    extended = box(b"mvex", full(b"trex", "IIIII", 2, 1, 7, 7, 0), full(b"trex", "IIIII", 1, 1, *defaults, 0))
    return FTYP + movie(track(), extended) + b"".join(fragments)


def run(*numbers: int, flags: int, form: str = "") -> bytes:
    """Build a run of samples."""
    return full(b"trun", form or "I" * len(numbers), *numbers, flags=flags)


SAME = [b"\x08same" + bytes([number]) for number in range(6)]


def traf(*runs: bytes, track: int = 1, flags: int = 0x20000, form: str = "", numbers: tuple[int, ...] = ()) -> bytes:
    """Build a track of a fragment."""
    return box(b"traf", full(b"tfhd", "I" + form, track, *numbers, flags=flags), *runs)


def test_sizes_by_default() -> None:
    """Sizes and durations that a run does not state are those of its fragment, or else those of its file."""
    for defaults, how in (
        ((960, 6), {}),
        ((0, 0), {"flags": 0x20018, "form": "II", "numbers": (960, 6)}),
        ((0, 0), {"flags": 0x2003A, "form": "IIII", "numbers": (1, 960, 6, 0)}),
    ):
        size = len(box(b"moof", traf(run(6, 0, flags=1), **how)))  # type: ignore[arg-type]  # several types
        index = box(b"moof", traf(run(6, size + 8, flags=1), **how))  # type: ignore[arg-type]
        assert packets(repackaged(live(index, box(b"mdat", *SAME), defaults=defaults))) == SAME


def test_runs_follow_each_other() -> None:
    """A run without an offset lies behind the one before it; one with flags for its first sample, or an offset of time, is read."""
    others = run(2, flags=0), run(2, 7, 7, flags=0x400)

    def index(offset: int) -> bytes:
        return box(b"moof", traf(run(2, offset, 0x100, 6, 0, 6, 0, flags=0xA05), *others))

    content = index(len(index(0)) + 8), box(b"mdat", *SAME)
    assert packets(repackaged(live(*content, defaults=(960, 6)))) == SAME


def test_absolute_offsets_beside_another_track() -> None:
    """A track that is placed by an offset in the file may come second, and another one beside it is left out."""
    start = len(live())
    other = traf(run(1, flags=0), track=2, flags=0)

    def index(offset: int) -> bytes:
        back = run(6, -50, flags=1, form="Ii")
        return box(b"moof", other, traf(back, flags=1, form="Q", numbers=(offset + 50,)))

    content = index(start + len(index(0)) + 8 + 5), box(b"mdat", b"other", *SAME)
    assert packets(repackaged(live(*content, defaults=(960, 6)))) == SAME


def test_dops_is_found_behind_other_boxes() -> None:
    """The header of Opus may follow another box of its entry."""
    assert facts(repackaged(mp4(dops=box(b"btrt", bytes(12)) + DOPS))) == (312, 115_200)


def test_an_edit_of_the_first_part_cuts_nothing_off() -> None:
    """Where `moov` lists samples, and fragments follow, the length of the edit is that of its samples, and is not the end."""
    edit = full(b"elst", "IIiI", 1, 1, 312, 0x10000)
    first = mp4(PACKETS[:50], [960] * 50, edit=edit)
    assert len(packets(repackaged(first))) == 1

    def index(offset: int) -> bytes:
        sizes = full(b"stsz", "II50I", 0, 50, *SIZES[:50])
        tables = (
            table(b"stts", "II", (50, 960)),
            sizes,
            table(b"stsc", "III", (1, 50, 1)),
            table(b"stco", "I", (offset,)),
        )
        return FTYP + movie(track(*tables, edit=edit), box(b"mvex"))

    rows = [(len(packet), 960) for packet in PACKETS[50:]]
    file = index(len(index(0)) + 8) + box(b"mdat", *PACKETS[:50]) + fragment(rows, PACKETS[50:])
    assert packets(repackaged(file)) == PACKETS
