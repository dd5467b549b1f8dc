"""File names from untrusted sources: laws over any text, and known tricks."""

from __future__ import annotations

import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meta_media.protocol.filenames import safe_filename

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
