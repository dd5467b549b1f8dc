"""Make one file with a Python library: `python libraries.py LIBRARY FILE [OPTION ...]`."""

from __future__ import annotations

import asyncio
import fractions
import os
import shutil
import sys
import wave
from pathlib import Path

import numpy as np

RATE = 48_000
TONE = np.sin(np.arange(RATE * 2) * 0.05) * 0.3  # two seconds, mono


def pictures(count=25, width=128, height=72):
    """Yield RGB pictures that change."""
    for index in range(count):
        picture = np.full((height, width, 3), index * 9 % 255, np.uint8)
        picture[index : index + 20, index : index + 20] = 255 - index
        yield picture


def av(path, video="", sound="", options="", container=""):
    """Encode with PyAV; `options` is `name=value,…` of the container."""
    import av

    settings = dict(pair.split("=") for pair in options.split(",") if pair)
    with av.open(path, "w", format=container or None, options=settings) as output:
        streams = []
        if video:
            codec, _, extra = video.partition(":")
            stream = output.add_stream(
                codec, rate=25, options=dict(pair.split("=") for pair in extra.split(",") if pair)
            )
            stream.width, stream.height = 128, 72
            streams.append((stream, [av.VideoFrame.from_ndarray(one, format="rgb24") for one in pictures()]))
        for one in sound.split("+") if sound else ():
            codec, _, layout = one.partition(":")
            rate = 8000 if codec.startswith("libopencore") else RATE
            stream = output.add_stream(codec, rate=rate, layout=layout or "mono")
            frames = []
            for start in range(0, rate, 960):
                frame = av.AudioFrame.from_ndarray(
                    TONE[None, start : start + 960].astype("f4"), format="fltp", layout="mono"
                )
                frame.sample_rate, frame.pts, frame.time_base = rate, start, fractions.Fraction(1, rate)
                frames.append(frame)
            streams.append((stream, frames))
        for stream, frames in streams:
            for frame in [*frames, None]:
                output.mux(stream.encode(frame))


def av_remux(path, source, container=""):
    """Copy packets with PyAV."""
    import av

    with av.open(source) as file, av.open(path, "w", format=container or None) as output:
        streams = {stream: output.add_stream_from_template(stream) for stream in file.streams}
        for packet in file.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream]
                output.mux(packet)


def opencv(path, fourcc):
    """Write with cv2.VideoWriter."""
    import cv2

    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*fourcc), 25, (128, 72))
    for picture in pictures():
        writer.write(picture)
    writer.release()


def imageio(path, *options):
    """Write with imageio and its defaults, or `name=value` options."""
    import imageio.v2

    with imageio.v2.get_writer(path, fps=25, **dict(option.split("=") for option in options)) as writer:
        for picture in pictures():
            writer.append_data(picture)


def moviepy(path, *options):
    """Write a clip with MoviePy and its defaults, or `name=value` options; `sound` writes the sound alone."""
    from moviepy import AudioArrayClip, ImageSequenceClip

    sound = AudioArrayClip(np.stack([TONE, TONE], 1), fps=RATE)
    settings = dict(option.split("=") for option in options)
    if settings.pop("sound", None):
        sound.write_audiofile(path, logger=None, **settings)
        return
    clip = ImageSequenceClip(list(pictures()), fps=25).with_audio(sound.with_duration(1))
    clip.write_videofile(path, logger=None, temp_audiofile_path=str(Path(path).parent), **settings)


def pydub(path, container, *options):
    """Export with pydub."""
    from pydub import AudioSegment

    sound = AudioSegment((TONE * 32767).astype("<i2").tobytes(), frame_rate=RATE, sample_width=2, channels=1)
    sound.export(path, format=container, **dict(option.split("=") for option in options)).close()


def soundfile(path, container, subtype=None):
    """Write with libsndfile."""
    import soundfile

    soundfile.write(path, TONE, RATE, format=container, subtype=subtype)


def pedalboard(path, channels="1"):
    """Write with pedalboard."""
    from pedalboard.io import AudioFile

    with AudioFile(path, "w", RATE, int(channels)) as file:
        file.write(np.stack([TONE] * int(channels)).astype("f4"))


def lameenc(path, rate="48000"):
    """Encode with lameenc."""
    import lameenc

    encoder = lameenc.Encoder()
    encoder.set_in_sample_rate(int(rate))
    encoder.set_channels(1)
    Path(path).write_bytes(encoder.encode((TONE * 32767).astype("<i2").tobytes()) + encoder.flush())


def mutagen(path, source, cover="0", *kinds):
    """Tag a copy of an input with mutagen; the cover has that many bytes."""
    from mutagen.flac import Picture
    from mutagen.id3 import APIC, ID3, TIT2
    from mutagen.mp4 import MP4, MP4Cover
    from mutagen.oggopus import OggOpus

    shutil.copy(source, path)
    image = b"\x89PNG\r\n\x1a\n" + bytes(index * 7 % 251 for index in range(int(cover)))
    if "opus" in kinds:
        import base64

        picture = Picture()
        picture.data, picture.type, picture.mime = image, 3, "image/png"
        file = OggOpus(path)
        file["title"], file["metadata_block_picture"] = "x", base64.b64encode(picture.write()).decode()
        file.save()
    elif "mp4" in kinds:
        file = MP4(path)
        file["\xa9nam"], file["covr"] = "x", [MP4Cover(image, MP4Cover.FORMAT_PNG)]
        file.save()
    else:
        tag = ID3()
        tag.add(TIT2(text="x"))
        tag.add(APIC(mime="image/png", type=3, data=image))
        tag.save(path, v2_version=3 if "v23" in kinds else 4)
        if "deleted" in kinds:
            tag = ID3(path)
            tag.delall("APIC")
            tag.save(path)


def scipy(path):
    """Write a WAV with SciPy."""
    from scipy.io import wavfile

    wavfile.write(path, RATE, TONE.astype("f4"))


def stdlib(path):
    """Write a WAV with Python's own module."""
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((TONE * 32767).astype("<i2").tobytes())


def pyflac(path):
    """Encode with pyFLAC."""
    import pyflac

    stdlib(f"{path}.wav")
    pyflac.FileEncoder(f"{path}.wav", path).process()
    Path(f"{path}.wav").unlink()


def aiortc(path, source, container=""):
    """Record a call's tracks with aiortc's MediaRecorder."""
    from aiortc.contrib.media import MediaPlayer, MediaRecorder

    async def record():
        player = MediaPlayer(source)
        recorder = MediaRecorder(path, format=container or None)
        for track in filter(None, (player.audio, player.video)):
            recorder.addTrack(track)
        await recorder.start()
        await asyncio.sleep(1)  # it records in real time
        await recorder.stop()

    asyncio.run(record())


def vidgear(path, *options):
    """Write with VidGear's WriteGear and its defaults."""
    from vidgear.gears import WriteGear

    writer = WriteGear(output=path, custom_ffmpeg=os.environ.get("FFMPEG", ""), **{"-input_framerate": 25})
    for picture in pictures():
        writer.write(picture)
    writer.close()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
