"""JPEG, PNG and WebP, through `inspect_media`: the pictures and stickers that WhatsApp does not accept."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_media import samples
from meta_media.errors import InvalidMediaError, UnsupportedMediaTypeError
from meta_media.protocol.formats import Signature
from meta_media.protocol.media_types import HEAD_SIZE, Inspection, inspect_media
from meta_media.protocol.signatures import sniff
from tests.support.reading import read

MEDIA = Path(__file__).parents[1] / "media"
SAMPLES = {path.name: path.read_bytes() for path in samples.paths()}
OTHERS = {path.name: path.read_bytes() for path in MEDIA.iterdir()}
CMYK = OTHERS["cmyk.jpg"][2:]  # behind the marker that begins a JPEG
XMP = b"http://ns.adobe.com/xmp/extension/\0"
FULL = 65533  # bytes of the largest segment, without its marker and length


def jpeg(*segments: bytes) -> bytes:
    """Build the start of a JPEG."""
    return b"\xff\xd8" + b"".join(segments)


def segment(content: bytes, marker: int = 0xE1) -> bytes:
    """Build a segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


def frame(precision: int, components: int, marker: int = 0xC0) -> bytes:
    """Build a JPEG's frame header."""
    return segment(struct.pack(">BHHB", precision, 16, 16, components) + bytes(3 * components), marker)


def profile(size: int, count: int | None = None, part: int = FULL - 14) -> bytes:
    """Build the segments of a profile of some bytes, which state their count, or a wrong one."""
    parts = [bytes(min(part, size - start)) for start in range(0, size, part)]
    count = len(parts) if count is None else count
    return b"".join(
        segment(b"ICC_PROFILE\0" + bytes([number % 256, count]) + content, 0xE2)
        for number, content in enumerate(parts, 1)
    )


def xmp(size: int, part: int = 65_400) -> bytes:
    """Build the segments of an extended XMP of some bytes."""
    starts = range(0, size, part)
    return b"".join(
        segment(XMP + b"0" * 32 + struct.pack(">II", size, start) + bytes(min(part, size - start))) for start in starts
    )


def webp(form: bytes, width: int, height: int, flags: int = 0) -> bytes:
    """Build the start of a WebP. The flags are those of the extended header; of a lossless one, only 0x10."""
    content = {
        b"VP8 ": b"\x30\1\0\x9d\1\x2a" + struct.pack("<HH", width & 0x3FFF, height & 0x3FFF),
        b"VP8L": b"\x2f" + struct.pack("<I", (width - 1) & 0x3FFF | (height - 1 & 0x3FFF) << 14 | (flags & 0x10) << 24),
        b"VP8X": struct.pack("<I", flags) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"),
    }[form]
    return b"RIFF\0\0\0\0WEBP" + form + struct.pack("<I", len(content)) + content


def inspected(data: bytes) -> Inspection | InvalidMediaError:
    """Return the decision about a file that can be read anywhere, or the documented error."""
    signature, reads = read(data)
    assert len(reads) <= 8
    assert sum(size for _, size in reads) <= 8 * 1024
    try:
        return inspect_media(data[:HEAD_SIZE], complete=len(data) <= HEAD_SIZE, signature=signature)
    except InvalidMediaError as error:
        return error


class TestColours:
    """Images have 8 bits per channel, and are RGB or RGBA."""

    @pytest.mark.parametrize(
        ("name", "actual"), [("deep.png", "a PNG of 16 bits per channel"), ("cmyk.jpg", "a CMYK JPEG")]
    )
    def test_others_are_refused(self, name: str, actual: str) -> None:
        """The error has what was found, what is accepted and the fix, undeclared or declared."""
        for declared in (None, f"image/{name[-3:]}"):
            with pytest.raises(UnsupportedMediaTypeError) as caught:
                inspect_media(OTHERS[name], filename=f"folder/{name}", mime_type=declared)
            assert (caught.value.limit, caught.value.actual) == ("8-bit RGB or RGBA images", actual)
            expected = f"'{name}' is {actual}, but WhatsApp accepts 8-bit RGB or RGBA images: save it as 8-bit RGB"
            assert str(caught.value) == expected

    @pytest.mark.parametrize("name", ["palette.png", "grey.jpg"])
    def test_fewer_colours_pass(self, name: str) -> None:
        """Palette and greyscale images pass, because no report says that Meta refuses them."""
        assert inspect_media(OTHERS[name]) == inspect_media(
            SAMPLES["photo.jpg" if name[-3:] == "jpg" else "drawing.png"]
        )

    def test_an_animated_png_is_remarked_on(self) -> None:
        """It passes. Without its animation chunk, or with one behind the first picture, there is no remark."""
        start, chunk = SAMPLES["drawing.png"][:33], struct.pack(">I", 8) + b"acTL" + bytes(12)
        remarks = inspect_media(start + chunk + SAMPLES["drawing.png"][33:]).remarks
        assert [remark.partition(":")[0] for remark in remarks] == [
            "of an animated PNG, WhatsApp shows only the first picture"
        ]
        assert inspect_media(start + chunk + bytes(HEAD_SIZE)).remarks == tuple(remarks)
        assert not inspect_media(SAMPLES["drawing.png"] + chunk).remarks


class TestFrameHeader:
    """The frame header of a JPEG, behind its other segments."""

    @pytest.mark.parametrize(
        ("head", "flaw"),
        [
            (jpeg(frame(8, 3)), None),
            (jpeg(frame(8, 4)), "a CMYK JPEG"),
            (jpeg(frame(12, 3)), "a JPEG of 12 bits per channel"),
            (jpeg(frame(12, 4)), "a JPEG of 12 bits per channel"),
            (jpeg(frame(8, 4, marker=0xC2)), "a CMYK JPEG"),
            (jpeg(segment(b"ab"), frame(8, 4)), "a CMYK JPEG"),
            (jpeg(b"\xff\xff\xff", segment(b"ab"), frame(8, 4)), "a CMYK JPEG"),
            (jpeg(segment(b"ab", 0xC4), frame(8, 4)), "a CMYK JPEG"),
            (jpeg(segment(b"ab", 0xDA), frame(8, 4)), None),
            (jpeg(b"\xff\xe1\xff\xff", frame(8, 4)), None),
            (jpeg(b"\xff\xe1\0\0"), None),
            (jpeg(b"\xff"), None),
        ],
    )
    def test_is_found_in_the_head(self, head: bytes, flaw: str | None) -> None:
        """The walk skips segments and padding, and stops at the scan or the end of the head."""
        signature = sniff(head, complete=False)
        assert signature is not None
        assert (signature.candidates, signature.flaw and signature.flaw.found) == (("image/jpeg",), flaw)

    @pytest.mark.parametrize(
        ("segments", "read_count"),
        [
            (profile(70_000), 2),
            (profile(187_000), 2),
            (profile(255 * (FULL - 14)), 2),
            (profile(3_000_000, part=12_000), 2),
            (segment(bytes(60_000)) + segment(bytes(60_000)) + profile(557_168), 3),
            (xmp(9_000_000), 2),
            (profile(560_000) + xmp(3_000_000), 4),
            (xmp(200_000) + profile(560_000) + segment(bytes(FULL)), 5),
            (8 * segment(bytes(FULL), 0xED), 8),
        ],
    )
    def test_is_found_behind_any_profile(self, segments: bytes, read_count: int) -> None:
        """All segments of a profile, or of an XMP, are skipped for one read."""
        data = jpeg(segments, CMYK)
        signature, reads = read(data)
        assert signature == read(OTHERS["cmyk.jpg"])[0]
        assert (len(reads), {size for _, size in reads}) == (read_count, {1024})
        assert read(jpeg(segments, frame(8, 3), bytes(2000)))[0] == Signature(candidates=("image/jpeg",))
        assert sniff(data[:HEAD_SIZE], complete=False) == Signature(candidates=("image/jpeg",))

    @pytest.mark.parametrize(
        "segments",
        [
            profile(300_000, count=200),
            profile(300_000, count=0),
            profile(300_000, count=2),
            profile(70_000, part=20_000) + profile(300_000, count=255),
            segment(XMP + b"0" * 32 + b"\xff" * 4 + bytes(4) + bytes(60_000)) + xmp(100_000),
            segment(XMP + bytes(5)) + xmp(100_000),
            segment(XMP + bytes(40)) + profile(100_000),
        ],
    )
    def test_is_found_behind_segments_that_lie(self, segments: bytes) -> None:
        """A wrong count costs one read, and the segments are walked one by one."""
        signature, reads = read(jpeg(segments, CMYK))
        assert signature == read(OTHERS["cmyk.jpg"])[0]
        assert len(reads) <= 8

    def test_is_not_found_behind_too_many(self) -> None:
        """Behind more than eight full segments beyond the head it is not seen, and the file passes."""
        signature, reads = read(jpeg(9 * segment(bytes(FULL), 0xED), CMYK))
        assert signature == Signature(candidates=("image/jpeg",))
        assert len(reads) == 8


class TestStickers:
    """WebP is for stickers only."""

    @pytest.mark.parametrize(
        ("form", "flags"), [(b"VP8 ", 0), (b"VP8L", 0x10), (b"VP8X", 0x10), (b"VP8X", 0x02), (b"VP8X", 0x12)]
    )
    @pytest.mark.parametrize(
        "size", [(406, 379), (512, 511), (511, 512), (513, 512), (512, 513), (1, 1), (16383, 16383)]
    )
    def test_have_512_by_512_pixels(self, form: bytes, flags: int, size: tuple[int, int]) -> None:
        """Any other size is refused in each form, and the error has both sizes."""
        assert inspect_media(webp(form, 512, 512, flags)).kind == "sticker"
        with pytest.raises(UnsupportedMediaTypeError) as caught:
            inspect_media(webp(form, *size, flags), filename="a.webp", mime_type="image/webp")
        actual, limit = "a sticker of {}x{} pixels".format(*size), "stickers of 512x512 pixels"
        assert (caught.value.kind, caught.value.actual, caught.value.limit) == ("sticker", actual, limit)
        photo = "" if flags & 0x02 else "convert it to JPEG or PNG to send it as an image, or "
        assert str(caught.value) == f"'a.webp' is {actual}, but WhatsApp accepts {limit}: {photo}scale it to 512x512"

    def test_a_canvas_may_be_larger_than_its_bits_of_other_forms(self) -> None:
        """The extended header has sizes of 24 bits."""
        with pytest.raises(UnsupportedMediaTypeError, match="a sticker of 16777216x66048 pixels"):
            inspect_media(webp(b"VP8X", 2**24, 2**16 + 512))

    @pytest.mark.parametrize(
        ("form", "flags", "is_remarked"),
        [
            (b"VP8 ", 0, True),
            (b"VP8L", 0, True),
            (b"VP8L", 0x10, False),
            (b"VP8X", 0, True),
            (b"VP8X", 0x10, False),
            (b"VP8X", 0x02, False),
        ],
    )
    def test_a_photo_is_remarked_on(self, form: bytes, flags: int, is_remarked: bool) -> None:
        """A still one without transparency may be meant as a photo, which is sent as JPEG or PNG."""
        remarks = inspect_media(webp(form, 512, 512, flags)).remarks
        expected = ("a WebP is sent as a sticker: convert it to JPEG or PNG to send it as an image",)
        assert remarks == expected * is_remarked

    @pytest.mark.parametrize("form", [b"VP8 ", b"VP8L", b"VP8X"])
    def test_a_size_that_cannot_be_read_passes(self, form: bytes) -> None:
        """A cut header, an unknown form, or one without its mark, is no reason to refuse a file."""
        for size in range(12, len(webp(form, 9, 9))):
            assert inspect_media(webp(form, 9, 9)[:size]).mime_type == "image/webp"
        assert inspect_media(webp(b"VP8 ", 9, 9).replace(b"\x9d\1\x2a", b"\0\0\0")).kind == "sticker"
        assert inspect_media(webp(form, 9, 9).replace(form, b"VP9 ")).kind == "sticker"

    @pytest.mark.parametrize(("name", "animated"), [("sticker.webp", False), ("animated.webp", True)])
    def test_the_samples_are_stickers(self, name: str, animated: bool) -> None:
        """They have the right size, and nothing is remarked."""
        assert read(SAMPLES[name])[0] == Signature(candidates=("image/webp",), animated=animated)


PICTURES = [
    SAMPLES["photo.jpg"],
    SAMPLES["drawing.png"],
    SAMPLES["sticker.webp"],
    *(OTHERS[name] for name in ("cmyk.jpg", "deep.png")),
]
PICTURES += [jpeg(profile(200_000), CMYK), jpeg(xmp(200_000), CMYK), webp(b"VP8L", 9, 9), webp(b"VP8 ", 9, 9)]


@given(st.sampled_from(PICTURES), st.data())
def test_a_damaged_picture_is_decided_in_eight_reads(data: bytes, drawn: st.DataObject) -> None:
    """Wrong bytes give a decision or the documented error, for at most 8 reads and 8 KiB."""
    damaged = bytearray(data)
    places = st.one_of(st.integers(0, min(len(data), 600) - 1), st.integers(0, len(data) - 1))
    for place in drawn.draw(st.lists(places, max_size=8)):
        damaged[place] = drawn.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xE2, 0xFE, 0xFF]))
    cut = drawn.draw(st.one_of(st.just(len(data)), places))
    assert isinstance(inspected(bytes(damaged[:cut])), Inspection | InvalidMediaError)
