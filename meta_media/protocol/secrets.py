"""Text that must not be shown: tokens, signed URLs and the bytes that contain them."""

from __future__ import annotations

from typing import NoReturn

from meta_media.errors import ConfigurationError

__all__ = ["Secret", "SecretBytes", "hide_query"]


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
