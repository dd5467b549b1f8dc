#!/usr/bin/env bash
# `pdftotext -enc UTF-16` of Poppler 22.12 and `iconv -t UTF-16` of glibc 2.36 write different bytes, and Python reads one of them wrong.
#   - Poppler writes big-endian without a byte order mark. RFC 2781 (4.3) asks for the mark. Excel's and glibc's text has it.
#   - Python's "utf-16" takes text without a mark for that of its own machine: letters come out as Chinese, and no error is raised.
# What follows: such text cannot be told from binary data, and "it decodes" proves nothing. Ask pdftotext for UTF-8, its default.
# It needs Debian 12 and its packages ghostscript and poppler-utils. Output seen: see EXPECTED below.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
printf '%%!PS\n/Helvetica findfont 20 scalefont setfont 72 700 moveto (Hello) show showpage\n' >page.ps
gs -q -dNOPAUSE -dBATCH -sDEVICE=pdfwrite -sOutputFile=page.pdf page.ps
pdftotext -enc UTF-16 page.pdf poppler.txt
printf 'Hello' | iconv -f UTF-8 -t UTF-16 >glibc.txt
cat >expected <<'EXPECTED'
poppler.txt: 00480065006c, '䠀攀氀氀漀'
glibc.txt: fffe48006500, 'Hello'
EXPECTED
python3 - <<'PYTHON' | tee seen
from pathlib import Path

for name in ("poppler.txt", "glibc.txt"):
    content = Path(name).read_bytes()
    print(f"{name}: {content[:6].hex()}, {content.decode('utf-16')[:5]!r}")
PYTHON
diff expected seen
