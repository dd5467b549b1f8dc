"""Programs that encode sound: LAME, opus-tools, vorbis-tools, Speex, FLAC, SoX, TwoLAME and others."""

from __future__ import annotations

from typing import Final

from tests.corpus.table import Accepted, Program, Refused, Row

__all__ = ["ENV", "HELPERS", "INPUTS", "PROGRAMS", "TABLE"]

ENV: Final = "python"  # of which the inputs are made
PROGRAMS: Final = (Program("sox", apt=("sox", "libsox-fmt-all")), Program("lame", apt=("lame",)))
HELPERS: Final = ("sox",)  # programs that only the inputs need
INPUTS: Final = {
    "mono.wav": "sox -n -r 48000 -c 1 -b 16 -t wav $OUT synth 2 sine 440",
    "stereo.wav": "sox -n -r 44100 -c 2 -b 16 -t wav $OUT synth 2 sine 440 sine 660",
    "8k.wav": "sox -n -r 8000 -c 1 -b 16 -t wav $OUT synth 2 sine 440",
}
TABLE: Final = (
    Row("lame-cbr.mp3", "lame", "lame -S $IN/stereo.wav $OUT", Accepted("audio/mpeg")),
    Row("sox.wav", "sox", "sox $IN/mono.wav -t wav $OUT", Refused("audio/wav", "MP3")),
)
