"""Text that must not be shown: tokens, signed URLs and the bytes that contain them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, NoReturn

from meta_media.errors import ConfigurationError

__all__ = ["TOKEN", "Secret", "SecretBytes", "excerpt", "hide_query", "masked", "redacted", "shown"]

_MAX_EXCERPT: Final = 80  # characters
_MIN_SECRET_LENGTH: Final = 8  # characters
# pathlib leaves one slash.
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:/{1,3})(?:[^/?#]*@)?([^?#]*)(.?)", re.DOTALL)
_QUERY: Final = re.compile(r"\?[\w.~%-]+=.*", re.DOTALL)  # of a URL without its scheme; a name may have a question mark
_ANY_SECRET: Final = re.compile(r"//[^/@]*@|\?.*|[\w+/=-]{40,}", re.DOTALL)
TOKEN: Final = re.compile(r"EAA\w{18,}")  # an access token of Meta's; see `validators.is_token`


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


def masked(value: Any, secret: str) -> Any:
    """Return JSON in whose texts each echo of a secret is `***`. One of less than 8 characters is a toy, and may be in any word."""
    return value if len(secret) < _MIN_SECRET_LENGTH else _masked(value, secret)


def _masked(value: Any, secret: str) -> Any:
    if isinstance(value, str):
        return value.replace(secret, "***")
    if isinstance(value, dict):
        return {_masked(name, secret): _masked(item, secret) for name, item in value.items()}
    return [_masked(item, secret) for item in value] if isinstance(value, list) else value


def redacted(text: str) -> str:
    """Return a caller's text without access tokens, the password and query of a URL, and the content of a data URI."""
    if text[:5].lower() == "data:":
        return text[:5] + "…"
    if url := _URL.match(text):
        text = url[1] + url[2] + ("?…" if url[3] else "")
    return TOKEN.sub("EAA…", _QUERY.sub("?…", text))


def excerpt(value: object) -> str:
    """Return the `repr` of a caller's value, `redacted`: at most 80 characters, with the end, which a path needs most."""
    return _short(value, redacted)


def shown(value: object) -> str:
    """Return an `excerpt` of a value in a wrong place, which may be any secret: no long runs, and nothing after a `?`."""
    return _short(value, lambda text: _ANY_SECRET.sub("…", redacted(text)))


def _short(value: object, public: Callable[[str], str]) -> str:
    text, half = public(value if isinstance(value, str) else repr(value)[:1000]), _MAX_EXCERPT // 2
    text = text if len(text) <= _MAX_EXCERPT else f"{text[: half - 1]}…{text[-half:]}"
    return repr(text) if isinstance(value, str) else text
