#!/usr/bin/env bash
# What the two pure-Python type detectors say of the formats that phones send.
#   - filetype 1.2.0 and puremagic 1.30 call a file of brand "3gp5" video/mp4. WhatsApp takes 3GP as video/3gpp.
#   - puremagic recognises AMR and M4A, yet its MIME type for both is the empty text: falsy, but not None.
#   - neither separates Opus from Vorbis in Ogg: WhatsApp takes the first and refuses the second.
# Output seen: see EXPECTED below.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"; "$folder/env/bin/pip" install -q filetype==1.2.0 puremagic==1.30
cat >"$folder/try.py" <<'PYTHON'
import filetype
import puremagic

def ftyp(brand: bytes) -> bytes:
    box = b"ftyp" + brand + bytes(4) + brand + b"isom"
    return (len(box) + 4).to_bytes(4, "big") + box + bytes(64)

def ogg(first_packet: bytes) -> bytes:
    return b"OggS\0\2" + bytes(20) + b"\1" + bytes([len(first_packet)]) + first_packet + bytes(64)

files = {
    "3gp": ftyp(b"3gp5"),
    "m4a": ftyp(b"M4A "),
    "amr": b"#!AMR\n" + bytes(64),
    "opus": ogg(b"OpusHead\1\1\0\0\x80\xbb\0\0\0\0\0"),
    "vorbis": ogg(b"\1vorbis" + bytes(23)),
}
for name, content in files.items():
    one = filetype.guess(content)
    other = puremagic.magic_string(content)
    print(f"{name}: filetype {one.mime if one else None!r}, puremagic {other[0].mime_type!r}")
PYTHON
cat >"$folder/expected" <<'EXPECTED'
3gp: filetype 'video/mp4', puremagic 'video/mp4'
m4a: filetype 'audio/mp4', puremagic ''
amr: filetype 'audio/amr', puremagic ''
opus: filetype 'audio/ogg', puremagic 'application/ogg'
vorbis: filetype 'audio/ogg', puremagic 'application/ogg'
EXPECTED
"$folder/env/bin/python" "$folder/try.py" | tee "$folder/seen"
diff "$folder/expected" "$folder/seen"
