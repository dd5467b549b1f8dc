"""Media types: Meta's table, the spelling of types, real files of every type, text, sizes."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meta_media import samples
from meta_media.errors import CorruptedMediaError, FileTooLargeError, UnsupportedMediaTypeError
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
    """Return the decided type of a head."""
    return inspect_media(head, **arguments).mime_type  # type: ignore[arg-type]


class TestTable:
    """Meta's table."""

    def test_lists_what_meta_lists(self) -> None:
        """The table has every type of Meta's page with its kind and maximum, and no other."""
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
        """A row has its own type, and `MAX_SIZE` is the largest maximum."""
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
        """A text outside of RFC 9110's grammar is refused, and the error shows it escaped, on one line."""
        with pytest.raises(UnsupportedMediaTypeError) as caught:
            normalise(malformed)
        assert (malformed, "type/subtype") == (caught.value.actual, caught.value.limit)
        assert str(caught.value).isprintable()
        assert "pass type/subtype" in str(caught.value)

    def test_shortens_in_messages(self) -> None:
        """An error shows the start of a long type."""
        with pytest.raises(UnsupportedMediaTypeError) as caught:
            normalise("x" * 2**20)
        assert len(str(caught.value)) < 200

    def test_hostile_parameters_do_not_backtrack(self) -> None:
        """A text that is made for backtracking is refused at once."""
        with pytest.raises(UnsupportedMediaTypeError):
            normalise("a/b" + " ;" * 5000 + "; " * 5000 + "\n")

    @given(st.from_regex(r"[a-zA-Z]{1,9}/[a-zA-Z0-9.+-]{1,20}( ?; ?[a-z]{1,5}=[a-z]{1,5}){0,2}", fullmatch=True))
    @example("audio/opus")
    @example("image/jpg")
    def test_is_idempotent(self, mime_type: str) -> None:
        """A normalised type stays as it is."""
        assert normalise(mime_type) == normalise(normalise(mime_type))

    @given(st.text())
    def test_gives_a_type_or_the_one_error(self, mime_type: str) -> None:
        """Any text gives a plain type or the documented error."""
        try:
            result = normalise(mime_type)
        except UnsupportedMediaTypeError:
            return
        assert result == result.lower()
        assert ";" not in result


class TestExtension:
    """File extensions of types."""

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
        """Accepted and common types have an extension; unknown and malformed ones have none."""
        assert expected == extension_for(mime_type)

    @pytest.mark.parametrize("row", ACCEPTED.values(), ids=lambda row: row.mime_type)
    def test_every_extension_leads_back(self, row: MediaType) -> None:
        """Each extension of a type leads back to the type."""
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
        """The bytes decide the type; a wrong name or hint changes nothing."""
        data = SAMPLES[name]
        assert expected == type_of(data, complete=True)
        assert expected == type_of(data[:HEAD_SIZE])
        assert expected == type_of(data, complete=True, filename="x.unknown", hint="application/octet-stream")
        if expected != "text/plain":
            assert expected == type_of(data, filename="x.gif", hint="image/gif")

    @pytest.mark.parametrize(("name", "expected"), EXPECTED)
    def test_pass_when_declared(self, name: str, expected: str) -> None:
        """The right declaration passes, and the size is within the maximum."""
        inspection = inspect_media(SAMPLES[name], filename=name, mime_type=expected, complete=True)
        check_size(inspection, len(SAMPLES[name]), filename=name)
        assert (expected, ACCEPTED[expected].kind) == (inspection.mime_type, inspection.kind)

    @pytest.mark.parametrize(("name", "expected"), EXPECTED)
    @pytest.mark.parametrize("declared", ACCEPTED)
    def test_refuse_every_other_declaration(self, name: str, expected: str, declared: str) -> None:
        """A file that is declared as another type is refused, and the error names the type of its bytes."""
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
        assert [inspect_media(SAMPLES[name]).max_size for name in ("sticker.webp", "animated.webp")] == [
            100 * 1024,
            500 * 1024,
        ]


class TestUnsigned:
    """Bytes without the signature of their type."""

    @pytest.mark.parametrize("mime_type", sorted(set(ACCEPTED) - {"text/plain"}))
    @pytest.mark.parametrize(("head", "found"), [(NOISE, "data without a known signature"), (b"text", "UTF-8 text")])
    def test_is_corrupted(self, mime_type: str, head: bytes, found: str) -> None:
        """A type that always has a signature is refused without it, whether declared, named or hinted."""
        for arguments in ({"mime_type": mime_type}, {"filename": f"a{extension_for(mime_type)}"}, {"hint": mime_type}):
            with pytest.raises(CorruptedMediaError) as caught:
                type_of(head, **arguments)
            assert (ACCEPTED[mime_type].kind, mime_type, found) == (
                caught.value.kind,
                caught.value.limit,
                caught.value.actual,
            )

    @pytest.mark.parametrize("complete", [True, False])
    def test_empty_is_corrupted(self, complete: bool) -> None:
        """An empty file is refused."""
        with pytest.raises(CorruptedMediaError) as caught:
            inspect_media(b"", filename="a.jpg", complete=complete)
        assert (caught.value.kind, caught.value.limit, caught.value.actual) == ("image", 1, 0)
        assert str(caught.value).startswith("'a.jpg' is empty")

    @pytest.mark.parametrize(
        ("filename", "subject"),
        [
            (None, "the file"),
            ("folder/a.jpg", "'a.jpg'"),
            ("C:\\folder\\a.jpg", "'a.jpg'"),
            ("a\r\n.jpg", "'a\\r\\n.jpg'"),
            ("\ud800.jpg", "'\\ud800.jpg'"),
            ("x" * 300, f"'{'x' * 39}…{'x' * 40}'"),
            ("photo.jpg?X-Amz-Signature=SE/CRET", "'photo.jpg?…'"),
            ("https://a.example/photo.jpg?X-Amz-Signature=SE/CRET", "'photo.jpg?…'"),
            ("EAAG" + "0aZ" * 20 + ".jpg", "'EAA….jpg'"),
        ],
    )
    def test_messages_name_the_file(self, filename: str | None, subject: str) -> None:
        """Only the last part of the name is shown, escaped and short, without the query of a URL and without a token."""
        with pytest.raises(CorruptedMediaError) as caught:
            inspect_media(b"", filename=filename)
        assert str(caught.value).startswith(f"{subject} is empty")

    @pytest.mark.parametrize("name", ["pdf", "image/jpg", "", "text/richtext"])
    def test_names_without_a_dot_have_no_extension(self, name: str) -> None:
        """A name without a dot has no extension, also where it is that of a type."""
        assert type_of(b"text", filename=name) == "text/plain"


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
        """The declaration, the bytes, the name or the hint decides, and the maximum is `MAX_SIZE`."""
        inspection = inspect_media(head, validate=False, **arguments)  # type: ignore[arg-type]
        assert (mime_type, kind, MAX_SIZE) == (inspection.mime_type, inspection.kind, inspection.max_size)

    def test_except_grammar(self) -> None:
        """A malformed type is refused all the same, because it would break the form."""
        with pytest.raises(UnsupportedMediaTypeError):
            inspect_media(JPEG, mime_type="image/jpeg\r\n", validate=False)


class TestSize:
    """The maximum sizes."""

    IMAGE = Inspection(mime_type="image/jpeg", kind="image", max_size=5 * 2**20)

    def test_at_the_limit(self) -> None:
        """One byte and the maximum pass; one more byte does not."""
        check_size(self.IMAGE, 1)
        check_size(self.IMAGE, 5 * 2**20)
        with pytest.raises(FileTooLargeError) as caught:
            check_size(self.IMAGE, 5 * 2**20 + 1, filename="photo.jpg")
        assert (caught.value.kind, caught.value.limit, caught.value.actual) == ("image", 5_242_880, 5_242_881)
        expected_message = (
            "'photo.jpg' has 5,242,881 bytes of image/jpeg, but WhatsApp accepts at most 5,242,880: save it smaller"
        )
        assert expected_message == str(caught.value)

    @pytest.mark.parametrize(
        ("name", "fix"),
        [
            ("photo.jpg", "save it smaller"),
            ("drawing.png", "save it smaller"),
            ("sticker.webp", "convert it to JPEG or PNG to send it as an image, or save it smaller"),
            ("animated.webp", "save it smaller, or with fewer frames"),
            ("clip.mp4", "encode it at a lower bit rate, or cut it"),
            ("note.ogg", "encode it at a lower bit rate, or cut it"),
            ("report.pdf", "compress or split it"),
        ],
    )
    @pytest.mark.parametrize("validate", [True, False])
    def test_what_helps_depends_on_the_kind(self, name: str, fix: str, validate: bool) -> None:
        """A picture cannot be cut, a still WebP is often meant as a photo, and a document can be split."""
        inspection = inspect_media(SAMPLES[name], validate=validate)
        with pytest.raises(FileTooLargeError) as caught:
            check_size(inspection, inspection.max_size + 1)
        if not validate and inspection.kind == "sticker":
            fix = "save it smaller, or with fewer frames"
        assert str(caught.value).endswith(f"{inspection.max_size:,}: {fix}")

    def test_nothing_is_corrupted(self) -> None:
        """A file without bytes is refused as empty."""
        with pytest.raises(CorruptedMediaError) as caught:
            check_size(self.IMAGE, 0)
        assert (caught.value.kind, caught.value.actual) == ("image", 0)
