"""Sound, through `inspect_media`: Ogg, MPEG audio, AAC, and what lies behind ID3 tags."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_media import samples
from meta_media.errors import CorruptedMediaError, InvalidMediaError, UnsupportedMediaTypeError
from meta_media.protocol.formats import Signature
from meta_media.protocol.media_types import ACCEPTED, HEAD_SIZE, Inspection, inspect_media
from meta_media.protocol.signatures import sniff
from tests.support.reading import read

MEDIA = Path(__file__).parents[1] / "media"
SAMPLES = {path.name: path.read_bytes() for path in samples.paths()}
OTHERS = {path.name: path.read_bytes() for path in MEDIA.iterdir()}
MP3, AAC = Signature(candidates=("audio/mpeg",)), Signature(candidates=("audio/aac",))
NOISE = bytes(range(128, 255)) * 20
THEORA = b"\x80theora\3\2\1" + bytes(12)
COVER, FILM = (THEORA + rate.to_bytes(4, "big") + b"\0\0\0\1" for rate in (90_000, 30))
MONO, STEREO, SURROUND = (b"OpusHead\1" + bytes([n]) + bytes(8) + bytes([n > 2]) for n in (1, 2, 6))
NO_COVER = "leave the cover out (ffmpeg -i IN -vn -c:a copy OUT.ogg)"
FILMED = "convert it to MP4 with H.264 and AAC, if it is a film"
ENCODE = "re-encode it as mono Opus (ffmpeg -i IN -vn -c:a libopus -ac 1 OUT.ogg)"
REPACKAGE = "pass repackage=True (upload --repackage), which announces it as mono without re-encoding"


def page(packet: bytes, flags: int = 2) -> bytes:
    """Build a page of an Ogg file; by default the first one of a stream."""
    return b"OggS\0" + bytes([flags]) + bytes(20) + b"\1" + bytes([len(packet)]) + packet


def ogg(*packets: bytes) -> bytes:
    """Build the first pages of an Ogg file whose streams begin with these packets."""
    return b"".join(map(page, packets)) + page(bytes(9), 0) + page(FILM, 0)


def tag(size: int, *, footer: bool = False, content: bytes = b"\1") -> bytes:
    """Build an ID3 tag with some bytes of content."""
    flags, digits = b"\x10" if footer else b"\0", bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\4\0" + flags + digits + content * size + (b"3DI\4\0" + flags + digits) * footer


def frames(header: bytes, size: int, count: int = 2) -> bytes:
    """Build frames of a size."""
    return header.ljust(size, b"\0") * count


class TestOgg:
    """Ogg is for mono Opus."""

    @pytest.mark.parametrize(
        ("packets", "found", "fix"),
        [
            ([b"\x01vorbis"], "Vorbis", ENCODE),
            ([b"\x7fFLAC\1\0"], "FLAC", ENCODE),
            ([b"Speex   1.2"], "Speex", ENCODE),
            ([b"fishead\0"], "a codec other than Opus", ENCODE),
            ([b""], "a codec other than Opus", ENCODE),
            ([STEREO], "Opus of 2 channels", f"{REPACKAGE}, or {ENCODE}"),
            ([b"fishead\0", STEREO], "Opus of 2 channels", f"{REPACKAGE}, or {ENCODE}"),
            ([STEREO[:-1] + b"\1"], "Opus of 2 channels", ENCODE),
            ([SURROUND], "Opus of 6 channels", ENCODE),
            ([b"OpusHead"], "Opus of 0 channels", ENCODE),
            ([MONO, b"\x01vorbis"], "Opus and Vorbis", ENCODE),
            ([MONO, MONO], "Opus and Opus", ENCODE),
            ([COVER, MONO], "Opus and a cover", NO_COVER),
            ([MONO, COVER], "Opus and a cover", NO_COVER),
            ([COVER, STEREO], "Opus of 2 channels and a cover", f"leave the cover out and {ENCODE}"),
            ([FILM, MONO], "Opus and a cover", f"{NO_COVER}, or {FILMED}"),
            ([FILM, STEREO], "Opus of 2 channels and a cover", f"leave the cover out and {ENCODE}, or {FILMED}"),
            ([COVER, b"\x01vorbis"], "Vorbis and a cover", f"leave the cover out and {ENCODE}"),
        ],
    )
    def test_anything_else_is_refused(self, packets: list[bytes], found: str, fix: str) -> None:
        """The error names the codecs of all streams, and what to do."""
        for declared in (None, "audio/ogg"):
            with pytest.raises(UnsupportedMediaTypeError) as caught:
                inspect_media(ogg(*packets), complete=True, filename="a.ogg", mime_type=declared)
            expected = f"'a.ogg' is Ogg with {found}, but WhatsApp accepts mono Opus in Ogg: {fix}"
            assert (str(caught.value), caught.value.kind) == (expected, "audio")

    @pytest.mark.parametrize("packets", [[MONO], [b"fishead\0", MONO], [MONO, b"\x80kate\0\0\0"]])
    def test_one_stream_of_mono_opus_passes(self, packets: list[bytes]) -> None:
        """Streams of a kind that is not known are no reason to refuse it."""
        assert inspect_media(ogg(*packets)).mime_type == "audio/ogg"

    @pytest.mark.parametrize("packets", [[FILM], [b"\x01vorbis", FILM], [b"OVP80"], [b"fishead\0", b"BBCD\0"]])
    def test_films_are_video(self, packets: list[bytes]) -> None:
        """A film is no sound, whatever its name says."""
        with pytest.raises(UnsupportedMediaTypeError, match="convert it to MP4 with H") as caught:
            inspect_media(ogg(*packets), filename="a.ogg")
        assert (caught.value.kind, caught.value.actual) == ("video", "video/ogg")

    @pytest.mark.parametrize("named", [{"filename": "a.ogv"}, {"hint": "video/ogg"}])
    def test_the_name_of_a_film_decides(self, named: dict[str, str]) -> None:
        """Pictures beside Opus are a cover, unless the name or the hint is a film's."""
        with pytest.raises(UnsupportedMediaTypeError, match=FILMED) as caught:
            inspect_media(ogg(FILM, MONO), **named)  # type: ignore[arg-type]  # texts only
        assert (caught.value.kind, caught.value.actual) == ("video", "Ogg with Opus and a cover")

    @pytest.mark.parametrize(
        ("name", "actual"),
        [
            ("vorbis.ogg", "Ogg with Vorbis"),
            ("stereo.ogg", "Ogg with Opus of 2 channels"),
            ("cover.ogg", "Ogg with Opus and a cover"),
        ],
    )
    def test_real_files(self, name: str, actual: str) -> None:
        """Files of ffmpeg: its cover is a Theora stream of 90,000 pictures per second."""
        with pytest.raises(UnsupportedMediaTypeError) as caught:
            inspect_media(OTHERS[name])
        assert caught.value.actual == actual


class TestTags:
    """Sound behind ID3 tags."""

    @pytest.mark.parametrize("size", [0, 1000, HEAD_SIZE - 100, 300_000, 10_000_000])
    @pytest.mark.parametrize(
        ("sound", "expected"),
        [
            (frames(b"\xff\xfb\x90\0", 417), "audio/mpeg"),
            (frames(b"\xff\xf1\x50\x80\x10\x1f", 128), "audio/aac"),
            (SAMPLES["song.mp3"], "audio/mpeg"),
            (SAMPLES["speech.aac"], "audio/aac"),
            (OTHERS["sound.flac"], "audio/flac"),
            (OTHERS["sound.wav"], "audio/wav"),
            (OTHERS["sound.wma"], "audio/x-ms-wma"),
            (b"caff\0\1\0\0", "audio/x-caf"),
        ],
    )
    def test_decides(self, size: int, sound: bytes, expected: str) -> None:
        """What follows a tag of any size decides, for one read."""
        for before in (tag(size), tag(size, footer=True), tag(size) + bytes(900), tag(size, content=b"\0")):
            signature, reads = read(before + sound)
            assert signature is not None
            assert (signature.candidates, signature.flaw) == ((expected,), None)
            assert len(reads) <= 1 + sound.startswith(b"ID3")

    @pytest.mark.parametrize(
        ("before", "read_count"),
        [
            (tag(300_000) + tag(200_000), 2),
            (tag(300_000, footer=True) + bytes(3000) + tag(70_000) + bytes(1000), 3),
            (tag(70_000) + bytes(5000), 3),
        ],
    )
    def test_several_tags_are_skipped(self, before: bytes, read_count: int) -> None:
        """Tags may follow each other, with or without zeros between them."""
        signature, reads = read(before + OTHERS["sound.flac"] * 20)
        assert signature == Signature(candidates=("audio/flac",))
        assert len(reads) == read_count

    def test_layer_ii_is_refused(self) -> None:
        """The flaw of what follows is the file's."""
        for sound in (OTHERS["layer2.mp2"], frames(b"\xff\xfd\xe8\0", 1728)):
            signature, _ = read(tag(300_000) + sound + bytes(3000))
            assert signature is not None
            assert signature.flaw is not None
            assert signature.flaw.found == "MPEG audio of layer II"

    @pytest.mark.parametrize(
        "data",
        [
            b"ID3\4\0\0\0\0\x7f\x7f",
            tag(300_000)[:HEAD_SIZE],
            tag(200) + NOISE,
            tag(200) + SAMPLES["photo.jpg"],
            tag(200),
            tag(70_000) + bytes(20_000),
            5 * tag(70_000) + OTHERS["sound.flac"],
        ],
    )
    def test_unknown_bytes_go_by_the_name(self, data: bytes) -> None:
        """A tag whose size is wrong, or whose sound is not seen, is of an MP3 or an AAC."""
        signature, reads = read(data)
        assert signature == Signature(candidates=("audio/mpeg", "audio/aac"))
        assert len(reads) <= 4
        assert inspect_media(data[:HEAD_SIZE], signature=signature, filename="a.aac").mime_type == "audio/aac"
        assert sniff(data[:HEAD_SIZE], complete=False) == signature


class TestFrames:
    """Frames of MPEG audio and AAC, which need not come first."""

    @pytest.mark.parametrize(
        ("header", "size", "expected"),
        [
            (b"\xff\xfb\x90\0", 417, MP3),
            (b"\xff\xfb\x92\0", 418, MP3),
            (b"\xff\xfa\xe4\xc4", 960, MP3),
            (b"\xff\xfb\xe8\0", 1440, MP3),
            (b"\xff\xf3\x80\xc4", 208, MP3),
            (b"\xff\xf3\x48\xc4", 144, MP3),
            (b"\xff\xe3\x18\xc4", 72, MP3),
            (b"\xff\xf1\x4c\x80\x02\x9f\xfc", 20, AAC),
            (b"\xff\xf1\x50\x02\x71\x00", 5000, AAC),
            (b"\xff\xf9\x50\x40\x2f\xff\xfc", 383, AAC),
        ],
    )
    @pytest.mark.parametrize("junk", [b"", bytes(64), b"\xff" * 40, NOISE, b"APETAGEX" + bytes(3000)])
    def test_two_in_a_row_are_sound(self, header: bytes, size: int, expected: Signature, junk: bytes) -> None:
        """The size of a frame follows from its header, in every version of MPEG audio."""
        assert sniff(junk + frames(header, size), complete=True) == expected
        if junk:
            apart = junk + header.ljust(size + 1, b"\0") + header.ljust(size, b"\0")
            assert sniff(apart, complete=True) is None

    @pytest.mark.parametrize("name", ["a.mp3", "a.aac", "a", None])
    def test_a_recording_may_begin_in_the_middle(self, name: str | None) -> None:
        """The rest of a frame, or an unknown header, comes before the first whole frame. The frames decide the type."""
        assert inspect_media(SAMPLES["song.mp3"][2000:], filename=name).mime_type == "audio/mpeg"
        assert inspect_media(SAMPLES["speech.aac"][333:], filename=name).mime_type == "audio/aac"

    @pytest.mark.parametrize(
        ("data", "found", "allowed", "fix"),
        [
            (OTHERS["layer2.mp2"], "MPEG audio of layer II", "MP3, which is layer III", "libmp3lame OUT.mp3"),
            (frames(b"\xff\xfd\x80\0", 417), "MPEG audio of layer II", "MP3, which is layer III", "libmp3lame OUT.mp3"),
            (frames(b"\xff\xf5\x80\0", 417), "MPEG audio of layer II", "MP3, which is layer III", "libmp3lame OUT.mp3"),
            (b"V\xf3\x88" + bytes(5000) + b"V\xe1\x20", "AAC in LATM", "AAC in ADTS or M4A", "aac OUT.m4a"),
            (b"V\xe0\x10" + bytes(16) + b"V\xe1\x20", "AAC in LATM", "AAC in ADTS or M4A", "aac OUT.m4a"),
            (OTHERS["latm.aac"], "AAC in LATM", "AAC in ADTS or M4A", "aac OUT.m4a"),
        ],
    )
    def test_other_frames_are_refused(self, data: bytes, found: str, allowed: str, fix: str) -> None:
        """Layer II and LATM have the names of MP3 and AAC, and are neither."""
        for name in ("a.mp3", "a.aac", None):
            with pytest.raises(UnsupportedMediaTypeError) as caught:
                inspect_media(data, filename=name, complete=True)
            assert (caught.value.kind, caught.value.actual, caught.value.limit) == ("audio", found, allowed)
            assert str(caught.value).endswith(f": re-encode it (ffmpeg -i IN -vn -c:a {fix})")

    @pytest.mark.parametrize("mime_type", ["audio/aac", "audio/mpeg"])
    @pytest.mark.parametrize(
        "head",
        [
            NOISE,
            bytes(64) + NOISE,
            NOISE + b"\xff\xfb\x90\0" + bytes(2000),
            bytes(9) + frames(b"\xff\xfb\xf0\0", 417),
            bytes(9) + frames(b"\xff\xfb\x9c\0", 417),
            bytes(9) + frames(b"\xff\xeb\x90\0", 417),
            bytes(9) + frames(b"\xff\xff\x90\0", 417),
            bytes(9) + frames(b"\xff\xe1\x50\x80\x10\x1f", 128),
            bytes(9) + frames(b"\xfe\xfb\x90\0", 417),
            bytes(9) + b"\xff\xfb\x90\0".ljust(417) + b"\xff\xf3\x90\0".ljust(417),
            b"\x56\xe2\x80".ljust(643) + b"\xff",
            b"\x80" + 2 * b"V\xe0\x10".ljust(19),
        ],
    )
    def test_one_alone_is_none(self, head: bytes, mime_type: str) -> None:
        """Without two frames in a row, a file is neither MP3 nor AAC."""
        assert sniff(head, complete=True) is None
        with pytest.raises(
            CorruptedMediaError, match="data without a known signature: send the complete original file"
        ):
            inspect_media(head, mime_type=mime_type)

    @pytest.mark.parametrize("text", ["V\u2019ger", "V\u0905", "V\u00e9"])
    def test_text_is_no_latm(self, text: str) -> None:
        """Text may begin with the two bytes of LATM."""
        assert inspect_media(text.encode() * 90, complete=True).mime_type == "text/plain"


SOUNDS = [SAMPLES[name] for name in ("song.mp3", "speech.aac", "note.ogg")]
SOUNDS += [OTHERS[name] for name in ("cover.ogg", "stereo.ogg", "layer2.mp2", "latm.aac", "sound.wma", "sound.flac")]
SOUNDS += [tag(100) + SAMPLES["song.mp3"], tag(90_000) + tag(90_000, footer=True) + OTHERS["sound.flac"]]


@given(st.sampled_from(SOUNDS), st.data(), st.sampled_from([None, "a.mp3", "a.aac", "a.ogg"]))
def test_damaged_sound_is_decided_in_eight_reads(data: bytes, drawn: st.DataObject, name: str | None) -> None:
    """Wrong bytes give a decision or the documented error, for at most 8 reads and 8 KiB."""
    damaged = bytearray(data)
    places = st.one_of(st.integers(0, min(len(data), 200) - 1), st.integers(0, len(data) - 1))
    for place in drawn.draw(st.lists(places, max_size=8)):
        damaged[place] = drawn.draw(st.sampled_from([0, 1, 0x10, 0x49, 0x7F, 0x80, 0xFB, 0xFF]))
    data = bytes(damaged[drawn.draw(st.integers(0, 99)) :])
    signature, reads = read(data)
    assert len(reads) <= 8
    assert sum(size for _, size in reads) <= 8 * 1024
    try:
        decided: Inspection | InvalidMediaError = inspect_media(
            data[:HEAD_SIZE], filename=name, complete=len(data) <= HEAD_SIZE, signature=signature
        )
    except InvalidMediaError as error:
        decided = error
    assert isinstance(decided, InvalidMediaError) or decided.mime_type in ACCEPTED
