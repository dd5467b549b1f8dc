"""Text, through `inspect_media`: its encodings, and text under the name of something else."""

from __future__ import annotations

import pytest

from meta_media.errors import CorruptedMediaError, UnsupportedMediaTypeError
from meta_media.protocol.media_types import inspect_media
from tests.support.reading import verdict


class TestText:
    """Text, which has no signature."""

    @pytest.mark.parametrize(
        ("head", "complete"),
        [
            (b"plain", True),
            ("\ufeffwith a mark, caf\u00e9 and \U0001f600".encode(), True),
            (b"tabs\tlines\r\n\x0cpages\x1b[0m", True),
            (b"DOS\x1a bell\x07 man\x08 fields\x1e\x1f shift\x0e\x0f", True),
            (b"GIF89a is a format of 1989", True),
            (b"fLaC is the first word", True),
            (b"P5 10 20 30 prices", True),
            (b"G" * 600, True),
            ("cut caf\u00e9".encode()[:-1], False),
            ("cut \U0001f600".encode()[:-2], False),
        ],
    )
    def test_utf_8_is_text(self, head: bytes, complete: bool) -> None:
        """UTF-8 without NUL is text; an incomplete head may end inside a character."""
        for arguments in ({}, {"mime_type": "text/plain"}, {"filename": "a.log", "hint": "text/csv"}):
            assert inspect_media(head, complete=complete, **arguments).mime_type == "text/plain"  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("head", "complete", "found"),
        [
            ("cut caf\u00e9".encode()[:-1], True, "text of another encoding"),
            (b"caf\xe9 au lait", False, "text of another encoding"),
            ("\u65e5\u672c".encode("shift-jis"), True, "text of another encoding"),
            (b"nul\0", True, "data without a known signature"),
            ("sixteen".encode("utf-16-le"), True, "data without a known signature"),
        ],
    )
    def test_anything_else_is_not(self, head: bytes, complete: bool, found: str) -> None:
        """Bytes that are not UTF-8 text are refused when declared, named or hinted as text."""
        for arguments in ({"mime_type": "text/plain"}, {"filename": "a.txt"}, {"hint": "text/plain"}):
            with pytest.raises(CorruptedMediaError) as caught:
                inspect_media(head, complete=complete, **arguments)  # type: ignore[arg-type]
            assert (caught.value.limit, caught.value.actual) == ("UTF-8 text", found)
            assert "save it as UTF-8" in str(caught.value)

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le"])
    @pytest.mark.parametrize(
        "arguments", [{}, {"filename": "a.txt"}, {"mime_type": "text/plain"}, {"filename": "a.csv"}]
    )
    def test_utf_16_is_named(self, encoding: str, arguments: dict[str, str]) -> None:
        """The byte order mark tells UTF-16, which Excel calls Unicode text, from data."""
        text = "\ufeffname\tcaf\u00e9\r\n"
        assert (
            verdict(text.lstrip("\ufeff" if encoding == "utf-16" else "").encode(encoding), **arguments)
            == "UTF-16 text: save it as UTF-8"
        )

    @pytest.mark.parametrize("data", [b"\xff\xfe\0\0a\0\0\0", b"\xff\xfe\0\xdc", b"\xfe\xffa"])
    def test_a_mark_alone_is_not_utf_16(self, data: bytes) -> None:
        """UTF-32, half pairs and half characters are data."""
        assert verdict(data).startswith("application/octet-stream: ")

    @pytest.mark.parametrize(
        ("data", "found"),
        [
            (b"\xef\xbb\xbf <!DOCTYPE html><html>", "HTML"),
            (b"<table border=1>", "HTML"),
            (b'<?xml version="1.0"?><Workbook/>', "XML"),
            (b"MIME-Version: 1.0\nContent-Type: multipart/related", "a web page (MHTML)"),
            (b"a;b\n1;2\n", "UTF-8 text"),
        ],
    )
    def test_under_the_name_of_a_document_is_named(self, data: bytes, found: str) -> None:
        """Programs export HTML or CSV as .xls. The error has the program and the extension to save it with."""
        for extension, fix in (
            ("xls", "Excel"),
            ("xlsx", "Excel"),
            ("doc", "Word"),
            ("docx", "Word"),
            ("ppt", "PowerPoint"),
        ):
            expected = f"{found}: open it in {fix} and save it as .{extension[:3]}x, or pass its real mime_type"
            assert expected == verdict(data, filename=f"a.{extension}")
        assert (
            verdict(data, filename="a.pdf") == f"{found}: send the complete original file, or pass its real mime_type"
        )

    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (b"{\\rtf1 a}", "application/rtf: save it as .docx, or export it as PDF"),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n", "application/postscript: export it as PDF, if it is a document"),
            (b"\xc5\xd0\xd3\xc6\x20\0\0\0", "application/postscript: export it as PDF, if it is a document"),
        ],
    )
    def test_that_people_do_not_read_is_no_text(self, data: bytes, expected: str) -> None:
        """RTF and PostScript are refused by their type, whatever they are named."""
        for name in ("a.doc", "a.eps", "a.txt"):
            assert expected == verdict(data, filename=name)

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
            inspect_media(b"a,b\n1,2\n", complete=True, **arguments)  # type: ignore[arg-type]
        assert (actual, "document") == (caught.value.actual, caught.value.kind)
        assert 'pass mime_type="text/plain" to send it as text' in str(caught.value)

    def test_under_the_name_of_a_recording_is_not_told_to_repackage(self) -> None:
        """What is no recording cannot be repackaged."""
        with pytest.raises(UnsupportedMediaTypeError, match="send the complete original file"):
            inspect_media(b"some text", filename="voice.webm")

    @pytest.mark.parametrize("hint", ["application/octet-stream", "binary/octet-stream", "nonsense", "", None])
    def test_useless_hints_are_ignored(self, hint: str | None) -> None:
        """A malformed or meaningless hint changes nothing."""
        assert inspect_media(b"text", hint=hint).mime_type == "text/plain"
