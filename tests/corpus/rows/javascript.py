"""npm packages that write video and sound: in Node, as in a browser."""

from __future__ import annotations

from typing import Final

from tests.corpus.table import FRAGMENTS, MOOV_LAST, Accepted, Input, Program, Refused, Row

__all__ = ["INPUTS", "PROGRAMS", "TABLE"]

_MEDIABUNNY: Final = "mediabunny@1.61.0"  # it also reads the packets that the other muxers are given
PROGRAMS: Final = (
    Program("mediabunny", npm=(_MEDIABUNNY,)),
    Program("mp4-muxer", npm=("mp4-muxer@5.2.2", _MEDIABUNNY)),
    Program("webm-muxer", npm=("webm-muxer@5.1.4", _MEDIABUNNY)),
    Program("opus-recorder", npm=("opus-recorder@8.0.5",)),
    Program("lamejs", npm=("@breezystack/lamejs@1.2.7",)),
    Program("wasm-media-encoders", npm=("wasm-media-encoders@0.7.0",)),
    Program("h264-mp4-encoder", npm=("h264-mp4-encoder@1.0.12",)),
    Program("node-id3", npm=("node-id3@0.2.9",)),
    Program("wavefile", npm=("wavefile@11.0.0",)),
    Program("mux.js", npm=("mux.js@7.1.0",)),
    Program("mp4box", npm=("mp4box@2.4.1",)),
)
INPUTS: Final = (
    Input("hevc.mp4", "ffmpeg", "ffmpeg -v error -i $IN/clip.mp4 -c:v libx265 -x265-params log-level=error -tag:v hvc1 -pix_fmt yuv420p -c:a copy $OUT"),
    Input("av1.mp4", "ffmpeg", "ffmpeg -v error -i $IN/clip.mp4 -c:v libsvtav1 -preset 12 -pix_fmt yuv420p -c:a copy $OUT"),
    Input("vp9-opus.webm", "ffmpeg", "ffmpeg -v error -i $IN/clip.mp4 -c:v libvpx-vp9 -cpu-used 8 -c:a libopus $OUT"),
    Input("clip.ts", "ffmpeg", "ffmpeg -v error -i $IN/clip.mp4 -c copy $OUT"),
    Input("voice.aac", "ffmpeg", "ffmpeg -v error -i $IN/voice.m4a -c copy $OUT"),
    Input("vorbis.ogg", "ffmpeg", "ffmpeg -v error -i $IN/voice.m4a -c:a libvorbis $OUT"),
    Input("faststart.m4a", "ffmpeg", "ffmpeg -v error -i $IN/voice.m4a -c copy -movflags +faststart $OUT"),
)
_MP4: Final = Accepted("video/mp4")
_FRAGMENTS: Final = Accepted("video/mp4", FRAGMENTS)
_LAST: Final = Accepted("video/mp4", MOOV_LAST)
_OGG: Final = Accepted("audio/ogg")
_M4A: Final = Accepted("audio/mp4")
_WAV: Final = Refused("audio/wav", "MP3")
_FRAGMENTED: Final = """'{"fastStart":"fragmented"}'"""
_ROWS: Final = (  # program, file, arguments, verdict
    ("mediabunny", "clip.mp4", "Mp4 $IN/clip.mp4", _MP4),
    ("mediabunny", "nameless", "Mp4 $IN/clip.mp4", _MP4),
    ("mediabunny", "fragments.mp4", f"Mp4 $IN/clip.mp4 {_FRAGMENTED}", _FRAGMENTS),
    ("mediabunny", "moov-last.mp4", """Mp4 $IN/clip.mp4 '{"fastStart":false}'""", _LAST),
    ("mediabunny", "hevc.mp4", "Mp4 $IN/hevc.mp4", Refused("HEVC", "H.264")),
    ("mediabunny", "av1.mp4", "Mp4 $IN/av1.mp4", Refused("AV1", "H.264")),
    ("mediabunny", "vp9-opus.mp4", "Mp4 $IN/vp9-opus.webm", Refused("VP9", "Opus", "H.264")),
    ("mediabunny", "vp9-opus-fragments.mp4", f"Mp4 $IN/vp9-opus.webm {_FRAGMENTED}", Refused("VP9", "Opus", "H.264")),
    ("mediabunny", "vp8-vorbis.mp4", "Mp4 $IN/vp8.webm", Refused("VP8", "Vorbis", "H.264")),
    ("mediabunny", "opus.mp4", "Mp4 $IN/mono.opus", Refused("Opus", "repackage")),
    ("mediabunny", "opus-fragments.m4a", f"Mp4 $IN/mono.opus {_FRAGMENTED}", Refused("Opus", "repackage")),
    ("mediabunny", "mp3.mp4", "Mp4 $IN/plain.mp3", Refused("MP3", "AAC")),
    ("mediabunny", "pcm.mp4", "Mp4 $IN/mono.wav", Refused("PCM", "AAC")),
    ("mediabunny", "voice.m4a", "Mp4 $IN/voice.m4a", _M4A),
    ("mediabunny", "voice-named.mp4", "Mp4 $IN/voice.m4a", _M4A),
    ("mediabunny", "voice-fragments.m4a", f"Mp4 $IN/voice.m4a {_FRAGMENTED}", Accepted("audio/mp4", FRAGMENTS)),
    ("mediabunny", "clip.mov", "Mov $IN/clip.mp4", Refused("video/quicktime", "MP4")),
    ("mediabunny", "clip.webm", "WebM $IN/vp9-opus.webm", Refused("WebM", "MP4")),
    ("mediabunny", "opus.webm", "WebM $IN/mono.opus", Refused("WebM", "repackage")),
    ("mediabunny", "opus-append.webm", """WebM $IN/mono.opus '{"appendOnly":true}'""", Refused("WebM", "repackage")),
    ("mediabunny", "opus.mka", "Mkv $IN/mono.opus", Refused("Matroska", "repackage")),
    ("mediabunny", "opus.ogg", "Ogg $IN/opus.webm", _OGG),
    ("mediabunny", "opus-stereo.ogg", "Ogg $IN/stereo.opus", Refused("stereo", "repackage")),
    ("mediabunny", "sound.mp3", "Mp3 $IN/plain.mp3", Accepted("audio/mpeg")),
    ("mediabunny", "sound.wav", "Wav $IN/mono.wav", _WAV),
    ("mp4-muxer", "clip.mp4", "$IN/clip.mp4 in-memory", _MP4),
    ("mp4-muxer", "fragments.mp4", "$IN/clip.mp4 fragmented", _FRAGMENTS),
    ("mp4-muxer", "moov-last.mp4", "$IN/clip.mp4 false", _LAST),
    ("mp4-muxer", "hevc.mp4", "$IN/hevc.mp4 in-memory", Refused("HEVC", "H.264")),
    ("mp4-muxer", "av1.mp4", "$IN/av1.mp4 in-memory", Refused("AV1", "H.264")),
    ("mp4-muxer", "vp9-opus.mp4", "$IN/vp9-opus.webm in-memory", Refused("VP9", "Opus", "H.264")),
    ("mp4-muxer", "vp9-opus-fragments.mp4", "$IN/vp9-opus.webm fragmented", Refused("VP9", "Opus", "H.264")),
    ("mp4-muxer", "voice.m4a", "$IN/voice.m4a in-memory", _M4A),
    ("mp4-muxer", "opus.m4a", "$IN/mono.opus in-memory", Refused("Opus", "repackage")),
    ("mp4-muxer", "opus-fragments.m4a", "$IN/mono.opus fragmented", Refused("Opus", "repackage")),
    ("webm-muxer", "clip.webm", "$IN/vp9-opus.webm", Refused("WebM", "MP4")),
    ("webm-muxer", "opus.webm", "$IN/mono.opus", Refused("WebM", "repackage")),
    ("webm-muxer", "clip.mkv", "$IN/clip.mp4 matroska", Refused("Matroska", "MP4")),
    ("opus-recorder", "mono.ogg", "", _OGG),
    ("opus-recorder", "stereo.ogg", "2", Refused("stereo", "repackage")),
    ("opus-recorder", "mono-named.webm", "", _OGG),
    ("lamejs", "sound.mp3", "", Accepted("audio/mpeg")),
    ("lamejs", "nameless", "", Accepted("audio/mpeg")),
    ("wasm-media-encoders", "sound.mp3", "mp3", Accepted("audio/mpeg")),
    ("wasm-media-encoders", "sound.ogg", "ogg", Refused("Vorbis", "Opus")),
    ("h264-mp4-encoder", "clip.mp4", "", Accepted("video/mp4", "?(moov)")),
    ("node-id3", "cover.mp3", "$IN/plain.mp3", Accepted("audio/mpeg")),
    ("node-id3", "large-cover.mp3", "$IN/plain.mp3 300000", Accepted("audio/mpeg")),
    ("node-id3", "large-cover-nameless", "$IN/plain.mp3 300000", Accepted("audio/mpeg")),
    ("wavefile", "sound.wav", "", _WAV),
    ("wavefile", "mu-law.wav", "toMuLaw", _WAV),
    ("mux.js", "clip.mp4", "$IN/clip.ts", _FRAGMENTS),
    ("mp4box", "clip.mp4", "$IN/clip.mp4", _FRAGMENTS),
    ("mp4box", "voice.m4a", "$IN/voice.m4a", Accepted("audio/mp4", FRAGMENTS)),
)
TABLE: Final = tuple(Row(f"{program}-{name}", program, f"node $MAKERS/packages.cjs {program} $OUT {arguments}", verdict) for program, name, arguments, verdict in _ROWS)
