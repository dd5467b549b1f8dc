"""
The proof that `repackage` loses nothing: `python -m tests.corpus.voice.prove FOLDER`, over the recordings of this folder's scripts.

    apt-get install opus-tools oggz-tools
    pip install '.[emulator]' av==18.1.0

Each recording is uploaded to the emulator with `repackage=True`, and read back. The result must have the packets of the
recording, byte for byte, as PyAV demuxes both. It must be what `meta_media.repackage` yields, and announce one channel. opusdec
must play exactly the samples of its last granule without the pre-skip, and those that were encoded where these are known.
oggz-validate must not complain, and opusinfo of nothing but a browser's own pre-skip. A recording with "refused" in its name
must be refused, with a command of ffmpeg. So must be one that is over before its pre-skip is, of which ffmpeg plays nothing.
"""

from __future__ import annotations

import asyncio
import collections
import importlib
import io
import re
import subprocess
import sys
import tempfile
import wave
from pathlib import Path
from typing import Any, Final

from meta_media import MediaApi, MediaError, repackage
from meta_media.emulator import Emulator

_DECODE: Final = ("ffmpeg", "-v", "error", "-i")
_TO_SAMPLES: Final = ("-f", "s16le", "-")
_ENCODED: Final = 149_923  # samples of `programs.py`: 3.1234 s


def packets(content: bytes) -> list[bytes]:
    """Return the Opus packets of a recording."""
    av: Any = importlib.import_module("av")
    with av.open(io.BytesIO(content), options={"ignore_editlist": "1"}) as container:
        stream = next(stream for stream in container.streams.audio if stream.codec_context.name.endswith("opus"))
        return [bytes(packet) for packet in container.demux(stream) if packet.size]


def _run(*command: str | Path) -> str:
    run = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=120)
    failed = f"exit status {run.returncode}" if run.returncode else ""
    return f"{run.stdout}\n{run.stderr}\n{failed}".strip()


def _tools(ogg: bytes, scratch: Path, encoded: int | None) -> str | None:
    """Return what a program of xiph.org says against an Ogg file; None for nothing."""
    path, decoded = scratch / "voice.ogg", scratch / "voice.wav"
    path.write_bytes(ogg)
    if said := _run("oggz-validate", path):
        return f"oggz-validate: {said}"
    warnings = [line for line in _run("opusinfo", path).splitlines() if "WARNING" in line]
    if warnings and not all("preskip" in line for line in warnings):
        return f"opusinfo: {warnings[0]}"
    if said := _run("opusdec", "--quiet", "--rate", "48000", path, decoded):
        return f"opusdec: {said}"
    last = ogg.rfind(b"OggS")
    expected = int.from_bytes(ogg[last + 6 : last + 14], "little") - int.from_bytes(ogg[38:40], "little")
    with wave.open(str(decoded)) as sound:
        played, channels = sound.getnframes(), sound.getnchannels()
    if (played, channels) != (expected, 1) or encoded not in {None, played}:
        return f"opusdec plays {played} samples of {channels} channels, not {encoded or expected} of one"
    return f"preskip {int.from_bytes(ogg[38:40], 'little')}" if warnings else None


async def _check(media: MediaApi, path: Path, scratch: Path) -> tuple[str | None, int]:
    """Return what is wrong with the result of a recording, and its number of packets."""
    content = await asyncio.to_thread(path.read_bytes)
    try:
        uploaded = await media.upload(path, repackage=True)
        ogg = await media.read(uploaded.id)
    except MediaError as error:
        told = "(ffmpeg -i IN" in str(error) if "refused" in path.name else "it has no sound" in str(error)
        sound = "" if "refused" in path.name else await asyncio.to_thread(_run, *_DECODE, path, *_TO_SAMPLES)
        return None if told and not sound else f"refused: {error}", 0
    if "refused" in path.name:
        return "accepted", 0
    if (uploaded.mime_type, uploaded.filename) != ("audio/ogg", f"{path.stem}.ogg"):
        return f"uploaded as {uploaded.mime_type} under {uploaded.filename}", 0
    mono = content[:4] == b"OggS" and content[37] == 1
    if ogg != (content if mono else b"".join(await asyncio.to_thread(lambda: list(repackage(content))))):
        return "the plain function yields other bytes", 0
    encoded = _ENCODED if re.match(r"pyav|gst|ffmpeg-(mono|stereo|cbr|\d+ms)\.|mkvmerge.*mono", path.name) else None
    before, after = await asyncio.to_thread(packets, content), await asyncio.to_thread(packets, ogg)
    if before != after:
        same = sum(one == other for one, other in zip(before, after, strict=False))
        return f"{len(before)} packets became {len(after)}, of which {same} are the same", len(after)
    return None if mono else await asyncio.to_thread(_tools, ogg, scratch, encoded), len(after)


async def main(files: list[Path]) -> int:
    """Check recordings, and print a line for each problem. Return the exit status."""
    by_program: collections.Counter[str] = collections.Counter()
    failed, low, total = 0, 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        async with Emulator() as emulator, emulator.api() as media:
            for path in files:
                problem, count = await _check(media, path, Path(scratch))
                by_program[path.name.partition("-")[0].partition(".")[0]] += 1
                total += count
                if problem and problem.startswith("preskip") and path.name.startswith("chromium"):
                    low += 1
                elif problem:
                    failed += 1
                    print(f"{path.name}: {problem}")
    programs = ", ".join(f"{name} {count}" for name, count in by_program.most_common())
    print(f"{len(files)} recordings ({programs}), {total:,} packets, {failed} problems; ", end="")
    print(f"opusinfo remarks on a browser's own pre-skip in {low}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main(sorted(Path(sys.argv[1]).glob("*.[wmo]*")))))
