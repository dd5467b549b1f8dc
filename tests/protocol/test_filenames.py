"""File names from untrusted sources: laws over any text, and known tricks."""

from __future__ import annotations

import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meta_media.protocol.filenames import safe_filename, typed_filename, with_extension
from meta_media.protocol.media_types import ACCEPTED, extension_for, named_type

DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {
    f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789¹²³"
}
TRICKS = st.sampled_from(
    [
        *("/", "\\", "..", ".", ":", "\x00", "\r\n", '"', "'", "%22", "%0d%0A", "%", "22", "\u202e", "\u200b"),
        *("\ufeff",),
        *("\u2028", "\ud800", "\udfff", "\U0010ffff", "é", "e\u0301", "\u0338", "<", ">", "|", "?", "*", "~", "$"),
        *(" ", "\xa0"),
        *("\u3000", "con", "NUL", "com1", "LPT¹", ".jpg", ".tar.gz", "x" * 250, "漢" * 90, "😀" * 60, " " * 250),
        *("." * 250,),
    ]
)
NAMES = st.text(st.characters(exclude_categories=())) | st.lists(TRICKS | st.text(max_size=3), max_size=8).map("".join)


def safe(name: str | None) -> str:
    """Return the safe form of a name, with a fallback that no other name gives."""
    return safe_filename(name, "fallback.bin")


@given(NAMES)
@example("con" + " " * 240 + "x.txt")
@example("con." + "x" * 236)
@example("x" * 236 + ". . .jpg")
def test_once_is_enough(name: str) -> None:
    """A second application changes nothing."""
    assert safe(safe(name)) == safe(name)


@given(NAMES)
def test_name_is_one_component(name: str) -> None:
    """The name stays in the folder it is put into, by the rules of POSIX and of Windows."""
    result = safe(name)
    assert PurePosixPath("/folder", result).parts == ("/", "folder", result)
    assert PureWindowsPath("C:/folder", result).parts == ("C:\\", "folder", result)
    assert result not in {"", ".", ".."}


@given(NAMES)
def test_name_has_nothing_that_hides_or_breaks(name: str) -> None:
    """The name has no separators, quotes, controls, direction marks, surrogates, or outer dots and spaces."""
    result = safe(name)
    assert not set(result) & set('/\\<>:"|?*')
    assert {unicodedata.category(c) for c in result}.isdisjoint({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
    assert result == result.strip(" .").strip()
    assert unicodedata.is_normalized("NFC", result)


@given(NAMES)
def test_name_fits(name: str) -> None:
    """The name fits every common file system, with room for a counter, and its bytes are UTF-8."""
    assert 0 < len(safe(name).encode()) <= 240


@given(NAMES)
@example("con" + " " * 240 + "x.txt")
@example("CON")
@example("nul .txt")
def test_name_is_no_device(name: str) -> None:
    """The name is never a device name of Windows, with any extension."""
    assert safe(name).partition(".")[0].rstrip(" ").upper() not in DEVICES


@given(NAMES, st.sampled_from([".jpg", ".tar.gz", ".3gp", ".docx"]))
def test_extension_is_kept(name: str, extension: str) -> None:
    """A name of any length keeps its extension, by which phones choose the icon."""
    assert safe(f"a{name}b{extension}").endswith(extension.rpartition(".")[2])


@given(st.text(st.sampled_from("abcXYZ019é漢 _-,='()[]{}&+@#!~^`$"), min_size=1, max_size=40))
def test_harmless_names_stay(name: str) -> None:
    """A harmless name of any language and punctuation does not change."""
    harmless = f"a{name}z.pdf"
    assert safe(harmless) == harmless


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("photo.jpg", "photo.jpg"),
        ("../../x", "x"),
        ("/etc/passwd", "passwd"),
        ("C:\\x", "x"),
        ("C:x", "C_x"),
        ("\\\\server\\share\\report.pdf", "report.pdf"),
        ("a/b\\c.txt", "c.txt"),
        ("CON.txt", "_CON.txt"),
        ("nul", "_nul"),
        ("NUL .tar.gz", "_NUL .tar.gz"),
        ("com¹.txt", "_com¹.txt"),
        ("conin$", "_conin$"),
        ("console.txt", "console.txt"),
        ("com10.txt", "com10.txt"),
        ("a\r\nb.jpg", "ab.jpg"),
        ("a\x00.jpg", "a.jpg"),
        ("invoice\u2026\u202egpj.exe", "invoice\u2026gpj.exe"),
        ("\ufeffa\u200bb.txt", "ab.txt"),
        ("\ud83d.jpg", "jpg"),
        ("cafe\u0301.txt", "caf\xe9.txt"),
        ('a"b.jpg', "a_b.jpg"),
        ("a%22b%0D%0Ac%2Ed.jpg", "a_22b_0D_0Ac%2Ed.jpg"),
        ("100%.txt", "100%.txt"),
        ("what? <b>|*.txt", "what_ _b___.txt"),
        (".htaccess", "htaccess"),
        ("...a...", "a"),
        (" a . ", "a"),
        ("a\u202fb\xa0c.png", "a b c.png"),
        ("x" * 3000 + ".jpg", "x" * 236 + ".jpg"),
        ("漢" * 100 + ".jpg", "漢" * 78 + ".jpg"),
        ("x" * 300, "x" * 240),
        ("x" * 300 + "." + "y" * 17, "x" * 240),
        ("x" * 300 + "." + "y" * 16, "x" * 223 + "." + "y" * 16),
        ("x" * 235 + ". x.jpg", "x" * 235 + ".jpg"),
        ("con" + " " * 240 + "x.txt", "_con.txt"),
        ("con." + "x" * 236, "_con." + "x" * 235),
        ("=?utf-8?q?a?=.jpg", "=_utf-8_q_a_=.jpg"),
        ("a.jpg; filename*=UTF-8''b.jpg", "a.jpg_ filename_=UTF-8''b.jpg"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_named_tricks(name: str, expected: str) -> None:
    """Traversal, drives, devices, line breaks, reversed text, quotes and length, each by its example."""
    assert safe(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        None,
        "",
        ".",
        "..",
        "...",
        " ",
        "a/",
        "a\\",
        "a/..",
        "\r\n",
        "\u202e",
        "\ud800",
        "\u3000.\u2003",
        "/",
        "\\",
        ". .",
    ],
)
def test_fallback(name: str | None) -> None:
    """The fallback is the name when nothing is left."""
    assert safe(name) == "fallback.bin"


@pytest.mark.parametrize("name", [safe("漢" * 1000 + ".jpg"), safe("😀" * 1000), safe("x" * 1000)], ids=len)
def test_longest_names_can_be_created(tmp_path: Path, name: str) -> None:
    """The longest names can be created, also with a counter."""
    for given_name in (name, f"{name} (999)"):
        (tmp_path / given_name).touch(exist_ok=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, f"{name} (999)"]


PDF, JPEG, OGG = "application/pdf", "image/jpeg", "audio/ogg; codecs=opus"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
TYPES = st.sampled_from([*ACCEPTED, OGG, "text/csv", "text/html", "application/octet-stream", "x/y", "nonsense", ""])
ENDINGS = st.sampled_from(["", ".", ".jpg", ".JPG", ".opus", ".html", ".exe", ".tar.gz", ".jpg.pdf", "." + "x" * 20])


def typed(name: str | None, mime_type: str, *, sent: bool) -> str:
    """Return a name with an extension of a type, with a stem that no other name gives."""
    return typed_filename(name, mime_type, "stem", sent=sent)


@given(NAMES, ENDINGS, TYPES, st.booleans())
@example("x" * 240, "", PDF, True)
@example("x" * 300, ".jpg", PDF, True)
@example("con", ".jpg", PDF, True)
@example("", ".", PDF, False)
def test_typed_names_are_safe(name: str, ending: str, mime_type: str, sent: bool) -> None:
    """A typed name is a safe one, and typing it again changes nothing."""
    result = typed(name + ending, mime_type, sent=sent)
    assert safe(result) == typed(result, mime_type, sent=sent) == result


@given(NAMES, ENDINGS, TYPES)
def test_sent_names_have_an_extension_of_the_type(name: str, ending: str, mime_type: str) -> None:
    """A name that is sent has an extension of its type, if the type has one."""
    named = named_type(typed(name + ending, mime_type, sent=True))
    if (expected := extension_for(mime_type)) is not None:
        assert named is not None
        assert extension_for(named) == expected


@given(NAMES, ENDINGS, TYPES)
def test_saved_names_keep_theirs(name: str, ending: str, mime_type: str) -> None:
    """A name that is saved is the safe one, with at most the type's extension behind it."""
    plain, saved = safe_filename(name + ending, "stem"), typed(name + ending, mime_type, sent=False)
    assert saved in {plain, safe(plain + (extension_for(mime_type) or ""))}


@pytest.mark.parametrize(
    ("name", "mime_type", "sent", "saved"),
    [
        ("photo.jpg", JPEG, "photo.jpg", "photo.jpg"),
        ("PHOTO.JPG", JPEG, "PHOTO.JPG", "PHOTO.JPG"),
        ("photo.jpeg", JPEG, "photo.jpeg", "photo.jpeg"),
        ("cotizacion", PDF, "cotizacion.pdf", "cotizacion.pdf"),
        ("Fatura 05", PDF, "Fatura 05.pdf", "Fatura 05.pdf"),
        ("Fatura 05.2026", PDF, "Fatura 05.2026.pdf", "Fatura 05.2026.pdf"),
        ("bill.", PDF, "bill.pdf", "bill.pdf"),
        ("bill. ", PDF, "bill.pdf", "bill.pdf"),
        ("voice-note.mp4", OGG, "voice-note.ogg", "voice-note.mp4"),
        ("note.opus", OGG, "note.ogg", "note.opus"),
        ("note.OGA", "audio/ogg", "note.ogg", "note.OGA"),
        ("note.ogg", OGG, "note.ogg", "note.ogg"),
        ("song.mp4", "audio/mp4", "song.m4a", "song.mp4"),
        ("song.m4b", "audio/mp4", "song.m4b", "song.m4b"),
        ("photo.png", JPEG, "photo.jpg", "photo.png"),
        ("photo .png", JPEG, "photo.jpg", "photo .png"),
        ("photo.heic", JPEG, "photo.jpg", "photo.heic"),
        ("scan.pdf.jpg", PDF, "scan.pdf", "scan.pdf.jpg"),
        ("letter.doc", DOCX, "letter.docx", "letter.doc"),
        ("data.csv", "text/plain", "data.txt", "data.csv"),
        ("server.log", "text/plain", "server.log", "server.log"),
        ("notes.yaml", "text/plain", "notes.yaml.txt", "notes.yaml.txt"),
        ("backup.tar.gz", "application/gzip", "backup.tar.gz", "backup.tar.gz"),
        ("backup.tar.gz", PDF, "backup.tar.pdf", "backup.tar.gz"),
        ("photo.jpg.exe", JPEG, "photo.jpg.exe.jpg", "photo.jpg.exe.jpg"),
        ("run.bat", "text/plain", "run.bat.txt", "run.bat.txt"),
        ("setup.exe", "application/octet-stream", "setup.exe", "setup.exe"),
        ("setup.exe", "application/x-msdownload", "setup.exe", "setup.exe"),
        ("invoice.html", PDF, "invoice.pdf", "invoice.html.pdf"),
        ("page.HTM", "text/plain", "page.txt", "page.HTM.txt"),
        ("drawing.svg", JPEG, "drawing.jpg", "drawing.svg.jpg"),
        ("feed.xml", "text/plain", "feed.txt", "feed.xml.txt"),
        ("page.html", "text/html", "page.html", "page.html"),
        ("page.html", "application/octet-stream", "page.html", "page.html"),
        (".pdf", PDF, "pdf.pdf", "pdf.pdf"),
        (".htaccess", "text/plain", "htaccess.txt", "htaccess.txt"),
        ("con", PDF, "_con.pdf", "_con.pdf"),
        ("con.jpg", PDF, "_con.pdf", "_con.jpg"),
        ("../../x", PDF, "x.pdf", "x.pdf"),
        ("x" * 240, PDF, "x" * 236 + ".pdf", "x" * 236 + ".pdf"),
        ("x" * 300 + ".jpg", PDF, "x" * 236 + ".pdf", "x" * 236 + ".jpg"),
        ("\u6f22" * 100, JPEG, "\u6f22" * 78 + ".jpg", "\u6f22" * 78 + ".jpg"),
        (None, OGG, "stem.ogg", "stem.ogg"),
        ("", "x/y", "stem", "stem"),
        ("..", JPEG, "stem.jpg", "stem.jpg"),
        ("photo.jpg", "x/y", "photo.jpg", "photo.jpg"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_names_follow_types(name: str | None, mime_type: str, sent: str, saved: str) -> None:
    """Missing, wrong, doubled, unknown and dangerous extensions, each by its example."""
    assert (sent, saved) == (typed(name, mime_type, sent=True), typed(name, mime_type, sent=False))


@pytest.mark.parametrize(
    ("name", "mime_type", "expected"),
    [
        ("Rechnung 12/2026", PDF, "Rechnung 12/2026.pdf"),
        ("Rechnung: Mai?.pdf", PDF, "Rechnung: Mai?.pdf"),
        ("bill. ", PDF, "bill.pdf"),
        ("bill.docx", PDF, "bill.pdf"),
        (".docx", PDF, ".pdf"),
        ("", PDF, ".pdf"),
        ("bill", "x/y", "bill"),
    ],
)
def test_names_that_are_shown_keep_their_characters(name: str, mime_type: str, expected: str) -> None:
    """A name that is no path gets an extension, and stays as it is otherwise."""
    assert with_extension(name, mime_type, sent=True) == expected
