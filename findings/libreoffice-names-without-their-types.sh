#!/usr/bin/env bash
# `soffice --convert-to xlsm` of LibreOffice 7.4.7 writes a plain .xlsx under the name .xlsm, and `ppsx` a plain .pptx.
#   - The content type inside is that of a workbook without macros, and of a presentation that does not start by itself.
#   - `docm`, `pptm`, `dotx`, `xltx` and `potx` are as they are named: only these two are not.
#   - With the filter named, `xlsm:"Calc MS Excel 2007 VBA XML"` gives what it says. For .ppsx no filter does.
# What follows: an extension tells nothing about macros, in either direction. [Content_Types].xml does.
# It installs Debian 12's packages in this version. Output seen: see EXPECTED below.
set -euo pipefail
apt-get install -qy --no-install-recommends libreoffice-{calc,impress,writer}-nogui=4:7.4.7-1+deb12u14 >/dev/null
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
printf 'a,b\n1,2\n' >table.csv
printf 'Hello\n' >letter.txt
convert() {  # convert FORMAT [OPTION...] SOURCE
    soffice --headless "-env:UserInstallation=file://$folder/profile" --convert-to "$@" >/dev/null 2>&1
}
for format in xlsm xltx; do convert "$format" table.csv; done
for format in docm dotx; do convert "$format" letter.txt; done
cat >slides.fodp <<'XML'
<?xml version="1.0" encoding="UTF-8"?>
<office:document xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
  xmlns:draw="urn:oasis:names:tc:opendocument:xmlns:drawing:1.0" office:version="1.2"
  office:mimetype="application/vnd.oasis.opendocument.presentation">
  <office:body><office:presentation><draw:page draw:name="one"/></office:presentation></office:body>
</office:document>
XML
for format in pptm ppsx potx; do convert "$format" slides.fodp; done
mkdir named
convert xlsm:"Calc MS Excel 2007 VBA XML" --outdir named table.csv
convert ppsx:"Impress MS PowerPoint 2007 XML AutoPlay" --outdir named slides.fodp
cat >expected <<'EXPECTED'
table.xlsm: openxmlformats-officedocument.spreadsheetml.sheet
table.xltx: openxmlformats-officedocument.spreadsheetml.template
letter.docm: ms-word.document.macroEnabled
letter.dotx: openxmlformats-officedocument.wordprocessingml.template
slides.pptm: ms-powerpoint.presentation.macroEnabled
slides.ppsx: openxmlformats-officedocument.presentationml.presentation
slides.potx: openxmlformats-officedocument.presentationml.template
named/table.xlsm: ms-excel.sheet.macroEnabled
named/slides.ppsx: openxmlformats-officedocument.presentationml.presentation
EXPECTED
python3 - table.xlsm table.xltx letter.docm letter.dotx slides.pptm slides.ppsx slides.potx named/table.xlsm named/slides.ppsx <<'PYTHON' | tee seen
import re
import sys
import zipfile

PATTERN = r'application/vnd\.([^"]*)\.main\+xml'

for name in sys.argv[1:]:
    types = zipfile.ZipFile(name).read("[Content_Types].xml").decode()
    print(f"{name}: {re.findall(PATTERN, types)[0]}")
PYTHON
diff expected seen
