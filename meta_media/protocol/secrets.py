"""Text that is shown nowhere: tokens, signed URLs and what holds them."""

from __future__ import annotations

__all__ = ["Secret", "SecretBytes", "hide_query"]


class Secret(str):
    """Text that is itself when used, and nothing when shown: tracebacks with local variables end in logs."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class SecretBytes(bytes):
    """The same for what has not been decoded yet."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "b'***'"


def hide_query(url: str) -> str:
    """Show a URL without its query, which is a signature that grants access."""
    path, question_mark, _ = url.partition("?")
    return path + ("?…" if question_mark else "")
