"""Text in encodings, and under false names."""

from __future__ import annotations

from typing import Final

from tests.corpus.rows.documents import ENV
from tests.corpus.table import Accepted, Input, Program, Refused, unpacked

__all__ = ["INPUTS", "PROGRAMS", "TABLE"]

PROGRAMS: Final = (Program("Python"), Program("vobject", pip=("vobject==0.9.9",), env=ENV, needs=("icalendar",)), Program("icalendar", pip=("icalendar==7.3.2",), env=ENV))
INPUTS: Final = (Input("texts.tar", "vobject", 'cd "$(mktemp -d)"; python $MAKERS/texts.py; tar cf "$OUT" *'),)

_TEXT: Final = Accepted("text/plain")
_UTF_16: Final = Refused("UTF-16", "UTF-8")
_NOT_UTF_8: Final = Refused("UTF-8")
_WHOLE: Final = Refused("UTF-8 text")
TABLE: Final = unpacked(
    "texts.tar",
    ("Python", _TEXT, "text-ascii.txt text-nameless text-utf-8.txt text-utf-8-sig.txt text-devanagari.txt text-devanagari-split.txt text-emoji.txt"),
    ("Python", _TEXT, "text-form-feed.txt text-dos-end.txt text-bells.txt text-overstruck.txt text-unit-separators.txt text-shift-out.txt"),
    ("Python", _TEXT, "text-colours.log text-vertical-tab.txt text-cr.txt text-pdf-mention.txt text-iso-2022-jp.txt page-nameless json-nameless"),
    ("Python", _TEXT, "config.yaml config.ini query.sql subtitles.srt subtitles.vtt app.log"),
    ("Python", _UTF_16, "text-utf-16.txt text-utf-16-be.txt"),
    ("Python", _NOT_UTF_8, "text-utf-16-le.txt text-utf-32.txt text-cp1252.txt text-latin1.txt text-shift-jis.txt text-euc-jp.txt text-gbk.txt"),
    ("Python", _NOT_UTF_8, "text-koi8.txt text-cp437.txt text-nul.txt"),
    ("Python", _WHOLE, "text-as-pdf.pdf text-as-jpg.jpg text-as-docx.docx text-as-doc.doc json-as-jpg.jpg"),
    ("Python", Refused("HTML"), "html-as-pdf.pdf html-as-jpg.jpg"),
    ("Python", Refused("HTML", ".docx"), "html-as-doc.doc"),
    ("Python", Refused("MHTML", ".docx"), "mhtml-as-doc.doc"),
    ("Python", Refused("HTML", ".xlsx"), "html-as-xls.xls"),
    ("Python", Refused("text", ".xlsx"), "csv-as-xls.xls csv-as-xlsx.xlsx"),
    ("Python", Refused("XML", ".xlsx"), "xml-as-xls.xls"),
    ("Python", Refused("UTF-16"), "utf16-as-xls.xls"),
    ("Python", Refused("application/rtf"), "rtf-as-doc.doc letter.rtf"),
    ("Python", Refused("text/html", "text/plain"), "page.html"),
    ("Python", Refused("text/markdown", "text/plain"), "readme.md"),
    ("Python", Refused("text/csv", "text/plain"), "csv-module.csv"),
    ("Python", Refused("application/json", "text/plain"), "json-module.json"),
    ("vobject", Refused("text/vcard", "text/plain"), "vobject.vcf"),
    ("vobject", _TEXT, "vobject-nameless"),
    ("icalendar", Refused("text/calendar", "text/plain"), "icalendar.ics"),
)
