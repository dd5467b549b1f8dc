"""
What WhatsApp accepts, and whether a file is that.

The service decides by the Content-Type of the form's file part and checks the bytes only when the message is sent, hours
later and by webhook. So everything it is known to refuse is refused here, before a request is made. `examine` decides in
this order: what the caller said, which the bytes must not contradict; what the bytes are (`signatures`); what the name's
extension says; what a browser or server hinted. Nothing depends on the machine: no `mimetypes`, no libmagic.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

import attrs

from meta_media.errors import CorruptedMediaError, FileTooLargeError, UnsupportedMediaTypeError
from meta_media.protocol.signatures import DOC, DOCX, OLE, PPT, PPTX, XLS, XLSX, ZIP, Signature, looks_like_text, sniff

__all__ = [
    "ACCEPTED",
    "HEAD_SIZE",
    "MAX_SIZE",
    "Inspection",
    "Kind",
    "MediaType",
    "check_size",
    "extension_for",
    "inspect_media",
    "normalise",
]

Kind = Literal["audio", "document", "image", "sticker", "video"]

# Meta does not say whether its MB is 10^6 or 2^20 bytes; peer libraries use 2^20, and refusing too late beats refusing wrongly.
_KB, _MB = 2**10, 2**20

HEAD_SIZE: Final = 65536  # reaches past a JPEG's first EXIF segment, which is at most this large, for nearly every file
MAX_SIZE: Final = 100 * _MB  # the largest upload of any kind


@attrs.frozen(kw_only=True)
class MediaType:
    """
    One row of Meta's table of supported media types.

    Attributes:
        mime_type: As Meta spells it.
        kind: The message type that shows it.
        extensions: With their dot, the preferred one first.
        max_size: Bytes allowed.
    """

    mime_type: str
    kind: Kind
    extensions: tuple[str, ...]
    max_size: int


# developers.facebook.com/documentation/business-messaging/whatsapp/business-phone-numbers/media, "Supported media types".
_ROWS: Final[tuple[tuple[str, Kind, int, str], ...]] = (
    ("audio/aac", "audio", 16 * _MB, ".aac .adts"),
    ("audio/amr", "audio", 16 * _MB, ".amr"),
    ("audio/mp4", "audio", 16 * _MB, ".m4a .m4b"),
    ("audio/mpeg", "audio", 16 * _MB, ".mp3"),
    ("audio/ogg", "audio", 16 * _MB, ".ogg .oga .opus"),
    ("application/pdf", "document", 100 * _MB, ".pdf"),
    (DOC, "document", 100 * _MB, ".doc .dot"),
    (DOCX, "document", 100 * _MB, ".docx"),
    (PPT, "document", 100 * _MB, ".ppt .pps"),
    (PPTX, "document", 100 * _MB, ".pptx"),
    (XLS, "document", 100 * _MB, ".xls .xlt"),
    (XLSX, "document", 100 * _MB, ".xlsx"),
    ("text/plain", "document", 100 * _MB, ".txt .text .log"),
    ("image/jpeg", "image", 5 * _MB, ".jpg .jpeg .jpe .jfif"),
    ("image/png", "image", 5 * _MB, ".png"),
    ("image/webp", "sticker", 500 * _KB, ".webp"),
    ("video/3gpp", "video", 16 * _MB, ".3gp .3gpp"),
    ("video/mp4", "video", 16 * _MB, ".mp4 .m4v"),
)
ACCEPTED: Final[Mapping[str, MediaType]] = MappingProxyType(
    {
        mime_type: MediaType(mime_type=mime_type, kind=kind, extensions=tuple(extensions.split()), max_size=max_size)
        for mime_type, kind, max_size, extensions in _ROWS
    }
)
_STILL_STICKER_SIZE: Final = 100 * _KB
_ALLOWED: Final = (
    "AAC, AMR, MP3, M4A or mono Opus audio; PDF, Office or UTF-8 text; JPEG or PNG; WebP stickers; MP4 or 3GP"
)

# Players skip junk before the first frame of these; every other accepted type but text starts with its signature.
_LATE: Final = frozenset({"audio/aac", "audio/mpeg"})

# Types people try to send, or receive, that are not accepted; what would fix each follows from its first half or is in _FIXES.
_OTHERS: Final = {
    "application/gzip": ".gz .tgz",
    "application/json": ".json",
    "application/rtf": ".rtf",
    "application/vnd.oasis.opendocument.presentation": ".odp",
    "application/vnd.oasis.opendocument.spreadsheet": ".ods",
    "application/vnd.oasis.opendocument.text": ".odt",
    "application/vnd.rar": ".rar",
    "application/xml": ".xml",
    ZIP: ".zip",
    "audio/flac": ".flac",
    "audio/wav": ".wav",
    "image/avif": ".avif",
    "image/bmp": ".bmp",
    "image/gif": ".gif",
    "image/heic": ".heic .heif",
    "image/svg+xml": ".svg",
    "image/tiff": ".tiff .tif",
    "text/calendar": ".ics",
    "text/csv": ".csv",
    "text/html": ".html .htm",
    "text/markdown": ".md",
    "text/vcard": ".vcf",
    "video/quicktime": ".mov .qt",
    "video/webm": ".webm",
    "video/x-matroska": ".mkv",
    "video/x-msvideo": ".avi",
}
_ARCHIVES: Final = ("application/gzip", "application/vnd.rar", "application/x-7z-compressed", ZIP)
_TEXTS: Final = ("application/json", "application/xml", "text")
_FIXES: Final = {
    "application": "export it as PDF, if it is a document",
    "application/octet-stream": "pass its mime_type if you know it to be one of these",
    OLE: "name it .doc, .xls or .ppt, or pass its mime_type, if it is one of them",
    "audio": "convert it to MP3, or to mono Opus in Ogg",
    "image": "convert it to JPEG or PNG",
    "image/gif": "convert it to MP4, or to PNG if it does not move",
    "video": "convert it to MP4 with H.264 and AAC",
    "video/webm": "convert it to MP4 with H.264 and AAC or, if it is only sound, to mono Opus in Ogg",
    **dict.fromkeys(_ARCHIVES, "send the files inside it one by one"),
    **dict.fromkeys(_TEXTS, 'pass mime_type="text/plain" and a name ending in .txt to send it as text'),
}
_NEAREST_KIND: Final[dict[str, Kind]] = {"audio": "audio", "image": "image", "video": "video"}
_EXTENSIONS: Final = {mime_type: row.extensions for mime_type, row in ACCEPTED.items()} | {
    mime_type: tuple(extensions.split()) for mime_type, extensions in _OTHERS.items()
}
_BY_EXTENSION: Final = {extension: mime_type for mime_type, names in _EXTENSIONS.items() for extension in names}

# What browsers, phones, libmagic and Windows call these types.
_ALIASES: Final = {
    alias: mime_type
    for mime_type, aliases in {
        "application/gzip": ("application/x-gzip",),
        "application/msword": ("application/vnd.ms-word", "application/x-msword"),
        "application/octet-stream": ("application/x-download", "binary/octet-stream"),
        "application/pdf": ("application/x-pdf",),
        "application/rtf": ("application/x-rtf", "text/richtext", "text/rtf"),
        "application/vnd.ms-excel": ("application/msexcel", "application/x-msexcel"),
        "application/xml": ("text/xml",),
        ZIP: ("application/x-zip", "application/x-zip-compressed"),
        "audio/aac": ("audio/aacp", "audio/vnd.dlna.adts", "audio/x-aac", "audio/x-hx-aac-adts"),
        "audio/amr": ("audio/amr-nb", "audio/x-amr"),
        "audio/mp4": ("audio/m4a", "audio/mp4a-latm", "audio/x-m4a", "audio/x-mp4"),
        "audio/mpeg": ("audio/mp3", "audio/mpeg3", "audio/mpg", "audio/x-mp3", "audio/x-mpeg", "audio/x-mpeg-3"),
        "audio/ogg": ("application/ogg", "audio/opus", "audio/x-ogg", "audio/x-opus+ogg"),
        "audio/wav": ("audio/vnd.wave", "audio/wave", "audio/x-wav"),
        "image/jpeg": ("image/jpg", "image/pjpeg"),
        "image/png": ("image/x-png",),
        "text/csv": ("application/csv", "text/comma-separated-values", "text/x-csv"),
        "video/3gpp": ("video/3gp",),
        "video/mp4": ("video/x-m4v",),
    }.items()
    for alias in aliases
}

# RFC 9110, 8.3.1 and 5.6: ASCII only. The quantifiers are possessive, so a hostile header cannot make it backtrack.
_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_QUOTED: Final = r'"(?:[\t !#-\[\]-~]|\\[\t -~])*+"'
_PARAMETER: Final = rf"[ \t]*+;[ \t]*+(?:{_WORD}=(?:{_WORD}|{_QUOTED}))?+"
_MIME_TYPE: Final = re.compile(rf"({_WORD}/{_WORD})(?:{_PARAMETER})*+")


@attrs.frozen(kw_only=True)
class Inspection:
    """
    What `examine` decided.

    Attributes:
        mime_type: Normalised, ready for the Content-Type of the file part.
        kind: The message type that shows it.
        max_size: Bytes allowed: 100 KiB for a still sticker, 500 KiB for an animated one.
    """

    mime_type: str
    kind: Kind
    max_size: int


def normalise(mime_type: str) -> str:
    """
    Return a MIME type in Meta's spelling: lower-case, without parameters, aliases such as `image/jpg` resolved.

    Args:
        mime_type: A Content-Type value, such as `audio/ogg; codecs=opus`.

    Raises:
        UnsupportedMediaTypeError: It does not follow the grammar of RFC 9110.
    """
    match = _MIME_TYPE.fullmatch(mime_type)
    if match is None:
        message = f"{_shown(mime_type)} is not a MIME type: pass type/subtype in ASCII, such as image/jpeg."
        raise UnsupportedMediaTypeError(message, limit="type/subtype", actual=mime_type)
    essence = match[1].lower()
    return _ALIASES.get(essence, essence)


def extension_for(mime_type: str) -> str | None:
    """Return the preferred extension, such as `.jpg`, for an accepted or common inbound type; None for any other."""
    return next(iter(_EXTENSIONS.get(_hinted(mime_type) or "", ())), None)


def inspect_media(
    head: bytes,
    *,
    filename: str | None = None,
    mime_type: str | None = None,
    hint: str | None = None,
    validate: bool = True,
    complete: bool = False,
) -> Inspection:
    """
    Decide what a file is sent as, and refuse what WhatsApp is known to refuse.

    Args:
        head: The first `HEAD_SIZE` bytes, or all of a smaller file.
        filename: Its name, whose extension counts where the bytes leave a choice.
        mime_type: What the caller says it is, which wins but must not contradict the bytes.
        hint: A type from elsewhere, such as a browser's Content-Type, which counts last.
        validate: Whether to check; without it only a malformed `mime_type` raises, and every size to 100 MiB is allowed.
        complete: Whether `head` is the whole file.

    Raises:
        CorruptedMediaError: The file is empty, or its bytes are not of the type it is said to be.
        UnsupportedMediaTypeError: Its type, or this variant of it, is not accepted, or is not the one the caller said.
    """
    said = None if mime_type is None else normalise(mime_type)
    signature = sniff(head, complete)
    is_text = signature is None and looks_like_text(head, complete)
    _, dot, extension = (filename or "").rpartition(".")
    found = _found(signature, (_BY_EXTENSION.get(dot + extension.lower()), _hinted(hint)), is_text=is_text)
    decided = said or found
    kind = _kind(decided)
    if not validate:
        return Inspection(mime_type=decided, kind=kind, max_size=MAX_SIZE)
    if not head:
        raise _empty(filename, kind)
    subject = _subject(filename)
    if decided not in ACCEPTED:
        right = found if signature and found in ACCEPTED else None
        fix = f'pass mime_type="{right}", which its bytes are' if right else _fix(decided)
        message = f"{subject} is {_shown(decided)}, but WhatsApp takes {_ALLOWED}: {fix}."
        raise UnsupportedMediaTypeError(message, kind=kind, limit=_ALLOWED, actual=decided)
    if signature is not None:
        _check_signature(subject, decided, found, signature)
    else:
        _check_unsigned(subject, decided, is_text=is_text)
    still = kind == "sticker" and not (signature and signature.animated)
    return Inspection(
        mime_type=decided, kind=kind, max_size=_STILL_STICKER_SIZE if still else ACCEPTED[decided].max_size
    )


def check_size(inspection: Inspection, size: int, *, filename: str | None = None) -> None:
    """
    Refuse a file that is empty or larger than WhatsApp takes.

    Args:
        inspection: What `examine` said of its head.
        size: Bytes in the whole file.
        filename: Its name, for the message.

    Raises:
        CorruptedMediaError: There are no bytes.
        FileTooLargeError: There are more than `examined.max_size`.
    """
    if size == 0:
        raise _empty(filename, inspection.kind)
    if size > inspection.max_size:
        found = f"{_subject(filename)} has {size:,} bytes of {inspection.mime_type}"
        message = f"{found}, but WhatsApp takes at most {inspection.max_size:,}: compress it, cut it or split it."
        raise FileTooLargeError(message, kind=inspection.kind, limit=inspection.max_size, actual=size)


def _found(signature: Signature | None, claims: tuple[str | None, ...], *, is_text: bool) -> str:
    """Return what a file is when nobody said: its signature's type, among several the claimed one, or else the claim."""
    if signature is not None:
        return next((claim for claim in claims if claim in signature.candidates), signature.candidates[0])
    return next(filter(None, claims), "text/plain" if is_text else "application/octet-stream")


def _check_signature(subject: str, decided: str, found: str, signature: Signature) -> None:
    """Refuse bytes that are of another type than was decided, or a variant that WhatsApp does not take."""
    kind = _kind(decided)
    if decided not in signature.candidates:
        fix = f'pass mime_type="{found}" or send the right file' if found in ACCEPTED else _fix(found)
        message = f"{subject} was declared {decided}, but the bytes are {found}: {fix}."
        raise UnsupportedMediaTypeError(message, kind=kind, limit=decided, actual=found)
    if (flaw := signature.flaw) is not None:
        message = f"{subject} is {flaw.found}, but WhatsApp takes {flaw.allowed}: {flaw.fix}."
        raise UnsupportedMediaTypeError(message, kind=kind, limit=flaw.allowed, actual=flaw.found)


def _check_unsigned(subject: str, decided: str, *, is_text: bool) -> None:
    """Refuse bytes without any signature for a type that always has one, and anything that is not text for text."""
    found = "UTF-8 text" if is_text else "data without a known signature"
    if decided == "text/plain":
        fits, allowed, fix = is_text, "UTF-8 text", "save it as UTF-8"
    else:
        fits, allowed, fix = decided in _LATE and not is_text, decided, "send the original file whole"
    if not fits:
        message = f"{subject} should be {allowed}, but its bytes are {found}: {fix}, or pass its real mime_type."
        raise CorruptedMediaError(message, kind=_kind(decided), limit=allowed, actual=found)


def _empty(filename: str | None, kind: Kind) -> CorruptedMediaError:
    message = f"{_subject(filename)} is empty, but WhatsApp takes files of at least 1 byte: send one that has content."
    return CorruptedMediaError(message, kind=kind, limit=1, actual=0)


def _hinted(mime_type: str | None) -> str | None:
    """Normalise a type that may be missing, malformed or say nothing, all of which make None."""
    try:
        hinted = normalise(mime_type or "")
    except UnsupportedMediaTypeError:
        return None
    return None if hinted == "application/octet-stream" else hinted


def _kind(mime_type: str) -> Kind:
    """Return the kind of an accepted type, or the one that a type not accepted comes nearest to."""
    row = ACCEPTED.get(mime_type)
    return row.kind if row else _NEAREST_KIND.get(mime_type.partition("/")[0], "document")


def _fix(mime_type: str) -> str:
    return _FIXES.get(mime_type) or _FIXES.get(mime_type.partition("/")[0], "convert it to one of these")


def _subject(filename: str | None) -> str:
    return "The file" if filename is None else _shown(re.split(r"[/\\]", filename)[-1])


def _shown(text: str) -> str:
    """Quote a stranger's text for a message: escaped, and no longer than a line."""
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
