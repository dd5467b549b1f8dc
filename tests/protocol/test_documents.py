"""Documents, through `inspect_media`: Office files of both formats, archives, and files that real programs wrote."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_media import samples
from meta_media.errors import UnsupportedMediaTypeError
from meta_media.protocol.media_types import HEAD_SIZE, extension_for, inspect_media, named_type
from tests.support.containers import archive, ole, ole_entry, streamed
from tests.support.reading import read, verdict

SAMPLES = {path.name: path.read_bytes() for path in samples.paths()}
WRITTEN = {path.name: path.read_bytes() for path in (Path(__file__).parent / "documents").iterdir()}
DOCUMENTS = WRITTEN | {name: data for name, data in SAMPLES.items() if name.startswith(("letter", "slides", "table"))}
OFFICE = "application/vnd.openxmlformats-officedocument"
DOCX, XLSX = f"{OFFICE}.wordprocessingml.document", f"{OFFICE}.spreadsheetml.sheet"
PPTX = f"{OFFICE}.presentationml.presentation"
DOC, XLS, PPT = "application/msword", "application/vnd.ms-excel", "application/vnd.ms-powerpoint"
XLSM, XLSB = f"{XLS}.sheet.macroenabled.12", f"{XLS}.sheet.binary.macroenabled.12"
ODS = "application/vnd.oasis.opendocument.spreadsheet"
LARGE = bytes(3 * HEAD_SIZE)
TYPES = "[Content_Types].xml"


def package(
    *types: str, names: tuple[str, ...] = ("xl/workbook.xml",), first: bool = True, whole: bool = True
) -> bytes:
    """Build an Office file whose content types have the given lines, at its start or at its end."""
    content = f"<Types>{''.join(types)}{'</Types>' if whole else ''}".encode()
    parts = [(TYPES, content), *((name, b"<x/>") for name in names)]
    return archive(*(parts if first else reversed(parts)))


def override(mime_type: str, name: str = "/xl/workbook.xml") -> str:
    """Build the line of the content types about one part."""
    return f'<Override PartName="{name}" ContentType="{mime_type}"/>'


class TestWritten:
    """Files that real programs wrote, whatever they are named."""

    EXPECTED = (
        (
            "encrypted.xlsx",
            "application/encrypted: name it .docx, .xlsx or .pptx, if it is an Office file with a password",
        ),
        ("libreoffice.xls", XLS),
        ("openpyxl.xltx", f"{OFFICE}.spreadsheetml.template: save it as .xlsx, or export it as PDF"),
        ("sheetjs.ods", f"{ODS}: save it as .xlsx, or export it as PDF"),
        ("sheetjs.xlsb", f"{XLSB}: save it as .xlsx, or export it as PDF"),
        ("sheetjs.xlsm", f"{XLSM}: save it as .xlsx, or export it as PDF"),
        ("sheetjs.xlsx", XLSX),
        ("xlsxwriter.xlsm", f"{XLSM}: save it as .xlsx, or export it as PDF"),
        ("xlwt.xls", XLS),
    )

    def test_have_each_a_verdict(self) -> None:
        """No file is left out."""
        assert [name for name, _ in self.EXPECTED] == sorted(WRITTEN)

    @pytest.mark.parametrize(("name", "expected"), EXPECTED)
    @pytest.mark.parametrize("named", [None, "a.doc", "a.bin"])
    def test_are_known_by_their_bytes(self, name: str, expected: str, named: str | None) -> None:
        """The bytes decide, and a refusal has what to do."""
        assert verdict(WRITTEN[name], **({"filename": named} if named else {})).startswith(expected)

    @pytest.mark.parametrize("name", ["xlsxwriter.xlsm", "sheetjs.xlsb", "openpyxl.xltx"])
    def test_are_not_silently_retyped(self, name: str) -> None:
        """A workbook with macros keeps its type, which its extension has too, also where nothing is refused."""
        found = inspect_media(WRITTEN[name], complete=True, validate=False).mime_type
        assert (name[-5:], found) == (extension_for(found), named_type(name))

    def test_with_a_password_go_by_their_name(self) -> None:
        """An encrypted workbook is accepted under its name or declared; under an old name the advice is the right one."""
        data = WRITTEN["encrypted.xlsx"]
        assert [verdict(data, filename="a.xlsx"), verdict(data, mime_type=DOCX)] == [XLSX, DOCX]
        with pytest.raises(UnsupportedMediaTypeError) as caught:
            inspect_media(data, mime_type=DOC)
        assert "name it .docx, .xlsx or .pptx" in str(caught.value)


class TestOpenXml:
    """Office files since 2007, which are archives."""

    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            ((TYPES, "_rels/.rels", "word/document.xml"), DOCX),
            (("_rels/.rels", "xl/_rels/workbook.xml.rels", TYPES), XLSX),
            ((TYPES, "ppt\\presentation.xml"), PPTX),
            (("word/embeddings/sheet.xlsx", "word/document.xml", TYPES), DOCX),
            (("xl/_rels/workbook.bin.rels", "xl/theme/theme1.xml"), f"{XLSB}: save it as .xlsx, or export it as PDF"),
        ],
    )
    def test_by_the_names_of_its_parts(self, names: tuple[str, ...], expected: str) -> None:
        """The folder of the parts decides where no type is stated, with sizes before or after the data."""
        assert expected == verdict(archive(*names))
        assert expected == verdict(archive(*names, method=zipfile.ZIP_STORED))
        assert expected == verdict(streamed(*names))

    @pytest.mark.parametrize(
        "names", [("word/list.csv", "words/a.xml"), ("photo/word/a.xml",), ("word/a.xml", "b.txt")]
    )
    def test_similar_names_are_not_ooxml(self, names: tuple[str, ...]) -> None:
        """An archive with a folder named word is not a document."""
        for data in (archive(*names), streamed(*names), archive(*names, content=LARGE, method=zipfile.ZIP_STORED)):
            assert verdict(data, filename="letter.docx").startswith("application/zip: send the files inside it")

    def test_a_document_stored_in_an_archive_is_not_the_archive(self) -> None:
        """Headers inside of a stored file do not count, also not in the directory."""
        for content in (
            SAMPLES["letter.docx"],
            archive(("a.bin", LARGE), TYPES, "xl/a.xml", method=zipfile.ZIP_STORED),
        ):
            nested = archive("inner.docx", method=zipfile.ZIP_STORED, content=content)
            assert verdict(nested).startswith("application/zip: send the files inside it")

    @pytest.mark.parametrize(
        ("stated", "found", "fix"),
        [
            (f"{DOCX}.main+xml", DOCX, None),
            (f"{XLSX}.main+xml", XLSX, None),
            (f"{PPTX}.main+xml", PPTX, None),
            (
                "application/vnd.ms-word.document.macroEnabled.main+xml",
                "application/vnd.ms-word.document.macroenabled.12",
                ".docx",
            ),
            (f"{OFFICE}.wordprocessingml.template.main+xml", f"{OFFICE}.wordprocessingml.template", ".docx"),
            (f"{XLS}.sheet.binary.macroEnabled.main", XLSB, ".xlsx"),
            (f"{XLS}.template.macroEnabled.main+xml", f"{XLS}.template.macroenabled.12", ".xlsx"),
            (f"{PPT}.presentation.macroEnabled.main+xml", f"{PPT}.presentation.macroenabled.12", ".pptx"),
            (f"{PPT}.slideshow.macroEnabled.main+xml", f"{PPT}.slideshow.macroenabled.12", ".pptx"),
            (f"{OFFICE}.presentationml.slideshow.main+xml", f"{OFFICE}.presentationml.slideshow", ".pptx"),
        ],
    )
    def test_by_the_type_of_the_main_part(self, stated: str, found: str, fix: str | None) -> None:
        """The content types decide, wherever they stand; what WhatsApp's list does not have is refused by its type."""
        expected = f"{found}: save it as {fix}, or export it as PDF" if fix else found
        for first in (True, False):
            assert expected == verdict(package(override(stated), first=first))
        assert expected == verdict(package(f'<Default Extension="xml" ContentType="{stated}"/>'))
        assert expected == verdict(
            archive(("a.bin", LARGE), (TYPES, override(stated).encode()), method=zipfile.ZIP_STORED)
        )

    def test_defaults_count_only_without_an_override(self) -> None:
        """A default type of .bin, which SheetJS writes everywhere, makes no binary workbook; nor do types that are cut."""
        default = f'<Default Extension="bin" ContentType="{XLSB.replace("macroenabled.12", "macroEnabled.main")}"/>'
        assert verdict(package(default, override(f"{XLSX}.main+xml"))) == XLSX
        assert verdict(package(default, "<x/>", whole=False)) == XLSX
        assert verdict(package(default)) == f"{XLSB}: save it as .xlsx, or export it as PDF"

    def test_case_and_slashes_do_not_matter(self) -> None:
        """Some programs write names in lower case, with the separators of Windows."""
        stated = ("[content_types].xml", f"<Types>{override(f'{XLSX}.main+xml')}</Types>".encode())
        assert verdict(archive(stated, "xl\\workbook.xml", "_rels\\.rels")) == XLSX
        for name in (stated[0], TYPES):
            assert read(archive((name, stated[1]), ("a.bin", LARGE), method=zipfile.ZIP_STORED))[1] == []

    def test_types_that_are_not_read_leave_it_to_the_name(self) -> None:
        """Content types that are of no use in the head, with all parts beyond it, leave the name to decide."""
        data = archive((TYPES, b"?"), ("a.bin", LARGE), "word/a.xml", method=zipfile.ZIP_STORED)
        assert verdict(data, filename="a.docx") == DOCX

    def test_the_next_entry_states_no_type(self) -> None:
        """The content of a stored entry ends where its header says."""
        stated = ("a.xml", override(f"{XLSX}.main+xml").encode())
        data = archive((TYPES, b"<Types></Types>"), stated, method=zipfile.ZIP_STORED)
        assert verdict(data).startswith("application/zip")

    def test_behind_a_picture(self) -> None:
        """A picture before all parts, of a size that is stated or not, hides nothing: the directory at the end leads on."""
        parts = (
            ("word/media/a.png", LARGE),
            (TYPES, override(f"{DOCX}.main+xml").encode()),
            ("word/document.xml", b"<x/>"),
        )
        stored = archive(*parts, method=zipfile.ZIP_STORED)
        assert verdict(stored) == DOCX
        assert len(read(stored)[1]) == 2

    def test_only_a_head_goes_by_its_name(self) -> None:
        """Where the rest cannot be read, parts in the head decide, and the name among their types; else the name alone."""
        parts = package(override(f"{XLSX}.main+xml"), names=("xl/a.xml", "xl/b.xml"), first=False)
        head = parts[: parts.index(TYPES.encode()) - 30]
        assert inspect_media(head).mime_type == XLSX
        with pytest.raises(UnsupportedMediaTypeError, match="save it as \\.xlsx"):
            inspect_media(head, filename="a.xlsm")
        head = archive("a.bin", "b.bin")[:60]
        assert [inspect_media(head, filename="a.docx").mime_type, inspect_media(head, mime_type=XLSX).mime_type] == [
            DOCX,
            XLSX,
        ]

    @pytest.mark.parametrize(
        "broken",
        [
            b"PK\3\4" + bytes(400),
            archive(TYPES)[:45],
            archive((TYPES, override(f"{XLSX}.main+xml").encode())).replace(b"\x08\0\0\0", b"\x09\0\0\0"),
            archive((TYPES, b"x" * 500), "a").replace(b"[Content", b"(Content", 1),
            archive(TYPES)[:49] + b"\xff" * 100 + b"PK\5\6" + b"\xff" * 18,
            archive(("a.bin", LARGE), TYPES, method=zipfile.ZIP_STORED)[:-22]
            + b"PK\5\6"
            + bytes(8)
            + struct.pack("<I", 64)
            + bytes(6),
        ],
    )
    def test_broken_archives_go_by_their_name(self, broken: bytes) -> None:
        """What cannot be read is no reason for another exception, and a directory that ends nowhere for no more reads."""
        assert verdict(broken, filename="a.xlsx").startswith((XLSX, "application/zip"))


class TestOtherArchives:
    """Archives that are no Office document."""

    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (archive(("mimetype", ODS.encode())), f"{ODS}: save it as .xlsx, or export it as PDF"),
            (
                archive("META-INF/manifest.xml", ("mimetype", ODS.encode()), method=0),
                f"{ODS}: save it as .xlsx, or export it as PDF",
            ),
            (archive(("mimetype", b"application/epub+zip"), method=0), "application/epub+zip: export it as PDF"),
            (archive(("mimetype", b"application/pdf"), method=0), "application/zip: send the files inside it"),
            (archive("META-INF/MANIFEST.MF", "A.class"), "application/java-archive: send a link"),
            (archive("META-INF/MANIFEST.MF", "classes.dex"), "application/vnd.android.package-archive: send a link"),
            (archive("Index/Document.iwa"), "application/vnd.apple.iwork: export it as PDF"),
            (archive(), "application/zip: send the files inside it"),
        ],
    )
    def test_are_named(self, data: bytes, expected: str) -> None:
        """The type that the archive states, or that its names show, is refused with what to do."""
        assert verdict(data).startswith(expected)
        assert verdict(data, filename="a.docx").startswith(expected)


class TestOle:
    """Office files from before 2007."""

    @pytest.mark.parametrize(
        ("stream", "expected"),
        [
            ("WordDocument", DOC),
            ("Workbook", XLS),
            ("BOOK", XLS),
            ("PowerPoint Document", PPT),
            ("__properties_version1.0", "application/vnd.ms-outlook: export it as PDF, if it is a document"),
        ],
    )
    @pytest.mark.parametrize("shift", [9, 12])
    def test_by_its_main_stream(self, stream: str, expected: str, shift: int) -> None:
        """The stream is found through both branches of the tree, in sectors of either size, in the head or far beyond."""
        for chain in ((2, 1), (900, 901), (901, 300)):
            entries = [
                ole_entry("Root Entry", child=2),
                ole_entry("a"),
                ole_entry("b", left=1, right=3),
                ole_entry(stream),
            ]
            assert expected == verdict(ole(*entries, shift=shift, chain=chain))
            entries = [
                ole_entry("Root Entry", child=2),
                ole_entry(stream),
                ole_entry("b", left=1, right=3),
                ole_entry("a"),
            ]
            assert expected == verdict(ole(*entries, shift=shift, chain=chain))

    @pytest.mark.parametrize("chain", [(7, 3), (1500, 3), (3, 1500), (1500, 1700)])
    def test_directories_may_be_scattered(self, chain: tuple[int, int]) -> None:
        """The allocation table leads from one sector of the directory to the next, with at most three reads."""
        entries = [ole_entry("Root Entry", child=5), *(ole_entry(f"{n}") for n in range(4)), ole_entry("Workbook")]
        data = ole(*entries, chain=chain)
        assert verdict(data, filename="a.doc") == XLS
        assert len(read(data)[1]) <= 3

    def test_directories_of_large_files_are_in_one_piece(self) -> None:
        """The header lists the table of the first 7 MB only. Beyond them, the next sector is the directory's next."""
        entries = [ole_entry("Root Entry", child=5), *[ole_entry("a")] * 4, ole_entry("Workbook")]
        assert verdict(ole(*entries, chain=(20_000, 20_001)), filename="a.doc") == XLS
        assert verdict(ole(*entries, chain=(20_000, 19_000)), filename="a.doc") == DOC

    def test_may_hold_others(self) -> None:
        """A table embedded in a letter does not make it a table."""
        pool = ole_entry("ObjectPool", right=3, child=2)
        entries = [ole_entry("Root Entry", child=1), pool, ole_entry("Workbook"), ole_entry("WordDocument")]
        assert verdict(ole(*entries)) == DOC

    @pytest.mark.parametrize("start", ["0900040002001000", "0902060000001000", "0904060000001000", "0908080000051000"])
    def test_sheets_of_excel_2_to_4_have_no_container(self, start: str) -> None:
        """The first record of a worksheet is known by its number, size and type, from Excel 2 on."""
        assert verdict(bytes.fromhex(start) + bytes(40)) == XLS

    def test_without_a_known_stream_goes_by_its_name(self) -> None:
        """The name decides, and without one the error says so."""
        data = ole(ole_entry("Root Entry", child=1), ole_entry("x"))
        assert verdict(data, filename="a.ppt") == PPT
        assert verdict(data).startswith("application/x-ole-storage: name it .doc, .xls or .ppt")

    @pytest.mark.parametrize(
        "data",
        [
            ole(ole_entry("Root Entry", child=0)),
            ole(ole_entry("Root Entry", child=1), ole_entry("a", left=1, right=0)),
            ole(ole_entry("Root Entry", child=9), chain=(1, 3, 1)),
            ole(ole_entry("Root Entry", child=9), chain=(1001, 1003, 1001)),
            ole(ole_entry("Root Entry", child=1), ole_entry("x", left=900)),
            ole(ole_entry("Root Entry", child=1), ole_entry("x", left=2**31)),
            ole(ole_entry("Root Entry", child=1))[:48] + b"\xfe\xff\xff\xff" + bytes(500),
            ole(ole_entry("Root Entry", child=1))[:48] + b"\x00\x00\xff\x7f" + bytes(LARGE),
            ole(ole_entry("Root Entry"))[:30] + b"\x7f\0" + bytes(500),
            ole(ole_entry("Root Entry"))[:8],
            ole(*[ole_entry("x", n, n + 1, n) for n in range(4096)], chain=tuple(range(1, 1024))),
            ole(*[ole_entry("x", n * 7, n * 11, n) for n in range(400)], chain=tuple(range(1, 1000, 10))) + LARGE,
        ],
    )
    def test_broken_goes_by_its_name(self, data: bytes) -> None:
        """Loops and wrong numbers in the directory end the search; the name decides."""
        assert verdict(data, filename="a.doc") == DOC


class TestHostile:
    """Files of real programs, damaged, cut or padded."""

    @given(st.sampled_from(sorted(DOCUMENTS)), st.data())
    def test_get_a_verdict_in_bounded_reads(self, name: str, data: st.DataObject) -> None:
        """Wrong numbers anywhere, of one to eight bytes, give a type or the documented error in at most 8 reads of 8 KiB in all."""
        content = bytearray(DOCUMENTS[name])
        for start in data.draw(st.lists(st.integers(0, len(content)), max_size=12)):
            wrong = data.draw(
                st.sampled_from([b"\0", b"\xff", b"\xff" * 4, b"\0" * 4, b"\xff" * 8, b"PK\1\2", b"PK\3\4", b"PK\5\6"])
            )
            content[start : start + len(wrong)] = wrong
        start = data.draw(st.integers(0, len(content)))
        gap = data.draw(st.sampled_from([b"", LARGE, LARGE[:-1]]))
        assert verdict(bytes(content[:start] + gap + content[start:]))
        assert verdict(bytes(content[:start] + gap), filename=name)
