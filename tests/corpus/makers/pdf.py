"""PDF files of Python libraries."""

import cairocffi
import cairosvg
import img2pdf
import pikepdf
import pymupdf
from fpdf import FPDF
from fpdf.enums import AccessPermission
from matplotlib import pyplot
from PIL import Image
from pypdf import PdfReader, PdfWriter
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas
from weasyprint import HTML
from xhtml2pdf import pisa

Image.effect_noise((600, 400), 90).convert("RGB").save("page.jpg")
canvas = Canvas("reportlab.pdf")
canvas.drawString(100, 700, "Hello")
canvas.save()
canvas = Canvas("reportlab-encrypted.pdf", encrypt=StandardEncryption("user", strength=128))
canvas.drawString(100, 700, "Hello")
canvas.save()
page = FPDF()
page.add_page()
page.set_font("Helvetica")
page.cell(text="Hello")
page.output("fpdf2.pdf")
page = FPDF()
page.set_encryption("owner", "user", permissions=AccessPermission.none())
page.add_page()
page.output("fpdf2-encrypted.pdf")
with pikepdf.open("reportlab.pdf") as plain:
    plain.save("pikepdf.pdf")
    plain.save("pikepdf-linearized.pdf", linearize=True)
    plain.save("pikepdf-aes256.pdf", encryption=pikepdf.Encryption(owner="o", user="u", R=6))
    plain.save("pikepdf-objects.pdf", object_stream_mode=pikepdf.ObjectStreamMode.generate)
writer = PdfWriter()
writer.append(PdfReader("reportlab.pdf"))
writer.append(PdfReader("fpdf2.pdf"))
writer.add_attachment("note.txt", b"attached")
writer.write("pypdf-merged.pdf")
writer = PdfWriter(clone_from="reportlab.pdf")
writer.encrypt("user", algorithm="AES-256")
writer.write("pypdf-aes256.pdf")
with open("img2pdf.pdf", "wb") as out:
    out.write(img2pdf.convert("page.jpg"))
HTML(string="<h1>Bill</h1><p>12 €").write_pdf("weasyprint.pdf")
HTML(string="<h1>Bill</h1>").write_pdf("weasyprint-nameless")
HTML(string="<h1>Bill</h1>").write_pdf("weasyprint-archive.pdf", pdf_variant="pdf/a-3b")
svg = '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><circle r="30" cx="32" cy="32"/></svg>'
cairosvg.svg2pdf(svg.encode(), write_to="cairosvg.pdf")
cairosvg.svg2png(svg.encode(), write_to="cairosvg.png")
cairosvg.svg2svg(svg.encode(), write_to="cairosvg.svg")
surface = cairocffi.PDFSurface("cairo.pdf", 200, 200)
cairocffi.Context(surface).paint()
surface.finish()
cairocffi.ImageSurface(cairocffi.FORMAT_ARGB32, 32, 32).write_to_png("cairo.png")
cairocffi.ImageSurface(cairocffi.FORMAT_A8, 32, 32).write_to_png("cairo-grey.png")
cairocffi.ImageSurface(cairocffi.FORMAT_RGB30, 32, 32).write_to_png("cairo-rgb30.png")
figure = pyplot.figure()
figure.add_subplot().plot([1, 3, 2])
for suffix in ("pdf", "png", "jpg", "svg", "tif", "webp"):
    figure.savefig(f"matplotlib.{suffix}")
Image.open("page.jpg").save("pillow.pdf")
with open("reportlab.pdf", "rb") as opened:
    data = opened.read()
for name, content in {
    "reportlab-with-mail-header.pdf": b"X-Mailer: old\r\n\r\n" + data,
    "reportlab-as-doc.doc": data,
    "reportlab-as-jpg.jpg": data,
}.items():
    with open(name, "wb") as out:
        out.write(content)
pages = pymupdf.open()
pages.new_page().insert_text((50, 50), "Hello")
pages.save("pymupdf.pdf")
pages.save("pymupdf-aes256.pdf", encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw="user")
pixmap = pages[0].get_pixmap()
for name in ("pymupdf.png", "pymupdf.jpg", "pymupdf.psd"):
    pixmap.save(name)
pymupdf.Pixmap(pymupdf.csCMYK, pixmap).save("pymupdf-cmyk.jpg")
with open("xhtml2pdf.pdf", "wb") as out:
    pisa.CreatePDF("<h1>Bill</h1>", out)
