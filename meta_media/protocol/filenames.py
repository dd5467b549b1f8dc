"""One rule that makes a stranger's file name harmless: in a folder of ours, on Windows too, and in a header."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

__all__ = ["safe_filename"]

_MAX_BYTES: Final = 240  # file systems allow 255; the rest is room for " (2)" and the like
_MAX_EXTENSION: Final = 16
# Forbidden on Windows. Some parsers of forms split at every semicolon, and some undo the percent-encodings with which
# browsers escape a name.
_AWKWARD = re.compile(r'[<>:"|?*;]|%(?=22|0[AaDd])')
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)[ ]*(?:\.|$)", re.IGNORECASE)
# Control, format (which holds the bidirectional overrides), surrogate, private, unassigned; line and paragraph breaks.
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def safe_filename(name: str | None, fallback: str) -> str:
    """
    Return the last component of a name without anything that could do harm.

    No folders, control or bidirectional characters, quotes, Windows device names, leading dots, trailing dots or spaces;
    at most 240 bytes of UTF-8, the extension kept. Applying it twice changes nothing.

    Args:
        name: As it came, from a file system, a header or a webhook.
        fallback: What to use when nothing is left; trusted.
    """
    last = re.split(r"[/\\]", name or "")[-1]
    composed = unicodedata.normalize("NFC", "".join(c for c in last if unicodedata.category(c) not in _INVISIBLE))
    spaced = re.sub(r"\s", " ", composed)  # no-break and wide spaces too: a name of nothing else would look empty
    tame = _shortened(_AWKWARD.sub("_", spaced).strip(" ."))
    if _DEVICE.match(tame):
        tame = _shortened(f"_{tame}")
    return tame or fallback


def _shortened(name: str) -> str:
    if len(name.encode()) <= _MAX_BYTES:
        return name
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension.encode()) > _MAX_EXTENSION:
        stem, dot, extension = name, "", ""
    room = _MAX_BYTES - len((dot + extension).encode())
    return stem.encode()[:room].decode(errors="ignore").rstrip(" .") + dot + extension
