#!/usr/bin/env bash
# What three detectors of types say of Office files that two much used generators write.
#   - PptxGenJS 4.0.1 puts its folders first: a .pptx is application/zip for libmagic 5.44 (`file`, python-magic) and filetype
#     1.2.0. WhatsApp takes no ZIP.
#   - SheetJS 0.18.5 puts META-INF first into an .ods, where OpenDocument wants `mimetype`: application/zip for these two, and a
#     Word document for puremagic 1.30.
#   - The binary .xlsb of SheetJS is a plain .xlsx for libmagic and filetype: only puremagic knows it.
# With [Content_Types].xml or `mimetype` as the first entry, all three know the .pptx and the .ods.
# It installs Debian 12's packages in these versions. Output seen: see EXPECTED below.
set -euo pipefail
apt-get install -qy file=1:5.44-3 libmagic1=1:5.44-3 >/dev/null
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env; env/bin/pip install -q filetype==1.2.0 puremagic==1.30 python-pptx==1.0.2
npm install --silent --no-save --ignore-scripts --prefix "$folder" pptxgenjs@4.0.1 xlsx@0.18.5
cat >make.cjs <<'JAVASCRIPT'
const PptxGenJS = require('pptxgenjs'), XLSX = require('xlsx')
const book = XLSX.utils.book_new()
XLSX.utils.book_append_sheet(book, XLSX.utils.aoa_to_sheet([[1]]), 'one')
for (const type of ['xlsx', 'xlsb', 'ods']) XLSX.writeFile(book, `sheetjs.${type}`)
const slides = new PptxGenJS()
slides.addSlide().addText('one', { x: 1, y: 1 })
slides.writeFile({ fileName: 'pptxgenjs.pptx' })
JAVASCRIPT
node make.cjs
cat >try.py <<'PYTHON'
import re
import subprocess

import filetype
import pptx
import puremagic

pptx.Presentation().save("python-pptx.pptx")
for name in ("python-pptx.pptx", "pptxgenjs.pptx", "sheetjs.xlsx", "sheetjs.ods", "sheetjs.xlsb"):
    libmagic = subprocess.check_output(["file", "--brief", "--mime-type", name], text=True).strip()
    said = (libmagic, filetype.guess(name).mime, puremagic.from_file(name, mime=True))
    print(f"{name}: {', '.join(re.sub('application/(vnd.(openxmlformats-officedocument.)?)?', '', one) for one in said)}")
PYTHON
cat >expected <<'EXPECTED'
python-pptx.pptx: presentationml.presentation, presentationml.presentation, presentationml.presentation
pptxgenjs.pptx: zip, zip, presentationml.presentation
sheetjs.xlsx: spreadsheetml.sheet, spreadsheetml.sheet, spreadsheetml.sheet
sheetjs.ods: zip, zip, wordprocessingml.document
sheetjs.xlsb: spreadsheetml.sheet, spreadsheetml.sheet, ms-excel.sheet.binary.macroenabled.12
EXPECTED
env/bin/python try.py | tee seen
diff expected seen
