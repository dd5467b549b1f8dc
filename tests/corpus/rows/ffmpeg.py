"""FFmpeg: Debian's, and the static one that imageio-ffmpeg brings. Codecs in containers, and the order of their parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.corpus.table import B_FRAMES, FRAGMENTS, HIGH, MOOV_LAST, Accepted, Input, Program, Refused, Row, Verdict

__all__ = ["INPUTS", "PROGRAMS", "TABLE"]

PROGRAMS: Final = (Program("ffmpeg", apt=("ffmpeg",)), Program("imageio-ffmpeg", pip=("imageio-ffmpeg==0.8.1",)))
_VIDEO: Final = "-f lavfi -i testsrc2=s=128x72:r=25:d=2"
_SOUND: Final = "-f lavfi -i sine=d=2"
_STATIC: Final = "$(python -c 'import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())')"
INPUTS: Final = (
    Input("clip.mp4", "ffmpeg", f"ffmpeg -v error {_VIDEO} {_SOUND} -c:v libx264 -profile:v baseline -pix_fmt yuv420p -c:a aac -movflags +faststart $OUT"),
    Input("voice.m4a", "ffmpeg", f"ffmpeg -v error {_SOUND} -c:a aac $OUT"),
    Input("voice.ogg", "ffmpeg", f"ffmpeg -v error {_SOUND} -c:a libopus -ac 1 $OUT"),
    Input("voice.mp3", "ffmpeg", f"ffmpeg -v error {_SOUND} -c:a libmp3lame $OUT"),
    Input("vp8.webm", "ffmpeg", f"ffmpeg -v error {_VIDEO} {_SOUND} -c:v libvpx -c:a libvorbis $OUT"),
    Input("opus.webm", "ffmpeg", f"ffmpeg -v error {_SOUND} -c:a libopus $OUT"),
    Input("cover.png", "ffmpeg", "ffmpeg -v error -f lavfi -i 'nullsrc=s=320x320,geq=random(1)*255:128:128' -frames:v 1 $OUT"),
    Input("lines.srt", "ffmpeg", r"printf '1\n00:00:00,000 --> 00:00:01,000\nhello\n' > $OUT"),
    Input("chapters.txt", "ffmpeg", r"printf ';FFMETADATA1\ntitle=x\n[CHAPTER]\nTIMEBASE=1/1\nSTART=0\nEND=1\ntitle=one\n' > $OUT"),
)
_H264: Final = "-c:v libx264 -profile:v main -bf 0 -pix_fmt yuv420p"
_FAST: Final = "-movflags +faststart"
_MP4: Final = Accepted("video/mp4")
_LAST: Final = Accepted("video/mp4", MOOV_LAST)
_M4A: Final = Accepted("audio/mp4")
_BOTH: Final = f"{_VIDEO} {_SOUND}"

# Video codecs in MP4 with AAC, then audio codecs in MP4 with H.264: name, options, verdict.
_VIDEO_CODECS: Final = (
    ("baseline", "libx264 -profile:v baseline -pix_fmt yuv420p", _MP4),
    ("main", "libx264 -profile:v main -bf 0 -pix_fmt yuv420p", _MP4),
    ("high", "libx264 -profile:v high -bf 0 -pix_fmt yuv420p", Accepted("video/mp4", HIGH)),
    ("b-frames", "libx264 -profile:v main -bf 2 -pix_fmt yuv420p", Accepted("video/mp4", B_FRAMES)),
    ("10-bit", "libx264 -bf 0 -pix_fmt yuv420p10le", Accepted("video/mp4", "10 bits")),
    ("422", "libx264 -bf 0 -pix_fmt yuv422p", Accepted("video/mp4", "4:2:2")),
    ("444", "libx264 -bf 0 -pix_fmt yuv444p", Accepted("video/mp4", "4:4:4")),
    ("avc3", "libx264 -profile:v main -bf 0 -pix_fmt yuv420p -tag:v avc3", _MP4),
    ("hev1", "libx265 -x265-params log-level=error -pix_fmt yuv420p", Refused("HEVC", "H.264", "libx264")),
    ("hvc1", "libx265 -x265-params log-level=error -tag:v hvc1 -pix_fmt yuv420p", Refused("HEVC", "H.264", "libx264")),
    ("vp9", "libvpx-vp9 -cpu-used 8", Refused("VP9", "H.264")),
    ("av1", "libsvtav1 -preset 12 -pix_fmt yuv420p", Refused("AV1", "H.264")),
    ("mpeg4", "mpeg4", Refused("MPEG-4 Part 2", "H.264")),
    ("mjpeg", "mjpeg -pix_fmt yuvj420p", Refused("JPEG", "H.264")),
    ("mpeg2", "mpeg2video", Refused("MPEG-2", "H.264")),
    ("mpeg1", "mpeg1video", Refused("MPEG-1", "H.264")),
    ("jpeg2000", "jpeg2000 -pix_fmt yuv420p", Refused("JPEG 2000", "H.264")),
    ("png", "png", Refused("PNG", "H.264")),
)
_AUDIO_CODECS: Final = (
    ("mp3", "libmp3lame", Refused("MP3", "AAC")),
    ("mp2", "mp2", Refused("MP", "AAC")),
    ("ac3", "ac3", Refused("AC-3", "AAC")),
    ("eac3", "eac3", Refused("E-AC-3", "AAC")),
    ("opus", "libopus", Refused("Opus", "AAC")),
    ("flac", "flac -strict -2", Refused("FLAC", "AAC")),
    ("alac", "alac", Refused("ALAC", "AAC")),
    ("vorbis", "libvorbis -ac 2", Refused("Vorbis", "AAC")),
    ("dts", "dca -strict -2 -ac 2 -ar 48000", Refused("DTS", "AAC")),
    ("truehd", "truehd -strict -2 -ac 2", Refused("TrueHD", "AAC")),
)
# Sound alone: name, options, verdict.
_SOUNDS: Final = (
    ("aac.m4a", "-c:a aac", _M4A),
    ("aac-faststart.m4a", f"-c:a aac {_FAST}", Accepted("audio/mp4")),
    ("aac-fragments.m4a", "-c:a aac -movflags frag_keyframe+empty_moov", Accepted("audio/mp4", FRAGMENTS)),
    ("aac.m4b", "-c:a aac -f ipod", _M4A),
    ("aac-only.mp4", "-c:a aac", _M4A),
    ("aac-only.3gp", "-c:a aac", _M4A),
    ("aac-only", "-c:a aac -f mp4", _M4A),
    ("aac-long", "-af aloop=-1:size=44100,atrim=end=60 -c:a aac -b:a 128k -f mp4", _M4A),
    ("alac.m4a", "-c:a alac", Refused("ALAC", "AAC")),
    ("ac3.m4a", "-c:a ac3", Refused("AC-3", "AAC")),
    ("opus.m4a", "-c:a libopus -f mp4", Refused("Opus", "repackage")),
    ("opus-stereo-fragments.m4a", "-ac 2 -c:a libopus -f mp4 -movflags frag_keyframe+empty_moov", Refused("Opus", "repackage")),
    ("flac.m4a", "-c:a flac -strict -2 -f mp4", Refused("FLAC", "AAC")),
    ("mp3.m4a", "-c:a libmp3lame -f mp4", Refused("MP3", "AAC")),
    ("id3v24.mp3", "-c:a libmp3lame -metadata title=x", Accepted("audio/mpeg")),
    ("id3v23.mp3", "-c:a libmp3lame -id3v2_version 3 -metadata title=x", Accepted("audio/mpeg")),
    ("bare.mp3", "-c:a libmp3lame -id3v2_version 0 -write_xing 0", Accepted("audio/mpeg")),
    ("8000-hertz.mp3", "-c:a libmp3lame -ar 8000 -id3v2_version 0", Accepted("audio/mpeg")),
    ("22050-hertz.mp3", "-c:a libmp3lame -ar 22050 -id3v2_version 0", Accepted("audio/mpeg")),
    ("shine.mp3", "-c:a libshine -id3v2_version 0", Accepted("audio/mpeg")),
    ("mp3-nameless", "-c:a libmp3lame -f mp3", Accepted("audio/mpeg")),
    ("layer-2.mp2", "-c:a mp2", Refused("layer II")),
    ("layer-2-named.mp3", "-c:a mp2 -f mp2", Refused("layer II")),
    ("adts.aac", "-c:a aac", Accepted("audio/aac")),
    ("adts-id3.aac", "-c:a aac -write_id3v2 1 -metadata title=x", Accepted("audio/aac")),
    ("adts-nameless", "-c:a aac -f adts", Accepted("audio/aac")),
    ("latm.aac", "-c:a aac -f latm", Refused("LATM")),
    ("opus-mono.ogg", "-c:a libopus -ac 1", Accepted("audio/ogg")),
    ("opus-mono.opus", "-c:a libopus -ac 1", Accepted("audio/ogg")),
    ("opus-8000-hertz.ogg", "-c:a libopus -ac 1 -ar 8000", Accepted("audio/ogg")),
    ("opus-stereo.ogg", "-c:a libopus -ac 2", Refused("stereo", "mono", "repackage")),
    ("opus-surround.opus", "-ac 6 -c:a libopus", Refused("channel", "mono")),
    ("opus-nameless", "-c:a libopus -ac 1 -f ogg", Accepted("audio/ogg")),
    ("vorbis.ogg", "-c:a libvorbis -ac 1", Refused("Vorbis", "Opus")),
    ("flac.oga", "-c:a flac", Refused("FLAC", "Opus")),
    ("speex.ogg", "-c:a libspeex -ar 16000", Refused("Speex", "Opus")),
    ("opus.webm", "-c:a libopus", Refused("WebM", "repackage")),
    ("opus.weba", "-c:a libopus -f webm", Refused("WebM", "repackage")),
    ("vorbis.webm", "-c:a libvorbis -ac 1", Refused("WebM", "Opus")),
    ("opus.mka", "-c:a libopus", Refused("Matroska", "repackage")),
    ("aac.mka", "-c:a aac", Refused("Matroska")),
    ("pcm.wav", "", Refused("audio/wav", "MP3")),
    ("mp3-in-wav.wav", "-c:a libmp3lame", Refused("audio/wav", "MP3")),
    ("float.wav", "-c:a pcm_f32le", Refused("audio/wav", "MP3")),
    ("rf64.wav", "-rf64 always", Refused("audio/wav", "MP3")),
    ("sony.w64", "", Refused("MP3")),
    ("sound.aiff", "", Refused("audio/aiff", "MP3")),
    ("sound.caf", "", Refused("audio/x-caf", "MP3")),
    ("sound.au", "", Refused("audio/basic", "MP3")),
    ("sound.flac", "", Refused("audio/flac", "MP3")),
    ("sound.wma", "", Refused("audio/x-ms-wma", "MP3")),
    ("sound.ac3", "", Refused("audio/ac3", "MP3")),
    ("sound.eac3", "", Refused("audio/", "MP3")),
    ("sound.wv", "-c:a wavpack", Refused("accepts")),
    ("sound.tta", "-c:a tta", Refused("accepts")),
    ("sound.voc", "", Refused("accepts")),
    ("sound.spx", "-c:a libspeex -ar 8000", Refused("Speex", "Opus")),
    ("wma-named.mp3", "-c:a wmav2 -f asf", Refused("MP3")),
    ("aiff-named.mp3", "-f aiff", Refused("audio/aiff")),
    ("caf-named.aac", "-f caf", Refused("audio/x-caf")),
    ("ac3-named.aac", "-c:a ac3 -f ac3", Refused("audio/ac3")),
    ("au-named.mp3", "-f au", Refused("audio/basic")),
    ("flv-named.mp3", "-c:a libmp3lame -f flv", Refused("flv")),
    ("ts-named.aac", "-c:a aac -f mpegts", Refused("mp2t")),
    ("wav-named.mp3", "-f wav", Refused("audio/wav")),
    ("flac-named.mp3", "-f flac", Refused("audio/flac")),
    ("mp3-named.aac", "-c:a libmp3lame -f mp3", Accepted("audio/mpeg")),
    ("aac-named.mp3", "-c:a aac -f adts", Accepted("audio/aac")),
    ("m4a-named.mp3", "-c:a aac -f ipod", _M4A),
    ("ogg-named.mp3", "-c:a libopus -ac 1 -f ogg", Accepted("audio/ogg")),
    ("m4a-named.ogg", "-c:a aac -f ipod", _M4A),
    ("mp3-named.ogg", "-c:a libmp3lame -f mp3", Accepted("audio/mpeg")),
)
# H.264 and AAC: name, options behind the codecs, verdict.
_LAYOUTS: Final = (
    ("moov-last.mp4", "", _LAST),
    ("faststart.mp4", _FAST, _MP4),
    ("nameless", f"-f mp4 {_FAST}", _MP4),
    ("moov-last-nameless", "-f mp4", _LAST),
    ("fragments.mp4", "-movflags frag_keyframe+empty_moov", Accepted("video/mp4", FRAGMENTS)),
    ("fragments-base.mp4", "-movflags frag_keyframe+empty_moov+default_base_moof", Accepted("video/mp4", FRAGMENTS)),
    ("fragments-delayed.mp4", "-movflags frag_keyframe+delay_moov", Accepted("video/mp4", FRAGMENTS)),
    ("fragments-hybrid.mp4", "-movflags frag_keyframe", Accepted("video/mp4", FRAGMENTS)),
    ("fragments-sidx.mp4", "-movflags frag_keyframe+empty_moov+global_sidx", Accepted("video/mp4", FRAGMENTS)),
    ("cmaf.mp4", "-movflags +cmaf+frag_keyframe", Accepted("video/mp4", FRAGMENTS)),
    ("smooth.ismv", "-f ismv", Accepted("video/mp4", FRAGMENTS)),
    ("itunes.m4v", _FAST, _MP4),
    ("psp.mp4", "-f psp", _LAST),
    ("brand-mp42.mp4", "-brand mp42", _LAST),
    ("phone.3gp", "", Accepted("video/3gpp", MOOV_LAST)),
    ("phone-faststart.3gp", _FAST, Accepted("video/3gpp")),
    ("3gp-named.mp4", f"-f 3gp {_FAST}", Accepted("video/3gpp")),
    ("mp4-named.3gp", f"-f mp4 {_FAST}", _MP4),
    ("phone.3g2", "", Refused("3gpp2")),
    ("camera.mov", "", Refused("video/quicktime", "MP4")),
    ("mov-named.mp4", "-f mov", Refused("video/quicktime", "MP4")),
    ("rotated.mp4", f"-metadata:s:v:0 rotate=90 {_FAST}", _MP4),
    ("clip.mkv", "", Refused("Matroska", "MP4")),
    ("mkv-named.mp4", "-f matroska", Refused("Matroska", "MP4")),
    ("clip.avi", "", Refused("video/x-msvideo", "MP4")),
    ("clip.flv", "", Refused("flv", "MP4")),
    ("clip.ts", "", Refused("mp2t", "MP4")),
    ("ts-named.mp4", "-f mpegts", Refused("mp2t", "MP4")),
    ("clip.m2ts", "-mpegts_m2ts_mode 1", Refused("accepts")),
    ("clip.f4v", _FAST, _MP4),
    ("clip.nut", "", Refused("accepts")),
    ("nut-named.mp4", "-f nut", Refused("video/mp4")),
)
_OTHERS: Final = (  # name, all options, verdict
    ("silent.mp4", f"{_VIDEO} {_H264} {_FAST}", _MP4),
    ("silent-nameless", f"{_VIDEO} {_H264} -f mp4", _LAST),
    ("defaults.mp4", f"{_BOTH} -pix_fmt yuv420p", Accepted("video/mp4", HIGH, B_FRAMES, MOOV_LAST)),
    ("two-sounds.mp4", f"{_BOTH} {_SOUND} -map 0 -map 1 -map 2 {_H264} -c:a aac {_FAST}", Refused("2 audio")),
    ("two-sounds-moov-last.mp4", f"{_BOTH} {_SOUND} -map 0 -map 1 -map 2 {_H264} -c:a aac", Refused("2 audio")),
    ("two-sounds.m4a", f"{_SOUND} {_SOUND} -map 0 -map 1 -c:a aac", Refused("2 audio")),
    ("two-videos.mp4", f"{_VIDEO} {_VIDEO} -map 0 -map 1 {_H264} {_FAST}", _MP4),
    ("sound-first.mp4", f"{_BOTH} -map 1 -map 0 {_H264} -c:a aac {_FAST}", _MP4),
    ("subtitles.mp4", f"{_BOTH} -i $IN/lines.srt -map 0 -map 1 -map 2 {_H264} -c:a aac -c:s mov_text {_FAST}", _MP4),
    ("subtitles-first.mp4", f"-i $IN/lines.srt {_BOTH} -map 0 -map 1 -map 2 {_H264} -c:a aac -c:s mov_text {_FAST}", _MP4),
    ("chapters.mp4", f"{_BOTH} -i $IN/chapters.txt -map 0 -map 1 -map_metadata 2 {_H264} -c:a aac {_FAST}", _MP4),
    ("chapters.m4b", f"{_SOUND} -i $IN/chapters.txt -map 0 -map_metadata 1 -c:a aac -f ipod", _M4A),
    ("timecode.mp4", f"{_BOTH} -timecode 01:00:00:00 {_H264} -c:a aac {_FAST}", _MP4),
    ("cover.m4a", f"{_SOUND} -i $IN/cover.png -map 0 -map 1 -c:a aac -c:v copy -disposition:v attached_pic", _M4A),
    ("cover-faststart.m4a", f"{_SOUND} -i $IN/cover.png -map 0 -map 1 -c:a aac -c:v copy -disposition:v attached_pic {_FAST}", Accepted("audio/mp4")),
    (
        "cover.mp4",
        f"{_BOTH} -i $IN/cover.png -map 0 -map 1 -map 2 -c:v:0 libx264 -profile:v:0 main -bf 0 -pix_fmt:v:0 yuv420p -c:a aac -c:v:1 copy -disposition:v:1 attached_pic {_FAST}",
        _MP4,
    ),
    ("cover.mp3", f"{_SOUND} -i $IN/cover.png -map 0 -map 1 -c:a libmp3lame -c:v copy", Accepted("audio/mpeg")),
    ("cover.ogg", f"{_SOUND} -i $IN/cover.png -map 0 -map 1 -c:a libopus -ac 1 -c:v libtheora -frames:v 1", Refused("cover", "-vn")),
    ("theora.ogv", f"{_BOTH} -c:v libtheora -c:a libvorbis", Refused("Theora", "MP4")),
    ("theora-silent.ogv", f"{_VIDEO} -c:v libtheora", Refused("Theora", "MP4")),
    ("vp8.webm", f"{_BOTH} -c:v libvpx -c:a libvorbis", Refused("WebM", "MP4")),
    ("vp9-opus.webm", f"{_BOTH} -c:v libvpx-vp9 -cpu-used 8 -c:a libopus", Refused("WebM", "MP4")),
    ("webm-named.mp4", f"{_BOTH} -c:v libvpx -c:a libopus -f webm", Refused("WebM", "MP4")),
    ("webm-named.ogg", "-i $IN/opus.webm -c copy -f webm", Refused("WebM", "repackage")),
    ("copied-from-webm.ogg", "-i $IN/opus.webm -c copy", Accepted("audio/ogg")),
    ("wmv.wmv", f"{_BOTH} -c:v wmv2 -c:a wmav2", Refused("wmv", "MP4")),
    ("mpeg.mpg", f"{_BOTH} -c:v mpeg2video -c:a mp2", Refused("video/mpeg", "MP4")),
    ("mpeg-named.mp4", f"{_BOTH} -c:v mpeg2video -c:a mp2 -f vob", Refused("video/mpeg", "MP4")),
    ("h263.3gp", "-f lavfi -i testsrc2=s=176x144:r=15:d=2 -c:v h263 -an", Refused("H.263", "H.264")),
    ("mpeg4.3gp", f"{_BOTH} -c:v mpeg4 -c:a aac", Refused("MPEG-4 Part 2", "H.264")),
    ("hevc.mov", f"{_BOTH} -c:v libx265 -x265-params log-level=error -tag:v hvc1 -pix_fmt yuv420p -c:a aac", Refused("video/quicktime", "MP4")),
    ("prores.mov", f"{_BOTH} -c:v prores_ks -c:a pcm_s16le", Refused("video/quicktime", "MP4")),
    ("hevc-moov-last.mp4", f"{_BOTH} -c:v libx265 -x265-params log-level=error -pix_fmt yuv420p -c:a aac", Refused("HEVC", "H.264")),
    ("vp9-opus-fragments.mp4", f"{_BOTH} -c:v libvpx-vp9 -cpu-used 8 -c:a libopus -movflags frag_keyframe+empty_moov", Refused("VP9", "Opus", "H.264")),
    ("hevc-dash.mp4", f"{_BOTH} -c:v libx265 -x265-params log-level=error -pix_fmt yuv420p -movflags +dash", Refused("HEVC", "H.264")),
    ("encrypted.mp4", f"{_BOTH} {_H264} {_FAST} -encryption_scheme cenc-aes-ctr -encryption_key {'0' * 32} -encryption_kid {'1' * 32}", _MP4),
    ("moving.gif", _VIDEO, Refused("image/gif", "MP4")),
    ("raw.h264", f"{_VIDEO} {_H264}", Refused("accepts")),
    ("raw-h264-named.mp4", f"{_VIDEO} {_H264} -f h264", Refused("video/mp4")),
    ("film.mp4", f"-f lavfi -i color=s=64x36:r=30:d=600 -f lavfi -i sine=d=600 {_H264} -g 1000 -c:a aac -b:a 24k {_FAST}", _MP4),
    ("film-sound-first", f"-f lavfi -i color=s=64x36:r=30:d=600 -f lavfi -i sine=d=600 -map 1 -map 0 {_H264} -c:a aac -b:a 24k -f mp4 {_FAST}", _MP4),
    ("film-moov-last.mp4", f"-f lavfi -i color=s=64x36:r=30:d=600 -f lavfi -i sine=d=600 {_H264} -c:a aac -b:a 24k", _LAST),
    ("film-opus.mp4", f"-f lavfi -i color=s=64x36:r=30:d=600 -f lavfi -i sine=d=600 {_H264} -c:a libopus -b:a 24k {_FAST}", Refused("Opus", "AAC")),
)
_STATIC_TOO: Final = ("hevc", "vp9", "opus", "aac.m4a", "aac-only.mp4", "moov-last.mp4", "fragments.mp4", "cmaf.mp4", "phone.3gp", "flac.m4a", "rotated.mp4", "cover.m4a")
_STATIC_ONLY: Final = (
    ("pcm.mp4", f"{_BOTH} {_H264} -c:a pcm_s16le {_FAST}", Refused("PCM", "AAC")),
    ("pcm.m4a", f"{_SOUND} -c:a pcm_s16le -f mp4", Refused("PCM", "AAC")),
    ("narrow.amr", f"{_SOUND} -ar 8000 -ac 1 -c:a libopencore_amrnb", Accepted("audio/amr")),
    ("narrow-nameless", f"{_SOUND} -ar 8000 -ac 1 -c:a libopencore_amrnb -f amr", Accepted("audio/amr")),
    ("amr-only.3gp", f"{_SOUND} -ar 8000 -ac 1 -c:a libopencore_amrnb", Refused("AMR", "AAC")),
    ("classic.3gp", f"-f lavfi -i testsrc2=s=176x144:r=15:d=2 {_SOUND} -c:v h263 -ar 8000 -ac 1 -c:a libopencore_amrnb", Refused("H.263", "AMR")),
    ("h264-amr.3gp", f"{_BOTH} {_H264} -ar 8000 -ac 1 -c:a libopencore_amrnb", Refused("AMR", "AAC")),
)


def _options() -> Iterator[tuple[str, str, Verdict]]:
    for name, options, verdict in _VIDEO_CODECS:
        yield f"{name}-aac.mp4", f"{_BOTH} -c:v {options} -c:a aac {_FAST}", verdict
    for name, options, verdict in _AUDIO_CODECS:
        yield f"h264-{name}.mp4", f"{_BOTH} {_H264} -c:a {options} {_FAST}", verdict
    for name, options, verdict in _SOUNDS:
        yield name, f"{_SOUND} {options}", verdict
    for name, options, verdict in _LAYOUTS:
        yield name, f"{_BOTH} {_H264} -c:a aac {options}", verdict
    yield from _OTHERS


def _rows() -> Iterator[Row]:
    for name, options, verdict in _options():
        yield Row(f"ffmpeg-{name}", "ffmpeg", f"ffmpeg -v error {options} $OUT", verdict)
        if any(word in name for word in _STATIC_TOO):
            yield Row(f"static-{name}", "imageio-ffmpeg", f"{_STATIC} -v error {options} $OUT", verdict)
    for name, options, verdict in _STATIC_ONLY:
        yield Row(f"static-{name}", "imageio-ffmpeg", f"{_STATIC} -v error {options} $OUT", verdict)


TABLE: Final = tuple(_rows())
