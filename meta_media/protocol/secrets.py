"""Text that must not be shown: tokens, signed URLs and the bytes that contain them."""

from __future__ import annotations

import re
from typing import Final, NoReturn

from meta_media.errors import ConfigurationError

__all__ = ["Secret", "SecretBytes", "excerpt", "hide_query"]

_MAX_EXCERPT: Final = 80  # characters
_URL: Final = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]+:/{1,3})(?:[^/?#]*@)?([^?#]*)(.?)", re.DOTALL
)  # pathlib leaves one slash


class Secret(str):
    """A `str` whose `repr` is `'***'`, because tracebacks with local variables end up in logs."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __reduce__(self) -> NoReturn:
        raise ConfigurationError("a token or another secret is not pickled: make what holds it in each process")


class SecretBytes(bytes):
    """`bytes` whose `repr` is `b'***'`: text that is not decoded yet."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "b'***'"


def hide_query(url: str) -> str:
    """Return a URL without its query. The query of a media URL is a signature, which grants access."""
    path, question_mark, _ = url.partition("?")
    return path + ("?…" if question_mark else "")


def excerpt(text: str) -> str:
    """
    Return the `repr` of a caller's text for a message: at most 80 characters, with the end, which a path needs most.

    The password and the query of a URL and the content of a data URI are left out.
    """
    if text[:5].lower() == "data:":
        text = text[:5] + "…"
    elif url := _URL.match(text):
        text = url[1] + url[2] + ("?…" if url[3] else "")
    half = _MAX_EXCERPT // 2
    return repr(text if len(text) <= _MAX_EXCERPT else f"{text[: half - 1]}…{text[-half:]}")
