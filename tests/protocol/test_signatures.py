"""Signatures, through `inspect_media`: other formats, ambiguous bytes, containers, hostile bytes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_media import samples
from meta_media.errors import CorruptedMediaError, InvalidMediaError, UnsupportedMediaTypeError
from meta_media.protocol.media_types import ACCEPTED, HEAD_SIZE, MAX_SIZE, Inspection, inspect_media, normalise
from tests.support.boxes import box, movie, sound, video
from tests.support.containers import archive, ole, ole_entry

MEDIA = Path(__file__).parents[1] / "media"
SAMPLES = {path.name: path.read_bytes() for path in samples.paths()}
OTHERS = {path.name: path.read_bytes() for path in MEDIA.iterdir()}
OFFICE = "application/vnd.openxmlformats-officedocument"
DOCX, XLSX = f"{OFFICE}.wordprocessingml.document", f"{OFFICE}.spreadsheetml.sheet"
PPTX = f"{OFFICE}.presentationml.presentation"
DOC, XLS, PPT = "application/msword", "application/vnd.ms-excel", "application/vnd.ms-powerpoint"
JPEG = SAMPLES["photo.jpg"]
PDF = SAMPLES["report.pdf"]
ASF_AUDIO = bytes.fromhex("409e69f84d5bcf11a8fd00805f5c442b")
ASF_VIDEO = bytes.fromhex("c0ef19bc4d5bcf11a8fd00805f5c442b")
NOISE = bytes(range(128, 256)) * 8


def type_of(head: bytes, **arguments: str | bool | None) -> str:
    """Return the decided type of a head."""
    return inspect_media(head, **arguments).mime_type  # type: ignore[arg-type]


def outcome(head: bytes, **arguments: str | bool | None) -> Inspection | InvalidMediaError:
    """Return the decision or the documented error; any other exception fails the test."""
    try:
        return inspect_media(head, **arguments)  # type: ignore[arg-type]
    except InvalidMediaError as error:
        return error


def iso(brand: bytes, compatible: bytes = b"", *tracks: bytes) -> bytes:
    """Build the first boxes of an MP4."""
    return box(b"ftyp", brand, bytes(4), compatible) + (movie(*tracks) if tracks else b"")


class TestOtherFormats:
    """Formats that are not accepted but recognised, so that the error can name them and a fix."""

    @pytest.mark.parametrize(
        ("head", "actual", "kind", "fix"),
        [
            (OTHERS["moving.gif"], "image/gif", "image", "convert it to MP4, or to PNG"),
            (OTHERS["picture.bmp"], "image/bmp", "image", "convert it to JPEG or PNG"),
            (OTHERS["scan.tiff"], "image/tiff", "image", "convert it to JPEG or PNG"),
            (b"MM\0*\0\0\0\x08", "image/tiff", "image", "convert it to JPEG or PNG"),
            (OTHERS["picture.avif"], "image/avif", "image", "convert it to JPEG or PNG"),
            (iso(b"mif1", b"mif1avif"), "image/avif", "image", "convert it to JPEG or PNG"),
            (iso(b"mif1", b"mif1heic"), "image/heic", "image", "convert it to JPEG or PNG"),
            (iso(b"heic", b"mif1heic"), "image/heic", "image", "convert it to JPEG or PNG"),
            (OTHERS["sound.wav"], "audio/wav", "audio", "convert it to MP3, or to mono Opus in Ogg"),
            (OTHERS["sound.flac"], "audio/flac", "audio", "convert it to MP3, or to mono Opus in Ogg"),
            (b"#!AMR-WB\n\x04", "audio/amr-wb", "audio", "convert it to MP3, or to mono Opus in Ogg"),
            (
                OTHERS["recording.webm"],
                "video/webm",
                "video",
                "or, if it is only sound, pass repackage=True (upload --repackage)",
            ),
            (OTHERS["clip.mkv"], "video/x-matroska", "video", "convert it to MP4 with H.264 and AAC"),
            (OTHERS["clip.mov"], "video/quicktime", "video", "convert it to MP4 with H.264 and AAC"),
            (b"\0\0\0\x08wide\0\0\0\0mdat", "video/quicktime", "video", "convert it to MP4 with H.264 and AAC"),
            (iso(b"3g2a"), "video/3gpp2", "video", "convert it to MP4 with H.264 and AAC"),
            (b"FORM\0\0\0\x2eAIFFCOMM", "audio/aiff", "audio", "convert it to MP3, or to mono Opus in Ogg"),
            (b"FORM\0\0\0\x2eAIFCFVER", "audio/aiff", "audio", "convert it to MP3, or to mono Opus in Ogg"),
            (b"caff\0\1\0\0desc", "audio/x-caf", "audio", "convert it to MP3, or to mono Opus in Ogg"),
            (b".snd\0\0\0\x18", "audio/basic", "audio", "convert it to MP3, or to mono Opus in Ogg"),
            (b"\x0b\x77\x4b\x54", "audio/ac3", "audio", "convert it to MP3, or to mono Opus in Ogg"),
            (b"MThd\0\0\0\6", "audio/midi", "audio", "convert it to MP3, or to mono Opus in Ogg"),
            (b"#!SILK_V3", "audio/silk", "audio", "convert it to MP3, or to mono Opus in Ogg"),
            (b"\2#!SILK_V3", "audio/silk", "audio", "convert it to MP3, or to mono Opus in Ogg"),
            (b"wvpk\x1a\4\0\0", "audio/x-wavpack", "audio", "convert it to MP3, or to mono Opus in Ogg"),
            (OTHERS["sound.wma"], "audio/x-ms-wma", "audio", "convert it to MP3, or to mono Opus in Ogg"),
            (
                OTHERS["sound.wma"].replace(ASF_AUDIO, ASF_VIDEO),
                "video/x-ms-wmv",
                "video",
                "convert it to MP4 with H.264 and AAC",
            ),
            (b"FLV\1\5\0\0\0\x09", "video/x-flv", "video", "convert it to MP4 with H.264 and AAC"),
            (b"\0\0\1\xba\x44", "video/mpeg", "video", "convert it to MP4 with H.264 and AAC"),
            (b"\0\0\1\xb3\x14", "video/mpeg", "video", "convert it to MP4 with H.264 and AAC"),
            ((b"G\x40\x11\x10" + bytes(184)) * 4, "video/mp2t", "video", "convert it to MP4 with H.264 and AAC"),
            (
                (b"\0\0\0\0G\x40\x11\x10" + bytes(184)) * 4,
                "video/mp2t",
                "video",
                "convert it to MP4 with H.264 and AAC",
            ),
            (b"\0\0\0\x0cjP  \r\n\x87\n", "image/jp2", "image", "convert it to JPEG or PNG"),
            (b"\xff\x4f\xff\x51\0\x2f", "image/jp2", "image", "convert it to JPEG or PNG"),
            (b"\0\0\0\x0cJXL \r\n\x87\n", "image/jxl", "image", "convert it to JPEG or PNG"),
            (b"\xff\x0a\xfa\x1f", "image/jxl", "image", "convert it to JPEG or PNG"),
            (b"\0\0\1\0\2\0\x10\x10", "image/vnd.microsoft.icon", "image", "convert it to JPEG or PNG"),
            (b"P6\n# a comment\n16 9\n255\n\xff", "image/x-portable-anymap", "image", "convert it to JPEG or PNG"),
            (b"8BPS\0\1", "image/vnd.adobe.photoshop", "image", "convert it to JPEG or PNG"),
            (b"II+\0\x08\0", "image/tiff", "image", "convert it to JPEG or PNG"),
            (b"RIFF\0\0\0\0AVI LIST", "video/x-msvideo", "video", "convert it to MP4 with H.264 and AAC"),
            (OTHERS["letter.rtf"], "application/rtf", "document", "export it as PDF"),
            (OTHERS["letter.odt"], "application/vnd.oasis.opendocument.text", "document", "export it as PDF"),
            (OTHERS["files.zip"], "application/zip", "document", "send the files inside it one by one"),
            (archive(), "application/zip", "document", "send the files inside it one by one"),
            (b"\x1f\x8b\x08\0", "application/gzip", "document", "send the files inside it one by one"),
            (b"Rar!\x1a\x07\1\0", "application/vnd.rar", "document", "send the files inside it one by one"),
            (
                b"7z\xbc\xaf\x27\x1c\0\4",
                "application/x-7z-compressed",
                "document",
                "send the files inside it one by one",
            ),
            (
                ole(ole_entry("Root Entry", child=1), ole_entry("x")),
                "application/x-ole-storage",
                "document",
                "name it .doc",
            ),
            (NOISE, "application/octet-stream", "document", "pass its mime_type, if it is one"),
        ],
    )
    @pytest.mark.parametrize("filename", [None, "a.mp3", "a.aac", "a.jpg"])
    def test_are_named_with_a_fix(self, head: bytes, actual: str, kind: str, fix: str, filename: str | None) -> None:
        """The error has the type, the accepted types and a fix, whatever the name says."""
        known = actual != "application/octet-stream"
        with pytest.raises(UnsupportedMediaTypeError) as caught:
            inspect_media(head, complete=True, filename=filename if known else None)
        assert (kind, actual) == (caught.value.kind, caught.value.actual)
        assert str(caught.value.limit).startswith("AAC, AMR, MP3")
        assert fix in str(caught.value)

    def test_declared_as_an_accepted_type(self) -> None:
        """A GIF that is declared as PNG is refused, and the error names both types and the fix."""
        with pytest.raises(UnsupportedMediaTypeError) as caught:
            inspect_media(OTHERS["moving.gif"], mime_type="image/png", filename="a.png")
        assert (caught.value.limit, caught.value.actual) == ("image/png", "image/gif")
        expected_message = "'a.png' was declared image/png, but the bytes are image/gif: convert it to MP4, or to PNG if it does not move"
        assert expected_message == str(caught.value)

    @pytest.mark.parametrize("declared", ["image/gif", "application/octet-stream", "application/x-foo", "foo/bar"])
    def test_declaring_one_is_refused(self, declared: str) -> None:
        """A declared type that is not accepted is refused, and the error names the type of the bytes."""
        with pytest.raises(
            UnsupportedMediaTypeError, match='pass mime_type="image/jpeg", which its bytes are'
        ) as caught:
            inspect_media(JPEG, mime_type=declared)
        assert declared == caught.value.actual

    def test_unknown_declarations_have_a_general_fix(self) -> None:
        """A type of an unknown family has the general fix."""
        with pytest.raises(UnsupportedMediaTypeError, match="convert it to one of these"):
            inspect_media(NOISE, mime_type="model/obj")


class TestChoosing:
    """Bytes that leave a choice."""

    @pytest.mark.parametrize(
        ("head", "arguments", "expected"),
        [
            (iso(b"isom"), {}, "video/mp4"),
            (iso(b"isom"), {"filename": "a.m4a"}, "audio/mp4"),
            (iso(b"mp42"), {"mime_type": "audio/mp4"}, "audio/mp4"),
            (iso(b"mp42"), {"hint": "audio/x-m4a"}, "audio/mp4"),
            (iso(b"mp42"), {"filename": "a.mp4", "hint": "audio/mp4"}, "video/mp4"),
            (iso(b"mp42", b"", sound()), {}, "audio/mp4"),
            (iso(b"mp42", b"", sound()), {"filename": "a.mp4"}, "audio/mp4"),
            (iso(b"mp42", b"", sound(), video()), {"filename": "a.m4a"}, "video/mp4"),
            (iso(b"mp42", b"M4A mp42"), {}, "audio/mp4"),
            (iso(b"isom", b"isom3gp4"), {}, "video/mp4"),
            (iso(b"isom", b"isom3gp4"), {"filename": "a.3gp"}, "video/3gpp"),
            (iso(b"isom", b"isom3gp4", video()), {"mime_type": "video/3gpp"}, "video/3gpp"),
            (iso(b"M4A "), {"filename": "a.mp4"}, "audio/mp4"),
            (iso(b"M4V "), {"filename": "a.m4a"}, "video/mp4"),
            (iso(b"3gs6"), {}, "video/3gpp"),
            (OTHERS["generic.mp4"], {}, "audio/mp4"),
            (SAMPLES["slides.ppt"][:1024], {"filename": "a.ppt"}, PPT),
            (SAMPLES["letter.doc"][:1024], {"mime_type": DOC}, DOC),
            (SAMPLES["table.xls"][:1024], {"hint": XLS}, XLS),
            (archive("a.bin", "b.bin")[:60], {"filename": "a.docx"}, DOCX),
            (archive("a.bin", "b.bin")[:60], {"mime_type": XLSX}, XLSX),
            (OTHERS["bare.mp3"], {}, "audio/mpeg"),
            (JPEG, {"filename": "a.csv", "hint": "text/csv"}, "image/jpeg"),
            (b"\n" + PDF, {}, "application/pdf"),
            (b"\0" * 1000 + b"%PDF-1.7", {}, "application/pdf"),
            (b"On %PDF-1.7 headers", {}, "text/plain"),
            (b"On %PDF-1.7 headers", {"filename": "a.pdf"}, "application/pdf"),
            (b"On %PDF-1.7 headers", {"mime_type": "application/pdf"}, "application/pdf"),
        ],
    )
    def test_order(self, head: bytes, arguments: dict[str, str], expected: str) -> None:
        """The order is: declaration, certain signature, extension, hint, likeliest signature."""
        assert expected == type_of(head, **arguments)

    def test_pdf_headers_beyond_the_first_kilobyte_do_not_count(self) -> None:
        """The header of a PDF counts in the first 1024 bytes only, as in PDF readers."""
        with pytest.raises(CorruptedMediaError):
            inspect_media(b"\0" * 1024 + b"%PDF-1.7", mime_type="application/pdf")

    def test_a_cut_brand_is_no_signature(self) -> None:
        """An MP4 without a complete brand is corrupted."""
        with pytest.raises(CorruptedMediaError):
            inspect_media(b"\0\0\0\x18ftypmp4", filename="a.mp4")

    @pytest.mark.parametrize("brand", [b"M4A ", b"isom"])
    def test_sound_declared_as_something_else_entirely(self, brand: bytes) -> None:
        """A declaration outside of the family is refused, and the error names its likeliest type."""
        with pytest.raises(UnsupportedMediaTypeError) as caught:
            inspect_media(iso(brand), mime_type="image/png")
        assert caught.value.actual == {b"M4A ": "audio/mp4", b"isom": "video/mp4"}[brand]


MAGICS = st.sampled_from([data[:size] for data in (SAMPLES | OTHERS).values() for size in (4, 8, 12, 40, 600)])
HEADS = st.one_of(
    st.binary(max_size=2000),
    st.tuples(MAGICS, st.binary(max_size=2000)).map(b"".join),
    st.lists(
        st.sampled_from([b"PK\3\4", b"\xff", b"\xff\xe1", b"\0", b"ID3\4\0\0", b"hdlr", b"%PDF-", b"\xff\xff\xff\xff"])
    ).map(b"".join),
)
TYPES = st.one_of(st.none(), st.sampled_from(sorted(ACCEPTED)), st.text(max_size=20))


class TestHostile:
    """Hostile and damaged bytes."""

    @given(HEADS, TYPES, TYPES, st.one_of(st.none(), st.text()), st.booleans(), st.booleans())
    def test_any_head_is_decided_or_refused(
        self, head: bytes, declared: str | None, hint: str | None, name: str | None, complete: bool, validate: bool
    ) -> None:
        """Any head gives a decision or the documented error with all its parts."""
        decided = outcome(head, mime_type=declared, hint=hint, filename=name, complete=complete, validate=validate)
        if isinstance(decided, InvalidMediaError):
            assert None not in {decided.limit, decided.actual}
            assert not str(decided).endswith(".")
        else:
            assert decided.mime_type == normalise(decided.mime_type)
            assert 0 < decided.max_size <= MAX_SIZE
            assert not validate or decided.mime_type in ACCEPTED

    @given(st.sampled_from(sorted(SAMPLES)), st.data(), st.booleans())
    def test_a_cut_file_is_decided_or_refused(self, name: str, data: st.DataObject, complete: bool) -> None:
        """A file that is cut anywhere keeps its type or raises the documented error."""
        whole = SAMPLES[name]
        cut = whole[: data.draw(st.integers(0, min(len(whole), 3000)))]
        decided = outcome(cut, filename=name, complete=complete)
        assert isinstance(decided, InvalidMediaError) or type_of(whole) == decided.mime_type

    @given(st.sampled_from(sorted(SAMPLES)), st.data())
    def test_a_damaged_file_is_decided_or_refused(self, name: str, data: st.DataObject) -> None:
        """A file with some wrong bytes gives a decision or the documented error."""
        damaged = bytearray(SAMPLES[name])
        for at in data.draw(st.lists(st.integers(0, min(len(damaged), 1500) - 1), max_size=8)):
            damaged[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFE, 0xFF]))
        decided = outcome(bytes(damaged))
        assert isinstance(decided, InvalidMediaError) or decided.mime_type in ACCEPTED

    @pytest.mark.parametrize(
        "head",
        [
            b"\xff" * HEAD_SIZE,
            b"\xff\xd8" + b"\xff" * HEAD_SIZE,
            b"\xff\xd8" + b"\xff\xe1\0\0" * (HEAD_SIZE // 4),
            b"PK\3\4" * (HEAD_SIZE // 4),
            (b"PK\3\4" + bytes(26)) * (HEAD_SIZE // 30),
            (b"PK\3\4\0\0\x08" + bytes(23)) * (HEAD_SIZE // 30),
            b"\0\0\0\x10ftypisom" + b"\0\0\0\x08free" * (HEAD_SIZE // 8),
            b"ID3\4\0\0\0\0\0\0" * (HEAD_SIZE // 10),
            b"%PDF" * (HEAD_SIZE // 4),
            ole(
                ole_entry("Root Entry", child=1),
                *(ole_entry("x", n, n + 1, n) for n in range(500)),
                chain=tuple(range(1, 126)),
            ),
        ],
    )
    def test_no_head_takes_long(self, head: bytes) -> None:
        """The worst heads take a quarter of a second at most; a quadratic scan would take minutes."""
        started = time.process_time()
        decided = outcome(head, complete=True)
        seconds = time.process_time() - started
        assert isinstance(decided, Inspection | InvalidMediaError)
        assert seconds < 10
