"""Word, Excel and PowerPoint files of Python libraries."""

import io
import shutil
import zipfile

import ezodf
import msoffcrypto
import pandas
import pylightxl
import xlsxwriter
import xlwt
from docx import Document
from docxtpl import DocxTemplate
from odf import opendocument, table, text
from openpyxl import Workbook
from openpyxl.drawing.image import Image as Picture
from PIL import Image
from pptx import Presentation
from pptx.util import Inches
from pyexcelerate import Workbook as FastWorkbook

Image.effect_noise((400, 400), 90).save("noise.png")  # 130 KB: what lies behind it is beyond the head
rows = [[f"cell {row} {column}" for column in range(8)] for row in range(4000)]

document = Document()
document.add_heading("Letter")
document.add_paragraph("Bonjour, ça va ?")
document.save("python-docx.docx")
document.add_picture("noise.png")
document.save("python-docx-picture.docx")
document.save("python-docx-nameless")
document.save("python-docx-as-zip.zip")
document.save("python-docx-as-doc.doc")
template = Document()
template.add_paragraph("Dear {{ name }}")
template.save("template.docx")
filled = DocxTemplate("template.docx")
filled.render({"name": "Anna"})
filled.save("docxtpl.docx")

book = Workbook()
book.active.append([1, "two", 3.0])
book.save("openpyxl.xlsx")
book.active.add_image(Picture("noise.png"), "B2")
book.save("openpyxl-picture.xlsx")
book.save("openpyxl-as-xls.xls")
book.template = True
book.save("openpyxl-template.xltx")
book.save("openpyxl-template-as-xlsx.xlsx")
streamed = Workbook(write_only=True)
sheet = streamed.create_sheet()
for row in rows:
    sheet.append(row)
streamed.save("openpyxl-write-only.xlsx")

for name, options in {"xlsxwriter": {}, "xlsxwriter-constant-memory": {"constant_memory": True}}.items():
    with xlsxwriter.Workbook(f"{name}.xlsx", options) as written:
        page = written.add_worksheet()
        for number, row in enumerate(rows):
            page.write_row(number, 0, row)
with xlsxwriter.Workbook("xlsxwriter-picture.xlsx") as written:
    written.add_worksheet().insert_image("B2", "noise.png")
with zipfile.ZipFile("vbaProject.bin", "w") as macros:  # add_vba_project copies any file
    macros.writestr("VBA", b"")
with xlsxwriter.Workbook("xlsxwriter-macros.xlsm") as written:
    written.add_worksheet().write(0, 0, 1)
    written.add_vba_project("vbaProject.bin")
shutil.copy("xlsxwriter-macros.xlsm", "xlsxwriter-macros-as-xlsx.xlsx")

fast = FastWorkbook()
fast.new_sheet("data", data=rows)
fast.save("pyexcelerate.xlsx")
frame = pandas.DataFrame(rows)
frame.to_excel("pandas-openpyxl.xlsx", engine="openpyxl")
frame.to_excel("pandas-xlsxwriter.xlsx", engine="xlsxwriter")
frame.to_excel("pandas-odf.ods", engine="odf")
frame.to_csv("pandas.csv")
frame.to_csv("pandas-nameless-csv")
frame.to_json("pandas.json")
frame.to_html("pandas.html")
frame.to_html("pandas-html-as-xls.xls")
frame.to_csv("pandas-csv-as-xls.xls")
frame.to_csv("pandas-utf16.txt", encoding="utf-16")
frame.to_csv("pandas-latin1.txt", encoding="latin-1")
frame[[0]].rename(columns={0: "a"}).to_xml("pandas.xml")
frame.to_csv("pandas.csv.gz")
frame.to_csv("pandas-tabs.tsv", sep="\t")
frame.to_pickle("pandas.pkl")

for name, count in {"xlwt": 4, "xlwt-large": 20000}.items():
    old = xlwt.Workbook()
    page = old.add_sheet("data")
    for number in range(count):
        page.write(number, 0, f"row {number}")
        page.write(number, 1, number)
    old.save(f"{name}.xls")
old.save("xlwt-large-nameless")
old.save("xlwt-large-as-doc.doc")
old.save("xlwt-large-as-xlsx.xlsx")

deck = Presentation()
slide = deck.slides.add_slide(deck.slide_layouts[0])
slide.shapes.title.text = "Plan"
deck.save("python-pptx.pptx")
slide.shapes.add_picture("noise.png", Inches(1), Inches(1))
deck.save("python-pptx-picture.pptx")
deck.save("python-pptx-nameless")

for suffix, source in {"docx": "python-docx-picture", "xlsx": "xlsxwriter", "pptx": "python-pptx"}.items():
    with open(f"{source}.{suffix}", "rb") as opened:
        office = msoffcrypto.OfficeFile(opened)
        encrypted = io.BytesIO()
        office.encrypt("secret", encrypted)
    for name in (
        f"msoffcrypto.{suffix}",
        f"msoffcrypto-{suffix}-as-old.{suffix[:3]}",
        f"msoffcrypto-{suffix}-nameless",
    ):
        with open(name, "wb") as out:
            out.write(encrypted.getvalue())

odt = opendocument.OpenDocumentText()
odt.text.addElement(text.P(text="Hello"))
odt.save("odfpy.odt")
ods = opendocument.OpenDocumentSpreadsheet()
ods.spreadsheet.addElement(table.Table(name="one"))
ods.save("odfpy.ods")
ods.save("odfpy-ods-as-xlsx.xlsx")
odp = opendocument.OpenDocumentPresentation()
odp.save("odfpy.odp")

with zipfile.ZipFile("zipfile.zip", "w") as archive:
    archive.write("noise.png")
with zipfile.ZipFile("zipfile-as-docx.docx", "w") as archive:
    archive.write("noise.png")
with zipfile.ZipFile("zipfile-of-docx.zip", "w") as archive:
    archive.write("python-docx.docx")
with zipfile.ZipFile("zipfile-empty.zip", "w") as archive:
    pass
with zipfile.ZipFile("zipfile-of-xl-folder.zip", "w") as archive:
    archive.writestr("xl/settings.xml", "<a/>")
    archive.write("noise.png")
light = pylightxl.Database()
light.add_ws(ws="data")
light.ws(ws="data").update_index(row=1, col=1, val=10)
pylightxl.writexl(db=light, fn="pylightxl.xlsx")
simple = ezodf.newdoc(doctype="ods", filename="ezodf.ods")
simple.sheets += ezodf.Sheet("data")
simple.save()
many = Workbook()
for number in range(300):
    many.create_sheet().append([number, "text"])
many.save("openpyxl-300-sheets.xlsx")
written = xlsxwriter.Workbook("xlsxwriter-zip64.xlsx")
written.use_zip64()
written.add_worksheet().write(0, 0, 1)
written.close()
huge = xlwt.Workbook()
for name in ("one", "two", "three", "four"):
    page = huge.add_sheet(name)
    for number in range(60000):
        page.write(number, 0, f"{name} {number} of a table that is larger than the header can describe")
huge.save("xlwt-23mb.xls")
