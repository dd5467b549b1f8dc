"""
MP4, M4A and 3GP: the tracks of a file and their codecs, by its boxes (ISO/IEC 14496-12).

The brand of such a file says how to parse it, and its name what its program thought of it. What WhatsApp plays depends on the
tracks, which `moov` lists before or after the media. Boxes are untrusted: what cannot be read is no reason to refuse a file.
"""

from __future__ import annotations

import re
import sys
from typing import Final

from meta_media.protocol.formats import Flaw, PartialFile, Signature, Steps

__all__ = ["iso_media"]

# Sample entries, from the registry at mp4ra.org; those of MPEG-4 with their objectTypeIndication (ISO/IEC 14496-1, 7.2.6.6).
# Others are unknown, and no reason to refuse a file.
_CODECS: Final = {
    **dict.fromkeys((b"avc1", b"avc3", b"mp4v\x21"), "H.264"),
    **dict.fromkeys((b"mp4a\x40", b"mp4a\x66", b"mp4a\x67", b"mp4a\x68"), "AAC"),
    **dict.fromkeys((b"hvc1", b"hev1", b"dvh1", b"dvhe"), "H.265 (HEVC)"),
    **dict.fromkeys((b"h263", b"s263"), "H.263"),
    **dict.fromkeys((b".mp3", b"mp4a\x69", b"mp4a\x6b"), "MP3"),
    **dict.fromkeys((b"ac-3", b"mp4a\xa5"), "AC-3"),
    **dict.fromkeys((b"ec-3", b"mp4a\xa6"), "E-AC-3"),
    **dict.fromkeys((b"Opus", b"mp4a\xad"), "Opus"),
    **dict.fromkeys((b"ipcm", b"fpcm", b"lpcm", b"sowt", b"twos"), "PCM"),
    **dict.fromkeys((b"mp4v" + bytes([profile]) for profile in range(0x60, 0x66)), "MPEG-2"),
    b"alac": "ALAC",
    b"av01": "AV1",
    b"fLaC": "FLAC",
    b"mp4a\xdd": "Vorbis",
    b"mp4v\x20": "MPEG-4 Part 2",
    b"mp4v\x6a": "MPEG-1",
    b"mp4v\x6c": "Motion JPEG",
    b"samr": "AMR",
    b"sawb": "AMR-WB",
    b"vp08": "VP8",
    b"vp09": "VP9",
}
_PICTURES: Final = frozenset({b"jpeg", b"png "})  # the pictures of chapters are a video track, but no video
_ENTRY_SIZE: Final = 256  # bytes of a sample entry, in which its objectTypeIndication stands
# An ES_Descriptor without options and its DecoderConfigDescriptor, with their sizes of one to four bytes.
_OBJECT_TYPE: Final = re.compile(rb"esds.{4}\x03[\x80-\xff]{0,3}.{3}\x00\x04[\x80-\xff]{0,3}.(.)", re.DOTALL)


class _UnseenError(Exception):
    """A box lies where nothing can be read, or is none."""


class _Movie:
    """
    The tracks of an MP4.

    Attributes:
        video: The codec of each video track; None for an unknown one.
        sound: The same of each audio track.
        complete: Whether these are all tracks.
    """

    def __init__(self, head: bytes) -> None:
        self.video: list[str | None] = []
        self.sound: list[str | None] = []
        self.complete = False
        self._file = PartialFile(head)

    def read(self) -> Steps[None]:
        """Read the tracks, as far as they can be seen."""
        try:
            start, end = yield from self._find(b"moov", 0, sys.maxsize)
            while track := (yield from self._next(b"trak", start, end)):
                yield from self._read_track(*track)
                _, start = track
        except _UnseenError:
            return
        self.complete = True

    def flaw(self, container: str) -> Flaw | None:
        """Return the codecs or tracks that WhatsApp does not play, if there are any."""
        video, sound = ({name for name in names if name} - {"AAC", "H.264"} for names in (self.video, self.sound))
        found = [f"{name} video" for name in sorted(video)] + [f"{name} sound" for name in sorted(sound)]
        if len(self.sound) > 1:
            found.append(f"{len(self.sound)} audio tracks")
        if not found:
            return None
        if self.complete and not self.video:
            allowed = "AAC in MP4, or mono Opus in Ogg"
            codec, options = ("mono Opus", "libopus -ac 1 OUT.ogg") if "Opus" in sound else ("AAC", "aac OUT.m4a")
            fix = f"re-encode it as {codec} (ffmpeg -i IN -vn -c:a {options})"
        else:
            allowed = "H.264 video with at most one AAC track"
            doing = "re-encode it" if video or sound else "keep one of them"
            picture = "libx264 -profile:v main -bf 0 -pix_fmt yuv420p" if video else "copy"
            options = f"-c:v {picture} -c:a {'aac' if sound else 'copy'} -movflags +faststart"
            fix = f"{doing} (ffmpeg -i IN {options} OUT.mp4)"
        return Flaw(found=f"{container} with {' and '.join(found)}", allowed=allowed, fix=fix)

    def _read_track(self, start: int, end: int) -> Steps[None]:
        media = yield from self._find(b"mdia", start, end)
        handler, _ = yield from self._find(b"hdlr", *media)
        kind = yield from self._file.at(handler + 8, 4)
        codecs = {b"vide": self.video, b"soun": self.sound}.get(kind)
        if codecs is None:  # subtitles, chapters, time codes
            return
        codecs.append(None)
        for name in (b"minf", b"stbl", b"stsd"):
            media = yield from self._find(name, *media)
        start, end = media[0] + 8, min(media[1], media[0] + 8 + _ENTRY_SIZE)
        entry = yield from self._file.at(start, max(end - start, 0))
        entry = entry[: int.from_bytes(entry[:4], "big")]
        name, object_type = entry[4:8], _OBJECT_TYPE.search(entry)
        if name in _PICTURES:
            codecs.pop()
        else:
            codecs[-1] = _CODECS.get(name) or _CODECS.get(name + (object_type[1] if object_type else b""))

    def _find(self, name: bytes, start: int, end: int) -> Steps[tuple[int, int]]:
        """Return where the first box of a type has its contents."""
        place = yield from self._next(name, start, end)
        if place is None:
            raise _UnseenError
        return place

    def _next(self, name: bytes, start: int, end: int) -> Steps[tuple[int, int] | None]:
        """Return where the next box of a type has its contents; None if there is none before `end`."""
        while start + 8 <= end:
            header = yield from self._file.at(start, 16)
            size, contents = int.from_bytes(header[:4], "big"), start + 8
            if size == 1:  # a 64-bit size follows the type (ISO/IEC 14496-12, 4.2)
                size, contents = int.from_bytes(header[8:16], "big"), start + 16
            following = start + size if size else end
            if len(header) < 8 or following < contents:
                raise _UnseenError
            if header[4:8] == name:
                return contents, min(following, end)
            start = following
        return None


# Major brands that decide the type, from the registry at mp4ra.org. Others ("isom", "mp42", ...) say only how to parse it.
_BRANDS: Final = (
    (re.compile(rb"M4[ABP] |F4A "), "audio/mp4"),
    (re.compile(rb"M4V"), "video/mp4"),
    (re.compile(rb"3g[eghprs]"), "video/3gpp"),
    (re.compile(rb"3g2"), "video/3gpp2"),
    (re.compile(rb"qt  "), "video/quicktime"),
    (re.compile(rb"avi[fs]"), "image/avif"),
    (re.compile(rb"hei[cmsx]|hev[cmsx]|m[is]f1"), "image/heic"),
)
_PLAYED: Final = frozenset({"audio/mp4", "video/3gpp", "video/mp4"})


def iso_media(head: bytes, _complete: bool) -> Steps[Signature]:
    """Decide by the brands of the first box (ISO/IEC 14496-12, 4.3) and by the tracks, which outrank them."""
    brand, compatible = head[8:12], head[16 : int.from_bytes(head[:4], "big")]
    if brand in {b"mif1", b"msf1"} and b"avif" in compatible:
        brand = b"avif"
    branded = next((mime_type for pattern, mime_type in _BRANDS if pattern.match(brand)), None)
    if branded is not None and branded not in _PLAYED:
        return Signature(candidates=(branded,))
    movie = _Movie(head)
    yield from movie.read()
    phone = ("video/3gpp",) if b"3gp" in compatible else ()
    if movie.complete and movie.sound and not movie.video:
        candidates: tuple[str, ...] = ("audio/mp4",)
    elif movie.video:
        candidates = ("video/3gpp",) if branded == "video/3gpp" else ("video/mp4", *phone)
    elif branded is not None:
        candidates = (branded,)
    else:
        both = ("audio/mp4", "video/mp4") if movie.sound or b"M4A " in compatible else ("video/mp4", "audio/mp4")
        candidates = (*both, *phone)
    return Signature(candidates=candidates, flaw=movie.flaw("3GP" if branded == "video/3gpp" else "MP4"))
