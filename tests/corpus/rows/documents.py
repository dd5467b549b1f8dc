"""Word, Excel, PowerPoint, OpenDocument and PDF files of office programs and libraries, and archives."""

from __future__ import annotations

from typing import Final

from meta_media.protocol.documents import DOC, DOCX, PPT, PPTX, XLS, XLSX
from tests.corpus.table import Accepted, Input, Program, Refused, unpacked

__all__ = ["ENV", "INPUTS", "PROGRAMS", "TABLE"]

ENV: Final = "documents"
_PINS: Final = {
    "openpyxl": "openpyxl==3.1.5",
    "XlsxWriter": "xlsxwriter==3.3.1",
    "pyexcelerate": "pyexcelerate==0.13.0",
    "python-docx": "python-docx==1.2.0",
    "docxtpl": "docxtpl==0.20.2",
    "python-pptx": "python-pptx==1.0.2",
    "xlwt": "xlwt==1.3.0",
    "odfpy": "odfpy==1.4.1",
    "pandas": "pandas==3.1.1",
    "msoffcrypto-tool": "msoffcrypto-tool==6.1.0",
    "reportlab": "reportlab==5.1.0",
    "fpdf2": "fpdf2==2.8.9",
    "pikepdf": "pikepdf==10.18.0",
    "pypdf": "pypdf==7.1.1",
    "img2pdf": "img2pdf==0.6.3",
    "WeasyPrint": "weasyprint==70.0",
    "CairoSVG": "cairosvg==2.9.1",
    "cairocffi": "cairocffi==1.7.1",
    "matplotlib": "matplotlib==3.11.2",
    "pylightxl": "pylightxl==1.61",
    "ezodf": "ezodf==0.3.2",
    "PyMuPDF": "pymupdf==2.0",
    "xhtml2pdf": "xhtml2pdf==0.2.28",
    "Pillow (documents)": "pillow==13.0.0",
}
_NPM: Final = {
    "docx": "docx@9.15.2",
    "exceljs": "exceljs@4.4.0",
    "SheetJS": "xlsx@0.18.5",
    "pptxgenjs": "pptxgenjs@4.0.1",
    "pdf-lib": "pdf-lib@1.17.1",
    "jspdf": "jspdf@4.2.1",
    "pdfkit": "pdfkit@0.20.2",
    "write-excel-file": "write-excel-file@4.1.1",
    "sharp": "sharp@0.35.5",
    "Jimp": "jimp@1.6.1",
    "pngjs": "pngjs@7.0.0",
    "jpeg-js": "jpeg-js@0.4.4",
    "html-to-docx": "html-to-docx@1.8.0",
    "xlsx-populate": "xlsx-populate@1.21.0",
    "officegen": "officegen@0.6.5",
    "excel4node": "excel4node@1.8.2",
    "jszip": "jszip@3.10.2",
    "pizzip": "pizzip@3.3.0",
    "docxtemplater": "docxtemplater@3.71.0",
    "@napi-rs/canvas": "@napi-rs/canvas@1.1.1",
    "upng-js": "upng-js@2.1.0",
}
_APT: Final = {
    "LibreOffice": ("libreoffice-writer-nogui", "libreoffice-calc-nogui", "libreoffice-impress-nogui"),
    "Ghostscript": ("ghostscript",),
    "Poppler": ("poppler-utils",),
    "qpdf": ("qpdf",),
    "pandoc": ("pandoc",),
    "enscript": ("enscript",),
    "groff": ("groff",),
    "Gnumeric": ("gnumeric",),
    "dos2unix": ("dos2unix",),
}
PROGRAMS: Final = (
    *(Program(name, pip=(pin,), env=ENV) for name, pin in _PINS.items()),
    *(Program(name, npm=(pin,)) for name, pin in _NPM.items()),
    *(Program(name, apt=packages) for name, packages in _APT.items()),
    Program("zipfile"),
    Program("coreutils"),
    Program("libraries of PyPI", env=ENV, needs=tuple(_PINS)),
    Program("libraries of npm", needs=tuple(_NPM)),
    Program("programs of Debian", needs=tuple(_APT)),
)

_INTO: Final = 'cd "$(mktemp -d)"'
_OUT: Final = 'tar cf "$OUT" *'
_LETTERS: Final = 'mkdir in; tar xf $IN/office.tar -C in; bash $MAKERS/libreoffice.sh "$PWD/in"; rm -r in'
_PAGES: Final = "tar xf $IN/libreoffice.tar libreoffice.pdf; bash $MAKERS/papers.sh libreoffice.pdf"
INPUTS: Final = (
    Input("office.tar", "libraries of PyPI", f"{_INTO}; python $MAKERS/office.py; {_OUT}"),
    Input("pdf.tar", "libraries of PyPI", f"{_INTO}; python $MAKERS/pdf.py; {_OUT}"),
    Input("npm.tar", "libraries of npm", f"{_INTO}; node $MAKERS/documents.cjs; {_OUT}"),
    Input("libreoffice.tar", "LibreOffice", f"{_INTO}; {_LETTERS}; {_OUT}"),
    Input("papers.tar", "programs of Debian", f"{_INTO}; {_PAGES}; {_OUT}"),
)

_DOC, _XLS, _PPT, _DOCX, _XLSX, _PPTX = (Accepted(name) for name in (DOC, XLS, PPT, DOCX, XLSX, PPTX))
_PDF, _PNG, _JPEG, _TEXT = (Accepted(name) for name in ("application/pdf", "image/png", "image/jpeg", "text/plain"))
_ODT, _ODS, _ODP = (Refused(f"opendocument.{name}", "PDF") for name in ("text", "spreadsheet", "presentation"))
_MACROS: Final = Refused("macro")
_TEMPLATE: Final = Refused("template")
_ENCRYPTED: Final = Refused("password", ".docx, .xlsx or .pptx")
_ZIP: Final = Refused("application/zip", "one by one")
_SVG: Final = Refused("image/svg+xml", "JPEG or PNG")
_RTF: Final = Refused("application/rtf", "PDF")
_HTML: Final = Refused("text/html", "text/plain")
_CSV: Final = Refused("text/csv", "text/plain")
_FALSE_XLS: Final = Refused("its bytes are", "Excel", ".xlsx")

_OFFICE: Final = unpacked(
    "office.tar",
    ("python-docx", _DOCX, "python-docx.docx python-docx-picture.docx python-docx-nameless python-docx-as-zip.zip python-docx-as-doc.doc"),
    ("docxtpl", _DOCX, "docxtpl.docx"),
    ("openpyxl", _XLSX, "openpyxl.xlsx openpyxl-picture.xlsx openpyxl-as-xls.xls openpyxl-write-only.xlsx"),
    ("openpyxl", _TEMPLATE, "openpyxl-template.xltx"),
    ("XlsxWriter", _XLSX, "xlsxwriter.xlsx xlsxwriter-constant-memory.xlsx xlsxwriter-picture.xlsx"),
    ("XlsxWriter", _MACROS, "xlsxwriter-macros.xlsm xlsxwriter-macros-as-xlsx.xlsx"),
    ("openpyxl", _XLSX, "openpyxl-300-sheets.xlsx"),
    ("XlsxWriter", _XLSX, "xlsxwriter-zip64.xlsx"),
    ("xlwt", _XLS, "xlwt-23mb.xls"),
    ("pylightxl", _XLSX, "pylightxl.xlsx"),
    ("ezodf", _ODS, "ezodf.ods"),
    ("pyexcelerate", _XLSX, "pyexcelerate.xlsx"),
    ("pandas", _XLSX, "pandas-openpyxl.xlsx pandas-xlsxwriter.xlsx"),
    ("pandas", _ODS, "pandas-odf.ods"),
    ("pandas", _CSV, "pandas.csv"),
    ("pandas", _TEXT, "pandas-nameless-csv pandas-tabs.tsv"),
    ("pandas", Refused("application/json", "text/plain"), "pandas.json"),
    ("pandas", Refused("application/xml", "text/plain"), "pandas.xml"),
    ("pandas", _HTML, "pandas.html"),
    ("pandas", _FALSE_XLS, "pandas-html-as-xls.xls pandas-csv-as-xls.xls"),
    ("pandas", Refused("UTF-16", "UTF-8"), "pandas-utf16.txt"),
    ("pandas", Refused("application/gzip"), "pandas.csv.gz"),
    ("pandas", Refused(), "pandas.pkl"),
    ("xlwt", _XLS, "xlwt.xls xlwt-large.xls xlwt-large-nameless xlwt-large-as-doc.doc xlwt-large-as-xlsx.xlsx"),
    ("python-pptx", _PPTX, "python-pptx.pptx python-pptx-picture.pptx python-pptx-nameless"),
    ("msoffcrypto-tool", _DOCX, "msoffcrypto.docx"),
    ("msoffcrypto-tool", _XLSX, "msoffcrypto.xlsx"),
    ("msoffcrypto-tool", _PPTX, "msoffcrypto.pptx"),
    ("msoffcrypto-tool", _ENCRYPTED, "msoffcrypto-docx-as-old.doc msoffcrypto-xlsx-as-old.xls msoffcrypto-pptx-as-old.ppt"),
    ("msoffcrypto-tool", _ENCRYPTED, "msoffcrypto-docx-nameless msoffcrypto-xlsx-nameless msoffcrypto-pptx-nameless"),
    ("odfpy", _ODT, "odfpy.odt"),
    ("odfpy", _ODS, "odfpy.ods odfpy-ods-as-xlsx.xlsx"),
    ("odfpy", _ODP, "odfpy.odp"),
    ("zipfile", _ZIP, "zipfile.zip zipfile-of-docx.zip zipfile-empty.zip zipfile-as-docx.docx zipfile-of-xl-folder.zip"),
)
_PAPER: Final = unpacked(
    "pdf.tar",
    ("reportlab", _PDF, "reportlab.pdf reportlab-encrypted.pdf reportlab-as-doc.doc reportlab-as-jpg.jpg reportlab-with-mail-header.pdf"),
    ("fpdf2", _PDF, "fpdf2.pdf fpdf2-encrypted.pdf"),
    ("pikepdf", _PDF, "pikepdf.pdf pikepdf-linearized.pdf pikepdf-aes256.pdf pikepdf-objects.pdf"),
    ("pypdf", _PDF, "pypdf-merged.pdf pypdf-aes256.pdf"),
    ("img2pdf", _PDF, "img2pdf.pdf"),
    ("WeasyPrint", _PDF, "weasyprint.pdf weasyprint-nameless weasyprint-archive.pdf"),
    ("PyMuPDF", _PDF, "pymupdf.pdf pymupdf-aes256.pdf"),
    ("PyMuPDF", _PNG, "pymupdf.png"),
    ("PyMuPDF", _JPEG, "pymupdf.jpg"),
    ("PyMuPDF", Refused("CMYK JPEG"), "pymupdf-cmyk.jpg"),
    ("PyMuPDF", Refused("JPEG or PNG"), "pymupdf.psd"),
    ("xhtml2pdf", _PDF, "xhtml2pdf.pdf"),
    ("CairoSVG", _PDF, "cairosvg.pdf"),
    ("CairoSVG", _PNG, "cairosvg.png"),
    ("CairoSVG", _SVG, "cairosvg.svg"),
    ("cairocffi", _PDF, "cairo.pdf"),
    ("cairocffi", _PNG, "cairo.png cairo-grey.png"),
    ("matplotlib", _PDF, "matplotlib.pdf"),
    ("matplotlib", _PNG, "matplotlib.png"),
    ("matplotlib", _JPEG, "matplotlib.jpg"),
    ("matplotlib", _SVG, "matplotlib.svg"),
    ("matplotlib", Refused("image/tiff", "JPEG or PNG"), "matplotlib.tif"),
    ("matplotlib", Refused("512", "JPEG or PNG"), "matplotlib.webp"),
)
_NODE: Final = unpacked(
    "npm.tar",
    ("docx", _DOCX, "docx.docx"),
    ("exceljs", _XLSX, "exceljs.xlsx exceljs-stream.xlsx"),
    ("exceljs", _CSV, "exceljs.csv"),
    ("SheetJS", _XLSX, "sheetjs.xlsx sheetjs-compressed.xlsx"),
    ("SheetJS", _MACROS, "sheetjs.xlsm"),
    ("SheetJS", Refused("xlsb", ".xlsx"), "sheetjs.xlsb sheetjs-xlsb-as-xlsx.xlsx"),
    ("SheetJS", _XLS, "sheetjs.xls sheetjs.biff5.xls"),
    ("SheetJS", _ODS, "sheetjs.ods"),
    ("SheetJS", _CSV, "sheetjs.csv"),
    ("SheetJS", _HTML, "sheetjs.html"),
    ("SheetJS", _RTF, "sheetjs.rtf"),
    ("SheetJS", _FALSE_XLS, "sheetjs-html-as-xls.xls sheetjs.xml.xls"),
    ("SheetJS", Refused("UTF-16", "UTF-8"), "sheetjs.txt"),
    ("pptxgenjs", _PPTX, "pptxgenjs.pptx"),
    ("html-to-docx", _DOCX, "html-to-docx.docx"),
    ("docxtemplater", _DOCX, "docxtemplater.docx"),
    ("xlsx-populate", _XLSX, "xlsx-populate.xlsx xlsx-populate-password.xlsx"),
    ("xlsx-populate", _ENCRYPTED, "xlsx-populate-password-as-old.xls"),
    ("officegen", _DOCX, "officegen.docx"),
    ("officegen", _PPTX, "officegen.pptx"),
    ("officegen", _XLSX, "officegen.xlsx"),
    ("excel4node", _XLSX, "excel4node.xlsx"),
    ("jszip", _DOCX, "jszip-of-docx.docx"),
    ("jszip", _PPTX, "jszip-of-pptx.pptx"),
    ("jszip", _XLSX, "jszip-of-xlsx.xlsx"),
    ("jszip", _ZIP, "jszip.zip"),
    ("write-excel-file", _XLSX, "write-excel-file.xlsx"),
    ("pdf-lib", _PDF, "pdf-lib.pdf"),
    ("jspdf", _PDF, "jspdf.pdf jspdf-encrypted.pdf"),
    ("pdfkit", _PDF, "pdfkit.pdf"),
)
_LIBRE: Final = unpacked(
    "libreoffice.tar",
    ("LibreOffice", _DOCX, "libreoffice.docx"),
    ("LibreOffice", _DOC, "libreoffice.doc libreoffice.dot libreoffice-doc-nameless libreoffice-doc-as-xls.xls libreoffice-doc-as-docx.docx"),
    ("LibreOffice", _ODT, "libreoffice.odt libreoffice.ott"),
    ("LibreOffice", _RTF, "libreoffice.rtf"),
    ("LibreOffice", _TEXT, "libreoffice.txt"),
    ("LibreOffice", _HTML, "libreoffice.html"),
    ("LibreOffice", Refused("application/epub+zip", "PDF"), "libreoffice.epub"),
    ("LibreOffice", _MACROS, "libreoffice.docm libreoffice-impress.pptm"),
    ("LibreOffice", _TEMPLATE, "libreoffice.dotx libreoffice-calc.xltx libreoffice-impress.potx"),
    ("LibreOffice", _XLSX, "libreoffice-calc.xlsx libreoffice-calc.xlsm"),  # this xlsm says inside that it is a plain xlsx
    ("LibreOffice", _XLS, "libreoffice-calc.xls libreoffice-calc-picture.xls libreoffice-xls-nameless libreoffice-xls-as-doc.doc"),
    ("LibreOffice", _ODS, "libreoffice-calc.ods"),
    ("LibreOffice", _CSV, "libreoffice-calc.csv"),
    ("LibreOffice", _PPTX, "libreoffice-impress.pptx libreoffice-impress.ppsx"),  # this ppsx is a plain pptx, likewise
    ("LibreOffice", _PPT, "libreoffice-impress.ppt libreoffice-ppt-nameless"),
    ("LibreOffice", _ODP, "libreoffice-impress.odp"),
    ("LibreOffice", _PDF, "libreoffice.pdf libreoffice-calc.pdf libreoffice-impress.pdf"),
    ("LibreOffice", _PNG, "libreoffice-impress.png"),
    ("LibreOffice", _JPEG, "libreoffice-impress.jpg"),
)
_PAPERS: Final = unpacked(
    "papers.tar",
    ("Ghostscript", _PDF, "ghostscript.pdf ghostscript-encrypted.pdf"),
    ("Poppler", _PDF, "pdftocairo.pdf"),
    ("Poppler", _TEXT, "pdftotext.txt"),
    ("Poppler", Refused("save it as UTF-8"), "pdftotext-utf16.txt"),
    ("qpdf", _PDF, "qpdf-encrypted.pdf qpdf-linearized.pdf qpdf-qdf.pdf"),
    ("pandoc", _DOCX, "pandoc.docx"),
    ("pandoc", _PPTX, "pandoc.pptx"),
    ("pandoc", _ODT, "pandoc.odt"),
    ("pandoc", Refused("application/epub+zip", "PDF"), "pandoc.epub"),
    ("pandoc", _RTF, "pandoc.rtf"),
    ("pandoc", _HTML, "pandoc.html"),
    ("pandoc", _TEXT, "pandoc.txt"),
    ("enscript", _RTF, "enscript.rtf"),
    ("enscript", _HTML, "enscript.html"),
    ("groff", _TEXT, "groff.txt groff-overstruck.txt"),
    ("groff", _PDF, "groff.pdf"),
    ("groff", _HTML, "groff.html"),
    ("Gnumeric", _XLSX, "gnumeric.xlsx"),
    ("Gnumeric", _XLS, "gnumeric.xls gnumeric-95.xls gnumeric-xls-nameless"),
    ("Gnumeric", _ODS, "gnumeric.ods"),
    ("Gnumeric", _PDF, "gnumeric.pdf"),
    ("Gnumeric", _HTML, "gnumeric.html"),
    ("Gnumeric", _TEXT, "gnumeric.txt"),
    ("Gnumeric", Refused("application/gzip"), "gnumeric.gnumeric"),
    ("dos2unix", _TEXT, "unix2dos.txt"),
    ("coreutils", Refused("UTF-16", "UTF-8"), "iconv-utf16.txt"),
    ("coreutils", Refused("UTF-8"), "iconv-latin1.txt"),
    ("coreutils", Refused("application/gzip"), "gzip.gz gzip-as-pdf.pdf"),
    ("coreutils", Refused(), "tar.tar xz.xz bzip2.bz2"),
)
TABLE: Final = (*_OFFICE, *_PAPER, *_NODE, *_LIBRE, *_PAPERS)
