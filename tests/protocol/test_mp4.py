"""MP4, M4A and 3GP, through `inspect_media`: the tracks decide the type, and WhatsApp plays only some of their codecs."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_media import samples
from meta_media.errors import UnsupportedMediaTypeError
from meta_media.protocol.formats import PartialFile, Signature
from meta_media.protocol.media_types import HEAD_SIZE, inspect_media
from meta_media.protocol.signatures import sniff_steps
from tests.support.boxes import box, entry, movie, mp4, sound, track, video

MEDIA = Path(__file__).parents[1] / "media"
REAL = {
    path.name: path.read_bytes()
    for path in (*MEDIA.iterdir(), *samples.paths())
    if path.suffix in {".3gp", ".m4a", ".mp4"}
}
LARGE = 3 * HEAD_SIZE
ENCODE_VIDEO = "-c:v libx264 -profile:v main -bf 0 -pix_fmt yuv420p"
PLAYED = "H.264 video with at most one AAC track"
HEARD = "AAC in MP4, or mono Opus in Ogg"
REPACKAGE = "pass repackage=True (upload --repackage), which moves it to Ogg without re-encoding"


def type_of(data: bytes, **arguments: str | None) -> str:
    """Return the type by the head."""
    return inspect_media(data[:HEAD_SIZE], complete=len(data) <= HEAD_SIZE, **arguments).mime_type  # type: ignore[arg-type]


def read(data: bytes) -> tuple[Signature | None, list[tuple[int, int]]]:
    """Return the signature of a file that can be read anywhere, and the reads beyond the head."""
    reads = []
    steps = sniff_steps(data[:HEAD_SIZE], len(data) <= HEAD_SIZE)
    try:
        offset, size = next(steps)
        while True:
            reads.append((offset, size))
            offset, size = steps.send(data[offset : offset + size])
    except StopIteration as stop:
        return stop.value, reads


def h264(profile: int, *tables: bytes) -> bytes:
    """Build a video track with a profile and tables behind the description of its samples."""
    configured = box(b"avc1", bytes(78), box(b"avcC", bytes([1, profile, 0, 30])))
    described = box(b"stsd", struct.pack(">II", 0, 1), configured)
    information = box(b"minf", box(b"stbl", described, *tables))
    return box(b"trak", box(b"mdia", box(b"hdlr", bytes(8), b"vide", bytes(13)), information))


def offsets(count: int) -> bytes:
    """Build the start of a table of presentation offsets."""
    return box(b"ctts", struct.pack(">II", 0, count), bytes(8 * min(count, 9)))


class TestCodecs:
    """What the tracks hold."""

    @pytest.mark.parametrize(
        "tracks",
        [
            [video(), sound()],
            [sound(), video()],
            [video(b"avc3"), sound()],
            [video()],
            [video(), sound(object_type=0x67)],
            [video(b"mp4v", 0x21)],
            [video(b"encv"), sound(b"enca")],
            [video(b"xxxx"), sound(b"xxxx")],
            [video(), track(b"soun", entry(b"mp4a"))],
            [video(), track(b"soun", entry(b"mp4a"), entry(b"mp4a", 0x6B))],
            [video(), sound(object_type=0x99)],
            [video(), track(b"soun", entry(b"mp4a", 0x40, long_sizes=True))],
            [video(), track(b"sbtl", entry(b"tx3g")), track(b"text", entry(b"text"))],
            [video(), track(b"vide")],
        ],
    )
    @pytest.mark.parametrize("brand", [b"isom", b"3gp6", b"M4V ", b"M4A ", b"iso6"])
    def test_h264_with_aac_or_silence_or_unknown_codecs_pass(self, tracks: list[bytes], brand: bytes) -> None:
        """H.264 passes with one AAC track or none; an unknown codec and other tracks are no reason to refuse a file."""
        expected = "video/3gpp" if brand == b"3gp6" else "video/mp4"
        assert expected == type_of(mp4(*tracks, brand=brand))

    @pytest.mark.parametrize("family", [0, 1])
    def test_opus_alone_is_repackaged_where_ogg_can_hold_it_as_mono(self, family: int) -> None:
        """The fix of mono or stereo Opus is `repackage`; of several channels, and of Opus beside others, a command."""
        described = box(b"dOps", bytes([0, 2]), bytes(8), bytes([family]))
        opus = track(b"soun", box(b"Opus", bytes(28), described))
        with pytest.raises(UnsupportedMediaTypeError) as caught:
            type_of(mp4(opus))
        assert str(caught.value).endswith(f"{HEARD}: {REPACKAGE}") is (family == 0)
        for tracks in ([opus, sound()], [opus, video()], [opus, box(b"free", bytes(LARGE))]):
            with pytest.raises(UnsupportedMediaTypeError, match=r": re-encode it (as mono Opus )?\(ffmpeg"):
                type_of(mp4(*tracks))

    @pytest.mark.parametrize(
        ("tracks", "found", "command"),
        [
            ([video(b"hvc1"), sound()], "H.265 (HEVC) video", f"{ENCODE_VIDEO} -c:a copy"),
            ([video(b"hev1")], "H.265 (HEVC) video", f"{ENCODE_VIDEO} -c:a copy"),
            ([video(b"vp09"), sound(b"Opus")], "VP9 video and Opus sound", f"{ENCODE_VIDEO} -c:a aac"),
            ([video(b"vp08")], "VP8 video", ENCODE_VIDEO),
            ([video(b"av01")], "AV1 video", ENCODE_VIDEO),
            ([video(b"mp4v", 0x20)], "MPEG-4 Part 2 video", ENCODE_VIDEO),
            ([video(b"mp4v", 0x6C)], "Motion JPEG video", ENCODE_VIDEO),
            ([video(b"mp4v", 0x6D)], "PNG video", ENCODE_VIDEO),
            ([video(b"mp4v", 0x6E)], "JPEG 2000 video", ENCODE_VIDEO),
            ([video(b"mp4v", 0x61)], "MPEG-2 video", ENCODE_VIDEO),
            ([video(b"mp4v", 0x6A)], "MPEG-1 video", ENCODE_VIDEO),
            ([video(b"s263"), sound(b"samr")], "H.263 video and AMR sound", f"{ENCODE_VIDEO} -c:a aac"),
            ([video(), sound(b"Opus")], "Opus sound", "-c:v copy -c:a aac"),
            ([video(), sound(b".mp3")], "MP3 sound", "-c:v copy -c:a aac"),
            ([video(), sound(object_type=0x6B)], "MP3 or MP2 sound", "-c:v copy -c:a aac"),
            ([video(), sound(object_type=0x69)], "MP3 or MP2 sound", "-c:v copy -c:a aac"),
            ([video(), sound(b"ac-3")], "AC-3 sound", "-c:v copy -c:a aac"),
            ([video(), sound(b"ec-3")], "E-AC-3 sound", "-c:v copy -c:a aac"),
            ([video(), sound(b"alac")], "ALAC sound", "-c:v copy -c:a aac"),
            ([video(), sound(b"fLaC")], "FLAC sound", "-c:v copy -c:a aac"),
            ([video(), sound(b"mlpa")], "TrueHD sound", "-c:v copy -c:a aac"),
            ([video(), sound(b"sowt")], "PCM sound", "-c:v copy -c:a aac"),
            ([video(), sound(), sound()], "2 audio tracks", "-c:v copy -c:a copy"),
            ([video(b"av01"), sound(), sound(b"Opus")], "AV1 video, Opus sound and 2 audio tracks", "-c:a aac"),
        ],
    )
    @pytest.mark.parametrize(("brand", "container"), [(b"isom", "MP4"), (b"3gp5", "3GP")])
    def test_another_codec_in_a_video_is_named_with_the_command_that_mends_it(
        self, tracks: list[bytes], found: str, command: str, brand: bytes, container: str
    ) -> None:
        """The sentence names each codec that WhatsApp does not play, and a command that converts only what must be."""
        with pytest.raises(UnsupportedMediaTypeError) as caught:
            type_of(mp4(*tracks, brand=brand), filename="a.mp4")
        assert (f"{container} with {found}", PLAYED) == (caught.value.actual, caught.value.limit)
        doing = "keep one of them" if found == "2 audio tracks" else "re-encode it"
        start = f"'a.mp4' is {container} with {found}, but WhatsApp accepts {PLAYED}: {doing} (ffmpeg -i IN -c:v "
        assert str(caught.value).startswith(start)
        assert str(caught.value).endswith(" -movflags +faststart OUT.mp4)")
        assert command in str(caught.value)

    @pytest.mark.parametrize(
        ("tracks", "found", "fix"),
        [
            ([sound(b"Opus")], "Opus sound", "re-encode it as mono Opus (ffmpeg -i IN -vn -c:a libopus -ac 1 OUT.ogg)"),
            ([sound(b"alac")], "ALAC sound", "re-encode it as AAC (ffmpeg -i IN -vn -c:a aac OUT.m4a)"),
            ([sound(b"samr")], "AMR sound", "re-encode it as AAC (ffmpeg -i IN -vn -c:a aac OUT.m4a)"),
            ([sound(b"sawb")], "AMR-WB sound", "re-encode it as AAC (ffmpeg -i IN -vn -c:a aac OUT.m4a)"),
            ([sound(object_type=0xDD)], "Vorbis sound", "re-encode it as AAC (ffmpeg -i IN -vn -c:a aac OUT.m4a)"),
            ([sound(), sound()], "2 audio tracks", "keep one of them (ffmpeg -i IN -vn -c:a copy OUT.m4a)"),
        ],
    )
    @pytest.mark.parametrize("brand", [b"isom", b"3gp4", b"M4A "])
    def test_sound_alone_is_aac(self, tracks: list[bytes], found: str, fix: str, brand: bytes) -> None:
        """Sound alone must be AAC, and the command makes of it what WhatsApp plays as audio."""
        with pytest.raises(UnsupportedMediaTypeError) as caught:
            type_of(mp4(*tracks, brand=brand), filename="note.m4a")
        container = "3GP" if brand == b"3gp4" else "MP4"
        assert (f"{container} with {found}", HEARD) == (caught.value.actual, caught.value.limit)
        assert str(caught.value).endswith(f": {fix}")

    @pytest.mark.parametrize(
        ("name", "actual"), [("hevc.mp4", "MP4 with H.265 (HEVC) video"), ("opus.m4a", "MP4 with Opus sound")]
    )
    def test_files_of_real_programs(self, name: str, actual: str) -> None:
        """What ffmpeg writes is told as what was made."""
        with pytest.raises(UnsupportedMediaTypeError) as caught:
            type_of(REAL[name])
        assert caught.value.actual == actual

    @pytest.mark.parametrize("declared", ["audio/mp4", "video/3gpp", "video/mp4", "audio/mpeg", "audio/3gpp"])
    def test_no_other_type_helps_against_a_wrong_codec(self, declared: str) -> None:
        """The error of a file with a wrong codec suggests no other type, with which it would be refused, too."""
        with pytest.raises(UnsupportedMediaTypeError, match="3GP with AMR sound") as caught:
            type_of(mp4(sound(b"samr"), brand=b"3gp4"), mime_type=declared)
        assert "mime_type" not in str(caught.value)

    def test_without_validation_nothing_is_refused(self) -> None:
        """`validate=False` sends what the caller says."""
        inspection = inspect_media(mp4(video(b"hvc1")), validate=False)
        assert inspection.mime_type == "video/mp4"


class TestRemarks:
    """What WhatsApp accepts, but some phones do not play."""

    @pytest.mark.parametrize(
        ("name", "found"),
        [
            ("high.mp4", "H.264 High profile, B-frames and the index (moov) at the end"),
            ("ten-bits.mp4", "H.264 of 10 bits (High 10 profile) and B-frames"),
            ("444.mp4", "H.264 of 4:4:4 chroma (High 4:4:4 profile)"),
            ("fragments.mp4", "fragments"),
            ("fragments.m4a", "fragments"),
        ],
    )
    def test_one_sentence_has_the_command_that_mends_all_of_it(self, name: str, found: str) -> None:
        """Only what must be is encoded anew."""
        [remark] = inspect_media(REAL[name], complete=True).remarks
        command = (
            "rewrite it (ffmpeg -i IN -c copy" if found == "fragments" else f"re-encode it (ffmpeg -i IN {ENCODE_VIDEO}"
        )
        assert remark.startswith(f"{found} may keep it from playing on some phones: {command} ")
        assert remark.endswith(" OUT.m4a)" if name == "fragments.m4a" else " -movflags +faststart OUT.mp4)")

    @pytest.mark.parametrize("name", ["main.mp4", "generic.mp4", "clip.mp4", "clip.3gp", "speech.m4a"])
    def test_what_is_as_meta_wants_it_has_none(self, name: str) -> None:
        """Main and Baseline profile without B-frames, and sound, have no remark."""
        assert inspect_media(REAL[name], complete=True).remarks == ()

    @pytest.mark.parametrize(
        ("tracks", "found"),
        [
            ([h264(66)], None),
            ([h264(100)], "H.264 High profile"),
            ([h264(122)], "H.264 of 4:2:2 chroma (High 4:2:2 profile)"),
            ([h264(77, offsets(2)), h264(77, offsets(2))], "B-frames"),
            ([h264(100), sound(), h264(100)], "H.264 High profile"),
            ([h264(77, box(b"free", bytes(2 * LARGE)), offsets(9)), sound()], "B-frames"),
            ([h264(77, offsets(1))], None),
            ([h264(77, offsets(2**32 - 1))], "B-frames"),
            ([h264(77, box(b"ctts"))], None),
            ([h264(77, b"\0\0\0\7ctts")], None),
            ([h264(77), box(b"free", bytes(LARGE)), box(b"mvex")], "fragments"),
            ([video()], None),
        ],
    )
    @pytest.mark.parametrize("last", [False, True])
    def test_what_the_tracks_show(self, tracks: list[bytes], found: str | None, last: bool) -> None:
        """Each is said once, and equal presentation offsets are no B-frames."""
        signature, _ = read(mp4(*tracks, media=LARGE, last=last))
        assert signature is not None
        assert signature.candidates == ("video/mp4",)
        end = "the index (moov) at the end" if last and found != "fragments" else None
        expected = " and ".join(filter(None, (found, end)))
        assert [remark.partition(" may keep")[0] for remark in signature.remarks] == [expected] * bool(expected)

    def test_sound_may_have_its_index_at_the_end(self) -> None:
        """Meta asks for the order in videos only."""
        signature, _ = read(mp4(sound(), media=LARGE, last=True))
        assert signature == Signature(candidates=("audio/mp4",))


class TestTracksDecide:
    """The tracks outrank the name, the hint and the brand."""

    @pytest.mark.parametrize("brand", [b"isom", b"mp42", b"M4A ", b"M4V ", b"3gp4", b"iso5"])
    @pytest.mark.parametrize("name", [None, "a.mp4", "a.m4v", "a.3gp", "a.m4a"])
    def test_sound_alone_is_audio(self, brand: bytes, name: str | None) -> None:
        """A file with sound alone is audio, whatever its name, brand and hint say."""
        assert type_of(mp4(sound(), brand=brand), filename=name, hint="video/mp4") == "audio/mp4"

    @pytest.mark.parametrize("declared", ["video/mp4", "video/3gpp"])
    def test_sound_declared_as_video_is_refused(self, declared: str) -> None:
        """The error names the right type."""
        with pytest.raises(UnsupportedMediaTypeError, match=r'the bytes are audio/mp4: pass mime_type="audio/mp4"'):
            type_of(mp4(sound(), brand=b"3gp4"), mime_type=declared)

    @pytest.mark.parametrize("name", [None, "a.mp4", "a.m4a"])
    def test_a_picture_makes_it_a_video(self, name: str | None) -> None:
        """A file with a video track is a video, even under the name and the brand of sound."""
        assert type_of(mp4(sound(), video(), brand=b"M4A "), filename=name, hint="audio/mp4") == "video/mp4"

    @pytest.mark.parametrize("codec", [b"jpeg", b"png "])
    def test_pictures_of_chapters_are_no_video(self, codec: bytes) -> None:
        """An audio book with a picture for each chapter is audio."""
        assert type_of(mp4(sound(), track(b"text", entry(b"text")), video(codec), brand=b"M4B ")) == "audio/mp4"

    def test_without_tracks_the_name_decides(self) -> None:
        """Where there is no track the name decides."""
        assert [type_of(mp4(), filename=name) for name in ("a.mp4", "a.m4a")] == ["video/mp4", "audio/mp4"]

    @pytest.mark.parametrize(
        ("name", "expected"), [("a.3gp", "video/3gpp"), (None, "video/3gpp"), ("a.m4a", "audio/mp4")]
    )
    def test_of_an_unseen_3gp_the_name_decides(self, name: str | None, expected: str) -> None:
        """A phone's recording of sound is 3GP, too."""
        data = mp4(sound(), brand=b"3gp4", media=LARGE, last=True)
        assert expected == type_of(data, filename=name)
        assert type_of(data, mime_type="audio/mp4") == "audio/mp4"

    def test_quicktime_stays_quicktime(self) -> None:
        """QuickTime is not accepted, whatever its tracks are."""
        with pytest.raises(UnsupportedMediaTypeError, match="video/quicktime"):
            type_of(mp4(video(), sound(), brand=b"qt  "))


class TestBeyondTheHead:
    """Tracks that the head does not show."""

    @pytest.mark.parametrize("wide", [False, True])
    @pytest.mark.parametrize(
        ("tracks", "candidates", "found"),
        [
            ([sound()], ("audio/mp4",), None),
            ([video(), sound()], ("video/mp4",), None),
            ([sound(), video(b"hvc1")], ("video/mp4",), "MP4 with H.265 (HEVC) video"),
        ],
    )
    def test_they_are_read(
        self, tracks: list[bytes], candidates: tuple[str, ...], found: str | None, wide: bool
    ) -> None:
        """Where the file can be read, tracks at its end count, for at most eight reads and 8 KiB."""
        start = box(b"ftyp", b"isom", bytes(4))
        signature, reads = read(start + box(b"mdat", bytes(LARGE), wide=wide) + movie(*tracks))
        assert signature is not None
        assert (candidates, found) == (signature.candidates, signature.flaw and signature.flaw.found)
        assert 0 < len(reads) <= 2
        assert sum(size for _, size in reads) <= 2048

    def test_large_tracks_are_skipped(self) -> None:
        """The tables of a track may be larger than the head; the next track is found behind them."""
        tables = box(b"free", bytes(LARGE))
        data = mp4(*[box(b"trak", one[8:], tables) for one in (sound(), video(), sound())])
        signature, reads = read(data)
        assert signature is not None
        assert signature.flaw is not None
        assert (signature.candidates, signature.flaw.found) == (("video/mp4",), "MP4 with 2 audio tracks")
        assert len(reads) <= 4

    @pytest.mark.parametrize(
        ("name", "expected"), [("a.mp4", "video/mp4"), ("a.m4a", "audio/mp4"), (None, "video/mp4")]
    )
    def test_unread_they_are_unknown(self, name: str | None, expected: str) -> None:
        """Of a stream only the head is known: where it does not show the tracks, the name decides and nothing is refused."""
        assert expected == type_of(mp4(video(b"hvc1"), media=LARGE, last=True), filename=name)

    @pytest.mark.parametrize(
        ("name", "expected"), [("a.mp4", "video/mp4"), ("a.m4a", "audio/mp4"), (None, "audio/mp4")]
    )
    def test_one_seen_track_does_not_decide(self, name: str | None, expected: str) -> None:
        """A film whose sound comes first is not audio, as long as not all tracks are known."""
        data = mp4(sound(), box(b"free", bytes(LARGE)), video())
        assert expected == type_of(data, filename=name)
        signature, _ = read(data)
        assert signature is not None
        assert signature.candidates == ("video/mp4",)

    def test_a_seen_codec_counts(self) -> None:
        """A codec that WhatsApp does not play is refused although the other tracks are not known."""
        with pytest.raises(UnsupportedMediaTypeError, match="MP4 with Opus sound") as caught:
            type_of(mp4(sound(b"Opus"), box(b"free", bytes(LARGE)), video()), filename="a.mp4")
        assert caught.value.limit == PLAYED

    def test_a_track_may_be_scattered(self) -> None:
        """What lies more than a read apart inside of a track is found, too."""
        gap = box(b"free", bytes(2000))
        handler = box(b"hdlr", bytes(8), b"vide", bytes(13))
        described = box(b"stbl", gap, box(b"stsd", bytes(8), entry(b"hvc1")))
        scattered = box(b"trak", gap, box(b"mdia", gap, handler, box(b"minf", described)))
        signature, reads = read(mp4(scattered, media=LARGE, last=True))
        assert signature is not None
        assert signature.flaw is not None
        assert signature.flaw.found == "MP4 with H.265 (HEVC) video"
        assert len(reads) <= 8

    def test_a_part_is_read_once(self) -> None:
        """Parts that were read are kept, and after eight reads there are no others."""
        file, data = PartialFile(b"head"), bytes(range(256)) * 80

        def part(offset: int) -> bytes:
            steps = file.at(offset, 4)
            try:
                place, size = next(steps)
                steps.send(data[place : place + size])
            except StopIteration as stop:
                return bytes(stop.value)
            raise AssertionError("one read is enough")

        assert [part(offset) for offset in (0, 2001, 9, 12)] == [b"head", data[2001:2005], data[9:13], data[12:16]]
        assert [part(2000 * index) for index in range(3, 9)] == [data[2000 * n : 2000 * n + 4] for n in range(3, 9)]
        assert [part(offset) for offset in (0, 15_100, 16_004, 2001)] == [
            b"head",
            b"",
            *(data[n : n + 4] for n in (16_004, 2001)),
        ]

    @pytest.mark.parametrize("wide", [False, True])
    @pytest.mark.parametrize(
        "around",
        [
            lambda *tracks: [box(b"udta", box(b"meta", bytes(4), box(b"ilst", box(b"covr", bytes(LARGE))))), *tracks],
            lambda *tracks: [*tracks, box(b"udta", box(b"meta", bytes(4), box(b"ilst", box(b"covr", bytes(LARGE)))))],
            lambda *tracks: [*tracks, *(track(b"sbtl", entry(b"tx3g")) for _ in range(12))],
            lambda *tracks: [*(track(b"text", entry(b"text")) for _ in range(12)), *tracks],
            lambda *tracks: [box(b"free", bytes(LARGE)), *tracks, box(b"free", bytes(LARGE))],
            lambda *tracks: [box(b"trak", one[8:], box(b"free", bytes(LARGE))) for one in tracks],
            lambda *tracks: [part for one in tracks for part in (one, box(b"meta", bytes(LARGE)))],
        ],
        ids=["cover first", "cover last", "subtitles", "texts", "free", "tables", "between"],
    )
    def test_all_tracks_are_seen_in_eight_reads(self, around: Callable[..., list[bytes]], wide: bool) -> None:
        """Whatever stands around the tracks, all of them and the B-frames are found in at most eight reads of 1 KiB."""
        keyframes = box(b"stss", bytes(4000))
        inside = around(h264(77, keyframes, offsets(2)), sound(), sound(b"Opus"))
        start = box(b"ftyp", b"isom", bytes(4)) + box(b"mdat", bytes(LARGE), wide=wide)
        signature, reads = read(start + box(b"moov", box(b"mvhd", bytes(100)), *inside, wide=wide))
        assert signature is not None
        assert signature.flaw is not None
        assert (signature.candidates, signature.flaw.found) == (
            ("video/mp4",),
            "MP4 with Opus sound and 2 audio tracks",
        )
        assert signature.remarks[0].startswith("B-frames and ")
        assert len(reads) <= 8
        assert {size for _, size in reads} == {1024}

    @pytest.mark.parametrize("count", [1, 2, 1000])
    def test_reads_are_bounded(self, count: int) -> None:
        """However the boxes are laid out, there are at most eight reads of 1 KiB. Tracks that are not all seen are not counted."""
        data = mp4(
            *[box(b"trak", sound()[8:], box(b"free", bytes(5000))) for _ in range(count)], media=LARGE, last=True
        )
        signature, reads = read(data)
        assert len(reads) <= 8
        assert {size for _, size in reads} == {1024}
        assert signature is not None
        found = {1: None, 2: "MP4 with 2 audio tracks", 1000: "MP4 with several audio tracks"}[count]
        assert found == (signature.flaw and signature.flaw.found)


class TestHostile:
    """Boxes that lie."""

    @pytest.mark.parametrize(
        "moov",
        [
            b"\0\0\0\0moov" + sound(),
            b"\0\0\0\1moov" + bytes(8),
            b"\0\0\0\1moov" + b"\xff" * 8 + sound(),
            b"\0\0\0\7moov" + sound(),
            b"\xff\xff\xff\xffmoov" + sound(),
            box(b"moov", b"\0\0\0\0trak"),
            box(b"moov", box(b"trak", box(b"mdia"))),
            box(b"moov", box(b"trak", box(b"mdia", box(b"hdlr", b"")))),
            box(b"moov", box(b"trak", box(b"mdia", box(b"hdlr", bytes(8), b"soun")))),
            box(b"moov", track(b"soun")),
            box(b"moov", track(b"soun", b"\xff\xff\xff\xffmp4a")),
            box(b"moov", track(b"soun", b"\0\0\0\0mp4a")),
            box(b"moov") * 5000,
            b"\0\0\0\x08free" * 10_000,
            box(b"moov", *[b"\0\0\0\x08trak"] * 7000),
            b"\0\0\0\0moov" * 7000,
            b"\0\0\0\1free" + bytes(8),
            b"\0\0\0\4" + movie(video()),
            b"\0\0\0\1free" + bytes(7) + b"\1" + bytes(8),
            b"".join(struct.pack(">I4s", 8 * deep, b"trak") for deep in range(10_000, 0, -1)),
            box(b"moov", b"".join(struct.pack(">I4s", 8 * deep, b"trak") for deep in range(10_000, 0, -1))),
        ],
    )
    def test_lying_boxes_go_by_their_name(self, moov: bytes) -> None:
        """Whatever cannot be read is no reason to refuse a file, and the name decides."""
        start = box(b"ftyp", b"isom", bytes(4))
        for data in (start + moov, start + moov + bytes(LARGE), start + box(b"free", bytes(LARGE)) + moov):
            assert type_of(data, filename="a.m4a") == "audio/mp4"
            signature, reads = read(data)
            assert signature is not None
            assert "audio/mp4" in signature.candidates
            assert len(reads) <= 8

    def test_a_box_may_go_on_to_the_end(self) -> None:
        """A size of zero stands for the rest of the file."""
        with pytest.raises(UnsupportedMediaTypeError, match="HEVC"):
            type_of(box(b"ftyp", b"isom", bytes(4)) + b"\0\0\0\0moov" + video(b"hvc1"))

    def test_a_box_ends_where_its_parent_ends(self) -> None:
        """A box that claims more than its parent has does not reach the boxes behind it."""
        reaching = b"\0\0\xff\xffminf"
        lying = box(b"trak", box(b"mdia", box(b"hdlr", bytes(8), b"soun"), reaching))
        outside = box(b"stbl", box(b"stsd", bytes(8), entry(b"Opus")))
        assert type_of(box(b"ftyp", b"isom", bytes(4)) + box(b"moov", lying, outside), filename="a.m4a") == "audio/mp4"

    @given(st.sampled_from(sorted(REAL)), st.data())
    def test_damage_never_raises(self, name: str, data: st.DataObject) -> None:
        """A file that is damaged or cut anywhere gets a verdict in at most eight reads."""
        damaged = bytearray(REAL[name])
        at = damaged.find(b"moov")
        for _ in range(data.draw(st.integers(1, 6))):
            damaged[data.draw(st.integers(at - 4, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        padded = bytes(damaged[: at - 4]) + box(b"free", bytes(HEAD_SIZE)) + bytes(damaged[at - 4 :])
        for whole in (bytes(damaged[: data.draw(st.integers(at, len(damaged)))]), padded):
            signature, reads = read(whole)
            assert signature is not None
            assert len(reads) <= 8
