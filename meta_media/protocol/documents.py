"""Office documents, OpenDocument, archives, PDF and text: what a container holds, and what to do about what WhatsApp refuses."""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Final

from meta_media.protocol.formats import Flaw, PartialFile, Signature, Steps, number

__all__ = [
    "DOC",
    "DOCX",
    "FIXES",
    "OTHER_TYPES",
    "PPT",
    "PPTX",
    "TEXT_FIXES",
    "XLS",
    "XLSX",
    "ZIP",
    "looks_like_text",
    "ole",
    "or_text",
    "text_format",
    "utf_16",
    "zip_archive",
]

_OPEN_XML: Final = "application/vnd.openxmlformats-officedocument"
DOC: Final = "application/msword"
XLS: Final = "application/vnd.ms-excel"
PPT: Final = "application/vnd.ms-powerpoint"
DOCX: Final = f"{_OPEN_XML}.wordprocessingml.document"
XLSX: Final = f"{_OPEN_XML}.spreadsheetml.sheet"
PPTX: Final = f"{_OPEN_XML}.presentationml.presentation"
_OFFICE: Final = {DOCX, XLSX, PPTX}
ZIP: Final = "application/zip"
_OLE: Final = "application/x-ole-storage"
_ENCRYPTED: Final = "application/encrypted"  # libmagic's name

# Types that WhatsApp does not accept, in the form of the table of `media_types`, by the extension to save them under.
_VARIANTS: Final = {
    ".docx": (
        "application/rtf .rtf application/x-rtf text/richtext text/rtf",
        "application/vnd.ms-word.document.macroenabled.12 .docm",
        "application/vnd.ms-word.template.macroenabled.12 .dotm",
        "application/vnd.oasis.opendocument.text .odt",
        f"{_OPEN_XML}.wordprocessingml.template .dotx",
    ),
    ".pptx": (
        "application/vnd.ms-powerpoint.presentation.macroenabled.12 .pptm",
        "application/vnd.ms-powerpoint.slideshow.macroenabled.12 .ppsm",
        "application/vnd.ms-powerpoint.template.macroenabled.12 .potm",
        "application/vnd.oasis.opendocument.presentation .odp",
        f"{_OPEN_XML}.presentationml.slideshow .ppsx",
        f"{_OPEN_XML}.presentationml.template .potx",
    ),
    ".xlsx": (
        "application/vnd.ms-excel.sheet.binary.macroenabled.12 .xlsb",
        "application/vnd.ms-excel.sheet.macroenabled.12 .xlsm",
        "application/vnd.ms-excel.template.macroenabled.12 .xltm",
        "application/vnd.oasis.opendocument.spreadsheet .ods",
        f"{_OPEN_XML}.spreadsheetml.template .xltx",
    ),
}
OTHER_TYPES: Final = (
    *(row for rows in _VARIANTS.values() for row in rows),
    "application/epub+zip .epub",
    "application/gzip .gz .tgz application/x-gzip",
    "application/java-archive .jar",
    "application/json .json",
    "application/postscript .ps .eps",
    "application/vnd.android.package-archive .apk",
    "application/vnd.apple.numbers .numbers",
    "application/vnd.apple.pages .pages",
    "application/vnd.ms-outlook .msg",
    "application/vnd.rar .rar",
    "application/xml .xml text/xml",
    f"{ZIP} .zip application/x-zip application/x-zip-compressed",
    "text/calendar .ics",
    "text/csv .csv application/csv text/comma-separated-values text/x-csv",
    "text/html .html .htm",
    "text/markdown .md",
    "text/vcard .vcf",
)
FIXES: Final = {  # what to do about a type, by the type or by its first half
    "application": "export it as PDF, if it is a document",
    _OLE: "name it .doc, .xls or .ppt, or pass its mime_type, if it is one of them",
    _ENCRYPTED: "name it .docx, .xlsx or .pptx, if it is an Office file with a password, or pass its mime_type",
    **{
        row.split()[0]: f"save it as {extension}, or export it as PDF"
        for extension, rows in _VARIANTS.items()
        for row in rows
    },
    **dict.fromkeys(
        ("application/gzip", "application/vnd.rar", "application/x-7z-compressed", ZIP),
        "send the files inside it one by one",
    ),
    **dict.fromkeys(
        ("application/json", "application/xml", "text"),
        'pass mime_type="text/plain" to send it as text, under a name ending in .txt',
    ),
    **dict.fromkeys(("application/java-archive", "application/vnd.android.package-archive"), "send a link to it"),
}
TEXT_FIXES: Final = {  # what to do about text under the name of a document
    **dict.fromkeys((DOC, DOCX), "open it in Word and save it as .docx"),
    **dict.fromkeys((PPT, PPTX), "open it in PowerPoint and save it as .pptx"),
    **dict.fromkeys((XLS, XLSX), "open it in Excel and save it as .xlsx"),
}

_LOCAL_HEADER: Final = b"PK\x03\x04"  # APPNOTE 4.3.7
_DIRECTORY_SIZE: Final = 4096  # bytes at the end of an archive, which list its last fifty entries
_CONTENT_SIZE: Final = 2048  # bytes of an entry that states a type, with its header
_INFLATED_SIZE: Final = 65536

# The entries that state the type: of Office, by the content type of the main part (ECMA-376-2, 10.1.2), and of OpenDocument
# and EPUB. Office names the type of a part after that of the file: "sheet.main+xml", "sheet.macroEnabled.main+xml". It may be
# the default of an extension, but SheetJS writes a default for .bin into a workbook that has no such part.
_MAIN_TYPE: Final = rb"ContentType=[\"'](application/vnd\.[A-Za-z0-9.-]{1,99})\.main(?:\+xml)?[\"']"
_STATEMENTS: Final = {
    b"[content_types].xml": (
        re.compile(rb"<(?:\w{1,9}:)?Override\s[^<>]*" + _MAIN_TYPE),
        # This one if no override is unseen
        re.compile(rb"\A(?=.*</(?:\w{1,9}:)?Types>).*?" + _MAIN_TYPE, re.DOTALL),
    ),
    b"mimetype": (re.compile(rb"\A(application/(?!pdf|msword|vnd\.ms-|vnd\.openxml)[a-z0-9.+-]{1,99})"),),
}
# The types of an archive that states none where it can be seen, by its names. Case does not matter (ECMA-376-2).
_NAMES: Final = tuple(
    (re.compile(pattern, re.MULTILINE), candidates)
    for pattern, candidates in (
        (rb"^xl[/\\](_rels[/\\])?workbook\.bin", (_VARIANTS[".xlsx"][0].split()[0],)),
        *(
            (rb"^%b[/\\].*\.(xml|rels)$" % folder, (mime_type, *(row.split()[0] for row in _VARIANTS[extension])))
            for folder, mime_type, extension in (
                (b"word", DOCX, ".docx"),
                (b"xl", XLSX, ".xlsx"),
                (b"ppt", PPTX, ".pptx"),
            )
        ),
        (rb"^(androidmanifest\.xml|classes\.dex)$", ("application/vnd.android.package-archive",)),
        (rb"^meta-inf/manifest\.mf$", ("application/java-archive",)),
        (rb"^index(/.*\.iwa|\.zip)$", ("application/vnd.apple.iwork",)),
    )
)


def _local_entries(head: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the names, in lower case, and places of the local headers, by their sizes. A search would enter stored archives."""
    offset = 0
    while head.startswith(_LOCAL_HEADER, offset):
        end = offset + 30 + number(head, offset + 26, 2)
        yield head[offset + 30 : end].lower(), offset
        end += number(head, offset + 28, 2)
        streamed = number(head, offset + 6, 2) & 0x08  # the size stands after the data
        following = head.find(_LOCAL_HEADER, end) if streamed else end + number(head, offset + 18, 4)
        offset = following if following > offset else len(head)


def _listed_entries(tail: bytes) -> tuple[dict[bytes, int], bool]:
    """Return the names and places in the directory at the end of an archive (APPNOTE 4.3.12), and whether they are all."""
    end = tail.rfind(b"PK\x05\x06")
    start = end - number(tail, end + 12, 4)
    entries = {}
    for header in re.finditer(rb"PK\x01\x02", tail[max(start, 0) : max(end, 0)]):
        at = max(start, 0) + header.start()
        entries[tail[at + 46 : at + 46 + number(tail, at + 28, 2)].lower()] = number(tail, at + 42, 4)
    return entries, 0 <= start <= end


def _content(entry: bytes) -> bytes:
    """Return the content of an entry, or the start of a long one."""
    start = 30 + number(entry, 26, 2) + number(entry, 28, 2)
    if number(entry, 8, 2) == 0:  # stored
        return entry[start : start + (number(entry, 18, 4) or _CONTENT_SIZE)]
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(entry[start:], _INFLATED_SIZE)
    except zlib.error:
        return b""


def zip_archive(head: bytes, complete: bool) -> Steps[Signature]:
    """Read the type that an Office document, OpenDocument or EPUB states. Where it cannot be seen, the names of the parts decide."""
    entries = dict(_local_entries(head))
    all_listed = complete
    if not entries.keys() & _STATEMENTS.keys():
        tail = head[-_DIRECTORY_SIZE:] if complete else (yield -_DIRECTORY_SIZE, _DIRECTORY_SIZE)
        listed, all_listed = _listed_entries(tail)
        entries |= listed
    for offset, patterns in ((entries[name], _STATEMENTS[name]) for name in _STATEMENTS if name in entries):
        entry = head[offset : offset + _CONTENT_SIZE]
        if len(entry) < _CONTENT_SIZE and not complete:
            entry = (yield offset, _CONTENT_SIZE) or entry
        content = _content(entry)
        if stated := next(filter(None, (pattern.search(content) for pattern in patterns)), None):
            mime_type = stated[1].decode("ascii").lower()
            return Signature(candidates=(mime_type + ".12" if mime_type.endswith(".macroenabled") else mime_type,))
    names = b"\n".join(entries)
    unnamed = (ZIP,) if complete or all_listed else (ZIP, DOCX, XLSX, PPTX)
    mere = all_listed and b"[content_types].xml" not in entries  # which each Office document has
    matching = (found for pattern, found in _NAMES if pattern.search(names) and not (mere and found[0] in _OFFICE))
    return Signature(candidates=next(matching, unnamed))


_OLE_STREAMS: Final = {
    "worddocument": (DOC,),
    "workbook": (XLS,),
    "book": (XLS,),
    "powerpoint document": (PPT,),
    "encryptedpackage": (_ENCRYPTED, DOCX, XLSX, PPTX),  # a .docx, .xlsx or .pptx with a password (MS-OFFCRYPTO 2.3.4)
    "__properties_version1.0": ("application/vnd.ms-outlook",),
    "visiodocument": ("application/vnd.visio",),
    "bodytext": ("application/x-hwp",),
}
_MAX_DIRECTORY: Final = 1024  # sectors, which may form a circle
_HEADER_ROWS: Final = 109  # sectors of the allocation table that the header lists, which describe the first 7 MB


def _directory_entry(head: bytes, file: PartialFile, chain: list[int], index: int) -> Steps[bytes]:
    """Follow the directory's sectors through the allocation table (MS-CFB 2.3) to an entry. `chain` is the known sectors."""
    shift = number(head, 30, 2)
    position, row = divmod(index, 1 << (shift - 7))
    while len(chain) <= position < _MAX_DIRECTORY:
        table, column = divmod(chain[-1], 1 << (shift - 2))
        cell = b""
        if table < _HEADER_ROWS:
            cell = yield from file.at(((number(head, 76 + 4 * table, 4) + 1) << shift) + 4 * column, 4)
        # Where the table cannot be seen, the next sector follows: programs write a directory in one piece.
        chain.append(number(cell, 0, 4) if len(cell) == 4 else chain[-1] + 1)
    if position >= _MAX_DIRECTORY:
        return b""
    return (yield from file.at(((chain[position] + 1) << shift) + 128 * row, 128))


def ole(head: bytes, _complete: bool) -> Steps[Signature]:
    """
    Find the main stream at the root of the directory (MS-CFB 2.6).

    Only the root's own children count, which are a binary tree of left, right and child numbers. A letter with an embedded
    table has a WordDocument there and, deeper, a Workbook.
    """
    file, chain = PartialFile(head), [number(head, 48, 4)]
    todo, seen = [0] if number(head, 30, 2) in {9, 12} else [], set[int]()
    while todo:
        index = todo.pop()
        if index in seen:
            continue
        seen.add(index)
        entry = yield from _directory_entry(head, file, chain, index)
        name = entry[: max(number(entry, 64, 2) - 2, 0)].decode("utf-16-le", "replace").lower()
        if name in _OLE_STREAMS and index:
            return Signature(candidates=_OLE_STREAMS[name])
        todo += (number(entry, 68, 4), number(entry, 72, 4)) if index else (number(entry, 76, 4),)
    return Signature(candidates=(_OLE, DOC, XLS, PPT))


def looks_like_text(head: bytes, complete: bool, encoding: str = "utf-8") -> bool:
    """Return whether `head` is text: decodable, and without NUL. An incomplete head may end inside a character."""
    try:
        return "\0" not in codecs.getincrementaldecoder(encoding)().decode(head, final=complete)
    except UnicodeDecodeError:
        return False


def or_text(mime_type: str) -> Callable[[bytes, bool], Signature]:
    """Return a reader that allows both, where the signature may begin a text: "GIF89a is a format of 1989"."""

    def read(head: bytes, complete: bool) -> Signature:
        return Signature(candidates=("text/plain", mime_type) if looks_like_text(head, complete) else (mime_type,))

    return read


def utf_16(head: bytes, complete: bool) -> Signature | None:
    """Recognise text of another encoding by its byte order mark."""
    flaw = Flaw(found="UTF-16 text", allowed="UTF-8 text", fix="save it as UTF-8")
    return Signature(candidates=("text/plain",), flaw=flaw) if looks_like_text(head, complete, "utf-16") else None


_TEXT_FORMATS: Final = ((b"<?xml", "XML"), (b"<", "HTML"), (b"mime-version:", "a web page (MHTML)"))


def text_format(head: bytes) -> str:
    """Return what a text is, which bears the name of a document: many programs export HTML as .xls."""
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()[:16].lower()
    return next((name for magic, name in _TEXT_FORMATS if start.startswith(magic)), "UTF-8 text")
