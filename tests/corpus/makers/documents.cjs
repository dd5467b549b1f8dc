// Documents and images of npm's libraries: node node.cjs, in the folder that the files go to.
"use strict";
const fs = require("fs");

const write = (name, data) => fs.writeFileSync(name, Buffer.isBuffer(data) ? data : Buffer.from(data));
const rows = Array.from({ length: 3000 }, (_, row) => [row, `cell ${row}`, row / 7]);

async function office(noise) {
  const { Document, Packer, Paragraph, ImageRun } = require("docx");
  const image = new ImageRun({ type: "png", data: noise, transformation: { width: 200, height: 200 } });
  const document = new Document({ sections: [{ children: [new Paragraph("Hello"), new Paragraph({ children: [image] })] }] });
  write("docx.docx", await Packer.toBuffer(document));

  const ExcelJS = require("exceljs");
  const book = new ExcelJS.Workbook();
  book.addWorksheet("data").addRows(rows);
  await book.xlsx.writeFile("exceljs.xlsx");
  await book.csv.writeFile("exceljs.csv");
  const stream = new ExcelJS.stream.xlsx.WorkbookWriter({ filename: "exceljs-stream.xlsx" });
  const sheet = stream.addWorksheet("data");
  for (const row of rows) sheet.addRow(row).commit();
  await stream.commit();

  const XLSX = require("xlsx");
  const made = XLSX.utils.book_new();
  XLSX.utils.book_append_sheet(made, XLSX.utils.aoa_to_sheet(rows), "data");
  const types = { xlsx: "xlsx", xlsm: "xlsm", xlsb: "xlsb", xls: "biff8", "biff5.xls": "biff5", ods: "ods", csv: "csv", txt: "txt", html: "html", rtf: "rtf", "xml.xls": "xlml" };
  for (const [suffix, bookType] of Object.entries(types)) XLSX.writeFile(made, `sheetjs.${suffix}`, { bookType });
  XLSX.writeFile(made, "sheetjs-compressed.xlsx", { compression: true });
  XLSX.writeFile(made, "sheetjs-xlsb-as-xlsx.xlsx", { bookType: "xlsb" });
  XLSX.writeFile(made, "sheetjs-html-as-xls.xls", { bookType: "html" });

  const PptxGenJS = require("pptxgenjs");
  const deck = new PptxGenJS();
  const slide = deck.addSlide();
  slide.addText("Hello", { x: 1, y: 1 });
  slide.addImage({ data: `image/png;base64,${noise.toString("base64")}`, x: 1, y: 2, w: 2, h: 2 });
  await deck.writeFile({ fileName: "pptxgenjs.pptx" });

  const writeExcel = require("write-excel-file/node");
  const result = (writeExcel.default ?? writeExcel)(rows.map((row) => row.map((value) => ({ value }))));
  if (result.toFile) await result.toFile("write-excel-file.xlsx"); else await result;
}

async function more(noise) {
  const htmlToDocx = require("html-to-docx");
  write("html-to-docx.docx", Buffer.from(await htmlToDocx("<h1>Hello</h1>")));
  const populate = await require("xlsx-populate").fromBlankAsync();
  await populate.toFileAsync("xlsx-populate.xlsx");
  await populate.toFileAsync("xlsx-populate-password.xlsx", { password: "secret" });
  await populate.toFileAsync("xlsx-populate-password-as-old.xls", { password: "secret" });
  const officegen = require("officegen");
  for (const [suffix, fill] of Object.entries({
    docx: (made) => made.createP().addText("Hello"),
    pptx: (made) => made.makeNewSlide().addText("Hello"),
    xlsx: (made) => (made.makeNewSheet().data[0] = [1, 2]),
  })) {
    const made = officegen(suffix);
    fill(made);
    await new Promise((resolve, reject) => made.on("error", reject).generate(fs.createWriteStream(`officegen.${suffix}`).on("close", resolve)));
  }
  const { Workbook } = require("excel4node");
  const book = new Workbook();
  book.addWorksheet("data").cell(1, 1).string("Hello");
  write("excel4node.xlsx", await book.writeToBuffer());
  const JSZip = require("jszip");
  for (const [name, source] of Object.entries({ "jszip-of-docx.docx": "docx.docx", "jszip-of-pptx.pptx": "pptxgenjs.pptx", "jszip-of-xlsx.xlsx": "exceljs.xlsx" })) {
    const archive = await JSZip.loadAsync(fs.readFileSync(source));
    write(name, await archive.generateAsync({ type: "nodebuffer", compression: "DEFLATE", streamFiles: true }));
  }
  const archive = new JSZip();
  archive.file("picture.png", noise);
  write("jszip.zip", await archive.generateAsync({ type: "nodebuffer", streamFiles: true }));
  const Docxtemplater = require("docxtemplater");
  const filled = new Docxtemplater(new (require("pizzip"))(fs.readFileSync("docx.docx")));
  filled.render({});
  write("docxtemplater.docx", filled.getZip().generate({ type: "nodebuffer" }));
  const { createCanvas } = require("@napi-rs/canvas");
  const canvas = createCanvas(512, 512);
  canvas.getContext("2d").fillRect(0, 0, 300, 300);
  for (const format of ["png", "jpeg", "webp", "avif", "gif"]) write(`canvas.${format}`, await canvas.encode(format));
  const UPNG = require("upng-js");
  const pictures = [new Uint8Array(64 * 64 * 4).fill(120), new Uint8Array(64 * 64 * 4).fill(20)].map((pixels) => pixels.buffer);
  write("upng.png", Buffer.from(UPNG.encode(pictures.slice(1), 64, 64, 0)));
  write("upng-moving.png", Buffer.from(UPNG.encode(pictures, 64, 64, 0, [90, 90])));
}

async function pdf(jpeg) {
  const { PDFDocument } = require("pdf-lib");
  const made = await PDFDocument.create();
  made.addPage().drawText("Hello");
  write("pdf-lib.pdf", await made.save());
  const { jsPDF } = require("jspdf");
  const other = new jsPDF();
  other.text("Hello", 10, 10);
  write("jspdf.pdf", Buffer.from(other.output("arraybuffer")));
  const secret = new jsPDF({ encryption: { userPassword: "user" } });
  write("jspdf-encrypted.pdf", Buffer.from(secret.output("arraybuffer")));
  const PDFKit = require("pdfkit");
  const third = new PDFKit();
  const done = new Promise((resolve) => third.pipe(fs.createWriteStream("pdfkit.pdf")).on("finish", resolve));
  third.text("Hello").image(jpeg, { width: 100 }).end();
  await done;
}

async function images() {
  const sharp = require("sharp");
  const noise = { create: { width: 400, height: 300, channels: 3, background: "white", noise: { type: "gaussian", mean: 120, sigma: 40 } } };
  const make = () => sharp(noise);
  const files = {
    "sharp.jpg": make().jpeg(),
    "sharp-progressive.jpg": make().jpeg({ progressive: true, mozjpeg: true }),
    "sharp-nameless": make().jpeg(),
    "sharp-cmyk.jpg": make().toColourspace("cmyk").jpeg(),
    "sharp-grey.jpg": make().greyscale().jpeg(),
    "sharp.png": make().png(),
    "sharp-palette.png": make().png({ palette: true }),
    "sharp-16.png": make().toColourspace("rgb16").png(),
    "sharp-grey-16.png": make().toColourspace("grey16").png(),
    "sharp.avif": make().avif(),
    "sharp.heif": make().heif({ compression: "av1" }),
    "sharp.tiff": make().tiff(),
    "sharp.gif": make().gif(),
    "sharp-sticker-heavy.webp": make().resize(512, 512).webp({ quality: 99 }),
    "sharp-sticker.webp": make().resize(512, 512).webp({ quality: 30 }),
    "sharp-sticker-lossless.webp": make().resize(512, 512).blur(20).webp({ lossless: true }),
    "sharp-sticker-alpha.webp": make().ensureAlpha(0.5).resize(512, 512).webp({ quality: 40 }),
    "sharp-sticker-contained.webp": make().resize(512, 512, { fit: "contain", background: { r: 0, g: 0, b: 0, alpha: 0 } }).webp({ quality: 40 }),
    "sharp-sticker-inside.webp": make().resize(512, 512, { fit: "inside" }).webp(),
    "sharp-photo.webp": make().webp(),
  };
  for (const [name, image] of Object.entries(files)) write(name, await image.toBuffer());
  const jpeg = fs.readFileSync("sharp.jpg");
  write("sharp-again.jpg", await sharp(fs.readFileSync("sharp-cmyk.jpg")).jpeg().toBuffer());
  write("sharp-metadata.jpg", await sharp(jpeg).withMetadata({ orientation: 6 }).jpeg().toBuffer());
  const { gif } = await frames(sharp);
  write("sharp-moving.gif", gif);
  write("sharp-sticker-animated.webp", await sharp(gif, { animated: true }).webp({ quality: 50 }).toBuffer());
  write("sharp-sticker-first-frame.webp", await sharp(gif).webp().toBuffer());
  write("sharp-small-animated.webp", await sharp(gif, { animated: true }).resize(256, 256).webp().toBuffer());

  const { PNG } = require("pngjs");
  const png = new PNG({ width: 64, height: 64, bitDepth: 8, colorType: 6 });
  png.data.fill(99);
  write("pngjs.png", PNG.sync.write(png));
  write("pngjs-grey.png", PNG.sync.write(png, { colorType: 0 }));
  write("pngjs-16.png", PNG.sync.write({ width: 8, height: 8, data: Buffer.alloc(8 * 8 * 8, 77) }, { bitDepth: 16, colorType: 6, inputColorType: 6, inputHasAlpha: true }));
  const { encode } = require("jpeg-js");
  write("jpeg-js.jpg", encode({ width: 64, height: 64, data: Buffer.alloc(64 * 64 * 4, 99) }, 80).data);
  const { Jimp } = require("jimp");
  const jimp = new Jimp({ width: 64, height: 64, color: 0xff8800ff });
  for (const [suffix, type] of Object.entries({ jpg: "image/jpeg", png: "image/png", bmp: "image/bmp", gif: "image/gif", tiff: "image/tiff" })) write(`jimp.${suffix}`, await jimp.getBuffer(type));
}

async function frames(sharp) {
  const all = [];
  for (let step = 0; step < 5; step++) all.push(await sharp({ create: { width: 512, height: 512, channels: 4, background: { r: 40 * step, g: 99, b: 200, alpha: 1 } } }).png().toBuffer());
  return { gif: await sharp(all, { join: { animated: true } }).gif({ delay: [80, 80, 80, 80, 80] }).toBuffer() };
}

(async () => {
  await images();
  const sharp = require("sharp");
  const noise = await sharp({ create: { width: 400, height: 400, channels: 3, background: "white", noise: { type: "gaussian", mean: 120, sigma: 40 } } }).png().toBuffer();
  await pdf(fs.readFileSync("sharp.jpg"));
  await office(noise);
  await more(noise);
})();
