"""Signatures, through `inspect_media`: other formats, ambiguous bytes, containers, hostile bytes."""

from __future__ import annotations

import io
import struct
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_media import samples
from meta_media.errors import CorruptedMediaError, InvalidMediaError, UnsupportedMediaTypeError
from meta_media.protocol.media_types import ACCEPTED, HEAD_SIZE, MAX_SIZE, Inspection, inspect_media, normalise
from tests.support.boxes import box, movie, sound, video

MEDIA = Path(__file__).parents[1] / "media"
SAMPLES = {path.name: path.read_bytes() for path in samples.paths()}
OTHERS = {path.name: path.read_bytes() for path in MEDIA.iterdir()}
OFFICE = "application/vnd.openxmlformats-officedocument"
DOCX, XLSX = f"{OFFICE}.wordprocessingml.document", f"{OFFICE}.spreadsheetml.sheet"
PPTX = f"{OFFICE}.presentationml.presentation"
DOC, XLS, PPT = "application/msword", "application/vnd.ms-excel", "application/vnd.ms-powerpoint"
JPEG = SAMPLES["photo.jpg"]
PDF = SAMPLES["report.pdf"]
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


def archive(*names: str, method: int = zipfile.ZIP_DEFLATED, content: bytes = b"<x/>" * 20) -> bytes:
    """Zip some content under the given names."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as opened:
        for name in names:
            opened.writestr(name, content)
    return target.getvalue()


def streamed(*names: str) -> bytes:
    """Zip to a stream without seek: sizes stand after the data."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.written = b""

        def write(self, data: object) -> int:
            self.written += bytes(data)  # type: ignore[call-overload]
            return len(bytes(data))  # type: ignore[call-overload]

    target = Pipe()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as opened:
        for name in names:
            opened.writestr(name, b"<x/>" * 20)
    return target.written


NO_ENTRY = 0xFFFFFFFF


def entry(name: str, left: int = NO_ENTRY, right: int = NO_ENTRY, child: int = NO_ENTRY) -> bytes:
    """Build one entry of an OLE directory."""
    encoded = name.encode("utf-16-le") + b"\0\0"
    return struct.pack("<64sHBBIII", encoded, len(encoded), 2, 1, left, right, child) + bytes(48)


def ole(*entries: bytes, shift: int = 9, chain: tuple[int, ...] = (2, 1)) -> bytes:
    """Build an OLE file: a header, the allocation table in sector 0, and the directory in the sectors of `chain`."""
    size = 1 << shift
    table = [NO_ENTRY] * (size // 4)
    for sector, following in zip(chain, (*chain[1:], 0xFFFFFFFE), strict=True):
        table[sector] = following
    header = bytearray(size)
    header[:8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
    struct.pack_into("<H", header, 30, shift)
    struct.pack_into("<I", header, 48, chain[0])
    struct.pack_into("<I", header, 76, 0)
    sectors = {0: struct.pack(f"<{size // 4}I", *table)}
    for index, sector in enumerate(chain):
        sectors[sector] = b"".join(entries[index * size // 128 : (index + 1) * size // 128]).ljust(size, b"\0")
    return bytes(header) + b"".join(sectors.get(number, bytes(size)) for number in range(max(sectors) + 1))


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
            (ole(entry("Root Entry", child=1), entry("x")), "application/x-ole-storage", "document", "name it .doc"),
            (NOISE, "application/octet-stream", "document", "pass its mime_type, if it is one"),
        ],
    )
    def test_are_named_with_a_fix(self, head: bytes, actual: str, kind: str, fix: str) -> None:
        """The error has the type, the accepted types and a fix."""
        with pytest.raises(UnsupportedMediaTypeError) as caught:
            inspect_media(head, complete=True)
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


class TestOffice:
    """Containers of Office documents."""

    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            (("[Content_Types].xml", "_rels/.rels", "word/document.xml"), DOCX),
            (("_rels/.rels", "xl/_rels/workbook.xml.rels"), XLSX),
            (("ppt\\presentation.xml",), PPTX),
            (("word/embeddings/sheet.xlsx", "word/document.xml"), DOCX),
        ],
    )
    def test_ooxml_by_the_names_of_its_parts(self, names: tuple[str, ...], expected: str) -> None:
        """The folder of the parts decides, with sizes before or after the data."""
        assert expected == type_of(archive(*names), complete=True)
        assert expected == type_of(archive(*names, method=zipfile.ZIP_STORED), complete=True)
        assert expected == type_of(streamed(*names), complete=True)

    @pytest.mark.parametrize("names", [("word/list.csv", "words/a.xml"), ("photo/word/a.xml",)])
    def test_similar_names_are_not_ooxml(self, names: tuple[str, ...]) -> None:
        """An archive with a folder named word is not a document."""
        for data in (archive(*names), streamed(*names)):
            with pytest.raises(UnsupportedMediaTypeError) as caught:
                inspect_media(data, filename="letter.docx", complete=True)
            assert caught.value.actual == "application/zip"

    def test_a_document_stored_in_an_archive_is_not_the_archive(self) -> None:
        """Headers inside of a stored file do not count."""
        nested = archive("inner.docx", method=zipfile.ZIP_STORED, content=SAMPLES["letter.docx"])
        with pytest.raises(UnsupportedMediaTypeError) as caught:
            inspect_media(nested, complete=True)
        assert caught.value.actual == "application/zip"

    @pytest.mark.parametrize(
        ("stream", "expected"), [("WordDocument", DOC), ("Workbook", XLS), ("Book", XLS), ("PowerPoint Document", PPT)]
    )
    @pytest.mark.parametrize("shift", [9, 12])
    def test_ole_by_its_main_stream(self, stream: str, expected: str, shift: int) -> None:
        """The stream is found through both branches of the tree, in sectors of either size."""
        entries = [entry("Root Entry", child=2), entry("a"), entry("b", left=1, right=3), entry(stream)]
        assert expected == type_of(ole(*entries, shift=shift))
        entries = [entry("Root Entry", child=2), entry(stream), entry("b", left=1, right=3), entry("a")]
        assert expected == type_of(ole(*entries, shift=shift))

    def test_ole_directories_may_be_scattered(self) -> None:
        """The allocation table leads from one sector of the directory to the next."""
        entries = [entry("Root Entry", child=5), *(entry(f"{n}") for n in range(4)), entry("Workbook")]
        assert type_of(ole(*entries, chain=(7, 3))) == XLS

    def test_ole_documents_may_hold_others(self) -> None:
        """A table embedded in a letter does not make it a table."""
        pool = entry("ObjectPool", right=3, child=2)
        entries = [entry("Root Entry", child=1), pool, entry("Workbook"), entry("WordDocument")]
        assert type_of(ole(*entries)) == DOC

    def test_documents_with_a_password_go_by_their_name(self) -> None:
        """An encrypted .xlsx is an OLE file; its name or declaration decides the type."""
        data = ole(entry("Root Entry", child=1), entry("EncryptedPackage"))
        assert [type_of(data, filename="a.xlsx"), type_of(data, mime_type=DOCX)] == [XLSX, DOCX]

    @pytest.mark.parametrize(
        "data",
        [
            ole(entry("Root Entry", child=0)),
            ole(entry("Root Entry", child=1), entry("a", left=1, right=0)),
            ole(entry("Root Entry"), chain=(1, 3, 1)),
            ole(entry("Root Entry", child=1), entry("x", left=900)),
            ole(entry("Root Entry", child=1))[:48] + b"\xfe\xff\xff\xff" + bytes(500),
            ole(entry("Root Entry"))[:30] + b"\x7f\0" + bytes(500),
            ole(entry("Root Entry"))[:8],
        ],
    )
    def test_broken_ole_goes_by_its_name(self, data: bytes) -> None:
        """Loops and wrong numbers in the directory end the search; the name decides."""
        assert type_of(data, filename="a.doc") == DOC


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
                entry("Root Entry", child=1), *(entry("x", n, n + 1, n) for n in range(500)), chain=tuple(range(1, 126))
            ),
        ],
    )
    def test_no_head_takes_long(self, head: bytes) -> None:
        """The worst heads take less than a second; a quadratic scan would take minutes."""
        started = time.process_time()
        decided = outcome(head, complete=True)
        seconds = time.process_time() - started
        assert isinstance(decided, Inspection | InvalidMediaError)
        assert seconds < 1.0
