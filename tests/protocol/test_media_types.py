"""What is accepted, and what a file is: real files of every type, the variants that are refused, and hostile bytes."""

from __future__ import annotations

import io
import struct
import time
import zipfile
from pathlib import Path

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meta_media import samples
from meta_media.errors import (
    CorruptedMediaError,
    FileTooLargeError,
    InvalidMediaError,
    UnsupportedMediaTypeError,
)
from meta_media.protocol.media_types import (
    ACCEPTED,
    HEAD_SIZE,
    MAX_SIZE,
    Inspection,
    MediaType,
    check_size,
    extension_for,
    inspect_media,
    normalise,
)

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
    """Examine a head whose type is all that matters."""
    return inspect_media(head, **arguments).mime_type  # type: ignore[arg-type]


def outcome(head: bytes, **arguments: str | bool | None) -> Inspection | InvalidMediaError:
    """Examine a head that may or may not be refused; any other exception fails the test."""
    try:
        return inspect_media(head, **arguments)  # type: ignore[arg-type]
    except InvalidMediaError as error:
        return error


def iso(brand: bytes, compatible: bytes = b"", *handlers: bytes) -> bytes:
    """Build the boxes of an MP4 that its type is read from."""
    box = struct.pack(">I4s4sI", 16 + len(compatible), b"ftyp", brand, 0) + compatible
    return box + b"".join(struct.pack(">I4sII4s", 32, b"hdlr", 0, 0, handler) + bytes(12) for handler in handlers)


def archive(*names: str, method: int = zipfile.ZIP_DEFLATED, content: bytes = b"<x/>" * 20) -> bytes:
    """Zip some content under the given names."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as opened:
        for name in names:
            opened.writestr(name, content)
    return target.getvalue()


def streamed(*names: str) -> bytes:
    """Zip as writers do that cannot seek back: sizes follow the data."""

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


NOBODY = 0xFFFFFFFF


def entry(name: str, left: int = NOBODY, right: int = NOBODY, child: int = NOBODY) -> bytes:
    """Build one entry of an OLE directory."""
    encoded = name.encode("utf-16-le") + b"\0\0"
    return struct.pack("<64sHBBIII", encoded, len(encoded), 2, 1, left, right, child) + bytes(48)


def ole(*entries: bytes, shift: int = 9, chain: tuple[int, ...] = (2, 1)) -> bytes:
    """Build an OLE file: a header, the allocation table in sector 0, and the directory in the sectors of `chain`."""
    size = 1 << shift
    table = [NOBODY] * (size // 4)
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


def ogg(packet: bytes) -> bytes:
    """Build the first page of an Ogg stream."""
    return b"OggS\0\2" + bytes(20) + b"\1" + bytes([len(packet)]) + packet


def jpeg(*segments: bytes) -> bytes:
    """Build the start of a JPEG."""
    return b"\xff\xd8" + b"".join(segments)


def frame(precision: int, components: int, marker: int = 0xC0) -> bytes:
    """Build a JPEG's frame header."""
    return struct.pack(">BBHBHHB", 0xFF, marker, 8 + 3 * components, precision, 16, 16, components) + bytes(
        3 * components
    )


class TestTable:
    """Meta's table."""

    def test_lists_what_meta_lists(self) -> None:
        """Every type of Meta's page is there with its kind and limit, and nothing else."""
        megabyte = 1024 * 1024
        expected = {
            **dict.fromkeys(
                ("audio/aac", "audio/amr", "audio/mp4", "audio/mpeg", "audio/ogg"), ("audio", 16 * megabyte)
            ),
            **dict.fromkeys(
                ("application/pdf", DOC, DOCX, PPT, PPTX, XLS, XLSX, "text/plain"), ("document", 100 * megabyte)
            ),
            **dict.fromkeys(("image/jpeg", "image/png"), ("image", 5 * megabyte)),
            "image/webp": ("sticker", 500 * 1024),
            **dict.fromkeys(("video/3gpp", "video/mp4"), ("video", 16 * megabyte)),
        }
        assert expected == {mime_type: (row.kind, row.max_size) for mime_type, row in ACCEPTED.items()}

    def test_rows_know_their_key(self) -> None:
        """A row names its own type, and the largest limit is the service's."""
        assert list(ACCEPTED) == [row.mime_type for row in ACCEPTED.values()]
        largest = MAX_SIZE
        assert largest == max(row.max_size for row in ACCEPTED.values())

    def test_cannot_be_changed(self) -> None:
        """The table and its rows are read-only."""
        row = ACCEPTED["image/jpeg"]
        with pytest.raises(TypeError):
            ACCEPTED["image/gif"] = row  # type: ignore[index]
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            row.max_size = 1  # type: ignore[misc]


class TestNormalise:
    """The spelling of types."""

    @pytest.mark.parametrize(
        ("given_type", "expected"),
        [
            ("image/jpeg", "image/jpeg"),
            ("IMAGE/JPEG", "image/jpeg"),
            ("audio/ogg; codecs=opus", "audio/ogg"),
            ('audio/ogg;codecs="opus"', "audio/ogg"),
            ('text/plain ; charset="a\\"b; c" ;format=flowed', "text/plain"),
            ("text/plain;", "text/plain"),
            ("text/plain; ;charset=utf-8", "text/plain"),
            ("application/x.y+z", "application/x.y+z"),
            ("video/3gp", "video/3gpp"),
            ("image/jpg", "image/jpeg"),
            ("image/pjpeg", "image/jpeg"),
            ("audio/opus", "audio/ogg"),
            ("application/ogg", "audio/ogg"),
            ("audio/x-m4a", "audio/mp4"),
            ("Audio/MP3", "audio/mpeg"),
            ("audio/x-aac", "audio/aac"),
            ("audio/vnd.dlna.adts", "audio/aac"),
            ("audio/x-wav", "audio/wav"),
            ("application/x-pdf", "application/pdf"),
            ("binary/octet-stream", "application/octet-stream"),
        ],
    )
    def test_resolves(self, given_type: str, expected: str) -> None:
        """Case, parameters and aliases disappear."""
        assert expected == normalise(given_type)

    @pytest.mark.parametrize(
        "malformed",
        [
            "",
            "jpeg",
            "/",
            "image/",
            "/jpeg",
            "image/jpeg/x",
            " image/jpeg",
            "image/jpeg ",
            "image /jpeg",
            "image/jpeg\n",
            "image/jpeg\r\nX-Evil: 1",
            "image/jpeg; a=b\r\n",
            'text/plain; a="b\r\nc"',
            "image/jp\0eg",
            "imäge/jpeg",
            'text/plain; a="é"',
            "text/plain; a=",
            "text/plain; a",
            "text/plain; a=b c",
            'text/plain; a="b',
            "text/plain, image/png",
            "\ud800/x",
        ],
    )
    def test_refuses_what_is_not_a_type(self, malformed: str) -> None:
        """Anything outside RFC 9110's grammar is an error that shows it escaped, on one line."""
        with pytest.raises(UnsupportedMediaTypeError) as caught:
            normalise(malformed)
        assert (malformed, "type/subtype") == (caught.value.actual, caught.value.limit)
        assert str(caught.value).isprintable()
        assert "pass type/subtype" in str(caught.value)

    def test_shortens_in_messages(self) -> None:
        """A type of a megabyte does not make a message of a megabyte."""
        with pytest.raises(UnsupportedMediaTypeError) as caught:
            normalise("x" * 2**20)
        assert len(str(caught.value)) < 200

    def test_hostile_parameters_do_not_backtrack(self) -> None:
        """A header built to make a regular expression backtrack is refused at once."""
        with pytest.raises(UnsupportedMediaTypeError):
            normalise("a/b" + " ;" * 5000 + "; " * 5000 + "\n")

    @given(st.from_regex(r"[a-zA-Z]{1,9}/[a-zA-Z0-9.+-]{1,20}( ?; ?[a-z]{1,5}=[a-z]{1,5}){0,2}", fullmatch=True))
    @example("audio/opus")
    @example("image/jpg")
    def test_is_idempotent(self, mime_type: str) -> None:
        """What is normal stays so."""
        assert normalise(mime_type) == normalise(normalise(mime_type))

    @given(st.text())
    def test_gives_a_type_or_the_one_error(self, mime_type: str) -> None:
        """Any text either becomes a plain type or raises the documented error."""
        try:
            result = normalise(mime_type)
        except UnsupportedMediaTypeError:
            return
        assert result == result.lower()
        assert ";" not in result


class TestExtension:
    """Names for what was received."""

    @pytest.mark.parametrize(
        ("mime_type", "expected"),
        [
            ("image/jpeg", ".jpg"),
            ("audio/ogg; codecs=opus", ".ogg"),
            ("audio/opus", ".ogg"),
            ("audio/mp4", ".m4a"),
            ("audio/mpeg", ".mp3"),
            ("image/webp", ".webp"),
            ("video/3gp", ".3gp"),
            ("text/plain", ".txt"),
            (DOCX, ".docx"),
            ("image/gif", ".gif"),
            ("application/json", ".json"),
            ("application/x-zip-compressed", ".zip"),
            ("text/csv", ".csv"),
            ("text/html", ".html"),
            ("audio/x-wav", ".wav"),
            ("video/webm", ".webm"),
            ("application/octet-stream", None),
            ("application/x-unknown", None),
            ("nonsense", None),
            ("", None),
        ],
    )
    def test_is_the_preferred_one(self, mime_type: str, expected: str | None) -> None:
        """Accepted and common inbound types have one; unknown and malformed ones have none and do not raise."""
        assert expected == extension_for(mime_type)

    @pytest.mark.parametrize("row", ACCEPTED.values(), ids=lambda row: row.mime_type)
    def test_every_extension_leads_back(self, row: MediaType) -> None:
        """Without checking, a name with any extension of a type is of that type."""
        found = [inspect_media(b"", filename=f"a{extension.upper()}", validate=False) for extension in row.extensions]
        assert [row.mime_type] * len(row.extensions) == [inspection.mime_type for inspection in found]


class TestSamples:
    """Real files of every accepted type."""

    EXPECTED = (
        ("animated.webp", "image/webp"),
        ("clip.3gp", "video/3gpp"),
        ("clip.mp4", "video/mp4"),
        ("drawing.png", "image/png"),
        ("letter.doc", DOC),
        ("letter.docx", DOCX),
        ("note.ogg", "audio/ogg"),
        ("note.txt", "text/plain"),
        ("photo.jpg", "image/jpeg"),
        ("report.pdf", "application/pdf"),
        ("slides.ppt", PPT),
        ("slides.pptx", PPTX),
        ("song.mp3", "audio/mpeg"),
        ("speech.aac", "audio/aac"),
        ("speech.amr", "audio/amr"),
        ("speech.m4a", "audio/mp4"),
        ("sticker.webp", "image/webp"),
        ("table.xls", XLS),
        ("table.xlsx", XLSX),
    )

    def test_cover_every_accepted_type(self) -> None:
        """There is a sample of each type, nothing else lies among them, and together they are small."""
        assert [name for name, _ in self.EXPECTED] == [path.name for path in samples.paths()]
        assert set(ACCEPTED) == {mime_type for _, mime_type in self.EXPECTED}
        assert sum(map(len, SAMPLES.values())) < 400_000

    @pytest.mark.parametrize(("name", "expected"), EXPECTED)
    def test_are_known_by_their_bytes(self, name: str, expected: str) -> None:
        """The bytes alone say the type; a wrong name or hint changes nothing."""
        data = SAMPLES[name]
        assert expected == type_of(data, complete=True)
        assert expected == type_of(data[:HEAD_SIZE])
        assert expected == type_of(data, complete=True, filename="x.unknown", hint="application/octet-stream")
        if expected != "text/plain":
            assert expected == type_of(data, filename="x.gif", hint="image/gif")

    @pytest.mark.parametrize(("name", "expected"), EXPECTED)
    def test_pass_when_declared(self, name: str, expected: str) -> None:
        """The right declaration passes, and the sample is within its limit."""
        inspection = inspect_media(SAMPLES[name], filename=name, mime_type=expected, complete=True)
        check_size(inspection, len(SAMPLES[name]), filename=name)
        assert (expected, ACCEPTED[expected].kind) == (inspection.mime_type, inspection.kind)

    @pytest.mark.parametrize(("name", "expected"), EXPECTED)
    @pytest.mark.parametrize("declared", ACCEPTED)
    def test_refuse_every_other_declaration(self, name: str, expected: str, declared: str) -> None:
        """Declared as anything it is not, a file is refused, and a signed one is named."""
        if declared == expected:
            return
        with pytest.raises((UnsupportedMediaTypeError, CorruptedMediaError)) as caught:
            inspect_media(SAMPLES[name], mime_type=declared, complete=True)
        assert ACCEPTED[declared].kind == caught.value.kind
        if expected != "text/plain":
            assert (declared, expected) == (caught.value.limit, caught.value.actual)
            assert f'declared {declared}, but the bytes are {expected}: pass mime_type="{expected}"' in str(
                caught.value
            )

    def test_stickers_have_two_limits(self) -> None:
        """A still sticker may have 100 KiB, an animated one 500."""
        expected = [100 * 1024, 500 * 1024]
        assert expected == [inspect_media(SAMPLES[name]).max_size for name in ("sticker.webp", "animated.webp")]


class TestRefusedVariants:
    """Accepted types in a shape that is not."""

    @pytest.mark.parametrize(
        ("name", "allowed", "actual", "fix"),
        [
            ("vorbis.ogg", "mono Opus in Ogg", "Ogg with Vorbis", "re-encode it as mono Opus"),
            ("stereo.ogg", "mono Opus in Ogg", "Ogg with Opus of 2 channels", "re-encode it as mono Opus"),
            ("deep.png", "8-bit RGB or RGBA images", "a PNG of 16 bits per channel", "save it as 8-bit RGB"),
            ("cmyk.jpg", "8-bit RGB or RGBA images", "a CMYK JPEG", "save it as 8-bit RGB"),
        ],
    )
    def test_say_what_would_fix_them(self, name: str, allowed: str, actual: str, fix: str) -> None:
        """Found, allowed and fix are in the error, undeclared or declared."""
        for declared in (None, normalise(f"{'audio' if name.endswith('ogg') else 'image'}/{name[-3:]}")):
            with pytest.raises(UnsupportedMediaTypeError) as caught:
                inspect_media(OTHERS[name], filename=f"folder/{name}", mime_type=declared)
            assert (allowed, actual) == (caught.value.limit, caught.value.actual)
            assert str(caught.value).startswith(f"'{name}' is {actual}, but WhatsApp takes {allowed}: {fix}")

    @pytest.mark.parametrize(
        ("packet", "found"),
        [
            (b"\x7fFLAC\1\0", "FLAC"),
            (b"Speex   1.2", "Speex"),
            (b"fishead\0", "something that is not Opus"),
            (b"", "something that is not Opus"),
            (b"OpusHead", "Opus of 0 channels"),
            (b"OpusHead\1\6", "Opus of 6 channels"),
        ],
    )
    def test_ogg_is_for_mono_opus(self, packet: bytes, found: str) -> None:
        """Ogg with any other codec is named and refused."""
        with pytest.raises(UnsupportedMediaTypeError) as caught:
            inspect_media(ogg(packet), complete=True)
        expected = f"Ogg with {found}"
        assert expected == caught.value.actual

    @pytest.mark.parametrize("name", ["palette.png", "grey.jpg"])
    def test_other_colours_pass(self, name: str) -> None:
        """Palette and greyscale images are not known to be refused, so they pass."""
        expected = "image"
        assert expected == inspect_media(OTHERS[name]).kind

    @pytest.mark.parametrize(
        ("head", "flaw"),
        [
            (jpeg(frame(8, 3)), None),
            (jpeg(frame(8, 4)), "a CMYK JPEG"),
            (jpeg(frame(12, 3)), "a JPEG of 12 bits per channel"),
            (jpeg(frame(12, 4)), "a JPEG of 12 bits per channel"),
            (jpeg(frame(8, 4, marker=0xC2)), "a CMYK JPEG"),
            (jpeg(b"\xff\xe1\0\x04ab", frame(8, 4)), "a CMYK JPEG"),
            (jpeg(b"\xff\xff\xff", b"\xff\xe1\0\x04ab", frame(8, 4)), "a CMYK JPEG"),
            (jpeg(b"\xff\xc4\0\x04ab", frame(8, 4)), "a CMYK JPEG"),
            (jpeg(b"\xff\xda\0\x04ab", frame(8, 4)), None),
            (jpeg(b"\xff\xe1\xff\xff", frame(8, 4)), None),
            (jpeg(b"\xff\xe1\0\0"), None),
            (jpeg(b"\xff"), None),
        ],
    )
    def test_jpeg_frames_are_found_behind_other_segments(self, head: bytes, flaw: str | None) -> None:
        """The walk to the frame header skips segments and padding, and stops at the scan or the end of the head."""
        decided = outcome(head, mime_type="image/jpeg")
        assert flaw == getattr(decided, "actual", None)
        assert ("refused" if flaw else "image/jpeg") == getattr(decided, "mime_type", "refused")


class TestOtherFormats:
    """Formats that are not accepted, known by their bytes so that the error can name them and help."""

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
            (OTHERS["recording.webm"], "video/webm", "video", "or, if it is only sound, to mono Opus in Ogg"),
            (OTHERS["clip.mkv"], "video/x-matroska", "video", "convert it to MP4 with H.264 and AAC"),
            (OTHERS["clip.mov"], "video/quicktime", "video", "convert it to MP4 with H.264 and AAC"),
            (b"\0\0\0\x08wide\0\0\0\0mdat", "video/quicktime", "video", "convert it to MP4 with H.264 and AAC"),
            (iso(b"3g2a"), "video/3gpp2", "video", "convert it to MP4 with H.264 and AAC"),
            (ogg(b"\x80theora"), "video/ogg", "video", "convert it to MP4 with H.264 and AAC"),
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
            (NOISE, "application/octet-stream", "document", "pass its mime_type if you know it"),
        ],
    )
    def test_are_named_with_a_fix(self, head: bytes, actual: str, kind: str, fix: str) -> None:
        """The type is named, the accepted ones are listed and the sentence says what to do."""
        with pytest.raises(UnsupportedMediaTypeError) as caught:
            inspect_media(head, complete=True)
        assert (kind, actual) == (caught.value.kind, caught.value.actual)
        assert str(caught.value.limit).startswith("AAC, AMR, MP3")
        assert fix in str(caught.value)

    def test_declared_as_an_accepted_type(self) -> None:
        """A GIF called PNG is an error that names both and how to convert."""
        with pytest.raises(UnsupportedMediaTypeError) as caught:
            inspect_media(OTHERS["moving.gif"], mime_type="image/png", filename="a.png")
        expected = ("image/png", "image/gif")
        assert expected == (caught.value.limit, caught.value.actual)
        expected_message = "'a.png' was declared image/png, but the bytes are image/gif: convert it to MP4, or to PNG if it does not move."
        assert expected_message == str(caught.value)

    @pytest.mark.parametrize("declared", ["image/gif", "application/octet-stream", "application/x-foo", "foo/bar"])
    def test_declaring_one_is_refused(self, declared: str) -> None:
        """A type that is not accepted is refused whatever the bytes are, and the right type is offered."""
        with pytest.raises(
            UnsupportedMediaTypeError, match='pass mime_type="image/jpeg", which its bytes are'
        ) as caught:
            inspect_media(JPEG, mime_type=declared)
        assert declared == caught.value.actual

    def test_unknown_declarations_have_a_general_fix(self) -> None:
        """A type of no known family is told to become one of the accepted ones."""
        with pytest.raises(UnsupportedMediaTypeError, match="convert it to one of these"):
            inspect_media(NOISE, mime_type="model/obj")


class TestChoosing:
    """What decides when the bytes leave a choice."""

    @pytest.mark.parametrize(
        ("head", "arguments", "expected"),
        [
            (iso(b"isom"), {}, "video/mp4"),
            (iso(b"isom"), {"filename": "a.m4a"}, "audio/mp4"),
            (iso(b"mp42"), {"mime_type": "audio/mp4"}, "audio/mp4"),
            (iso(b"mp42"), {"hint": "audio/x-m4a"}, "audio/mp4"),
            (iso(b"mp42"), {"filename": "a.mp4", "hint": "audio/mp4"}, "video/mp4"),
            (iso(b"mp42", b"", b"soun"), {}, "audio/mp4"),
            (iso(b"mp42", b"", b"soun"), {"filename": "a.mp4"}, "video/mp4"),
            (iso(b"mp42", b"", b"soun", b"vide"), {"filename": "a.m4a"}, "video/mp4"),
            (iso(b"mp42", b"M4A mp42"), {}, "audio/mp4"),
            (iso(b"isom", b"isom3gp4"), {}, "video/mp4"),
            (iso(b"isom", b"isom3gp4"), {"filename": "a.3gp"}, "video/3gpp"),
            (iso(b"isom", b"isom3gp4", b"vide"), {"mime_type": "video/3gpp"}, "video/3gpp"),
            (iso(b"M4A "), {"filename": "a.mp4"}, "audio/mp4"),
            (iso(b"M4V "), {"filename": "a.m4a"}, "video/mp4"),
            (iso(b"3gs6"), {}, "video/3gpp"),
            (OTHERS["generic.mp4"], {}, "audio/mp4"),
            (SAMPLES["slides.ppt"][:1024], {"filename": "a.ppt"}, PPT),
            (SAMPLES["letter.doc"][:1024], {"mime_type": DOC}, DOC),
            (SAMPLES["table.xls"][:1024], {"hint": XLS}, XLS),
            (archive("a.bin", "b.bin")[:60], {"filename": "a.docx"}, DOCX),
            (archive("a.bin", "b.bin")[:60], {"mime_type": XLSX}, XLSX),
            (b"ID3\4\0\0\0\0\x7f\x7f", {}, "audio/mpeg"),
            (b"ID3\4\0\0\0\0\x7f\x7f", {"filename": "a.aac"}, "audio/aac"),
            (b"ID3\4\0\0\0\0\0\0\xff\xf1\x50\x80", {"filename": "a.mp3"}, "audio/aac"),
            (b"ID3\3\0\0\0\0\0\1\0\xff\xfb\x54", {"filename": "a.aac"}, "audio/mpeg"),
            (b"ID3\3\0\0\0\0\1\2" + bytes(130) + b"\xff\xfb\x54", {"filename": "a.aac"}, "audio/mpeg"),
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
        """The caller, then a definite signature, then the extension, then the hint, then what the bytes suggest."""
        assert expected == type_of(head, **arguments)

    def test_pdf_headers_beyond_the_first_kilobyte_do_not_count(self) -> None:
        """Readers look for the header in the first 1024 bytes; so do we."""
        with pytest.raises(CorruptedMediaError):
            inspect_media(b"\0" * 1024 + b"%PDF-1.7", mime_type="application/pdf")

    def test_a_brand_that_is_cut_off_says_nothing(self) -> None:
        """An MP4 too short to have a brand is broken."""
        with pytest.raises(CorruptedMediaError):
            inspect_media(b"\0\0\0\x18ftypmp4", filename="a.mp4")

    def test_a_flac_behind_a_tag_is_flac(self) -> None:
        """An ID3 tag does not make a FLAC an MP3."""
        with pytest.raises(UnsupportedMediaTypeError) as caught:
            inspect_media(b"ID3\4\0\0\0\0\0\0fLaC", filename="a.mp3")
        expected = "audio/flac"
        assert expected == caught.value.actual

    @pytest.mark.parametrize("brand", [b"M4A ", b"isom"])
    def test_sound_declared_as_something_else_entirely(self, brand: bytes) -> None:
        """A family excludes what is outside it, and the error suggests its likeliest member."""
        with pytest.raises(UnsupportedMediaTypeError) as caught:
            inspect_media(iso(brand), mime_type="image/png")
        expected = {b"M4A ": "audio/mp4", b"isom": "video/mp4"}[brand]
        assert expected == caught.value.actual


class TestOffice:
    """Containers that hold many types."""

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
        """The folder of the parts tells, whether sizes come before or after the data."""
        assert expected == type_of(archive(*names), complete=True)
        assert expected == type_of(archive(*names, method=zipfile.ZIP_STORED), complete=True)
        assert expected == type_of(streamed(*names), complete=True)

    @pytest.mark.parametrize("names", [("word/list.csv", "words/a.xml"), ("photo/word/a.xml",)])
    def test_similar_names_are_not_ooxml(self, names: tuple[str, ...]) -> None:
        """A plain archive with a folder called word is not a document."""
        for data in (archive(*names), streamed(*names)):
            with pytest.raises(UnsupportedMediaTypeError) as caught:
                inspect_media(data, filename="letter.docx", complete=True)
            expected = "application/zip"
            assert expected == caught.value.actual

    def test_a_document_stored_in_an_archive_is_not_the_archive(self) -> None:
        """Headers of a file inside are not taken for those of the archive."""
        nested = archive("inner.docx", method=zipfile.ZIP_STORED, content=SAMPLES["letter.docx"])
        with pytest.raises(UnsupportedMediaTypeError) as caught:
            inspect_media(nested, complete=True)
        expected = "application/zip"
        assert expected == caught.value.actual

    @pytest.mark.parametrize(
        ("stream", "expected"),
        [("WordDocument", DOC), ("Workbook", XLS), ("Book", XLS), ("PowerPoint Document", PPT)],
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
        expected = XLS
        assert expected == type_of(ole(*entries, chain=(7, 3)))

    def test_ole_documents_may_hold_others(self) -> None:
        """A table embedded in a letter does not make it a table."""
        pool = entry("ObjectPool", right=3, child=2)
        entries = [entry("Root Entry", child=1), pool, entry("Workbook"), entry("WordDocument")]
        expected = DOC
        assert expected == type_of(ole(*entries))

    def test_documents_with_a_password_go_by_their_name(self) -> None:
        """An encrypted .xlsx is an OLE file; its name or the caller says which type it is."""
        data = ole(entry("Root Entry", child=1), entry("EncryptedPackage"))
        expected = [XLSX, DOCX]
        assert expected == [type_of(data, filename="a.xlsx"), type_of(data, mime_type=DOCX)]

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
        """Loops and lies in the directory end the search; the name decides."""
        expected = DOC
        assert expected == type_of(data, filename="a.doc")


class TestText:
    """Text has no signature, only looks."""

    @pytest.mark.parametrize(
        ("head", "complete"),
        [
            (b"plain", True),
            ("\ufeffwith a mark, caf\u00e9 and \U0001f600".encode(), True),
            (b"tabs\tlines\r\n\x0cpages\x1b[0m", True),
            ("cut caf\u00e9".encode()[:-1], False),
            ("cut \U0001f600".encode()[:-2], False),
        ],
    )
    def test_utf_8_is_text(self, head: bytes, complete: bool) -> None:
        """UTF-8 without odd controls is text, even cut inside a character when more follows."""
        expected = "text/plain"
        assert expected == type_of(head, complete=complete)
        assert expected == type_of(head, complete=complete, mime_type="text/plain")
        assert expected == type_of(head, complete=complete, filename="a.log", hint="text/csv")
        assert expected == type_of(head, complete=complete, filename="a.csv", mime_type="text/plain")

    @pytest.mark.parametrize(
        ("head", "complete"),
        [
            ("cut caf\u00e9".encode()[:-1], True),
            (b"caf\xe9 au lait", False),
            (b"nul\0", True),
            (b"bell\x07", True),
            ("sixteen".encode("utf-16"), True),
        ],
    )
    def test_anything_else_is_not(self, head: bytes, complete: bool) -> None:
        """Declared or named text must be it."""
        for arguments in ({"mime_type": "text/plain"}, {"filename": "a.txt"}, {"hint": "text/plain"}):
            with pytest.raises(CorruptedMediaError) as caught:
                type_of(head, complete=complete, **arguments)
            expected = ("UTF-8 text", "data without a known signature")
            assert expected == (caught.value.limit, caught.value.actual)
            assert "save it as UTF-8" in str(caught.value)

    @pytest.mark.parametrize(
        ("arguments", "actual"),
        [
            ({"filename": "data.csv"}, "text/csv"),
            ({"filename": "DATA.JSON", "hint": "text/plain"}, "application/json"),
            ({"filename": "page.html"}, "text/html"),
            ({"hint": "text/csv; charset=utf-8"}, "text/csv"),
            ({"hint": "text/x-python", "filename": "a.py"}, "text/x-python"),
            ({"mime_type": "text/csv"}, "text/csv"),
        ],
    )
    def test_of_a_type_that_is_not_accepted(self, arguments: dict[str, str], actual: str) -> None:
        """The error says how to send it as plain text."""
        with pytest.raises(UnsupportedMediaTypeError) as caught:
            type_of(b"a,b\n1,2\n", complete=True, **arguments)
        assert (actual, "document") == (caught.value.actual, caught.value.kind)
        assert 'pass mime_type="text/plain" and a name ending in .txt' in str(caught.value)

    @pytest.mark.parametrize("hint", ["application/octet-stream", "binary/octet-stream", "nonsense", "", None])
    def test_useless_hints_are_ignored(self, hint: str | None) -> None:
        """A hint that says nothing, or is malformed, changes nothing."""
        expected = "text/plain"
        assert expected == type_of(b"text", hint=hint)


class TestUnsigned:
    """Bytes without the signature their type should have."""

    @pytest.mark.parametrize("mime_type", sorted(set(ACCEPTED) - {"audio/mpeg", "audio/aac", "text/plain"}))
    @pytest.mark.parametrize(("head", "found"), [(NOISE, "data without a known signature"), (b"text", "UTF-8 text")])
    def test_is_corrupted(self, mime_type: str, head: bytes, found: str) -> None:
        """Types that always have a signature are refused without it, whoever says the type."""
        for arguments in (
            {"mime_type": mime_type},
            {"filename": f"a{extension_for(mime_type)}"},
            {"hint": mime_type},
        ):
            with pytest.raises(CorruptedMediaError) as caught:
                type_of(head, **arguments)
            assert (ACCEPTED[mime_type].kind, mime_type, found) == (
                caught.value.kind,
                caught.value.limit,
                caught.value.actual,
            )

    @pytest.mark.parametrize("mime_type", ["audio/mpeg", "audio/aac"])
    def test_sound_may_start_late(self, mime_type: str) -> None:
        """MP3 and AAC pass with junk before the first frame, but not as text."""
        assert mime_type == type_of(bytes(64) + NOISE, filename=f"a{extension_for(mime_type)}")
        with pytest.raises(CorruptedMediaError, match="its bytes are UTF-8 text: send the original file whole"):
            inspect_media(b"<html>not found</html>", mime_type=mime_type)

    @pytest.mark.parametrize("complete", [True, False])
    def test_empty_is_corrupted(self, complete: bool) -> None:
        """An empty file is refused whatever it is said to be."""
        with pytest.raises(CorruptedMediaError) as caught:
            inspect_media(b"", filename="a.jpg", complete=complete)
        expected = ("image", 1, 0)
        assert expected == (caught.value.kind, caught.value.limit, caught.value.actual)
        assert str(caught.value).startswith("'a.jpg' is empty")

    @pytest.mark.parametrize(
        ("filename", "subject"),
        [
            (None, "The file"),
            ("folder/a.jpg", "'a.jpg'"),
            ("C:\\folder\\a.jpg", "'a.jpg'"),
            ("a\r\n.jpg", "'a\\r\\n.jpg'"),
            ("\ud800.jpg", "'\\ud800.jpg'"),
            ("x" * 300, f"'{'x' * 77}...'"),
        ],
    )
    def test_messages_name_the_file(self, filename: str | None, subject: str) -> None:
        """Only the last part of the name is shown, escaped and short."""
        with pytest.raises(CorruptedMediaError) as caught:
            inspect_media(b"", filename=filename)
        assert str(caught.value).startswith(f"{subject} is empty")

    def test_names_without_a_dot_have_no_extension(self) -> None:
        """A file called pdf is not a PDF for that."""
        expected = "text/plain"
        assert expected == type_of(b"text", filename="pdf")


class TestWithoutValidation:
    """`validate=False` decides a type and refuses nothing."""

    @pytest.mark.parametrize(
        ("head", "arguments", "mime_type", "kind"),
        [
            (JPEG, {"mime_type": "Image/PNG; a=b"}, "image/png", "image"),
            (JPEG, {"mime_type": "application/x-foo"}, "application/x-foo", "document"),
            (JPEG, {"filename": "a.png", "hint": "image/png"}, "image/jpeg", "image"),
            (OTHERS["vorbis.ogg"], {}, "audio/ogg", "audio"),
            (OTHERS["moving.gif"], {}, "image/gif", "image"),
            (b"a,b", {"filename": "a.csv"}, "text/csv", "document"),
            (b"a,b", {"hint": "video/x-foo"}, "video/x-foo", "video"),
            (b"a,b", {}, "text/plain", "document"),
            (NOISE, {}, "application/octet-stream", "document"),
            (b"", {"hint": "audio/ogg; codecs=opus"}, "audio/ogg", "audio"),
            (SAMPLES["sticker.webp"], {}, "image/webp", "sticker"),
        ],
    )
    def test_nothing_is_refused(self, head: bytes, arguments: dict[str, str], mime_type: str, kind: str) -> None:
        """The caller's word, the bytes, the name or the hint is taken, up to the service's own limit."""
        inspection = inspect_media(head, validate=False, **arguments)  # type: ignore[arg-type]
        assert (mime_type, kind, MAX_SIZE) == (inspection.mime_type, inspection.kind, inspection.max_size)

    def test_except_grammar(self) -> None:
        """What would break the form is an error all the same."""
        with pytest.raises(UnsupportedMediaTypeError):
            inspect_media(JPEG, mime_type="image/jpeg\r\n", validate=False)


class TestSize:
    """The limits."""

    IMAGE = Inspection(mime_type="image/jpeg", kind="image", max_size=5 * 2**20)

    def test_at_the_limit(self) -> None:
        """One byte and the limit itself are fine; one more is not."""
        check_size(self.IMAGE, 1)
        check_size(self.IMAGE, 5 * 2**20)
        with pytest.raises(FileTooLargeError) as caught:
            check_size(self.IMAGE, 5 * 2**20 + 1, filename="photo.jpg")
        expected = ("image", 5_242_880, 5_242_881)
        assert expected == (caught.value.kind, caught.value.limit, caught.value.actual)
        expected_message = (
            "'photo.jpg' has 5,242,881 bytes of image/jpeg, but WhatsApp takes at most 5,242,880: "
            "compress it, cut it or split it."
        )
        assert expected_message == str(caught.value)

    def test_nothing_is_corrupted(self) -> None:
        """A file of no bytes is refused as empty."""
        with pytest.raises(CorruptedMediaError) as caught:
            check_size(self.IMAGE, 0)
        expected = ("image", 0)
        assert expected == (caught.value.kind, caught.value.actual)


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
    """Bytes from strangers."""

    @given(HEADS, TYPES, TYPES, st.one_of(st.none(), st.text()), st.booleans(), st.booleans())
    def test_any_head_is_decided_or_refused(
        self, head: bytes, declared: str | None, hint: str | None, name: str | None, complete: bool, validate: bool
    ) -> None:
        """Whatever comes, the answer is a decision or the documented error with all its parts."""
        decided = outcome(head, mime_type=declared, hint=hint, filename=name, complete=complete, validate=validate)
        if isinstance(decided, InvalidMediaError):
            assert None not in {decided.limit, decided.actual}
            assert str(decided).endswith(".")
        else:
            assert decided.mime_type == normalise(decided.mime_type)
            assert 0 < decided.max_size <= MAX_SIZE
            assert not validate or decided.mime_type in ACCEPTED

    @given(st.sampled_from(sorted(SAMPLES)), st.data(), st.booleans())
    def test_a_cut_file_is_decided_or_refused(self, name: str, data: st.DataObject, complete: bool) -> None:
        """Cut anywhere, a valid file keeps its type or raises the documented error."""
        whole = SAMPLES[name]
        cut = whole[: data.draw(st.integers(0, min(len(whole), 3000)))]
        decided = outcome(cut, filename=name, complete=complete)
        assert isinstance(decided, InvalidMediaError) or type_of(whole) == decided.mime_type

    @given(st.sampled_from(sorted(SAMPLES)), st.data())
    def test_a_damaged_file_is_decided_or_refused(self, name: str, data: st.DataObject) -> None:
        """With some bytes overwritten, a file is decided or raises the documented error."""
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
            b"\0\0\0\x10ftyp" + b"hdlr" * (HEAD_SIZE // 4),
            b"ID3\4\0\0\0\0\0\0" * (HEAD_SIZE // 10),
            b"%PDF" * (HEAD_SIZE // 4),
            ole(
                entry("Root Entry", child=1), *(entry("x", n, n + 1, n) for n in range(500)), chain=tuple(range(1, 126))
            ),
        ],
    )
    def test_no_head_takes_long(self, head: bytes) -> None:
        """The worst heads we can think of are looked at in a fraction of a second, where a quadratic scan takes minutes."""
        started = time.process_time()
        decided = outcome(head, complete=True)
        seconds = time.process_time() - started
        assert isinstance(decided, Inspection | InvalidMediaError)
        assert seconds < 1.0
