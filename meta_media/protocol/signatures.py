"""
File types by the first bytes of a file, the head.

`sniff_steps` returns all types that the bytes may be. One candidate is certain. Several are a family, such as an Office container
whose contents lie beyond the head, or an MP4 of a generic brand: the name or the caller must choose, and the first candidate
is the likeliest. A `Flaw` is a variant that WhatsApp is known not to accept. Heads are untrusted: every read is a slice, every
loop moves forward, and unreadable data is no reason to refuse a file.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from typing import Final

from meta_media.protocol.formats import Flaw, PartialFile, Signature, Steps, head_only
from meta_media.protocol.mp4 import Movie

__all__ = ["looks_like_text", "sniff", "sniff_steps"]

DOC: Final = "application/msword"
XLS: Final = "application/vnd.ms-excel"
PPT: Final = "application/vnd.ms-powerpoint"
DOCX: Final = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
XLSX: Final = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
PPTX: Final = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
OLE: Final = "application/x-ole-storage"
ZIP: Final = "application/zip"


_Reader = Callable[[bytes, bool], Signature | Steps[Signature]]


def _number(head: bytes, start: int, size: int) -> int:
    """Read a little-endian number. Bytes beyond the head read as zero."""
    return int.from_bytes(head[start : start + size], "little")


def _is(*candidates: str) -> _Reader:
    signature = Signature(candidates=candidates)
    return lambda _head, _complete: signature


# Meta's Media page: images are "8-bit, RGB or RGBA". Only a certain contradiction is refused: more bits, and CMYK.
# Greyscale and palette images have at most 8 bits and decode to RGB; no report says that Meta refuses them.
_RGB: Final = "8-bit RGB or RGBA images"


def _image_flaw(found: str) -> Flaw:
    return Flaw(found=found, allowed=_RGB, fix="save it as 8-bit RGB")


def _jpeg(head: bytes, _complete: bool) -> Steps[Signature]:
    """Walk the segments to the frame header (ITU T.81, B.2.2), which has the precision and the components."""
    file, flaw, offset = PartialFile(head), None, 2
    while (segment := (yield from file.at(offset, 10)))[:1] == b"\xff":
        marker = _number(segment, 1, 1)
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:  # SOFn; the three are DHT, JPG and DAC
            precision, components = _number(segment, 4, 1), _number(segment, 9, 1)
            if precision > 8:
                flaw = _image_flaw(f"a JPEG of {precision} bits per channel")
            elif components == 4:
                flaw = _image_flaw("a CMYK JPEG")
            break
        if marker == 0xDA:  # the scan: entropy-coded data follows
            break
        # 0xFF before a marker is padding. Other segments have a big-endian length, which includes its own two bytes.
        offset += 1 if marker == 0xFF else 2 + int.from_bytes(segment[2:4], "big")
    return Signature(candidates=("image/jpeg",), flaw=flaw)


def _png(head: bytes, _complete: bool) -> Signature:
    """Read the bit depth: the ninth byte of IHDR, which is always the first chunk (W3C PNG, 11.2.1)."""
    deep = head[12:16] == b"IHDR" and head[24:25] == b"\x10"
    return Signature(candidates=("image/png",), flaw=_image_flaw("a PNG of 16 bits per channel") if deep else None)


def _webp(head: bytes, _complete: bool) -> Signature:
    """Read the animation flag, which only the extended header has (RFC 9649, 2.7)."""
    return Signature(candidates=("image/webp",), animated=head[12:16] == b"VP8X" and bool(_number(head, 20, 1) & 0x02))


_OGG_CODECS: Final = ((b"\x01vorbis", "Vorbis"), (b"\x7fFLAC", "FLAC"), (b"Speex", "Speex"))


def _ogg(head: bytes, _complete: bool) -> Signature:
    """Read the first packet of the first page (RFC 3533, 6): "OpusHead", then a version and the channels (RFC 7845, 5.1)."""
    start = 27 + _number(head, 26, 1)
    packet = head[start : start + 10]
    if packet.startswith(b"\x80theora"):
        return Signature(candidates=("video/ogg",))
    if packet.startswith(b"OpusHead"):
        channels = _number(packet, 9, 1)
        found = None if channels == 1 else f"Opus of {channels} channels"
    else:
        found = next((codec for magic, codec in _OGG_CODECS if packet.startswith(magic)), "a codec other than Opus")
    # Meta's Media page: "OPUS codecs only; base audio/ogg not supported", mono input only.
    fix = "re-encode it as mono Opus (ffmpeg -c:a libopus -ac 1)"
    flaw = Flaw(found=f"Ogg with {found}", allowed="mono Opus in Ogg", fix=fix) if found else None
    return Signature(candidates=("audio/ogg",), flaw=flaw)


# Major brands that decide the type, from the registry at mp4ra.org. Others ("isom", "mp42", ...) say only how to parse it.
_BRANDS: Final = (
    (re.compile(rb"M4[ABP] |F4A "), "audio/mp4"),
    (re.compile(rb"M4V"), "video/mp4"),
    (re.compile(rb"3g[eghprs]"), "video/3gpp"),
    (re.compile(rb"3g2"), "video/3gpp2"),
    (re.compile(rb"qt  "), "video/quicktime"),
    (re.compile(rb"avi[fs]"), "image/avif"),
    (re.compile(rb"hei[cmsx]|hev[cmsx]|m[is]f1"), "image/heic"),
)
_PLAYED: Final = frozenset({"audio/mp4", "video/3gpp", "video/mp4"})


def _iso_media(head: bytes, _complete: bool) -> Steps[Signature]:
    """Decide by the brands of the first box (ISO/IEC 14496-12, 4.3) and by the tracks, which outrank them."""
    brand, compatible = head[8:12], head[16 : int.from_bytes(head[:4], "big")]
    if brand in {b"mif1", b"msf1"} and b"avif" in compatible:
        brand = b"avif"
    branded = next((mime_type for pattern, mime_type in _BRANDS if pattern.match(brand)), None)
    if branded is not None and branded not in _PLAYED:
        return Signature(candidates=(branded,))
    movie = Movie(head)
    yield from movie.read()
    phone = ("video/3gpp",) if b"3gp" in compatible else ()
    if movie.complete and movie.sound and not movie.video:
        candidates: tuple[str, ...] = ("audio/mp4",)
    elif movie.video:
        candidates = ("video/3gpp",) if branded == "video/3gpp" else ("video/mp4", *phone)
    elif branded is not None:
        candidates = (branded,)
    else:
        both = ("audio/mp4", "video/mp4") if movie.sound or b"M4A " in compatible else ("video/mp4", "audio/mp4")
        candidates = (*both, *phone)
    return Signature(candidates=candidates, flaw=movie.flaw("3GP" if branded == "video/3gpp" else "MP4"))


_MP3_FRAME: Final = rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x00-\xef]"  # sync, a real version, layer III, a real bit rate
_ADTS_FRAME: Final = rb"\xff[\xf0\xf1\xf8\xf9]"  # sync, layer 0 (ISO/IEC 13818-7, 6.2)
_TAGGED: Final = (
    (re.compile(_MP3_FRAME), "audio/mpeg"),
    (re.compile(_ADTS_FRAME), "audio/aac"),
    (re.compile(rb"fLaC"), "audio/flac"),
)


def _id3(head: bytes, _complete: bool) -> Steps[Signature]:
    """Look behind the tag, whose size has seven bits per byte (ID3v2.4, 3.1). Cover art often fills the whole head."""
    size = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    frame = yield from PartialFile(head).at(10 + size, 4)
    for pattern, mime_type in _TAGGED:
        if pattern.match(frame):
            return Signature(candidates=(mime_type,))
    return Signature(candidates=("audio/mpeg", "audio/aac"))


_ZIP_MIME_TYPE: Final = re.compile(rb"PK\x03\x04.{26}mimetype(application/[a-z0-9.+-]{1,100})", re.DOTALL)
_OOXML_PART: Final = re.compile(rb"(word|xl|ppt)[/\\].*\.(?:xml|rels)\Z", re.DOTALL)
_OOXML: Final = {b"word": DOCX, b"xl": XLSX, b"ppt": PPTX}


def _zip_names(head: bytes) -> Iterator[bytes]:
    """Yield the names in the local headers (APPNOTE 4.3.7). It walks them, because a search would enter stored archives."""
    offset = 0
    while head.startswith(b"PK\x03\x04", offset):
        start = offset + 30
        end = start + _number(head, offset + 26, 2)
        yield head[start:end]
        end += _number(head, offset + 28, 2)
        streamed = _number(head, offset + 6, 2) & 0x08  # the size stands after the data
        following = head.find(b"PK\x03\x04", end) if streamed else end + _number(head, offset + 18, 4)
        offset = following if following > offset else len(head)


def _zip(head: bytes, complete: bool) -> Signature:
    if named := _ZIP_MIME_TYPE.match(head):  # the first entry of OpenDocument and EPUB
        return Signature(candidates=(named[1].decode("ascii"),))
    for name in _zip_names(head):
        if part := _OOXML_PART.match(name):
            return Signature(candidates=(_OOXML[part[1]],))
    return Signature(candidates=(ZIP,) if complete else (ZIP, DOCX, XLSX, PPTX))


_OLE_STREAMS: Final = {
    "WordDocument": (DOC,),
    "Workbook": (XLS,),
    "Book": (XLS,),
    "PowerPoint Document": (PPT,),
    "EncryptedPackage": (OLE, DOCX, XLSX, PPTX),  # a .docx, .xlsx or .pptx with a password (MS-OFFCRYPTO 2.3.4)
}


def _ole_directory(head: bytes) -> list[bytes]:
    """Follow the directory's sectors through the allocation table (MS-CFB 2.3), as far as the head has both."""
    shift = _number(head, 30, 2)
    if shift not in {9, 12}:
        return []
    entries: list[bytes] = []
    sector = _number(head, 48, 4)
    for _ in range(len(head) >> shift):  # a chain longer than the head is a loop
        start = (sector + 1) << shift
        if start >= len(head):
            break
        entries += (head[at : at + 128] for at in range(start, min(start + (1 << shift), len(head)), 128))
        table, row = divmod(sector, 1 << (shift - 2))
        sector = _number(head, ((_number(head, 76 + 4 * table, 4) + 1) << shift) + 4 * row, 4)
    return entries


def _ole(head: bytes, _complete: bool) -> Signature:
    """
    Find the main stream at the root of the directory (MS-CFB 2.6).

    Only the root's own children count, which are a binary tree of left, right and child numbers. A letter with an embedded
    table has a WordDocument there and, deeper, a Workbook.
    """
    entries = _ole_directory(head)
    todo, seen = [_number(entries[0], 76, 4)] if entries else [], set[int]()
    while todo:
        number = todo.pop()
        if number in seen or number >= len(entries):
            continue
        seen.add(number)
        entry = entries[number]
        name = entry[: max(_number(entry, 64, 2) - 2, 0)].decode("utf-16-le", "replace")
        if name in _OLE_STREAMS:
            return Signature(candidates=_OLE_STREAMS[name])
        todo += (_number(entry, 68, 4), _number(entry, 72, 4))
    return Signature(candidates=(OLE, DOC, XLS, PPT))


def _ebml(head: bytes, _complete: bool) -> Signature:
    webm = b"webm" in head[:64]  # the DocType, early in the header (RFC 8794, 11.2)
    return Signature(candidates=("video/webm", "audio/webm") if webm else ("video/x-matroska",))


def _late_pdf(head: bytes, complete: bool) -> Signature:
    """Allow both: PDF readers accept bytes before the header, and text may mention "%PDF-"."""
    text = ("text/plain",) if looks_like_text(head, complete) else ()
    return Signature(candidates=(*text, "application/pdf"))


_SIGNATURES: Final[tuple[tuple[re.Pattern[bytes], _Reader], ...]] = tuple(
    (re.compile(pattern, re.DOTALL), reader)
    for pattern, reader in (
        (rb"\xff\xd8\xff", _jpeg),
        (rb"\x89PNG\r\n\x1a\n", _png),
        (rb"RIFF....WEBP", _webp),
        (rb"OggS\x00", _ogg),
        (rb"\x00\x00..ftyp.{4}", _iso_media),
        (rb"[\x00-\x07]...(?:mdat|moov|wide)", _is("video/quicktime")),  # without ftyp; the first byte excludes text
        (rb"ID3[\x02-\x04][^\xff].[\x00-\x7f]{4}", _id3),
        (_MP3_FRAME, _is("audio/mpeg")),
        (_ADTS_FRAME, _is("audio/aac")),
        (rb"#!AMR\n", _is("audio/amr")),
        (rb"#!AMR-WB\n", _is("audio/amr-wb")),
        (rb"%PDF-", _is("application/pdf")),
        (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", _ole),
        (rb"PK\x03\x04", _zip),
        (rb"PK\x05\x06", _is(ZIP)),
        (rb"GIF8[79]a", _is("image/gif")),
        (rb"RIFF....WAVE|RF64....WAVE", _is("audio/wav")),
        (rb"RIFF....AVI ", _is("video/x-msvideo")),
        (rb"\x1a\x45\xdf\xa3", _ebml),
        (rb"fLaC", _is("audio/flac")),
        (rb"BM.{4}\x00{4}", _is("image/bmp")),
        (rb"II\*\x00|MM\x00\*", _is("image/tiff")),
        (rb"\{\\rtf", _is("application/rtf")),
        (rb"\x1f\x8b\x08", _is("application/gzip")),
        (rb"Rar!\x1a\x07", _is("application/vnd.rar")),
        (rb"7z\xbc\xaf\x27\x1c", _is("application/x-7z-compressed")),
        (rb".{1,1023}?%PDF-", _late_pdf),
    )
)


def sniff_steps(head: bytes, complete: bool) -> Steps[Signature | None]:
    """Return the signature of a file, or None. `complete` says that `head` is the whole file. For the steps see `formats`."""
    found = next((reader(head, complete) for pattern, reader in _SIGNATURES if pattern.match(head)), None)
    return found if found is None or isinstance(found, Signature) else (yield from found)


def sniff(head: bytes, complete: bool) -> Signature | None:
    """Return the signature of a file, as far as `head` shows it."""
    return head_only(sniff_steps(head, complete), head)


_ODD_CONTROLS: Final = bytes(set(range(32)) - {*b"\t\n\v\f\r\x1b"})  # escape colours logs


def looks_like_text(head: bytes, complete: bool) -> bool:
    """Return whether `head` is UTF-8 without odd control characters. An incomplete head may end inside a character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=complete)
    except UnicodeDecodeError:
        return False
    return len(head.translate(None, _ODD_CONTROLS)) == len(head)
