"""Text of the caller's in messages: short, and without what grants access."""

from __future__ import annotations

import pytest

from meta_media.protocol.secrets import excerpt, hide_query, shown

EXCERPTS = {
    "photo.jpg": "'photo.jpg'",
    "what?.jpg": "'what?.jpg'",
    "C:/photos/a.jpg": "'C:/photos/a.jpg'",
    "https://a.example/b.jpg": "'https://a.example/b.jpg'",
    "https://a.example/b.jpg?X-Amz-Signature=SECRET": "'https://a.example/b.jpg?…'",
    "https://a.example/b.jpg#access_token=SECRET": "'https://a.example/b.jpg?…'",
    "https://user:SECRET@a.example/b.jpg": "'https://a.example/b.jpg'",
    "https://user:SEC@RET@a.example/b.jpg": "'https://a.example/b.jpg'",
    "https:/user:SECRET@a.example/b.jpg?SECRET": "'https:/a.example/b.jpg?…'",
    "s3://bucket/key@2x.png": "'s3://bucket/key@2x.png'",
    "DATA:image/png;base64,SECRET": "'DATA:…'",
    "photo.jpg?X-Amz-Signature=SEC/RET&a=b": "'photo.jpg?…'",
    "a.example/b.jpg?hash=SECRET": "'a.example/b.jpg?…'",
    "is 1+1=2?.jpg": "'is 1+1=2?.jpg'",
    "EAAG0123456789abcdefSECRET": "'EAA…'",
    "in/EAAG0123456789abcdefSECRET/a.jpg": "'in/EAA…/a.jpg'",
    "https://a.example/EAAG0123456789abcdefSECRET": "'https://a.example/EAA…'",
    "EAAutumn in Paris.jpg": "'EAAutumn in Paris.jpg'",
    "a\nb": "'a\\nb'",
    "": "''",
}


@pytest.mark.parametrize("text", EXCERPTS)
def test_excerpts(text: str) -> None:
    """The query, the fragment and the password of a URL, and the content of a data URI, are left out."""
    assert excerpt(text) == EXCERPTS[text]


def test_long_excerpts() -> None:
    """A text of more than 80 characters is cut in its middle."""
    assert excerpt("x" * 80) == repr("x" * 80)
    assert excerpt("a" * 50 + "b" * 50) == repr("a" * 39 + "…" + "b" * 40)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("v25", "'v25'"),
        ("//user:SECRET@host", "'…host'"),
        ("host?SECRET", "'host…'"),
        ("https://user:SECRET@host/a?SECRET", "'https://host/a…'"),
        ("0f" * 16 + "SECRET--", "'…'"),
        ("EAAG0123456789abcdefSECRET", "'EAA…'"),
        ("a b " * 30, repr("a b " * 9 + "a b…" + "a b " * 10)),
        (["EAAG0123456789abcdefSECRET", 1], "['EAA…', 1]"),
        (None, "None"),
        (10**100, "…"),
        ([1] * 100, "[" + "1, " * 12 + "1,…" + ", 1" * 13 + "]"),
    ],
    ids=ascii,
)
def test_values_in_wrong_places(value: object, expected: str) -> None:
    """A value in a wrong place, of any type, is shown without what may be secret: long runs, passwords, queries, tokens."""
    assert shown(value) == expected


def test_hidden_queries() -> None:
    """A URL without its query says that it had one."""
    assert hide_query("https://a.example/b?c=d?e") == "https://a.example/b?…"
    assert hide_query("https://a.example/b") == "https://a.example/b"
