"""Opus from WebM, Matroska, MP4 and Ogg to Ogg: the packets are untouched, and damage is one typed error."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.opus import (
    PACKETS,
    block,
    element,
    encoding,
    entry,
    facts,
    full,
    mp4,
    packets,
    pages,
    repackaged,
    simple,
    webm,
)

RECORDINGS = Path(__file__).parent / "recordings"
# Number of packets, pre-skip, last granule position and SHA-256 of all packets, as PyAV 18.1.0 demuxes them.
FACTS = {
    "chromium.mp4": (38, 3840, 109440, "0147bc900ad4fa25"),
    "chromium.webm": (38, 0, 109440, "0147bc900ad4fa25"),
    "ffmpeg-faststart-16k.mp4": (18, 312, 50814, "367cf018cdb544e8"),
    "ffmpeg-fragments.mp4": (53, 312, 50813, "490e2d4a34139162"),
    "ffmpeg-hybrid.mp4": (53, 312, 50813, "490e2d4a34139162"),
    "ffmpeg-live.webm": (53, 312, 50813, "484b1d0e3212c2ac"),
    "ffmpeg-stereo.ogg": (53, 312, 50813, "490e2d4a34139162"),
    "ffmpeg.mp4": (53, 312, 50813, "484b1d0e3212c2ac"),
    "ffmpeg.webm": (53, 312, 50813, "484b1d0e3212c2ac"),
    "firefox.webm": (7, 312, 6720, "0c2c92c8814a53d3"),
    "gstreamer-fragments.mp4": (18, 312, 50813, "a1d4fd9c42e55675"),
    "gstreamer.mp4": (18, 312, 50813, "a1d4fd9c42e55675"),
    "mkvmerge-ebml-lacing.mkv": (53, 312, 50813, "484b1d0e3212c2ac"),
    "mkvmerge-fixed-lacing.mkv": (53, 312, 50813, "02864fa64d9439b3"),
    "mkvmerge-xiph-lacing.mkv": (53, 312, 50813, "484b1d0e3212c2ac"),
    "mkvmerge-zlib.mkv": (53, 312, 50813, "484b1d0e3212c2ac"),
}


def test_each_recording_is_in_the_table() -> None:
    """No recording is left out of the proof."""
    assert {path.name for path in RECORDINGS.iterdir()} == FACTS.keys()


@pytest.mark.parametrize("name", FACTS)
def test_recordings_keep_their_packets(name: str) -> None:
    """What browsers and programs wrote has the same packets afterwards, one channel, and starts and ends as it states."""
    reads: list[tuple[int, int]] = []
    data = (RECORDINGS / name).read_bytes()
    ogg = repackaged(data, reads)
    kept = packets(ogg)
    digest = hashlib.sha256(b"".join(kept)).hexdigest()[:16]
    assert (len(kept), *facts(ogg), digest) == FACTS[name]
    assert ogg[28:38] == b"OpusHead\1\1", "version 1 and one channel"
    assert len(reads) <= 4, "small files are read at once"


# Pages


def test_pages_of_short_packets() -> None:
    """A page has 255 packets at most; the header and the tags have pages of their own, and the last page has its flag."""
    short = [bytes([0x80, number % 256]) for number in range(600)]  # of 2.5 ms
    found = pages(repackaged(webm(*map(simple, short))))
    assert [(flags, granule, len(lacing)) for flags, granule, lacing, _ in found] == [
        (2, 0, 1),
        (0, 0, 1),
        (0, 255 * 120, 255),
        (0, 510 * 120, 255),
        (4, 600 * 120, 90),
    ]
    assert found[1][3] == b"OpusTags\x0a\0\0\0meta_media\0\0\0\0"


def test_pages_have_a_second() -> None:
    """A page has a second of sound at most, so that a player can seek."""
    granules = [granule for _, granule, _, _ in pages(repackaged(webm(*map(simple, PACKETS))))]
    assert granules == [0, 0, 48_000, 96_000, 115_200]


HEADERS = [(2, 0), (0, 0)]  # flags and granule position


@pytest.mark.parametrize(
    ("size", "ends"),
    [
        *((size, [*HEADERS, (4, 2880)]) for size in (254, 255, 256, 510, 60_000)),
        (65_024, [*HEADERS, (0, 960), (0, 1920), (4, 2880)]),
        *((size, [*HEADERS, (0, 960), (0, -1), (5, 2880)]) for size in (65_025, 65_026, 70_000)),
        (140_000, [*HEADERS, (0, 960), (0, -1), (1, -1), (5, 2880)]),
    ],
)
def test_packets_of_any_size(size: int, ends: list[tuple[int, int]]) -> None:
    """A packet of a multiple of 255 bytes ends with an empty segment, and one that is larger than a page is continued."""
    large = [PACKETS[0], b"\x08" + b"x" * (size - 1), PACKETS[1]]
    ogg = repackaged(webm(*map(simple, large)))
    assert packets(ogg) == large
    found = pages(ogg)
    assert [(flags, granule) for flags, granule, _, _ in found] == ends


# Start and end


def test_the_start_of_a_cut_recording() -> None:
    """Of a pre-skip that is too large for its field, whole packets are left out, and the sound begins where it did."""
    edit = full(b"elst", "IIiI", 1, 500, 70_000, 0x10000)
    ogg = repackaged(mp4(PACKETS, edit=edit))
    left_out = PACKETS.index(packets(ogg)[0])
    assert packets(ogg) == PACKETS[left_out:98]
    pre_skip, granule = facts(ogg)
    assert pre_skip + left_out * 960 == 70_000
    assert 65_535 - 960 < pre_skip <= 65_535
    assert granule - pre_skip == 24_000, "the edit has half a second"


@pytest.mark.parametrize(
    ("milliseconds", "played", "count"),
    [(1, 48, 1), (20, 960, 2), (2000, 96_000, 101), (2013, 96_624, 101), (2392, 114_816, 120), (2393, 114_888, 120)],
)
def test_an_edit_ends_the_sound(milliseconds: int, played: int, count: int) -> None:
    """
    An edit that is shorter than the track ends it to the sample, and a packet that begins behind it is not sent.

    Less than a millisecond, a tick of the movie's clock, is rounding.
    """
    edit = full(b"elst", "IIiI", 1, milliseconds, 312, 0x10000)
    ogg = repackaged(mp4(PACKETS, edit=edit))
    pre_skip, granule = facts(ogg)
    assert (len(packets(ogg)), granule - pre_skip) == (count, played)


@pytest.mark.parametrize(
    ("durations", "end"),
    [
        ([960] * 119 + [475], 115_200 - 485),  # ffmpeg
        ([648] + [960] * 118 + [475], 115_200 - 485),  # GStreamer
        ([960] * 119 + [1008], 115_200),
        ([945, 991] * 59 + [945, 336], 115_200),  # Chromium, whose durations are those of its clock
    ],
)
@pytest.mark.parametrize("fragments", [False, True])
def test_the_last_duration_ends_the_sound(durations: list[int], end: int, fragments: bool) -> None:
    """The last sample may be shorter than its packet, if the samples before it have the durations of theirs."""
    assert facts(repackaged(mp4(PACKETS, durations, fragments=fragments))) == (312, end)


@pytest.mark.parametrize("count", [1, 2])
def test_a_tiny_recording_of_chromium_is_whole(count: int) -> None:
    """Two samples in a fragment do not show whether their durations are right, so nothing is cut off."""
    assert facts(repackaged(mp4(PACKETS[:count], [400] * count, fragments=True))) == (312, 960 * count)
    assert facts(repackaged(mp4(PACKETS[:count], [960] * (count - 1) + [400]))) == (312, 960 * count - 560)


@pytest.mark.parametrize(
    ("padding", "end"), [(6_500_000, 115_200 - 312), (0, 115_200), (-6_500_000, 115_200), (10**10, 96_000)]
)
def test_discard_padding_ends_the_sound(padding: int, end: int) -> None:
    """Only the padding of the last block counts, never beyond its page."""
    group = [
        element(0xA0, element(0xA1, block(packet)), element(0x75A2, padding.to_bytes(8, "big", signed=True)))
        for packet in PACKETS
    ]
    assert facts(repackaged(webm(*group))) == (312, end)


# WebM and Matroska


def laced(kind: int, frames: list[bytes]) -> bytes:
    """Build a block of several frames, whose sizes are written as Xiph, fixed or EBML lacing."""
    sizes = [len(frame) for frame in frames[:-1]]
    written = b""
    if kind == 1:
        written = b"".join(b"\xff" * (size // 255) + bytes([size % 255]) for size in sizes)
    elif kind == 3:
        widths = [size if not index else size - sizes[index - 1] + (1 << 27) - 1 for index, size in enumerate(sizes)]
        written = b"".join((1 << 28 | number).to_bytes(4, "big") for number in widths)
    return element(0xA3, block(*frames, flags=kind << 1, lacing=bytes([len(frames) - 1]) + written))


@given(st.lists(st.integers(0, 600), min_size=1, max_size=20), st.sampled_from([1, 2, 3]))
def test_lacing(sizes: list[int], kind: int) -> None:
    """A block of several packets is taken apart, however their sizes are written."""
    frames = [b"\x08" + bytes([size % 251]) * (sizes[0] if kind == 2 else size) for size in sizes]
    assert packets(repackaged(webm(laced(kind, frames), simple(*PACKETS[:1])))) == [*frames, PACKETS[0]]


def test_compressed_packets() -> None:
    """Packets are inflated, or get the start that was stripped off them."""
    inflated = webm(*(simple(zlib.compress(packet)) for packet in PACKETS), tracks=entry(encoding(algorithm=b"\0")))
    stripped = webm(*(simple(packet[1:]) for packet in PACKETS), tracks=entry(encoding(settings=PACKETS[0][:1])))
    assert packets(repackaged(inflated)) == packets(repackaged(stripped)) == PACKETS


def test_a_track_without_a_header() -> None:
    """A header is made of the channels and the delay, which count only then."""
    audio, delay = element(0xE1, element(0x9F, b"\2")), element(0x56AA, (10_000_000).to_bytes(4, "big"))
    for parts, pre_skip in (((), 0), ((audio, delay), 480)):
        assert facts(repackaged(webm(*map(simple, PACKETS), tracks=entry(*parts, head=None)))) == (pre_skip, 115_200)
    assert facts(repackaged(webm(*map(simple, PACKETS), tracks=entry(delay))))[0] == 312


def test_other_tracks_are_left_out() -> None:
    """Subtitles beside the voice are no packets of it, and its second list of tracks is not read."""
    tracks = entry(number=2, kind=17, codec=b"S_TEXT/UTF8") + entry()
    blocks = [simple(b"Hello", number=2), simple(PACKETS[0]), element(0x1654AE6B), simple(PACKETS[1])]
    assert packets(repackaged(webm(*blocks, tracks=tracks))) == PACKETS[:2]
