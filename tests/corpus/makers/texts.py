"""Text in encodings, and under false names."""

import csv
import json
from datetime import datetime

import icalendar
import vobject

text = "Grüße, naïve façade — 10 €\r\nZweite Zeile\r\n" * 40
japanese = "こんにちは世界。\n" * 60
chinese = "你好，世界。\n" * 60
russian = "Привет, мир.\n" * 60
hindi = "नमस्ते दुनिया\n" * 4000


def write(name: str, data: bytes) -> None:
    with open(name, "wb") as out:
        out.write(data)


for codec in ("utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-16-le", "utf-32"):
    mark = b"\xfe\xff" if codec == "utf-16-be" else b""
    write(f"text-{codec}.txt", mark + text.encode(codec))
write("text-ascii.txt", b"plain ASCII\n" * 9)
write("text-nameless", text.encode())
write("text-cp1252.txt", text.encode("cp1252"))
write("text-latin1.txt", "Grüße, naïve façade\n".encode("latin-1") * 40)
write("text-shift-jis.txt", japanese.encode("shift_jis"))
write("text-iso-2022-jp.txt", japanese.encode("iso2022_jp"))
write("text-euc-jp.txt", japanese.encode("euc_jp"))
write("text-gbk.txt", chinese.encode("gbk"))
write("text-koi8.txt", russian.encode("koi8_r"))
write("text-cp437.txt", "Grüße ░▒▓\r\n".encode("cp437") * 9)
write("text-devanagari.txt", hindi.encode())
write("text-devanagari-split.txt", b"x" + hindi.encode())
write("text-emoji.txt", ("👩‍👩‍👧 ok\n" * 40).encode())
write("text-form-feed.txt", b"one\x0ctwo\x0cthree\n")
write("text-dos-end.txt", b"REM batch\r\n\x1a")
write("text-bells.txt", b"ready\x07\nwait\x07\n")
write("text-overstruck.txt", b"N\x08NA\x08AM\x08ME\x08E\n  ls\n")
write("text-unit-separators.txt", b"a\x1fb\x1fc\x1ed\x1fe\x1ff\x1e" * 30)
write("text-shift-out.txt", b"graph \x0elqqk\x0f end\n")
write("text-colours.log", b"\x1b[31mERROR\x1b[0m failed\n" * 30)
write("text-nul.txt", b"a\0b\0c\n" * 30)
write("text-vertical-tab.txt", b"a\x0bb\n")
write("text-cr.txt", b"old Mac\rlines\r")
write("text-pdf-mention.txt", b"the header is %PDF-1.4\n" * 9)
write("text-as-pdf.pdf", text.encode())
write("text-as-jpg.jpg", text.encode())
write("text-as-docx.docx", text.encode())
write("text-as-doc.doc", text.encode())
write("page.html", b"<!DOCTYPE html><html><body><p>hi</body></html>\n")
write("page-nameless", b"<!DOCTYPE html><html><body><p>hi</body></html>\n")
write(
    "html-as-xls.xls",
    b'<html xmlns:x="urn:schemas-microsoft-com:office:excel"><table><tr><td>1</td></tr></table></html>',
)
write("html-as-doc.doc", b'<html xmlns:w="urn:schemas-microsoft-com:office:word"><body><p>hi</body></html>')
write("html-as-pdf.pdf", b"<!DOCTYPE html><title>404 Not Found</title>")
write("html-as-jpg.jpg", b"<!DOCTYPE html><title>403 Forbidden</title>")
write("json-as-jpg.jpg", b'{"error":{"message":"(#100)","code":100}}')
write("csv-as-xls.xls", b"a;b;c\r\n1;2;3\r\n" * 40)
write("csv-as-xlsx.xlsx", b"a,b,c\r\n1,2,3\r\n" * 40)
write("utf16-as-xls.xls", "a\tb\r\n1\t2\r\n".encode("utf-16"))
write(
    "xml-as-xls.xls",
    b'<?xml version="1.0"?>\n<?mso-application progid="Excel.Sheet"?>\n<Workbook xmlns="urn:schemas-microsoft-com:office:spreadsheet"/>',
)
write(
    "mhtml-as-doc.doc",
    b"MIME-Version: 1.0\nContent-Type: multipart/related; boundary=x\n\n--x\nContent-Type: text/html\n\n<p>hi\n--x--\n",
)
write("rtf-as-doc.doc", b"{\\rtf1\\ansi\\deff0 {\\fonttbl{\\f0 Arial;}} hello}")
write("letter.rtf", b"{\\rtf1\\ansi hello}")
write("readme.md", b"# Title\n")
write("config.yaml", b"a: 1\n")
write("config.ini", b"[a]\nb = 1\n")
write("query.sql", b"select 1;\n")
write("subtitles.srt", b"1\r\n00:00:01,000 --> 00:00:02,000\r\nHello\r\n")
write("subtitles.vtt", b"WEBVTT\n\n00:01.000 --> 00:02.000\nHello\n")
write("app.log", b"2026-01-01 INFO started\n" * 3000)
with open("csv-module.csv", "w", newline="") as out:
    csv.writer(out).writerows([[1, "two"], [3, "vier, fünf"]])
with open("json-module.json", "w") as out:
    json.dump({"a": [1, 2]}, out)
with open("json-nameless", "w") as out:
    json.dump({"a": [1, 2]}, out)
card = vobject.vCard()
card.add("fn").value = "Anna"
card.add("n").value = vobject.vcard.Name(family="A", given="Anna")
write("vobject.vcf", card.serialize().encode())
write("vobject-nameless", card.serialize().encode())
calendar = icalendar.Calendar()
event = icalendar.Event()
event.add("summary", "meeting")
event.add("dtstart", datetime(2026, 1, 1))
calendar.add_component(event)
write("icalendar.ics", calendar.to_ical())
