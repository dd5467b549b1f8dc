"""
Opus in WebM, Matroska and MP4 by ffmpeg, PyAV, mkvmerge, GStreamer and opusenc.

    apt-get install ffmpeg mkvtoolnix opus-tools gstreamer1.0-tools gstreamer1.0-plugins-{base,good,bad}
    pip install av==18.1.0
    python -m tests.corpus.voice.programs FOLDER

Made with ffmpeg 5.1.9, PyAV 18.1.0, mkvmerge 74.0.0, GStreamer 1.22.0 and opus-tools 0.2.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_ENCODE: Final = "ffmpeg -v error -y -i {input} -c:a libopus -b:a 32k"
_TONE: Final = "0.3*sin(2*PI*{tone}*t)"
_INPUTS: Final = {  # 3.1234 s are no multiple of any frame
    "stereo.wav": ("tone", 48000, 3.1234, 2),
    "mono.wav": ("tone", 48000, 3.1234, 1),
    "16k.wav": ("tone", 16000, 3.1234, 1),
    "8k.wav": ("tone", 8000, 3.1234, 1),
    "silences.wav": ("silences", 48000, 9.8, 1),
}
_PYAV: Final = """
import sys, av
source, target = av.open(sys.argv[1]), av.open(sys.argv[2], "w")
stream = target.add_stream("libopus", rate=48000, layout="mono")
for frame in source.decode(audio=0):
    frame.pts = None
    target.mux(stream.encode(frame))
target.mux(stream.encode(None))
target.close()
"""


def _inputs() -> Iterator[tuple[str, str]]:
    for name, (shape, rate, seconds, channels) in _INPUTS.items():
        gate = "*lt(mod(t\\,2)\\,1)" if shape == "silences" else ""
        tones = "|".join(_TONE.format(tone=220 + 330 * channel) + gate for channel in range(channels))
        yield name, f"ffmpeg -v error -y -f lavfi -i 'aevalsrc={tones}:s={rate}:d={seconds}' {{output}}"
    yield "dtx.opus", "opusenc --quiet --bitrate 16 --speech --set-ctl-int 4016=1 silences.wav {output}"
    yield "60ms.opus", "opusenc --quiet --framesize 60 --bitrate 24 mono.wav {output}"
    yield "long.opus", "ffmpeg -v error -y -stream_loop 20 -i stereo.wav -c:a libopus {output}"
    yield "encode.py", f"cat > {{output}} <<'END'{_PYAV}END\n"


def _ffmpeg() -> Iterator[tuple[str, str]]:
    containers = {
        "webm": "", "mkv": "", "live.webm": "-live 1", "pipe.webm": "-f webm", "mp4": "", "m4a": "-f mp4",
        "faststart.mp4": "-movflags +faststart", "empty_moov.mp4": "-movflags empty_moov+default_base_moof+frag_keyframe",
        "delay_moov.mp4": "-movflags delay_moov+frag_keyframe", "cmaf.mp4": "-movflags cmaf -frag_duration 500000",
        "dash.mp4": "-movflags dash -frag_duration 500000", "frag_keyframe.mp4": "-movflags frag_keyframe",
    }  # fmt: skip
    for suffix, options in containers.items():
        target = f"{options} - | cat > {{output}}" if suffix == "pipe.webm" else f"{options} {{output}}"
        for wav in ("mono", "stereo"):
            yield f"ffmpeg-{wav}.{suffix}", f"{_ENCODE.format(input=wav + '.wav')} {target}"
    for duration in (2.5, 5, 10, 40, 60, 80, 100, 120):
        for suffix in ("webm", "mp4"):
            yield (
                f"ffmpeg-{duration}ms.{suffix}",
                f"{_ENCODE.format(input='mono.wav')} -frame_duration {duration} {{output}}",
            )
    for wav, options, name in (
        ("16k.wav", "", "16k"),
        ("8k.wav", "", "8k"),
        ("mono.wav", "-vbr off", "cbr"),
        ("stereo.wav", "-b:a 510k -frame_duration 120", "510k"),
        ("mono.wav", "-application lowdelay -frame_duration 2.5", "lowdelay"),
        ("mono.wav", "-t 0.004", "one-packet"),
        ("silences.wav", "-dtx 1", "dtx"),
    ):
        for suffix in ("webm", "mp4"):
            yield f"ffmpeg-{name}.{suffix}", f"{_ENCODE.format(input=wav)} {options} {{output}}"
    for suffix in ("webm", "mp4"):
        for name in ("dtx", "60ms", "long"):
            yield f"opusenc-{name}-copied.{suffix}", f"ffmpeg -v error -y -i {name}.opus -c copy {{output}}"
        cut = "ffmpeg -v error -y {where} -i long.opus {many} -c copy {{output}}"
        yield f"ffmpeg-from-1s.{suffix}", cut.format(where="-ss 1", many="")
        yield f"ffmpeg-of-1s.{suffix}", cut.format(where="", many="-t 1")
    for suffix, options in (("mkv", ""), ("fragments.mp4", "-movflags empty_moov+frag_keyframe")):
        yield f"ffmpeg-remuxed.{suffix}", f"ffmpeg -v error -y -i ffmpeg-mono.webm -c copy {options} {{output}}"


def _refused() -> Iterator[tuple[str, str]]:
    """What has no single track of mono or stereo Opus."""
    tone, film = "-f lavfi -i sine=d=2", "-f lavfi -i testsrc=d=2:s=160x120:r=10"
    for name, inputs, options in (
        ("vorbis.webm", tone, "-c:a libvorbis"), ("aac.mkv", tone, "-c:a aac"),
        ("six.webm", tone, "-ac 6 -c:a libopus"), ("six.mp4", tone, "-ac 6 -c:a libopus"),
        ("two.mkv", f"{tone} {tone}", "-map 0 -map 1 -c:a libopus"),
        ("film.webm", f"{film} {tone}", "-c:v libvpx -c:a libopus"),
        ("film.mp4", f"{film} {tone}", "-c:v libx264 -pix_fmt yuv420p -c:a libopus"),
        ("silent.webm", film, "-c:v libvpx"),
    ):  # fmt: skip
        yield f"ffmpeg-refused-{name}", f"ffmpeg -v error -y {inputs} {options} {{output}}"


def _others() -> Iterator[tuple[str, str]]:
    for suffix in ("webm", "mkv", "mp4"):
        yield f"pyav.{suffix}", f"{sys.executable} encode.py mono.wav {{output}}"
    merge = "mkvmerge -q -o {{output}} {options} {source}"
    for name, options in {
        "default": "", "webm": "-w", "xiph": "--engage lacing_xiph", "ebml": "--engage lacing_ebml",
        "unlaced": "--disable-lacing", "clusters": "--cluster-length 100ms", "zlib": "--compression 0:zlib",
        "later": "-y 0:500",
    }.items():  # fmt: skip
        suffix = "webm" if name == "webm" else "mkv"
        for source in ("long.opus", "ffmpeg-mono.webm"):
            short = source.partition(".")[0]
            yield f"mkvmerge-{name}-{short}.{suffix}", merge.format(options=options, source=source)
    gst = "gst-launch-1.0 -q filesrc location={wav} ! wavparse ! audioconvert ! opusenc {enc} ! {mux} ! filesink location={{output}}"
    for name, enc, mux in (
        ("webmmux.webm", "", "webmmux"), ("streamable.webm", "", "webmmux streamable=true"),
        ("matroskamux.mkv", "frame-size=60", "matroskamux"), ("mp4mux.mp4", "", "mp4mux"),
        ("fragments.mp4", "", "mp4mux fragment-duration=500"),
        ("fragments-streamable.mp4", "", "mp4mux fragment-duration=500 streamable=true"),
    ):  # fmt: skip
        for wav in ("mono", "stereo"):
            yield f"gst-{wav}-{name}", gst.format(wav=f"{wav}.wav", enc=enc, mux=mux)


def main(folder: Path) -> int:
    """Make the recordings. Return the exit status."""
    folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        for name, command in (*_inputs(), *_ffmpeg(), *_refused(), *_others()):
            run = subprocess.run(
                ["bash", "-ec", command.format(output=name)], cwd=scratch, capture_output=True, text=True, check=False
            )
            made = Path(scratch, name)
            if run.returncode or not made.exists():
                failed += 1
                print(f"{name}: {command}: {run.stderr[-300:]}")
            elif "-" in name or name.startswith("pyav"):
                shutil.copy(made, folder / name)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
