"""What cannot be repackaged is refused in a sentence, and damage is one typed error, in bounded reads."""

from __future__ import annotations

import random
import re
import struct
import zlib
from pathlib import Path

import pytest

from meta_media.errors import CorruptedMediaError, InvalidMediaError, UnsupportedMediaTypeError
from tests.support.boxes import box
from tests.support.opus import (
    EBML,
    HEAD,
    PACKETS,
    STEREO,
    UNKNOWN,
    block,
    element,
    encoding,
    entry,
    fragment,
    full,
    movie,
    mp4,
    ogg,
    repackaged,
    simple,
    table,
    track,
    webm,
)

RECORDINGS = sorted((Path(__file__).parent / "recordings").iterdir())
SIMPLE = simple(PACKETS[0])
COMMAND = "re-encode its first audio track (ffmpeg -i IN -map 0:a:0 -c:a libopus -ac 1 OUT.ogg)"
VIDEO = entry(number=2, kind=1, codec=b"V_VP9")
FRAGMENT = fragment([(10, 960)], [PACKETS[0]])
FTYP = box(b"ftyp", b"isom", bytes(4))
MVEX = box(b"mvex")


def dops(channels: int, family: int) -> bytes:
    """Build the header of Opus with a number of channels."""
    return box(b"dOps", struct.pack(">BBHIhB", 0, channels, 312, 48_000, 0, family), bytes(channels))


REFUSED = {
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(50), "neither WebM, Matroska, MP4 nor Ogg"),
    "video": (webm(SIMPLE, tracks=entry() + VIDEO), "Matroska with 1 audio and 1 video tracks"),
    "two voices": (webm(SIMPLE, tracks=entry() + entry(number=2)), "Matroska with 2 audio and 0 video tracks"),
    "no sound": (webm(SIMPLE, tracks=b""), "Matroska with 0 audio and 0 video tracks"),
    "Vorbis": (webm(SIMPLE, tracks=entry(codec=b"A_VORBIS")), "Matroska with the codec 'A_VORBIS'"),
    "six channels": (webm(SIMPLE, tracks=entry(head=HEAD[:9] + b"\6" + HEAD[10:18] + b"\1" + bytes(8))), "Opus of 6 channels in mapping family 1"),
    "three channels": (webm(SIMPLE, tracks=entry(head=HEAD[:9] + b"\3" + HEAD[10:])), "Opus of 3 channels in mapping family 0"),
    "two streams": (webm(SIMPLE, tracks=entry(head=STEREO[:18] + b"\xff\2\0\0\1")), "Opus of 2 channels in mapping family 255"),
    "encrypted": (webm(SIMPLE, tracks=entry(encoding(element(0x5033, b"\1")))), "Matroska with encrypted sound, or an unknown compression"),
    "bzlib": (webm(SIMPLE, tracks=entry(encoding(algorithm=b"\1"))), "Matroska with encrypted sound, or an unknown compression"),
    "a compressed header": (webm(SIMPLE, tracks=entry(encoding(element(0x5032, b"\3")))), "Matroska with encrypted sound, or an unknown compression"),
    "a long prefix": (webm(SIMPLE, tracks=entry(encoding(settings=bytes(256)))), "Matroska with encrypted sound, or an unknown compression"),
    "two recordings": (webm(SIMPLE) + webm(SIMPLE), "Matroska of several recordings"),
    "AAC": (mp4(kind=b"mp4a"), "MP4 with AAC sound"),
    "encrypted MP4": (mp4(kind=b"enca"), "MP4 with 'enca' sound"),
    "two voices in MP4": (FTYP + movie(track(), track()), "MP4 with 2 audio and 0 video tracks"),
    "video in MP4": (FTYP + movie(track(), track(handler=b"vide", kind=b"avc1")), "MP4 with 1 audio and 1 video tracks"),
    "six channels in MP4": (mp4(dops=dops(6, 1)), "Opus of 6 channels in mapping family 1"),
    "several edits": (mp4(edit=full(b"elst", "I" + "IiI" * 2, 2, 1000, 0, 1, 1000, 48_000, 1)), "MP4 of several parts of a recording"),
    "Vorbis in Ogg": (ogg(b"\1vorbis" + bytes(30)), "Ogg with a codec other than Opus"),
    "several streams": (ogg(HEAD) + ogg(HEAD, serial=2), "Ogg with several streams"),
    "six channels in Ogg": (ogg(HEAD[:9] + b"\6" + HEAD[10:18] + b"\1" + bytes(8)), "Opus of 6 channels in mapping family 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_other_files_are_refused(name: str) -> None:
    """A file that is not one track of mono or stereo Opus is refused, with the command that encodes it."""
    data, found = REFUSED[name]
    with pytest.raises(UnsupportedMediaTypeError) as caught:
        repackaged(data)
    assert (caught.value.actual, caught.value.kind) == (found, "audio")
    assert str(caught.value).startswith(f"the file is {found}, but only one track of mono or stereo Opus can be ")
    assert str(caught.value).endswith(COMMAND)


def relative(**how: int) -> bytes:
    """Build a fragment whose second track is placed by the first one, unless it says otherwise."""
    other, run = full(b"tfhd", "I", 2), full(b"trun", "I", 1)
    return box(b"moof", box(b"traf", other, run), box(b"traf", full(b"tfhd", "I", 1, **how), run))


LIVE = FTYP + movie(track(), MVEX)
MANY = 2**32 - 1
EARLY = FTYP + box(b"mdat", PACKETS[2])  # of 12 bytes
BLOCKS = {
    "half a number": element(0xA3, b"\x40"),
    "an empty packet": simple(b""),
    "a packet of no Opus": simple(b"\x0b\x3f"),
    "a packet of 49 frames": simple(b"\x0b\x31"),
    "a packet without its count": simple(b"\x0b"),
    "a group whose child is larger": element(0xA0, element(0xA1, size=100)),
    "a group of unknown size": element(0xA0, element(0xA1, block(PACKETS[0]), size=UNKNOWN)),
    "Xiph sizes without an end": element(0xA3, block(b"\xff" * 100, flags=2, lacing=b"\3")),
    "Xiph sizes that are too large": element(0xA3, block(b"x" * 10, flags=2, lacing=b"\1\x20")),
    "a negative size": element(0xA3, block(b"x" * 100, flags=6, lacing=b"\2\x81\x80")),
    "sizes without a number": element(0xA3, b"\x81\0\0\2"),
    "an unknown element without a size": element(0xEC, size=UNKNOWN),
    "a block of an exabyte": element(0xA3, size=2**50),
    "a void of an exabyte": element(0xEC, size=2**50),
    "no element": b"\0" * 20,
}
DAMAGED = {
    **{name: webm(SIMPLE, data) for name, data in BLOCKS.items()},
    "no packets": webm(),
    "sound before its track": EBML + element(0x18538067, SIMPLE, size=UNKNOWN),
    "tracks of an exabyte": EBML + element(0x1654AE6B, size=2**50),
    "a short header": webm(SIMPLE, tracks=entry(head=HEAD[:18])),
    "another header": webm(SIMPLE, tracks=entry(head=b"x" * 19)),
    "a header of another version": webm(SIMPLE, tracks=entry(head=HEAD[:8] + b"\x10" + HEAD[9:])),
    "no zlib": webm(SIMPLE, tracks=entry(encoding(algorithm=b"\0"))),
    "half of zlib": webm(simple(zlib.compress(PACKETS[0])[:-5]), tracks=entry(encoding(algorithm=b"\0"))),
    "zlib of a gigabyte": webm(simple(zlib.compress(bytes(2**20))), tracks=entry(encoding(algorithm=b"\0"))),
    "an end before the segment's": webm(SIMPLE, size=500),
    "less than its pre-skip": mp4(PACKETS[:3], [960] * 3, edit=full(b"elst", "IIiI", 1, 0, 5000, 1)),
    "no index": FTYP + box(b"mdat", bytes(100)),
    "fragments alone": FRAGMENT,
    "a box of four bytes": FTYP + struct.pack(">I4s", 4, b"free"),
    "half a box": FTYP + b"\0\0\0",
    "half a wide box": FTYP + struct.pack(">I4sI", 1, b"mdat", 0),
    "a narrow wide box": FTYP + struct.pack(">I4sQ", 1, b"mdat", 8),
    "an index of an exabyte": FTYP + struct.pack(">I4sQ", 1, b"moov", 2**50),
    "an index that ends early": FTYP + struct.pack(">I4s", 1000, b"moov"),
    "a track larger than its index": FTYP + box(b"moov", struct.pack(">I4s", 1000, b"trak")),
    "no clock": mp4(clock=0),
    "no header of Opus": mp4(dops=b""),
    "a short dOps": mp4(dops=box(b"dOps", bytes(10))),
    "samples without sizes": mp4([b""] * 3, [960] * 3),
    "2^32 sizes": FTYP + movie(track(full(b"stsz", "II", 0, MANY))),
    "2^32 samples of a size": FTYP + movie(track(full(b"stsz", "II", 1, MANY), table(b"stsc", "III", (1, MANY, 1)), table(b"stco", "I", (0,)))),
    "2^32 durations": FTYP + movie(track(full(b"stts", "I", MANY))),
    "2^32 edits": mp4(edit=full(b"elst", "I", MANY)),
    "samples without a place": FTYP + movie(track(full(b"stsz", "II", 2, 3))),
    "samples on each other": EARLY + movie(track(full(b"stsz", "II", 12, 3), table(b"stsc", "III", (1, 1, 1)), table(b"stco", "I", (24,), (24,), (24,)))),
    "a sample of a gigabyte": FTYP + movie(track(full(b"stsz", "II", 2**30, 1), table(b"stsc", "III", (1, 1, 1)), table(b"stco", "I", (9,)))),
    "a run of 2^32 samples": LIVE + box(b"moof", box(b"traf", full(b"tfhd", "I", 1), full(b"trun", "I", MANY, flags=0x100))),
    "a run without sizes": LIVE + box(b"moof", box(b"traf", full(b"tfhd", "I", 1), full(b"trun", "I", MANY))),
    "a fragment of what is before it": LIVE + box(b"mdat", PACKETS[2]) + box(b"moof", box(b"traf", full(b"tfhd", "I", 1), full(b"trun", "IiI", 1, -12, 12, flags=0x201))),
    "half a page": ogg(HEAD)[:40],
    "half a header of a page": ogg(HEAD) + b"OggS\0\0",
    "no page": ogg(HEAD) + b"x" * 300,
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused(name: str) -> None:
    """A file that cannot be read to its end is refused in a sentence, after few reads."""
    reads: list[tuple[int, int]] = []
    with pytest.raises(CorruptedMediaError, match=r"^the file is damaged, .*: send the complete original file$"):
        repackaged(DAMAGED[name], reads)
    assert len(reads) <= 4


def test_fragments_that_depend_on_each_other_are_refused() -> None:
    """The place of a track in a fragment must be stated, by an offset or by the fragment's own."""
    with pytest.raises(UnsupportedMediaTypeError, match="MP4 whose fragments are placed by those of other tracks"):
        repackaged(LIVE + relative() + box(b"mdat"))


def judge(data: bytes) -> str:
    """Return the class of the error, or that there is none. The bytes that are read are about those of the file."""
    reads: list[tuple[int, int]] = []
    outcome = "repackaged"
    try:
        assert len(repackaged(data, reads)) <= 2 * len(data) + 500
    except InvalidMediaError as error:
        outcome = type(error).__name__
    assert len(reads) <= 8
    assert sum(size for _, size in reads) <= 4 * len(data)
    return outcome


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name)
def test_random_damage(path: Path) -> None:
    """Cut off or overwritten at 40 places, each recording is refused, or repackaged as far as it can be told."""
    data, numbers = path.read_bytes(), random.Random(path.name)
    seen = set()
    for _ in range(20):
        place = numbers.randrange(len(data))
        overwritten = data[:place] + numbers.randbytes(numbers.choice((1, 4, 16))) + data[place + 4 :]
        seen |= {judge(data[:place]), judge(overwritten[: len(data)])}
    assert "CorruptedMediaError" in seen


@pytest.mark.slow
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name)
def test_damage_everywhere(path: Path) -> None:
    """The same at every seventh place, with the values that numbers break at."""
    data = path.read_bytes()
    for place in range(0, min(len(data), 4000), 7):
        judge(data[:place])
        for value in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x80", b"\0\0\0\1"):
            judge(data[:place] + value + data[place + len(value) :])


def test_stereo_in_ogg_is_announced_as_mono() -> None:
    """Of a stereo file only the number of channels and the checksum of its first page change; a mono file is left as it is."""
    mono, stereo = ogg(HEAD, *PACKETS), ogg(STEREO, *PACKETS)
    assert repackaged(mono) == repackaged(stereo) == mono


def test_ogg_without_sound_is_refused() -> None:
    """So is one that ends inside the header of a page, and no file at all."""
    whole = ogg(HEAD, *PACKETS)
    pages = [page.start() for page in re.finditer(b"OggS", whole)]
    for size in (pages[1], pages[2], pages[2] + 27):
        with pytest.raises(CorruptedMediaError, match=r"has no sound|no Ogg page"):
            repackaged(whole[:size])
    with pytest.raises(CorruptedMediaError, match="it is empty"):
        repackaged(b"")


def test_where_a_file_ends() -> None:
    """What is said of the end is true, wherever the file is cut."""
    data, said = RECORDINGS[0].read_bytes(), []
    for size in range(60, len(data), 97):
        try:
            repackaged(data[:size])
        except CorruptedMediaError as error:
            said.append((size, re.search(r"ends before byte ([0-9,]+)", str(error))))
    places = [(size, int(found[1].replace(",", ""))) for size, found in said if found]
    assert len(places) > 5
    assert [pair for pair in places if pair[0] >= pair[1]] == []
