"""File names from untrusted sources, made safe for every file system and for a header."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from meta_media.protocol.media_types import extension_for, named_type

__all__ = ["numbered", "safe_filename", "typed_filename", "with_extension"]

_MAX_SIZE: Final = 240  # bytes; file systems allow 255, of which " (2)" and the like need some
_MAX_EXTENSION_SIZE: Final = 16  # bytes
# Characters that Windows forbids, the semicolon, at which some form parsers split, and the percent-encodings of browsers,
# which some form parsers decode.
_URL: Final = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://([^?#]*).*", re.DOTALL)  # its query may be a signature
_UNSAFE: Final = re.compile(r'[<>:"|?*;]|%(?=22|0[AaDd])')
_DEVICE: Final = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)[ ]*(?:\.|$)", re.IGNORECASE)
# Control, format (with the bidirectional overrides), surrogate, private use, unassigned; line and paragraph separators.
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_SCRIPTS: Final = frozenset({"application/xml", "image/svg+xml", "text/html"})  # a browser runs the scripts in these
_OPUS: Final = re.compile(r"\.(?:opus|oga)\Z", re.IGNORECASE)


_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ()_-]{0,99}(?:\.[A-Za-z0-9]{1,8})?(?<! )")


def safe_filename(name: str | None, fallback: str) -> str:
    """
    Return the last component of a name in a safe form.

    The result has no folders, control or bidirectional characters, quotes, Windows device names, leading dots, or trailing
    dots and spaces. It has at most 240 bytes of UTF-8 and keeps its extension. A second application changes nothing. If
    nothing is left, the result is `fallback`.
    """
    if not name:
        return fallback
    if _PLAIN.fullmatch(name) and not _DEVICE.match(name):
        return name
    last = re.split(r"[/\\]", _URL.sub(r"\1", name))[-1]
    composed = unicodedata.normalize("NFC", "".join(c for c in last if unicodedata.category(c) not in _INVISIBLE))
    spaced = re.sub(r"\s", " ", composed)  # no-break and wide spaces too: a name of those alone would look empty
    safe = _shortened(_UNSAFE.sub("_", spaced).strip(" ."))
    if _DEVICE.match(safe):
        safe = _shortened(f"_{safe}")
    return safe or fallback


def with_extension(name: str, mime_type: str, *, sent: bool) -> str:
    """
    Return a name with an extension of a type, in which programs and phones see what the file is.

    A fitting extension stays, in any case. Behind a missing or an unknown one, such as `.exe` or the `.2026` of a date, the
    type's preferred extension is added. An extension of another known type is treated in one of two ways. In a name that is
    sent it is replaced, because the bytes have decided the type. In a name that is saved it stays, because the type is only
    the other side's claim: a table named `.csv` often comes as text/plain. Only behind `.html`, `.svg` and `.xml`, in which
    a browser runs scripts, the claimed type's extension is added.

    Args:
        name: Any name.
        mime_type: Type of the file. One that has no extension, such as application/octet-stream, changes nothing.
        sent: Whether the name goes to Meta. `.opus` and `.oga` are then replaced, too: Meta's page lists `.ogg` alone.
    """
    extension, named = extension_for(mime_type), named_type(name)
    if extension is None or (named and extension_for(named) == extension and not (sent and _OPUS.search(name))):
        return name
    if named and sent:
        return with_extension(name.rpartition(".")[0], mime_type, sent=True)
    return name if named and named not in _SCRIPTS else name.rstrip(" .") + extension


def typed_filename(name: str | None, mime_type: str, stem: str, *, sent: bool) -> str:
    """Return the safe form of a name, with an extension; see `with_extension`. `stem` is used if nothing is left."""
    safe = safe_filename(name, stem)
    named = with_extension(safe, mime_type, sent=sent)
    return named if named is safe else safe_filename(named, stem)


def numbered(name: str, number: int) -> str:
    """Return the name for the `number`th file of a name in a folder, from 1 on."""
    stem, dot, extension = name.rpartition(".")
    return name if number == 1 else f"{stem} ({number}).{extension}" if dot and stem else f"{name} ({number})"


def _shortened(name: str) -> str:
    if len(name.encode()) <= _MAX_SIZE:
        return name
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension.encode()) > _MAX_EXTENSION_SIZE:
        stem, dot, extension = name, "", ""
    room = _MAX_SIZE - len((dot + extension).encode())
    return stem.encode()[:room].decode(errors="ignore").rstrip(" .") + dot + extension
