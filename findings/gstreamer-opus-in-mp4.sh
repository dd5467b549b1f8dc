#!/usr/bin/env bash
# Opus that GStreamer 1.22.0 writes into MP4 loses its first 292 ms in FFmpeg 5.1.
#   - The numbers of the box `dOps` are big-endian ("Encapsulation of Opus in ISO Base Media File Format", 4.3.2).
#     GStreamer's mp4mux copies those of an Ogg header, which are little-endian: 312 samples of pre-skip become 14,337.
#   - FFmpeg takes the box at its word: it drops that many samples, and says nothing. `-c copy` to Ogg keeps the wrong header.
#   - GStreamer itself plays such a file whole, so that a round trip there shows nothing.
# What follows: an input rate that is none (0x80bb0000) tells such a file, and then all of its numbers have to be swapped.
# It installs Debian 12's packages in these versions. Output seen: see EXPECTED below.
set -euo pipefail
apt-get install -qy gstreamer1.0-tools=1.22.0-2+deb12u1 gstreamer1.0-plugins-base=1.22.0-3+deb12u7 \
  gstreamer1.0-plugins-good=1.22.0-5+deb12u4 ffmpeg=7:5.1.9-0+deb12u1 >/dev/null
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
record() {  # record MUXER FILE: 2.1 seconds of a tone, the same packets in each container
    gst-launch-1.0 -q audiotestsrc num-buffers=100 ! audio/x-raw,rate=48000,channels=1 ! opusenc ! "$1" ! filesink location="$2"
}
record oggmux tone.ogg
record mp4mux tone.mp4
ffmpeg -v error -i tone.mp4 -c copy copied.ogg
dops=$(od -An -v -tx1 tone.mp4 | tr -d ' \n' | grep -o '644f7073.\{16\}')
samples() { ffmpeg -v error -i "$1" -f s16le -ac 1 -ar 48000 - | wc -c | awk '{print $1 / 2}'; }
cat >expected <<'EXPECTED'
dOps: version 00, channels 01, pre-skip 3801, rate 80bb0000
tone.ogg: 102400 samples by FFmpeg
tone.mp4: 88383 samples by FFmpeg
copied.ogg: 88375 samples by FFmpeg
EXPECTED
{
    echo "dOps: version ${dops:8:2}, channels ${dops:10:2}, pre-skip ${dops:12:4}, rate ${dops:16:8}"
    for file in tone.ogg tone.mp4 copied.ogg; do echo "$file: $(samples "$file") samples by FFmpeg"; done
} | tee seen
diff expected seen
