#!/usr/bin/env bash
# ExifTool 12.57 writes one tag into an MP4, and puts the file's index in front of its sound and pictures.
#   - An MP4 that FFmpeg writes ends with `moov`: it plays only after the last byte has arrived. After `exiftool -Title=…` the
#     order is ftyp, moov, mdat, as after FFmpeg's `-movflags faststart`, and all chunk offsets are rewritten.
#   - The pictures and the sound keep every byte: the hash of the packets is the same, that of the file is not.
#   - A QuickTime tag of a date, which has its fixed place in `moov`, moves it all the same.
# What follows: a hash of the whole file does not find the same video again after a photo manager has tagged it, and
# where the index lies says nothing about the program that made the video.
# It installs Debian 12's packages in these versions. Output seen: see EXPECTED below.
set -euo pipefail
apt-get install -qy libimage-exiftool-perl=12.57+dfsg-1 ffmpeg=7:5.1.9-0+deb12u1 >/dev/null
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
ffmpeg -v error -f lavfi -i testsrc=duration=1:size=64x48 -f lavfi -i sine=duration=1 -pix_fmt yuv420p made.mp4
cp made.mp4 titled.mp4 && exiftool -q -overwrite_original -Title=Tests titled.mp4
cp made.mp4 dated.mp4 && exiftool -q -overwrite_original -QuickTime:CreateDate="2026:01:02 03:04:05" dated.mp4
boxes() { ffprobe -v trace "$1" 2>&1 | sed -n "s/.*type:'\(....\)' parent:'root'.*/\1/p" | xargs; }
packets() { ffmpeg -v error -i "$1" -map 0 -c copy -f hash -hash md5 - ; }
cat >expected <<'EXPECTED'
made.mp4: ftyp free mdat moov
titled.mp4: ftyp free moov uuid mdat, the same packets, another file
dated.mp4: ftyp free moov mdat, the same packets, another file
EXPECTED
{
    echo "made.mp4: $(boxes made.mp4)"
    for file in titled.mp4 dated.mp4; do
        [ "$(packets "$file")" = "$(packets made.mp4)" ] && kept="the same packets" || kept="other packets"
        cmp -s "$file" made.mp4 && whole="the same file" || whole="another file"
        echo "$file: $(boxes "$file"), $kept, $whole"
    done
} | tee seen
diff expected seen
