#!/usr/bin/env bash
# The MP4 that four Python libraries write by default: every one of them is named video.mp4, and no option is passed.
#   - MoviePy 2.2.1 puts MP3 into it, although AAC is what its own table lists for .mp4. WhatsApp takes AAC alone:
#     `audio_codec="aac"` is needed.
#   - VidGear 0.3.6 gives FFmpeg RGB pictures and no pixel format: H.264 of the profile High 4:4:4 Predictive, which hardly any
#     phone decodes. `**{"-pix_fmt": "yuv420p"}` is needed.
#   - OpenCV 5.0.0.93 (pip) cannot encode H.264: with "avc1" it writes no file, raises nothing, and `write` is silent.
#     With "mp4v", which nearly every example has, the file is MPEG-4 Part 2 of 1999.
#   - imageio 2.38.1 writes H.264 High, 4:2:0.
# FFmpeg is the static one of imageio-ffmpeg 0.8.1 in all of them but OpenCV. The files are read with PyAV 18.1.0.
# Output seen: see EXPECTED below.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q moviepy==2.2.1 vidgear==0.3.6 opencv-python-headless==5.0.0.93 imageio==2.38.1 \
  imageio-ffmpeg==0.8.1 av==18.1.0 numpy==2.4.6
cat >"$folder/try.py" <<'PYTHON'
import os
import sys

import av
import cv2
import imageio.v2
import imageio_ffmpeg
import numpy
from moviepy import AudioArrayClip, ImageSequenceClip
from vidgear.gears import WriteGear

pictures = [numpy.full((72, 128, 3), shade, numpy.uint8) for shade in range(0, 250, 10)]
tone = numpy.sin(numpy.arange(44100) * 0.05)

def moviepy(path):
    sound = AudioArrayClip(numpy.stack([tone, tone], 1), fps=44100)
    ImageSequenceClip(pictures, fps=25).with_audio(sound).write_videofile(path, logger=None)

def vidgear(path):
    writer = WriteGear(output=path, custom_ffmpeg=imageio_ffmpeg.get_ffmpeg_exe())
    for picture in pictures:
        writer.write(picture)
    writer.close()

def opencv(fourcc):
    def write(path):
        writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*fourcc), 25, (128, 72))
        for picture in pictures:
            writer.write(picture)
        writer.release()
    return write

def imageio_(path):
    with imageio.v2.get_writer(path, fps=25) as writer:
        for picture in pictures:
            writer.append_data(picture)

def described(path):
    if not os.path.exists(path) or not os.path.getsize(path):
        return "no file"
    with av.open(path) as file:
        return ", ".join(f"{one.codec_context.name} {one.profile} {getattr(one.codec_context, 'pix_fmt', '') or ''}".strip()
                         for one in file.streams)

makers = {"MoviePy": moviepy, "VidGear": vidgear, "OpenCV avc1": opencv("avc1"), "OpenCV mp4v": opencv("mp4v"), "imageio": imageio_}
for name, make in makers.items():
    folder = os.path.join(sys.argv[1], name)
    os.mkdir(folder)
    os.chdir(folder)
    make("video.mp4")
    print(f"{name}: {described('video.mp4')}")
PYTHON
cat >"$folder/expected" <<'EXPECTED'
MoviePy: h264 High yuv420p, mp3float None
VidGear: h264 High 4:4:4 Predictive yuv444p
OpenCV avc1: no file
OpenCV mp4v: mpeg4 Simple Profile yuv420p
imageio: h264 High yuv420p
EXPECTED
mkdir "$folder/out"
"$folder/env/bin/python" "$folder/try.py" "$folder/out" 2>"$folder/log" | grep -E "^(MoviePy|VidGear|OpenCV|imageio)" | tee "$folder/seen" || { cat "$folder/log"; exit 1; }
diff "$folder/expected" "$folder/seen"
