"""Office documents, OpenDocument, PDF and text: what a container holds."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Final

from meta_media.protocol.formats import Signature, number

__all__ = [
    "DOC",
    "DOCX",
    "OLE",
    "PPT",
    "PPTX",
    "XLS",
    "XLSX",
    "ZIP",
    "late_pdf",
    "looks_like_text",
    "ole",
    "zip_archive",
]

DOC: Final = "application/msword"
XLS: Final = "application/vnd.ms-excel"
PPT: Final = "application/vnd.ms-powerpoint"
DOCX: Final = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
XLSX: Final = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
PPTX: Final = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
OLE: Final = "application/x-ole-storage"
ZIP: Final = "application/zip"

_ZIP_MIME_TYPE: Final = re.compile(rb"PK\x03\x04.{26}mimetype(application/[a-z0-9.+-]{1,100})", re.DOTALL)
_OOXML_PART: Final = re.compile(rb"(word|xl|ppt)[/\\].*\.(?:xml|rels)\Z", re.DOTALL)
_OOXML: Final = {b"word": DOCX, b"xl": XLSX, b"ppt": PPTX}


def _zip_names(head: bytes) -> Iterator[bytes]:
    """Yield the names in the local headers (APPNOTE 4.3.7). It walks them, because a search would enter stored archives."""
    offset = 0
    while head.startswith(b"PK\x03\x04", offset):
        start = offset + 30
        end = start + number(head, offset + 26, 2)
        yield head[start:end]
        end += number(head, offset + 28, 2)
        streamed = number(head, offset + 6, 2) & 0x08  # the size stands after the data
        following = head.find(b"PK\x03\x04", end) if streamed else end + number(head, offset + 18, 4)
        offset = following if following > offset else len(head)


def zip_archive(head: bytes, complete: bool) -> Signature:
    """Look for the parts of an Office document, or for the type that OpenDocument and EPUB state."""
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
    shift = number(head, 30, 2)
    if shift not in {9, 12}:
        return []
    entries: list[bytes] = []
    sector = number(head, 48, 4)
    for _ in range(len(head) >> shift):  # a chain longer than the head is a loop
        start = (sector + 1) << shift
        if start >= len(head):
            break
        entries += (head[at : at + 128] for at in range(start, min(start + (1 << shift), len(head)), 128))
        table, row = divmod(sector, 1 << (shift - 2))
        sector = number(head, ((number(head, 76 + 4 * table, 4) + 1) << shift) + 4 * row, 4)
    return entries


def ole(head: bytes, _complete: bool) -> Signature:
    """
    Find the main stream at the root of the directory (MS-CFB 2.6).

    Only the root's own children count, which are a binary tree of left, right and child numbers. A letter with an embedded
    table has a WordDocument there and, deeper, a Workbook.
    """
    entries = _ole_directory(head)
    todo, seen = [number(entries[0], 76, 4)] if entries else [], set[int]()
    while todo:
        index = todo.pop()
        if index in seen or index >= len(entries):
            continue
        seen.add(index)
        entry = entries[index]
        name = entry[: max(number(entry, 64, 2) - 2, 0)].decode("utf-16-le", "replace")
        if name in _OLE_STREAMS:
            return Signature(candidates=_OLE_STREAMS[name])
        todo += (number(entry, 68, 4), number(entry, 72, 4))
    return Signature(candidates=(OLE, DOC, XLS, PPT))


def late_pdf(head: bytes, complete: bool) -> Signature:
    """Allow both: PDF readers accept bytes before the header, and text may mention "%PDF-"."""
    text = ("text/plain",) if looks_like_text(head, complete) else ()
    return Signature(candidates=(*text, "application/pdf"))


_ODD_CONTROLS: Final = bytes(set(range(32)) - {*b"\t\n\v\f\r\x1b"})  # escape colours logs


def looks_like_text(head: bytes, complete: bool) -> bool:
    """Return whether `head` is UTF-8 without odd control characters. An incomplete head may end inside a character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=complete)
    except UnicodeDecodeError:
        return False
    return len(head.translate(None, _ODD_CONTROLS)) == len(head)
