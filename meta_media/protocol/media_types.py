"""
The media types that WhatsApp accepts, and the decision which of them a file is.

Meta takes the type from the Content-Type of the form's file part. It checks the bytes only after a message was sent, and
reports a wrong type hours later, by webhook. So `inspect_media` refuses, before the upload, everything that Meta is known to
refuse. It decides by these sources, in this order: the caller's `mime_type`, which the bytes must not contradict; the
signature in the bytes (`signatures`); the extension of the name; a hint, such as a browser's Content-Type. The result is the
same on every machine, because neither `mimetypes` nor libmagic is used.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

import attrs

from meta_media.errors import CorruptedMediaError, FileTooLargeError, UnsupportedMediaTypeError
from meta_media.protocol import documents
from meta_media.protocol.documents import DOC, DOCX, PPT, PPTX, XLS, XLSX, looks_like_text
from meta_media.protocol.formats import REPACKAGE, Signature
from meta_media.protocol.secrets import excerpt, redacted
from meta_media.protocol.signatures import sniff

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
    "kind_of",
    "named_type",
    "normalise",
    "stated_type",
    "subject",
]

Kind = Literal["audio", "document", "image", "sticker", "video"]

# Meta does not say whether its MB is 10^6 or 2^20 bytes. Peer libraries use 2^20: a file too many is better than one too few.
_KB, _MB = 2**10, 2**20

HEAD_SIZE: Final = 65536  # bytes; nearly always reaches past a JPEG's first EXIF segment, which is at most this large
MAX_SIZE: Final = 100 * _MB  # the largest upload of any kind


@attrs.frozen(kw_only=True)
class MediaType:
    """A row of Meta's table of supported media types."""

    mime_type: str  # in Meta's spelling
    kind: Kind  # of the message that shows it
    extensions: tuple[str, ...]  # with their dot, the preferred one first
    max_size: int  # bytes


# developers.facebook.com/documentation/business-messaging/whatsapp/business-phone-numbers/media, "Supported media types".
# After the type: its extensions, then its aliases, which are the names that browsers, phones, libmagic and Windows use.
_MAX_SIZES: Final[dict[Kind, int]] = {
    "audio": 16 * _MB,
    "document": 100 * _MB,
    "image": 5 * _MB,
    "sticker": 500 * _KB,
    "video": 16 * _MB,
}
_ROWS: Final[dict[Kind, tuple[str, ...]]] = {
    "audio": (
        "audio/aac .aac .adts audio/aacp audio/vnd.dlna.adts audio/x-aac audio/x-hx-aac-adts",
        "audio/amr .amr audio/amr-nb audio/x-amr",
        "audio/mp4 .m4a .m4b audio/m4a audio/mp4a-latm audio/x-m4a audio/x-mp4",
        "audio/mpeg .mp3 audio/mp3 audio/mpeg3 audio/mpg audio/x-mp3 audio/x-mpeg audio/x-mpeg-3",
        "audio/ogg .ogg .oga .opus application/ogg audio/opus audio/x-ogg audio/x-opus+ogg",
    ),
    "document": (
        "application/pdf .pdf application/x-pdf",
        f"{DOC} .doc .dot application/vnd.ms-word application/x-msword",
        f"{DOCX} .docx",
        f"{PPT} .ppt .pps",
        f"{PPTX} .pptx",
        f"{XLS} .xls .xlt application/msexcel application/x-msexcel",
        f"{XLSX} .xlsx",
        "text/plain .txt .text .log",
    ),
    "image": ("image/jpeg .jpg .jpeg .jpe .jfif image/jpg image/pjpeg", "image/png .png image/x-png"),
    "sticker": ("image/webp .webp",),
    "video": ("video/3gpp .3gp .3gpp video/3gp", "video/mp4 .mp4 .m4v video/x-m4v"),
}
# Types that WhatsApp does not accept but users send or receive, in the same form.
_OTHERS: Final = (
    *documents.OTHER_TYPES,
    "application/octet-stream application/x-download binary/octet-stream",
    "audio/ac3 .ac3 audio/x-ac3",
    "audio/aiff .aiff .aif .aifc audio/x-aiff",
    "audio/amr-wb .awb",
    "audio/basic .au .snd audio/x-au",
    "audio/flac .flac audio/x-flac",
    "audio/midi .mid .midi audio/x-midi",
    "audio/silk .silk",
    "audio/wav .wav audio/vnd.wave audio/wave audio/x-wav",
    "audio/x-caf .caf",
    "audio/x-ms-wma .wma",
    "audio/x-wavpack .wv",
    "image/avif .avif",
    "image/bmp .bmp",
    "image/gif .gif",
    "image/heic .heic .heif",
    "image/jp2 .jp2 .j2k .jpf .jpx",
    "image/jxl .jxl",
    "image/svg+xml .svg",
    "image/tiff .tiff .tif",
    "image/vnd.adobe.photoshop .psd",
    "image/vnd.microsoft.icon .ico .cur image/x-icon",
    "image/x-portable-anymap .pnm .pbm .pgm .ppm",
    "video/3gpp2 .3g2",
    "video/mp2t .m2ts",  # the bytes decide about .ts, which is TypeScript, too
    "video/mpeg .mpg .mpeg .vob",
    "video/ogg .ogv .ogm",
    "video/quicktime .mov .qt",
    "video/webm .webm",
    "video/x-flv .flv",
    "video/x-matroska .mkv",
    "video/x-ms-wmv .wmv .asf video/x-ms-asf",
    "video/x-msvideo .avi",
)
_NAMES: Final = {row.split()[0]: row.split()[1:] for row in (*itertools.chain(*_ROWS.values()), *_OTHERS)}
_EXTENSIONS: Final = {mime: tuple(name for name in names if name[0] == ".") for mime, names in _NAMES.items()}
_TYPES: Final = {name: mime_type for mime_type, names in _NAMES.items() for name in names}  # by extension or alias

ACCEPTED: Final[Mapping[str, MediaType]] = MappingProxyType(
    {
        mime: MediaType(mime_type=mime, kind=kind, extensions=_EXTENSIONS[mime], max_size=_MAX_SIZES[kind])
        for kind, rows in _ROWS.items()
        for mime in (row.split()[0] for row in rows)
    }
)
_STILL_STICKER_SIZE: Final = 100 * _KB  # maximum
_SMALLER: Final = {  # what to do about a file that is too large, by its kind
    "audio": "encode it at a lower bit rate, or cut it",
    "document": "compress or split it",
    "image": "save it smaller",
    "still": "convert it to JPEG or PNG to send it as an image, or save it smaller",
    "sticker": "save it smaller, or with fewer frames",
    "video": "encode it at a lower bit rate, or cut it",
}
_ALLOWED: Final = (
    "AAC, AMR, MP3, M4A or mono Opus audio; PDF, Office or UTF-8 text; JPEG or PNG; WebP stickers; MP4 or 3GP"
)
# What to do about a type that is not accepted, by the type or by its first half.
_FIXES: Final = {
    **documents.FIXES,
    "application/octet-stream": "pass its mime_type, if it is one of these",
    "audio": "convert it to MP3, or to mono Opus in Ogg",
    "image": "convert it to JPEG or PNG",
    "image/gif": "convert it to MP4, or to PNG if it does not move",
    "video": "convert it to MP4 with H.264 and AAC",
    **dict.fromkeys(
        ("audio/webm", "video/webm", "video/x-matroska"),
        f"convert it to MP4 with H.264 and AAC or, if it is only sound, {REPACKAGE}",
    ),
}
_NEAREST_KIND: Final[dict[str, Kind]] = {"audio": "audio", "image": "image", "video": "video"}

# RFC 9110, 8.3.1 and 5.6, ASCII only. The quantifiers are possessive, so that a hostile header cannot cause backtracking.
_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_QUOTED: Final = r'"(?:[\t !#-\[\]-~]|\\[\t -~])*+"'
_PARAMETER: Final = rf"[ \t]*+;[ \t]*+(?:{_WORD}=(?:{_WORD}|{_QUOTED}))?+"
_MIME_TYPE: Final = re.compile(rf"({_WORD}/{_WORD})(?:{_PARAMETER})*+")


@attrs.define(kw_only=True)  # never changed; a frozen one takes twice the time to make
class Inspection:
    """The decision of `inspect_media`."""

    mime_type: str  # normalised, for the Content-Type of the file part
    kind: Kind  # of the message that shows it
    max_size: int  # bytes; 100 KiB for a still sticker, 500 KiB for an animated one
    remarks: tuple[str, ...] = ()  # sentences on what is accepted but may not play, or could not be seen


def kind_of(mime_type: str) -> Kind:
    """Return the kind of message for a type. Types that WhatsApp does not accept, but that people receive, go as documents."""
    row = ACCEPTED.get(stated_type(mime_type) or "")
    return row.kind if row else "document"


def normalise(mime_type: str) -> str:
    """
    Return a Content-Type value in Meta's spelling: lower case, without parameters, aliases such as `image/jpg` replaced.

    A value outside the grammar of RFC 9110 raises `UnsupportedMediaTypeError`.
    """
    if mime_type in ACCEPTED:
        return mime_type
    match = _MIME_TYPE.fullmatch(mime_type)
    if match is None:
        message = f"{excerpt(mime_type)} is not a MIME type: pass type/subtype in ASCII, such as image/jpeg"
        raise UnsupportedMediaTypeError(message, limit="type/subtype", actual=redacted(mime_type))
    essence = match[1].lower()
    return _TYPES.get(essence, essence)


def extension_for(mime_type: str) -> str | None:
    """Return the preferred extension, such as `.jpg`, of an accepted or common type; None for any other."""
    found = _EXTENSIONS.get(mime_type) or _EXTENSIONS.get(stated_type(mime_type) or "")
    return found[0] if found else None


def named_type(filename: str) -> str | None:
    """Return the type that the extension of a name stands for; None for an unknown or missing one."""
    _, dot, extension = filename.rpartition(".")
    return _TYPES.get(dot + extension.lower()) if dot else None


def inspect_media(
    head: bytes,
    *,
    filename: str | None = None,
    mime_type: str | None = None,
    hint: str | None = None,
    validate: bool = True,
    complete: bool = False,
    signature: Signature | None = None,
) -> Inspection:
    """
    Decide the type of a file, and refuse a file that WhatsApp is known to refuse.

    `head` is the first `HEAD_SIZE` bytes; `complete` states that it is the whole file. `signature` is what `sniff_steps` read
    of the whole file; by default it is what the head shows. Without `validate`, only a malformed `mime_type` raises, and the
    maximum is 100 MiB.

    Raises:
        CorruptedMediaError: The file is empty, or its bytes cannot be of its type.
        UnsupportedMediaTypeError: Its type, or this variant of it, is not accepted, or contradicts `mime_type`.
    """
    declared = None if mime_type is None else normalise(mime_type)
    signature = signature or sniff(head, complete)
    is_text = signature is None and looks_like_text(head, complete)
    found = _found(signature, (named_type(filename or ""), hint and stated_type(hint)), is_text=is_text)
    decided = declared or found
    kind = _kind(decided)
    if not validate:
        return Inspection(mime_type=decided, kind=kind, max_size=MAX_SIZE)
    if not head:
        raise _empty(filename, kind)
    if decided not in ACCEPTED and not (signature and signature.flaw):
        right = found if signature and found in ACCEPTED else None
        fix = f'pass mime_type="{right}", which its bytes are' if right else _fix(decided)
        if signature is None and declared is None and REPACKAGE in fix:  # only its name says what it is
            fix = "send the complete original file, or pass its real mime_type"
        message = f"{subject(filename)} is {excerpt(decided)}, but WhatsApp accepts {_ALLOWED}: {fix}"
        raise UnsupportedMediaTypeError(message, kind=kind, limit=_ALLOWED, actual=decided)
    if signature is not None:
        _check_signature(filename, decided, found, signature)
    else:
        _check_unsigned(filename, decided, head, is_text=is_text)
    still = kind == "sticker" and not (signature and signature.animated)
    return Inspection(
        mime_type=decided,
        kind=kind,
        max_size=_STILL_STICKER_SIZE if still else ACCEPTED[decided].max_size,
        remarks=signature.remarks if signature else (),
    )


def check_size(inspection: Inspection, size: int, *, filename: str | None = None) -> None:
    """Refuse a file whose `size` in bytes is 0 (`CorruptedMediaError`) or above the maximum (`FileTooLargeError`)."""
    if size == 0:
        raise _empty(filename, inspection.kind)
    if size > inspection.max_size:
        found = f"{subject(filename)} has {size:,} bytes of {inspection.mime_type}"
        fix = _SMALLER["still" if inspection.max_size == _STILL_STICKER_SIZE else inspection.kind]
        message = f"{found}, but WhatsApp accepts at most {inspection.max_size:,}: {fix}"
        raise FileTooLargeError(message, kind=inspection.kind, limit=inspection.max_size, actual=size)


def _found(signature: Signature | None, claims: tuple[str | None, ...], *, is_text: bool) -> str:
    """Return the type of an undeclared file: the signature's, of several the claimed one; without a signature the claim."""
    if signature is not None:
        found = signature.candidates
        return found[0] if len(found) == 1 else next((claim for claim in claims if claim in found), found[0])
    return next(filter(None, claims), "text/plain" if is_text else "application/octet-stream")


def _check_signature(filename: str | None, decided: str, found: str, signature: Signature) -> None:
    """Refuse bytes of a variant that WhatsApp accepts as no type, or of another type than the decided one."""
    if (flaw := signature.flaw) is not None:
        message = f"{subject(filename)} is {flaw.found}, but WhatsApp accepts {flaw.allowed}: {flaw.fix}"
        raise UnsupportedMediaTypeError(message, kind=_kind(decided), limit=flaw.allowed, actual=flaw.found)
    if decided not in signature.candidates:
        fix = f'pass mime_type="{found}" or send the right file' if found in ACCEPTED else _fix(found)
        message = f"{subject(filename)} was declared {decided}, but the bytes are {found}: {fix}"
        raise UnsupportedMediaTypeError(message, kind=_kind(decided), limit=decided, actual=found)


def _check_unsigned(filename: str | None, decided: str, head: bytes, *, is_text: bool) -> None:
    """Refuse bytes without a signature for a type that always has one, and binary data for text."""
    found = documents.text_format(head) if is_text else "data without a known signature"
    if decided == "text/plain":
        fits, allowed, fix = is_text, "UTF-8 text", "save it as UTF-8"
        found = found if b"\0" in head else "text of another encoding"
    else:
        fits, allowed, fix = False, decided, "send the complete original file"
    if is_text:
        fix = documents.TEXT_FIXES.get(decided, fix)
    if not fits:
        message = (
            f"{subject(filename)} should be {allowed}, but its bytes are {found}: {fix}, or pass its real mime_type"
        )
        raise CorruptedMediaError(message, kind=_kind(decided), limit=allowed, actual=found)


def _empty(filename: str | None, kind: Kind) -> CorruptedMediaError:
    message = f"{subject(filename)} is empty, but WhatsApp accepts files of at least 1 byte: send one with content"
    return CorruptedMediaError(message, kind=kind, limit=1, actual=0)


def stated_type(mime_type: str | None) -> str | None:
    """Return a normalised type; None for one that is missing, malformed or meaningless."""
    if not mime_type:
        return None
    try:
        hinted = normalise(mime_type)
    except UnsupportedMediaTypeError:
        return None
    return None if hinted == "application/octet-stream" else hinted


def _kind(mime_type: str) -> Kind:
    """Return the kind of an accepted type, or the nearest kind of any other."""
    row = ACCEPTED.get(mime_type)
    return row.kind if row else _NEAREST_KIND.get(mime_type.partition("/")[0], "document")


def _fix(mime_type: str) -> str:
    return _FIXES.get(mime_type) or _FIXES.get(mime_type.partition("/")[0], "convert it to one of these")


def subject(filename: str | None) -> str:
    """Return what a sentence calls a file: its name without folders, if it has one."""
    return excerpt(re.split(r"[/\\]", redacted(filename))[-1]) if filename else "the file"
