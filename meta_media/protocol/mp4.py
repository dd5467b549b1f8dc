"""
MP4, M4A and 3GP: the tracks of a file and their codecs, by its boxes (ISO/IEC 14496-12).

The brand of such a file says how to parse it, and its name what its program thought of it. What WhatsApp plays depends on the
tracks, which `moov` lists before or after the media. Boxes are untrusted: what cannot be read is no reason to refuse a file.
"""

from __future__ import annotations

import re
import sys
from typing import Final

from meta_media.protocol.formats import PLAYED_VIDEO, REPACKAGE, Flaw, PartialFile, Signature, Steps

__all__ = ["iso_media"]

# Sample entries, from the registry at mp4ra.org; those of MPEG-4 with their objectTypeIndication (ISO/IEC 14496-1, 7.2.6.6).
# Others are unknown, and no reason to refuse a file.
_CODECS: Final = {
    **dict.fromkeys((b"avc1", b"avc3", b"mp4v\x21"), "H.264"),
    **dict.fromkeys((b"mp4a\x40", b"mp4a\x66", b"mp4a\x67", b"mp4a\x68"), "AAC"),
    **dict.fromkeys((b"hvc1", b"hev1", b"dvh1", b"dvhe"), "H.265 (HEVC)"),
    **dict.fromkeys((b"vvc1", b"vvi1"), "H.266 (VVC)"),
    **dict.fromkeys((b"h263", b"s263"), "H.263"),
    **dict.fromkeys((b"mp4a\x69", b"mp4a\x6b"), "MP3 or MP2"),
    **dict.fromkeys((b"ac-3", b"mp4a\xa5"), "AC-3"),
    **dict.fromkeys((b"ec-3", b"mp4a\xa6"), "E-AC-3"),
    **dict.fromkeys((b"Opus", b"mp4a\xad"), "Opus"),
    **dict.fromkeys((b"dtsc", b"dtse", b"dtsh", b"dtsl", b"mp4a\xa9"), "DTS"),
    **dict.fromkeys((b"ipcm", b"fpcm", b"lpcm", b"sowt", b"twos"), "PCM"),
    **dict.fromkeys((b"mp4v" + bytes([profile]) for profile in range(0x60, 0x66)), "MPEG-2"),
    b".mp3": "MP3",
    b"alac": "ALAC",
    b"av01": "AV1",
    b"fLaC": "FLAC",
    b"mp4a\xdd": "Vorbis",
    b"mp4v\x20": "MPEG-4 Part 2",
    b"mp4v\x6a": "MPEG-1",
    b"mlpa": "TrueHD",
    b"mp4v\x6c": "Motion JPEG",
    b"mp4v\x6d": "PNG",
    b"mp4v\x6e": "JPEG 2000",
    b"samr": "AMR",
    b"sawb": "AMR-WB",
    b"vp08": "VP8",
    b"vp09": "VP9",
}
_PICTURES: Final = frozenset({b"jpeg", b"png "})  # the pictures of chapters are a video track, but no video
_ENTRY_SIZE: Final = 256  # bytes of a sample entry, in which its objectTypeIndication and its profile stand
# An ES_Descriptor without options and its DecoderConfigDescriptor, with their sizes of one to four bytes.
_OBJECT_TYPE: Final = re.compile(rb"esds.{4}\x03[\x80-\xff]{0,3}.{3}\x00\x04[\x80-\xff]{0,3}.(.)", re.DOTALL)
_ONE_OFFSET: Final = 16  # bytes of a ctts with one presentation offset; more differ, because of B-frames (8.6.1.3)
_AVC_PROFILE: Final = re.compile(rb"avcC\x01(.)", re.DOTALL)  # ISO/IEC 14496-15, 5.3.3.1
_OPUS_IN_OGG: Final = re.compile(rb"dOps\x00.{9}\x00", re.DOTALL)  # mapping family 0: mono or stereo (RFC 7845, 5.1.1)

# Meta's Media page advises against "High profile and B-frames", and wants "moov before mdat". These H.264 profiles (ITU-T
# H.264, A.2) include what few phones decode, and fragments are reported to arrive as application/octet-stream.
_PROFILES: Final = {
    100: "H.264 High profile",
    110: "H.264 of 10 bits (High 10 profile)",
    122: "H.264 of 4:2:2 chroma (High 4:2:2 profile)",
    244: "H.264 of 4:4:4 chroma (High 4:4:4 profile)",
}


class _UnseenError(Exception):
    """A box lies where nothing can be read, or is none."""


class _Movie:
    """
    The tracks of an MP4.

    Attributes:
        video: The codec of each video track; None for an unknown one.
        sound: The same of each audio track.
        complete: Whether these are all tracks.
        opus: Whether an audio track is Opus that Ogg can hold as mono.
    """

    def __init__(self, head: bytes) -> None:
        self.video: list[str | None] = []
        self.sound: list[str | None] = []
        self.complete = False
        self.opus = False
        self._encoding: list[str] = []  # what some phones do not play
        self._boxes: set[bytes] = set()  # types of boxes that were passed
        self._tables: list[tuple[int, int]] = []  # places of the sample tables of H.264 tracks
        self._file = PartialFile(head)

    def read(self) -> Steps[None]:
        """Read the tracks, as far as they can be seen."""
        try:
            start, end = yield from self._find(b"moov", 0, sys.maxsize)
            while track := (yield from self._next(b"trak", start, end)):
                yield from self._read_track(*track)
                _, start = track
            self.complete = True
            for tables in self._tables:
                offsets = yield from self._next(b"ctts", *tables)
                if offsets and offsets[1] - offsets[0] > _ONE_OFFSET:
                    self._encoding.append("B-frames")
        except _UnseenError:
            return

    def flaw(self, container: str) -> Flaw | None:
        """Return the codecs or tracks that WhatsApp does not play, if there are any."""
        video, sound = ({name for name in names if name} - {"AAC", "H.264"} for names in (self.video, self.sound))
        found = [f"{name} video" for name in sorted(video)] + [f"{name} sound" for name in sorted(sound)]
        if len(self.sound) > 1:
            found.append(f"{len(self.sound) if self.complete else 'several'} audio tracks")
        if not found:
            return None
        if self.complete and not self.video:
            allowed = "AAC in MP4, or mono Opus in Ogg"
            codec, options = ("mono Opus", "libopus -ac 1 OUT.ogg") if "Opus" in sound else ("AAC", "aac OUT.m4a")
            fix = f"re-encode it as {codec} (ffmpeg -i IN -vn -c:a {options})"
            if not sound:
                fix = "keep one of them (ffmpeg -i IN -vn -c:a copy OUT.m4a)"
            elif self.opus and len(self.sound) == 1:
                fix = f"{REPACKAGE}, which moves it to Ogg without re-encoding"
        else:
            allowed = "H.264 video with at most one AAC track"
            doing = "re-encode it" if video or sound else "keep one of them"
            options = f"{PLAYED_VIDEO if video else '-c:v copy'} -c:a {'aac' if sound else 'copy'}"
            fix = f"{doing} (ffmpeg -i IN {options} -movflags +faststart OUT.mp4)"
        return Flaw(found=f"{container} with {_listed(found)}", allowed=allowed, fix=fix)

    def remarks(self) -> tuple[str, ...]:
        """Return one sentence on all that some phones do not play, with the command that mends it; none if they play it."""
        found = list(dict.fromkeys(self._encoding))
        if b"mvex" in self._boxes:
            found.append("fragments")
        elif self.video and b"mdat" in self._boxes:
            found.append("the index (moov) at the end")
        if not found:
            return ()
        doing, options = ("re-encode", f"{PLAYED_VIDEO} -c:a copy") if self._encoding else ("rewrite", "-c copy")
        output = "-movflags +faststart OUT.mp4" if self.video else "OUT.m4a"
        return (
            f"{_listed(found)} may keep it from playing on some phones: {doing} it (ffmpeg -i IN {options} {output})",
        )

    def _read_track(self, start: int, end: int) -> Steps[None]:
        media = yield from self._find(b"mdia", start, end)
        handler, _ = yield from self._find(b"hdlr", *media)
        kind = yield from self._file.at(handler + 8, 4)
        codecs = {b"vide": self.video, b"soun": self.sound}.get(kind)
        if codecs is None:  # subtitles, chapters, time codes
            return
        codecs.append(None)
        for name in (b"minf", b"stbl"):
            media = yield from self._find(name, *media)
        start, described = yield from self._find(b"stsd", *media)
        start, end = start + 8, min(described, start + 8 + _ENTRY_SIZE)
        entry = yield from self._file.at(start, max(end - start, 0))
        entry = entry[: int.from_bytes(entry[:4], "big")]
        name, object_type = entry[4:8], _OBJECT_TYPE.search(entry)
        if name in _PICTURES:
            codecs.pop()
        else:
            codecs[-1] = _CODECS.get(name) or _CODECS.get(name + (object_type[1] if object_type else b""))
        self.opus |= _OPUS_IN_OGG.search(entry) is not None
        if name in {b"avc1", b"avc3"}:
            self._tables.append((described, media[1]))
            if (profile := _AVC_PROFILE.search(entry)) and profile[1][0] in _PROFILES:
                self._encoding.append(_PROFILES[profile[1][0]])

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
            self._boxes.add(header[4:8])
            start = following
        return None


def _listed(names: list[str]) -> str:
    return re.sub(r", (?=[^,]*$)", " and ", ", ".join(names))


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
    container = "3GP" if branded == "video/3gpp" else "MP4"
    phone = ("video/3gpp",) if branded == "video/3gpp" or b"3gp" in compatible else ()
    if movie.complete and movie.sound and not movie.video:
        candidates: tuple[str, ...] = ("audio/mp4",)
    elif movie.video:
        candidates = phone if container == "3GP" else ("video/mp4", *phone)
    elif branded is not None:
        candidates = (branded, "audio/mp4") if container == "3GP" else (branded,)
    else:
        both = ("audio/mp4", "video/mp4") if movie.sound or b"M4A " in compatible else ("video/mp4", "audio/mp4")
        candidates = (*both, *phone)
    return Signature(candidates=candidates, flaw=movie.flaw(container), remarks=movie.remarks())
