"""File names from untrusted sources, made safe for every file system and for a header."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

__all__ = ["safe_filename"]

_MAX_SIZE: Final = 240  # bytes; file systems allow 255, of which " (2)" and the like need some
_MAX_EXTENSION_SIZE: Final = 16  # bytes
# Characters that Windows forbids, the semicolon, at which some form parsers split, and the percent-encodings of browsers,
# which some form parsers decode.
_UNSAFE: Final = re.compile(r'[<>:"|?*;]|%(?=22|0[AaDd])')
_DEVICE: Final = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)[ ]*(?:\.|$)", re.IGNORECASE)
# Control, format (with the bidirectional overrides), surrogate, private use, unassigned; line and paragraph separators.
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def safe_filename(name: str | None, fallback: str) -> str:
    """
    Return the last component of a name in a safe form.

    The result has no folders, control or bidirectional characters, quotes, Windows device names, leading dots, or trailing
    dots and spaces. It has at most 240 bytes of UTF-8 and keeps its extension. A second application changes nothing. If
    nothing is left, the result is `fallback`.
    """
    last = re.split(r"[/\\]", name or "")[-1]
    composed = unicodedata.normalize("NFC", "".join(c for c in last if unicodedata.category(c) not in _INVISIBLE))
    spaced = re.sub(r"\s", " ", composed)  # no-break and wide spaces too: a name of those alone would look empty
    safe = _shortened(_UNSAFE.sub("_", spaced).strip(" ."))
    if _DEVICE.match(safe):
        safe = _shortened(f"_{safe}")
    return safe or fallback


def _shortened(name: str) -> str:
    if len(name.encode()) <= _MAX_SIZE:
        return name
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension.encode()) > _MAX_EXTENSION_SIZE:
        stem, dot, extension = name, "", ""
    room = _MAX_SIZE - len((dot + extension).encode())
    return stem.encode()[:room].decode(errors="ignore").rstrip(" .") + dot + extension
