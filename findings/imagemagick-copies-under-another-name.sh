#!/usr/bin/env bash
# `convert photo.jpg photo.svg` of ImageMagick 6.9.11 writes the JPEG under the name .svg, and reports success.
#   - For a format that it reads but cannot write, ImageMagick falls back to the format of the input. The exit status is 0.
#   - For .svg it prints nothing. For .dcm, .cr2 and .xcf it prints a warning, and the exit status is 0 all the same.
#   - Only an input that is no file, such as `xc:red`, has no format to fall back to: there the exit status is 1.
# What follows: a type that is taken from the name is wrong, and the exit status of a conversion is no proof of it. Judge the bytes.
# It installs Debian 12's package in this version. Output seen: see EXPECTED below.
set -euo pipefail
apt-get install -qy imagemagick=8:6.9.11.60+dfsg-1.6+deb12u15 >/dev/null
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
convert-im6.q16 -size 8x8 xc:red photo.jpg
convert-im6.q16 -size 8x8 xc:red drawing.png
cat >expected <<'EXPECTED'
photo.jpg to svg: exit status 0, starts with ffd8ff, warnings: 0
photo.jpg to cr2: exit status 0, starts with ffd8ff, warnings: 1
photo.jpg to dcm: exit status 0, starts with ffd8ff, warnings: 1
photo.jpg to xcf: exit status 0, starts with ffd8ff, warnings: 1
drawing.png to svg: exit status 0, starts with 89504e, warnings: 0
xc:red to svg: exit status 1, starts with , warnings: 1
EXPECTED
{
    for pair in "photo.jpg svg" "photo.jpg cr2" "photo.jpg dcm" "photo.jpg xcf" "drawing.png svg" "xc:red svg"; do
        read -r source format <<<"$pair"
        rm -f "out.$format"; status=0
        convert-im6.q16 -size 8x8 "$source" "out.$format" 2>log || status=$?
        start=$( (head -c 3 "out.$format" 2>/dev/null || true) | od -An -tx1 | tr -d ' \n')
        echo "$source to $format: exit status $status, starts with $start, warnings: $(wc -l <log)"
    done
} | tee seen
diff expected seen
