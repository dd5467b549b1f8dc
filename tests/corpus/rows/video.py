"""GStreamer, MKVToolNix, x264, x265, vpxenc, MEncoder, MLT, HandBrake and ExifTool."""

from __future__ import annotations

from typing import Final

from tests.corpus.table import B_FRAMES, FRAGMENTS, HIGH, MOOV_LAST, Accepted, Input, Program, Refused, Row

__all__ = ["INPUTS", "PROGRAMS", "TABLE"]

_PLUGINS: Final = ("base", "good", "bad", "ugly")
PROGRAMS: Final = (
    Program("GStreamer", apt=("gstreamer1.0-tools", *(f"gstreamer1.0-plugins-{name}" for name in _PLUGINS), "gstreamer1.0-libav"), needs=("ffmpeg",)),
    Program("MKVToolNix", apt=("mkvtoolnix",)),
    Program("x264", apt=("x264",)),
    Program("x265", apt=("x265",)),
    Program("vpxenc", apt=("vpx-tools",)),
    Program("MEncoder", apt=("mencoder",)),
    Program("MLT", apt=("melt",)),
    Program("HandBrake", apt=("handbrake-cli",)),
    Program("ExifTool", apt=("libimage-exiftool-perl",)),
)
INPUTS: Final = (
    Input("clip.y4m", "ffmpeg", "ffmpeg -v error -i $IN/clip.mp4 -pix_fmt yuv420p $OUT"),
    Input("moov-last.mp4", "ffmpeg", "ffmpeg -v error -i $IN/clip.mp4 -c copy $OUT"),
)
_MP4: Final = Accepted("video/mp4")
_OGG: Final = Accepted("audio/ogg")
_M4A: Final = Accepted("audio/mp4")
_TO_MP4: Final = ("Matroska", "MP4")
_SOUND: Final = "audiotestsrc num-buffers=100 ! audioconvert ! audioresample ! audio/x-raw,channels=1"
_PHONE: Final = f"{_SOUND},rate=8000"
_RAW: Final = "videotestsrc num-buffers=50 ! video/x-raw,width=128,height=72,framerate=25/1"
_I420: Final = "videotestsrc num-buffers=50 ! video/x-raw,format=I420,width=176,height=144,framerate=25/1"
_BASELINE: Final = f"{_I420} ! x264enc ! video/x-h264,profile=baseline ! h264parse"
_AAC: Final = "voaacenc ! aacparse"


def _gst(*pipeline: str) -> str:
    return f"gst-launch-1.0 -q {' '.join(pipeline)}".replace("FILE", "filesink location=$OUT")


TABLE: Final = (
    Row("gst-baseline.mp4", "GStreamer", _gst("mp4mux name=m ! FILE", _BASELINE, "! m.", _SOUND, "! avenc_aac ! aacparse ! m."), Accepted("video/mp4", MOOV_LAST)),
    Row("gst-faststart.mp4", "GStreamer", _gst("mp4mux name=m faststart=true ! FILE", _BASELINE, "! m.", _SOUND, f"! {_AAC} ! m."), _MP4),
    Row("gst-fragments.mp4", "GStreamer", _gst("mp4mux name=m fragment-duration=500 ! FILE", _BASELINE, "! m.", _SOUND, f"! {_AAC} ! m."), Accepted("video/mp4", FRAGMENTS)),
    Row("gst-x264-of-raw.mp4", "GStreamer", _gst(_RAW, "! videoconvert ! x264enc ! h264parse ! mp4mux ! FILE"), Accepted("video/mp4", "4:4:4", B_FRAMES, MOOV_LAST)),
    Row("gst-openh264.mp4", "GStreamer", _gst(_I420, "! openh264enc ! h264parse ! mp4mux ! FILE"), Accepted("video/mp4", MOOV_LAST)),
    Row("gst-avc3.mp4", "GStreamer", _gst(_BASELINE, "! video/x-h264,stream-format=avc3 ! mp4mux ! FILE"), Accepted("video/mp4", MOOV_LAST)),
    Row("gst-aac.m4a", "GStreamer", _gst(_SOUND, f"! {_AAC} ! mp4mux ! FILE"), _M4A),
    Row("gst-aac-nameless", "GStreamer", _gst(_SOUND, f"! {_AAC} ! mp4mux ! FILE"), _M4A),
    Row("gst-aac-fragments.m4a", "GStreamer", _gst(_SOUND, f"! {_AAC} ! mp4mux fragment-duration=500 ! FILE"), Accepted("audio/mp4", FRAGMENTS)),
    Row("gst-opus.m4a", "GStreamer", _gst(_SOUND, "! opusenc ! mp4mux ! FILE"), Refused("Opus", "repackage")),
    Row("gst-mp3.mp4", "GStreamer", _gst(_SOUND, "! lamemp3enc ! mpegaudioparse ! mp4mux ! FILE"), Refused("MP3", "AAC")),
    Row("gst-hevc.mp4", "GStreamer", _gst(_I420, "! x265enc ! h265parse ! mp4mux ! FILE"), Refused("HEVC", "H.264")),
    Row("gst-camera.mov", "GStreamer", _gst(_BASELINE, "! qtmux ! FILE"), Refused("video/quicktime", "MP4")),
    Row("gst-alaw-mov-named.mp4", "GStreamer", _gst(_SOUND, "! alawenc ! qtmux ! FILE"), Refused("video/quicktime")),
    Row("gst-classic.3gp", "GStreamer", _gst("3gppmux name=m ! FILE", _I420, "! avenc_h263 ! m.", _PHONE, "! amrnbenc ! m."), Refused("H.263", "AMR", "H.264")),
    Row("gst-h264-amr.3gp", "GStreamer", _gst("3gppmux name=m ! FILE", _BASELINE, "! m.", _PHONE, "! amrnbenc ! m."), Refused("AMR", "AAC")),
    Row("gst-h264-aac.3gp", "GStreamer", _gst("3gppmux name=m ! FILE", _BASELINE, "! m.", _SOUND, f"! {_AAC} ! m."), Accepted("video/3gpp", MOOV_LAST)),
    Row("gst-amr-wb.3gp", "GStreamer", _gst(_SOUND, "! audioresample ! audio/x-raw,rate=16000 ! voamrwbenc ! 3gppmux ! FILE"), Refused("AMR-WB")),
    Row(
        "gst-amr-wb.amr",
        "GStreamer",
        _gst(_SOUND, "! audioresample ! audio/x-raw,rate=16000 ! voamrwbenc ! 3gppmux ! filesink location=w.3gp; ffmpeg -v error -i w.3gp -c copy $OUT; rm w.3gp"),
        Refused("audio/amr-wb"),
    ),
    Row("gst-amr-without-magic.amr", "GStreamer", _gst(_PHONE, "! amrnbenc ! FILE"), Refused("audio/amr")),
    Row("gst-opus.webm", "GStreamer", _gst(_SOUND, "! opusenc ! webmmux ! FILE"), Refused("WebM", "repackage")),
    Row("gst-opus-streamable.webm", "GStreamer", _gst(_SOUND, "! opusenc ! webmmux streamable=true ! FILE"), Refused("WebM", "repackage")),
    Row("gst-vp8.webm", "GStreamer", _gst(_I420, "! vp8enc ! webmmux ! FILE"), Refused("WebM", "MP4")),
    Row("gst-h264.mkv", "GStreamer", _gst(_BASELINE, "! matroskamux ! FILE"), Refused(*_TO_MP4)),
    Row("gst-opus.ogg", "GStreamer", _gst(_SOUND, "! opusenc ! oggmux ! FILE"), _OGG),
    Row("gst-opus-stereo.ogg", "GStreamer", _gst(_SOUND.replace("channels=1", "channels=2"), "! opusenc ! oggmux ! FILE"), Refused("stereo", "repackage")),
    Row("gst-vorbis.ogg", "GStreamer", _gst(_SOUND, "! vorbisenc ! oggmux ! FILE"), Refused("Vorbis", "Opus")),
    Row("gst-speex.ogg", "GStreamer", _gst(_PHONE, "! speexenc ! oggmux ! FILE"), Refused("Speex", "Opus")),
    Row("gst-flac.oga", "GStreamer", _gst(_SOUND, "! flacenc ! flacparse ! oggmux ! FILE"), Refused("FLAC", "Opus")),
    Row("gst-theora.ogv", "GStreamer", _gst(_I420, "! theoraenc ! oggmux ! FILE"), Refused("Theora", "MP4")),
    Row("gst-bare.mp3", "GStreamer", _gst(_SOUND, "! lamemp3enc ! FILE"), Accepted("audio/mpeg")),
    Row("gst-tags.mp3", "GStreamer", _gst(_SOUND, "! lamemp3enc ! id3v2mux ! FILE"), Accepted("audio/mpeg")),
    Row("gst-layer-2.mp3", "GStreamer", _gst(_SOUND, "! twolamemp2enc ! FILE"), Refused("layer II")),
    Row("gst-adts.aac", "GStreamer", _gst(_SOUND, f"! {_AAC} ! audio/mpeg,stream-format=adts ! FILE"), Accepted("audio/aac")),
    Row("gst-adif-less-raw.aac", "GStreamer", _gst(_SOUND, "! voaacenc ! audio/mpeg,stream-format=raw ! FILE"), Refused("audio/aac")),
    Row("gst-sound.flac", "GStreamer", _gst(_SOUND, "! flacenc ! FILE"), Refused("audio/flac", "MP3")),
    Row("gst-sound.wav", "GStreamer", _gst(_SOUND, "! wavenc ! FILE"), Refused("audio/wav", "MP3")),
    Row("gst-clip.ts", "GStreamer", _gst(_SOUND, f"! {_AAC} ! mpegtsmux ! FILE"), Refused("mp2t", "MP4")),
    Row("gst-clip.avi", "GStreamer", _gst(_I420, "! avimux ! FILE"), Refused("video/x-msvideo", "MP4")),
    Row("gst-clip.flv", "GStreamer", _gst(_SOUND, f"! {_AAC} ! flvmux ! FILE"), Refused("flv", "MP4")),
    Row("mkvmerge-clip.mkv", "MKVToolNix", "mkvmerge -q -o $OUT $IN/clip.mp4", Refused(*_TO_MP4)),
    Row("mkvmerge-named.mp4", "MKVToolNix", "mkvmerge -q -o $OUT $IN/clip.mp4", Refused(*_TO_MP4)),
    Row("mkvmerge-opus.mka", "MKVToolNix", "mkvmerge -q -o $OUT $IN/mono.opus", Refused("Matroska", "repackage")),
    Row("mkvmerge-opus.webm", "MKVToolNix", "mkvmerge -q -w -o $OUT $IN/opus.webm", Refused("WebM", "repackage")),
    Row("mkvmerge-opus-unlaced.webm", "MKVToolNix", "mkvmerge -q -w --disable-lacing -o $OUT $IN/opus.webm", Refused("WebM", "repackage")),
    Row("mkvmerge-vp8.webm", "MKVToolNix", "mkvmerge -q -w -o $OUT $IN/vp8.webm", Refused("WebM", "MP4")),
    Row("mkvmerge-cover.mka", "MKVToolNix", "mkvmerge -q -o $OUT --attachment-mime-type image/png --attach-file $IN/cover.png $IN/plain.mp3", Refused("Matroska")),
    Row("x264.mkv", "x264", "x264 --quiet -o $OUT $IN/clip.y4m", Refused(*_TO_MP4)),
    Row("x264.flv", "x264", "x264 --quiet -o $OUT $IN/clip.y4m", Refused("flv", "MP4")),
    Row("x264.264", "x264", "x264 --quiet -o $OUT $IN/clip.y4m", Refused("accepts")),
    Row("x264-raw-named.mp4", "x264", "x264 --quiet --muxer raw -o $OUT $IN/clip.y4m", Refused("video/mp4")),
    Row("x265.hevc", "x265", "x265 --log-level error --input $IN/clip.y4m -o $OUT", Refused("accepts")),
    Row("x265-raw-named.mp4", "x265", "x265 --log-level error --input $IN/clip.y4m -o $OUT", Refused("video/mp4")),
    Row("vpxenc.webm", "vpxenc", "vpxenc -q --limit=10 -o $OUT $IN/clip.y4m", Refused("WebM", "MP4")),
    Row("vpxenc.ivf", "vpxenc", "vpxenc -q --limit=10 --ivf -o $OUT $IN/clip.y4m", Refused("accepts")),
    Row("vpxenc-ivf-named.mp4", "vpxenc", "vpxenc -q --limit=10 --ivf -o $OUT $IN/clip.y4m", Refused("video/mp4")),
    Row("mencoder.avi", "MEncoder", "mencoder -really-quiet -o $OUT -oac mp3lame -ovc lavc $IN/clip.mp4", Refused("video/x-msvideo", "MP4")),
    Row("mencoder-named.mp4", "MEncoder", "mencoder -really-quiet -o $OUT -oac mp3lame -ovc lavc $IN/clip.mp4", Refused("video/x-msvideo", "MP4")),
    Row("melt-defaults.mp4", "MLT", "melt color:red out=30 -consumer avformat:$OUT real_time=-1", Accepted("video/mp4", HIGH, B_FRAMES, MOOV_LAST)),
    Row("melt-clip.mp4", "MLT", "melt $IN/clip.mp4 -consumer avformat:$OUT vcodec=libx264 vprofile=baseline acodec=aac movflags=+faststart real_time=-1", _MP4),
    Row("melt.webm", "MLT", "melt $IN/clip.mp4 out=10 -consumer avformat:$OUT vcodec=libvpx acodec=libopus real_time=-1", Refused("WebM", "MP4")),
    Row("handbrake-defaults.mp4", "HandBrake", "HandBrakeCLI -i $IN/clip.mp4 -o $OUT", Accepted("video/mp4", HIGH, B_FRAMES, MOOV_LAST)),
    Row("handbrake-android.mp4", "HandBrake", "HandBrakeCLI -i $IN/clip.mp4 -o $OUT --preset 'Android 480p30' -O", Accepted("video/mp4", B_FRAMES)),
    Row(
        "handbrake-social.mp4",
        "HandBrake",
        "HandBrakeCLI -i $IN/clip.mp4 -o $OUT --preset 'Social 8 MB 3 Minutes 360p30'",
        Accepted("video/mp4", "?High profile", "?B-frames", "?(moov)"),
    ),
    Row("handbrake-x265.m4v", "HandBrake", "HandBrakeCLI -i $IN/clip.mp4 -o $OUT -e x265", Refused("HEVC", "H.264")),
    Row("handbrake-two-sounds.mp4", "HandBrake", "HandBrakeCLI -i $IN/clip.mp4 -o $OUT -E copy,mp3 -a 1,1", Refused("2 audio", "MP3")),
    Row("handbrake.mkv", "HandBrake", "HandBrakeCLI -i $IN/clip.mp4 -o $OUT", Refused(*_TO_MP4)),
    Row("exiftool-xmp.mp4", "ExifTool", "exiftool -q -XMP:Title=x -o $OUT $IN/clip.mp4", _MP4),
    Row("exiftool-moov-last.mp4", "ExifTool", "exiftool -q -Keys:Title=x -o $OUT $IN/moov-last.mp4", _MP4),
    Row("exiftool.m4a", "ExifTool", "exiftool -q -ItemList:Title=x -o $OUT $IN/voice.m4a", _M4A),
)
