"""
File types by the first bytes of a file, the head.

`sniff_steps` returns all types that the bytes may be. One candidate is certain. Several are a family, such as an Office container
whose contents lie beyond the head, or an MP4 of a generic brand: the name or the caller must choose, and the first candidate
is the likeliest. A `Flaw` is a variant that WhatsApp is known not to accept. Heads are untrusted: every read is a slice, every
loop moves forward, and unreadable data is no reason to refuse a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from meta_media.protocol.documents import XLS, ZIP, ole, or_text, utf_16, zip_archive
from meta_media.protocol.formats import Signature, Steps, head_only
from meta_media.protocol.images import jpeg, png, webp
from meta_media.protocol.mp4 import iso_media
from meta_media.protocol.sound import ADTS_FRAME, MP3_FRAME, behind_tags, frames, ogg

__all__ = ["sniff", "sniff_steps"]


_Reader = Callable[[bytes, bool], Signature | Steps[Signature] | None]


def _is(*candidates: str) -> _Reader:
    signature = Signature(candidates=candidates)
    return lambda _head, _complete: signature


def _ebml(head: bytes, _complete: bool) -> Signature:
    webm = b"webm" in head[:64]  # the DocType, early in the header (RFC 8794, 11.2)
    return Signature(candidates=("video/webm", "audio/webm") if webm else ("video/x-matroska",))


def _tagged(head: bytes, _complete: bool) -> Steps[Signature]:
    """Decide by the sound behind ID3 tags. A cover often fills the whole head."""
    found = sniff((yield from behind_tags(head)), complete=False)
    is_sound = found is not None and found.candidates[0].startswith("audio/")
    return found if found and is_sound else Signature(candidates=("audio/mpeg", "audio/aac"))


_SIGNATURES: Final[tuple[tuple[bytes, _Reader], ...]] = (  # the first pattern that fits decides
    (rb"\xff\xd8\xff", jpeg),
    (rb"\x89PNG\r\n\x1a\n", png),
    (rb"RIFF....WEBP", webp),
    (rb"OggS\x00", ogg),
    (rb"\x00\x00..ftyp.{4}", iso_media),
    (rb"[\x00-\x07]...(?:mdat|moov|wide)", _is("video/quicktime")),  # without ftyp; the first byte excludes text
    (rb"ID3[\x02-\x04][^\xff].[\x00-\x7f]{4}", _tagged),
    (MP3_FRAME, _is("audio/mpeg")),
    (ADTS_FRAME, _is("audio/aac")),
    (rb"#!AMR\n", _is("audio/amr")),
    (rb"#!AMR-WB\n", _is("audio/amr-wb")),
    (rb"%PDF-", _is("application/pdf")),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", ole),
    (rb"\x09[\x00\x02\x04\x08][\x04\x06\x08]\x00..[\x05\x10\x20\x40]\x00", _is(XLS)),  # BIFF, of Excel 2 to 4
    (rb"PK\x03\x04", zip_archive),
    (rb"PK\x05\x06", _is(ZIP)),
    (rb"GIF8[79]a", or_text("image/gif")),
    (rb"RIFF....WAVE|RF64....WAVE", _is("audio/wav")),
    (rb"RIFF....AVI ", _is("video/x-msvideo")),
    (rb"\x1a\x45\xdf\xa3", _ebml),
    (rb"fLaC", or_text("audio/flac")),
    (rb"FORM....AIF[FC]", _is("audio/aiff")),
    (rb"caff\x00\x01", _is("audio/x-caf")),
    (rb"\.snd\x00", _is("audio/basic")),
    (rb"\x0b\x77", _is("audio/ac3")),
    (rb"MThd\x00", _is("audio/midi")),
    (rb"\x02?#!SILK_V", _is("audio/silk")),
    (rb"wvpk", _is("audio/x-wavpack")),
    (rb"0&\xb2u\x8ef\xcf\x11.*\xc0\xef\x19\xbcM\x5b\xcf\x11", _is("video/x-ms-wmv")),  # a stream of video
    (rb"0&\xb2u\x8ef\xcf\x11", _is("audio/x-ms-wma")),
    (rb"FLV\x01", _is("video/x-flv")),
    (rb"\x00\x00\x01[\xb3\xba]", _is("video/mpeg")),
    (rb"(?:.{4})?G.{187}(?:.{4})?G.{187}(?:.{4})?G.{187}(?:.{4})?G", or_text("video/mp2t")),
    (rb"BM.{4}\x00{4}", _is("image/bmp")),
    (rb"II[*+]\x00|MM\x00[*+]", _is("image/tiff")),
    (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", _is("image/jp2")),
    (rb"\x00\x00\x00\x0cJXL |\xff\x0a", _is("image/jxl")),
    (rb"\x00\x00[\x01\x02]\x00[^\x00]\x00", _is("image/vnd.microsoft.icon")),
    (rb"P[4-6]\s+(?:#[^\n]*\n\s*)*\d+\s+\d+\s", or_text("image/x-portable-anymap")),
    (rb"8BPS\x00", _is("image/vnd.adobe.photoshop")),
    (rb"\{\\rtf", _is("application/rtf")),
    (rb"\x1f\x8b\x08", _is("application/gzip")),
    (rb"Rar!\x1a\x07", _is("application/vnd.rar")),
    (rb"7z\xbc\xaf\x27\x1c", _is("application/x-7z-compressed")),
    (rb"%!PS|\xc5\xd0\xd3\xc6", _is("application/postscript")),
    (rb"\xff\xfe|\xfe\xff", utf_16),
    (rb".{1,1023}?%PDF-", or_text("application/pdf")),  # PDF readers accept bytes before the header
    (rb"", frames),
)
_ANY: Final = re.compile(b"|".join(b"(%b)" % pattern for pattern, _ in _SIGNATURES), re.DOTALL)  # one group for each


def sniff_steps(head: bytes, complete: bool) -> Steps[Signature | None]:
    """Return the signature of a file, or None. `complete` says that `head` is the whole file. For the steps see `formats`."""
    match = _ANY.match(head)
    found = _SIGNATURES[match.lastindex - 1][1](head, complete) if match and match.lastindex else None
    return found if found is None or isinstance(found, Signature) else (yield from found)


def sniff(head: bytes, complete: bool) -> Signature | None:
    """Return the signature of a file, as far as `head` shows it."""
    return head_only(sniff_steps(head, complete), head)
